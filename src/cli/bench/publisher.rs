//! A publisher: one connection, a thread that writes, and a thread that reads confirms.

use super::broker_frame::{is_hang_up, sentence};
use super::client::{CHANNEL, Client};
use super::clock::micros;
use super::confirms::{self, Window};
use super::message::{Envelope, Messages};
use super::meter::{Meter, PATIENCE};
use super::pace::Pace;
use super::running::{self, Ending, RunningThreads};
use super::scenario::Load;
use super::target::Target;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// Bytes that a publisher collects before it writes.
const WRITE_BYTES: usize = 32 * 1024;

/// How often a publisher checks whether the consumers have caught up, once it is too far ahead of them.
const AHEAD_CHECK_INTERVAL: Duration = Duration::from_micros(200);

/// The task of one publisher.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) load: Load,
    pub(super) publisher: u16,
    /// Prefix of the names of the run's queues.
    pub(super) name: Arc<str>,
    /// The addresses of its messages, in turn.
    pub(super) envelopes: Arc<[Envelope]>,
    /// The first number that it publishes.
    pub(super) first: u64,
    /// The number after the last one that it publishes.
    pub(super) end: u64,
    pub(super) pace: Option<Pace>,
}

/// The next channel in turn.
#[inline]
pub(super) fn next_channel(channel: u16, channels: u16) -> u16 {
    if channel == channels { CHANNEL } else { channel + 1 }
}

/// Connects and starts publishing.
pub(super) fn start(target: &Target, job: Job, meter: &Arc<Meter>) -> io::Result<RunningThreads> {
    let channels = job.load.channels;
    let mut client = Client::connect(target, channels)?;
    let window = job.load.confirms_in_flight.map(|in_flight| Arc::new(Window::new(in_flight, channels)));
    if window.is_some() {
        (CHANNEL..=channels).try_for_each(|channel| client.confirm_select(channel))?;
    }
    client.allow_silence()?;
    let (stream, writing) = (client.stream.try_clone()?, client.stream.try_clone()?);
    let (shared, patience) = (window.clone(), target.patience);
    let writer = running::start_thread("a publisher", meter, move |meter| {
        match publish(writing, &job, shared.as_deref(), meter) {
            // The reader finds and reports the reason.
            Err(error) if is_hang_up(&error) => Ok(()),
            published => published.map_err(|error| io::Error::other(sentence(&error, patience))),
        }
    });
    let reader =
        running::start_thread("a publisher", meter, move |meter| confirms::read(&mut client, window.as_deref(), meter));
    Ok(RunningThreads { stream: Some(stream), threads: vec![writer, reader], ending: Ending::Close })
}

fn publish(mut stream: TcpStream, job: &Job, window: Option<&Window>, meter: &Meter) -> io::Result<()> {
    let mut messages = Messages::new(job, None);
    let batch = if job.load.one_write_each { 1 } else { (WRITE_BYTES / job.load.size.most).max(1) as u64 };
    let mut out = Vec::with_capacity(2 * WRITE_BYTES);
    let (mut number, mut channel) = (job.first, CHANNEL);
    while number < job.end && !meter.is_over() {
        let sent = number - job.first;
        let room = window.map_or(u64::MAX, |window| window.room(sent, meter));
        let ahead = job.load.room(meter.published.load(Ordering::Relaxed), meter.consumed.load(Ordering::Relaxed));
        if ahead == 0 {
            thread::sleep(AHEAD_CHECK_INTERVAL);
            continue;
        }
        let now = meter.clock.elapsed();
        let due = job.pace.map_or(u64::MAX, |pace| pace.due(now).saturating_sub(sent));
        if due == 0 {
            let pause = job.pace.map_or(Duration::ZERO, |pace| pace.moment(sent).saturating_sub(now));
            thread::sleep(pause.min(PATIENCE));
            continue;
        }
        let count = batch.min(room).min(ahead).min(due).min(job.end - number);
        out.clear();
        for number in number..number + count {
            let place = number - job.first;
            let at = micros(job.pace.map_or(now, |pace| pace.moment(place)));
            messages.write(&mut out, channel, number, at);
            channel = next_channel(channel, job.load.channels);
            if let Some(window) = window {
                window.note_sent(place, at);
            }
        }
        stream.write_all(&out)?;
        number += count;
        meter.published.fetch_add(count, Ordering::Relaxed);
    }
    Ok(())
}
