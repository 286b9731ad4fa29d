//! A consumer: one connection and one thread that takes, checks and acknowledges messages.

use super::broker_frame::BrokerFrame;
use super::client::{CHANNEL, Client};
use super::ledger::SequenceKey;
use super::message::{Distribution, MessageStamp};
use super::meter::{Meter, lock};
use super::rpc::Answer;
use super::running::{self, Ending, RunningThreads};
use super::scenario::Consume;
use super::target::Target;
use crate::wire::writer::write_ack;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// How often a consumer that leaves standing messages in the queue checks whether there are more than those.
const STANDING_CHECK_INTERVAL: Duration = Duration::from_micros(200);

/// The task of one consumer.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) consume: Consume,
    /// Name and number of each queue.
    pub(super) queues: Vec<(String, u16)>,
    /// Index of these queues' ledger in the meter.
    pub(super) ledger: usize,
    /// Number of messages that must stay in the queues.
    pub(super) standing: u64,
    /// How publishers distribute their numbers.
    pub(super) distribution: Distribution,
    /// Channels of the connection.
    pub(super) channels: u16,
    /// Whether each message is a request to answer.
    pub(super) answers: bool,
    /// Copies of each published message.
    pub(super) copies: u64,
}

/// Connects and starts consuming.
pub(super) fn start(target: &Target, job: Job, meter: &Arc<Meter>) -> io::Result<RunningThreads> {
    let mut client = Client::connect(target, job.channels)?;
    let prefetch = job.consume.prefetch;
    if let Some(prefetch) = prefetch {
        (CHANNEL..=job.channels).try_for_each(|channel| client.prefetch(channel, prefetch))?;
    }
    // Every queue and every channel has a consumer.
    let pairs = job.queues.iter().cycle().zip((CHANNEL..=job.channels).cycle());
    for ((name, number), channel) in pairs.take(job.queues.len().max(job.channels.into())) {
        client.consume(channel, name, &format!("{number:05}"), prefetch.is_none())?;
    }
    client.allow_silence()?;
    let stream = client.stream.try_clone()?;
    let reader = running::start_thread("a consumer", meter, move |meter| take(&mut client, &job, meter));
    Ok(RunningThreads { stream: Some(stream), threads: vec![reader], ending: Ending::Cut })
}

/// The state of one channel of a consumer.
#[derive(Clone, Debug, Default)]
struct Inbound {
    unacked: u32,
    /// The queue of the message that is arriving.
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
            // Frames of channel 0 concern the whole connection.
            let Some(on) = inbound.get_mut(usize::from(frame.channel).saturating_sub(1)) else { return };
            match BrokerFrame::of(frame) {
                BrokerFrame::Deliver { tag, consumer } => {
                    on.in_body = false;
                    on.queue = number_of(consumer);
                    on.unacked += 1;
                    if job.consume.prefetch.is_some() && on.unacked >= job.consume.ack_every {
                        write_ack(&mut out, frame.channel, tag, on.unacked > 1);
                        on.unacked = 0;
                    }
                }
                BrokerFrame::Header(payload) if job.answers => on.answer = Answer::to(payload),
                BrokerFrame::Body(body) => {
                    // Once the run is over, messages of closed consumers are redelivered, and must not count.
                    if !on.in_body && !meter.is_over() {
                        on.in_body = true;
                        // A message counts when its body begins, since a run that ends by its count may end here.
                        count += 1;
                        if let Some(MessageStamp { publisher, number, at }) = MessageStamp::read(body) {
                            let (priority, place) = job.distribution.place(number);
                            let key = SequenceKey { publisher, queue: on.queue, priority };
                            ledger.get_or_insert_with(|| lock(&meter.ledgers[job.ledger])).note_arrival(key, place);
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
            thread::sleep(STANDING_CHECK_INTERVAL);
        }
        if !out.is_empty() {
            client.write(&out)?;
        }
    }
}

/// Parses a consumer tag, which is a number.
fn number_of(consumer_tag: &[u8]) -> u16 {
    consumer_tag.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))
}
