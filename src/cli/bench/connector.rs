//! A publisher that opens a connection and a channel for each message, and closes them again.

use super::client::{CHANNEL, Client};
use super::clock::micros;
use super::message::Messages;
use super::meter::Meter;
use super::pace;
use super::publisher::{Job, next_channel};
use super::running::{self, Ending, RunningThreads};
use super::target::Target;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Starts the publisher.
pub(super) fn start(target: &Target, job: Job, meter: &Arc<Meter>) -> io::Result<RunningThreads> {
    let target = target.clone();
    let thread = running::start_thread("a connection", meter, move |meter| connect(&target, &job, meter));
    Ok(RunningThreads { stream: None, threads: vec![thread], ending: Ending::Cut })
}

fn connect(target: &Target, job: &Job, meter: &Meter) -> io::Result<()> {
    let mut messages = Messages::new(job, None);
    let (mut out, mut channel) = (Vec::new(), CHANNEL);
    for number in job.first..job.end {
        let Some(begin) = pace::wait_until_due(job.pace, number - job.first, meter) else { break };
        let mut client = Client::connect(target, job.load.channels)?;
        out.clear();
        messages.write(&mut out, channel, number, micros(begin));
        channel = next_channel(channel, job.load.channels);
        client.write(&out)?;
        meter.published.fetch_add(1, Ordering::Relaxed);
        client.close()?;
        let took = micros(meter.clock.elapsed() - begin);
        meter.round_trip.lock().record(took).expect("it grows as needed");
        meter.answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
