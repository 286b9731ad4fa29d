//! A consumer: one connection and one thread that takes, checks and acknowledges.

use super::client::{CHANNEL, Client, Seen, Target};
use super::ledger::Lane;
use super::meter::{Meter, lock};
use super::publisher::NUMBER_BITS;
use super::running::{self, Running};
use super::scenario::Consume;
use crate::wire::writer::write_ack;
use std::io::{self, Write};
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
    /// Queues that a publisher's numbers are dealt out to in turn.
    pub(super) lanes: u64,
    /// Copies of each message that is published.
    pub(super) copies: u64,
}

/// Connects and starts consuming.
pub(super) fn start(target: &Target, job: Job, meter: &Arc<Meter>) -> io::Result<Running> {
    let mut client = Client::connect(target)?;
    let prefetch = job.consume.prefetch;
    if let Some(prefetch) = prefetch {
        client.prefetch(prefetch)?;
    }
    for (name, number) in &job.queues {
        client.consume(name, &format!("{number:05}"), prefetch.is_none())?;
    }
    let stream = client.stream.try_clone()?;
    let reader = running::begin("a consumer", meter, move |meter| take(&mut client, &job, meter));
    Ok(Running { stream: Some(stream), threads: vec![reader] })
}

fn take(client: &mut Client, job: &Job, meter: &Meter) -> io::Result<()> {
    let mut out = Vec::new();
    let (mut unacked, mut last_tag, mut queue, mut in_body) = (0u32, 0u64, 0u16, false);
    loop {
        out.clear();
        let (mut count, mut closed, mut now) = (0u64, None, None);
        let mut ledger = None;
        let mut latencies = None;
        client.next_frames(usize::MAX, |frame| match Seen::of(frame) {
            Seen::Deliver { tag, consumer } => {
                in_body = false;
                queue = number_of(consumer);
                last_tag = tag;
                unacked += 1;
                if job.consume.prefetch.is_some() && unacked >= job.consume.ack_every {
                    write_ack(&mut out, CHANNEL, tag, unacked > 1);
                    unacked = 0;
                }
            }
            // Once the run is over, what other consumers held comes again.
            Seen::Body(body) if !in_body && !meter.is_over() => {
                in_body = true;
                // Not before: a run that ends by its count ends here.
                count += 1;
                if let Some((first, rest)) = body.split_first_chunk()
                    && let Some(at) = rest.first_chunk()
                {
                    let (first, at) = (u64::from_be_bytes(*first), u64::from_be_bytes(*at));
                    let lane = Lane { publisher: (first >> NUMBER_BITS) as u16, queue };
                    let number = (first & ((1 << NUMBER_BITS) - 1)) / job.lanes;
                    ledger.get_or_insert_with(|| lock(&meter.ledgers[job.ledger])).arrived(lane, number);
                    let now = *now.get_or_insert_with(|| meter.clock.micros());
                    latencies
                        .get_or_insert_with(|| meter.delivery.lock())
                        .record(now.saturating_sub(at))
                        .expect("it grows as needed");
                }
            }
            Seen::Close(octets) => closed = Some(String::from_utf8_lossy(octets).into_owned()),
            _ => {}
        })?;
        drop((ledger, latencies));
        if let Some(closed) = closed {
            return Err(io::Error::other(format!("the broker closed: {closed}")));
        }
        let consumed = meter.consumed.fetch_add(count, Ordering::Relaxed) + count;
        while job.standing > 0
            && consumed + job.standing > meter.published.load(Ordering::Relaxed) * job.copies
            && !meter.is_over()
        {
            thread::sleep(STANDING_LOOK);
        }
        if !out.is_empty() {
            client.stream.write_all(&out)?;
        }
    }
}

/// The number that a consumer tag is.
fn number_of(consumer_tag: &[u8]) -> u16 {
    consumer_tag.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))
}
