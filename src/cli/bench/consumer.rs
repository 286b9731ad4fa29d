//! A consumer: one connection and one thread that takes, checks and acknowledges.

use super::client::{CHANNEL, Client};
use super::ledger::Lane;
use super::message::{Deal, Stamp};
use super::meter::{Meter, lock};
use super::rpc::Answer;
use super::running::{self, Ending, Running};
use super::scenario::Consume;
use super::seen::Seen;
use super::target::Target;
use crate::wire::writer::write_ack;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// How often a consumer that leaves messages standing looks whether there are more than those.
const STANDING_LOOK: Duration = Duration::from_micros(200);

/// What one consumer is to do.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) consume: Consume,
    /// Name and number of each queue.
    pub(super) queues: Vec<(String, u16)>,
    /// Which of the meter's ledgers is that of these queues.
    pub(super) ledger: usize,
    /// How many messages stay in the queues.
    pub(super) standing: u64,
    /// How publishers deal out their numbers.
    pub(super) deal: Deal,
    /// Channels of the connection.
    pub(super) channels: u16,
    /// Whether each message is a request that is to be answered.
    pub(super) answers: bool,
    /// Copies of each message that is published.
    pub(super) copies: u64,
}

/// Connects and starts consuming.
pub(super) fn start(target: &Target, job: Job, meter: &Arc<Meter>) -> io::Result<Running> {
    let mut client = Client::connect(target, job.channels)?;
    let prefetch = job.consume.prefetch;
    if let Some(prefetch) = prefetch {
        (CHANNEL..=job.channels).try_for_each(|channel| client.prefetch(channel, prefetch))?;
    }
    // No queue is without a consumer, and no channel.
    let pairs = job.queues.iter().cycle().zip((CHANNEL..=job.channels).cycle());
    for ((name, number), channel) in pairs.take(job.queues.len().max(job.channels.into())) {
        client.consume(channel, name, &format!("{number:05}"), prefetch.is_none())?;
    }
    client.allow_silence()?;
    let stream = client.stream.try_clone()?;
    let reader = running::begin("a consumer", meter, move |meter| take(&mut client, &job, meter));
    Ok(Running { stream: Some(stream), threads: vec![reader], ending: Ending::Cut })
}

/// What a channel of a consumer is at.
#[derive(Clone, Debug, Default)]
struct Inbound {
    unacked: u32,
    /// Of the message that is coming in.
    queue: u16,
    in_body: bool,
    answer: Option<Answer>,
}

fn take(client: &mut Client, job: &Job, meter: &Meter) -> io::Result<()> {
    let mut out = Vec::new();
    let mut inbound = vec![Inbound::default(); job.channels.into()];
    loop {
        out.clear();
        let (mut count, mut now) = (0u64, None);
        let mut ledger = None;
        let mut latencies = None;
        client.next_frames(usize::MAX, |frame| {
            // What is said of the connection as a whole has no channel.
            let Some(on) = inbound.get_mut(usize::from(frame.channel).saturating_sub(1)) else { return };
            match Seen::of(frame) {
                Seen::Deliver { tag, consumer } => {
                    on.in_body = false;
                    on.queue = number_of(consumer);
                    on.unacked += 1;
                    if job.consume.prefetch.is_some() && on.unacked >= job.consume.ack_every {
                        write_ack(&mut out, frame.channel, tag, on.unacked > 1);
                        on.unacked = 0;
                    }
                }
                Seen::Header(payload) if job.answers => on.answer = Answer::to(payload),
                Seen::Body(body) => {
                    // Once the run is over, what other consumers held comes again.
                    if !on.in_body && !meter.is_over() {
                        on.in_body = true;
                        // Not before: a run that ends by its count ends here.
                        count += 1;
                        if let Some(Stamp { publisher, number, at }) = Stamp::read(body) {
                            let (priority, place) = job.deal.place(number);
                            let lane = Lane { publisher, queue: on.queue, priority };
                            ledger.get_or_insert_with(|| lock(&meter.ledgers[job.ledger])).arrived(lane, place);
                            let now = *now.get_or_insert_with(|| meter.clock.micros());
                            latencies
                                .get_or_insert_with(|| meter.delivery.lock())
                                .record(now.saturating_sub(at))
                                .expect("it grows as needed");
                        }
                    }
                    if let Some(answer) = &mut on.answer {
                        answer.take(&mut out, frame.channel, body);
                    }
                }
                _ => {}
            }
        })?;
        drop((ledger, latencies));
        let consumed = meter.consumed.fetch_add(count, Ordering::Relaxed) + count;
        while job.standing > 0
            && consumed + job.standing > meter.published.load(Ordering::Relaxed) * job.copies
            && !meter.is_over()
        {
            thread::sleep(STANDING_LOOK);
        }
        if !out.is_empty() {
            client.write(&out)?;
        }
    }
}

/// The number that a consumer tag is.
fn number_of(consumer_tag: &[u8]) -> u16 {
    consumer_tag.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))
}
