//! Requests and replies: a requester with one request in flight, and the answer of a consumer.

use super::broker_frame::BrokerFrame;
use super::client::{CHANNEL, Client, PAYLOAD_MAX, Queue};
use super::clock::micros;
use super::ledger::SequenceKey;
use super::message::{Envelope, Messages};
use super::meter::{Meter, lock};
use super::pace;
use super::publisher::{Job, next_channel};
use super::running::{self, Ending, RunningThreads};
use super::target::Target;
use crate::wire::content_header::ContentHeader;
use crate::wire::properties::{Properties, PropertiesWriter, Property};
use crate::wire::writer::{Content, write_publish};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Connects and starts sending requests. The reply queue is exclusive to the connection.
pub(super) fn start(target: &Target, job: Job, meter: &Arc<Meter>) -> io::Result<RunningThreads> {
    let mut client = Client::connect(target, job.load.channels)?;
    let replies = format!("{}-reply-{}", job.name, job.publisher);
    client.declare(&Queue { name: &replies, durable: false, exclusive: true, priorities: 1 })?;
    client.consume(CHANNEL, &replies, "0", true)?;
    client.allow_silence()?;
    let stream = client.stream.try_clone()?;
    let thread =
        running::start_thread("a requester", meter, move |meter| send_requests(&mut client, &job, &replies, meter));
    Ok(RunningThreads { stream: Some(stream), threads: vec![thread], ending: Ending::Cut })
}

fn send_requests(client: &mut Client, job: &Job, replies: &str, meter: &Meter) -> io::Result<()> {
    let mut messages = Messages::new(job, Some(replies));
    let key = SequenceKey { publisher: job.publisher, queue: 0, priority: 0 };
    let (mut out, mut channel) = (Vec::new(), CHANNEL);
    let mut reply = None;
    for number in job.first..job.end {
        let Some(begin) = pace::wait_until_due(job.pace, number - job.first, meter) else { break };
        out.clear();
        messages.write(&mut out, channel, number, micros(begin));
        channel = next_channel(channel, job.load.channels);
        lock(&meter.replies).expect_below(key, number + 1);
        client.write(&out)?;
        meter.published.fetch_add(1, Ordering::Relaxed);
        let mut answered = false;
        while !answered {
            client.next_frames(usize::MAX, |frame| match BrokerFrame::of(frame) {
                BrokerFrame::Header(payload) => reply = Reply::from_header(payload),
                BrokerFrame::Body(body) => {
                    if let Some(Reply { request, left }) = &mut reply {
                        *left = left.saturating_sub(body.len() as u64);
                        if *left == 0 {
                            // A second reply to the same request counts as a duplicate.
                            lock(&meter.replies).note_arrival(key, *request);
                            answered |= *request == number;
                        }
                    }
                }
                _ => {}
            })?;
        }
        let took = micros(meter.clock.elapsed() - begin);
        meter.round_trip.lock().record(took).expect("it grows as needed");
        meter.answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// A reply whose body is arriving.
struct Reply {
    /// The number of the request that it answers.
    request: u64,
    left: u64,
}

impl Reply {
    /// Parses the reply's header frame; `None` if it has no correlation-id of ours.
    fn from_header(payload: &[u8]) -> Option<Self> {
        let header = ContentHeader::parse(payload)?;
        let id = Properties::check(header.properties).ok()?.correlation_id()?;
        let request = u64::from_str_radix(str::from_utf8(id).ok()?, 16).ok()?;
        Some(Self { request, left: header.body_size })
    }
}

/// An answer being assembled: the request's body, addressed to the request's reply queue.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    envelope: Envelope,
    properties: Vec<u8>,
    body: Vec<u8>,
    size: u64,
}

impl Answer {
    /// Parses the request's header frame; `None` if the request has no reply queue.
    pub(super) fn to(payload: &[u8]) -> Option<Self> {
        let header = ContentHeader::parse(payload)?;
        let request = Properties::check(header.properties).ok()?;
        let envelope = Envelope::new("", str::from_utf8(request.reply_to()?).ok()?);
        let properties = PropertiesWriter::new().shortstr(Property::CorrelationId, request.correlation_id()?).to_vec();
        Some(Self { envelope, properties, body: Vec::new(), size: header.body_size })
    }

    /// Takes a part of the request's body. Writes the answer once the body is complete.
    pub(super) fn take(&mut self, out: &mut Vec<u8>, channel: u16, part: &[u8]) {
        self.body.extend_from_slice(part);
        if self.body.len() as u64 == self.size {
            let content = Content { address: &self.envelope.address, properties: &self.properties, body: &self.body };
            write_publish(out, channel, false, content, PAYLOAD_MAX);
        }
    }
}
