//! A worker: it takes from one queue, publishes the same message to another and acknowledges what it took, on one channel.
//!
//! Each channel publishes once for each of its deliveries and in their order, so that the confirm number n is that of
//! delivery tag n: what the broker confirms is acknowledged in the same words.

use super::client::{CHANNEL, Client, PAYLOAD_MAX};
use super::confirms::Tags;
use super::message::Envelope;
use super::meter::Meter;
use super::running::{self, Ending, Running};
use super::scenario::Consume;
use super::seen::Seen;
use super::target::Target;
use crate::wire::content_header::ContentHeader;
use crate::wire::frame::Frame;
use crate::wire::writer::{Content, write_ack, write_publish};
use ahash::AHashMap;
use std::io;
use std::sync::Arc;

/// What one worker is to do.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) consume: Consume,
    pub(super) passages: Vec<Passage>,
    /// Channels of the connection.
    pub(super) channels: u16,
    /// Whether a delivery is acknowledged only once its copy is confirmed.
    pub(super) confirms: bool,
    /// A write for each message instead of batches.
    pub(super) one_write_each: bool,
}

/// From one queue to another.
#[derive(Clone, Debug)]
pub(super) struct Passage {
    pub(super) input: String,
    pub(super) output: String,
    /// The number of both, which is the consumer tag too.
    pub(super) number: u16,
}

/// Connects and starts working.
pub(super) fn start(target: &Target, job: Job, meter: &Arc<Meter>) -> io::Result<Running> {
    let mut client = Client::connect(target, job.channels)?;
    let channels = CHANNEL..=job.channels;
    if let Some(prefetch) = job.consume.prefetch {
        channels.clone().try_for_each(|channel| client.prefetch(channel, prefetch))?;
    }
    if job.confirms {
        channels.clone().try_for_each(|channel| client.confirm_select(channel))?;
    }
    let pairs = job.passages.iter().cycle().zip(channels.cycle());
    for (passage, channel) in pairs.take(job.passages.len().max(job.channels.into())) {
        client.consume(channel, &passage.input, &passage.number.to_string(), false)?;
    }
    client.allow_silence()?;
    let stream = client.stream.try_clone()?;
    let thread = running::begin("a worker", meter, move |_| work(&mut client, &job));
    Ok(Running { stream: Some(stream), threads: vec![thread], ending: Ending::Cut })
}

/// Reads until the run is over.
fn work(client: &mut Client, job: &Job) -> io::Result<()> {
    let mut bench = Workbench::new(job);
    // A frame at a time: only the last of a message leads to a write.
    let frames = if job.one_write_each { 1 } else { usize::MAX };
    loop {
        client.next_frames(frames, |frame| bench.take(frame))?;
        if !bench.out.is_empty() {
            client.write(&bench.out)?;
            bench.out.clear();
        }
    }
}

/// The messages that a worker has at hand, and what it is about to write.
struct Workbench {
    /// Exchange and routing key of each output, by its consumer tag.
    addresses: AHashMap<Vec<u8>, Vec<u8>>,
    channels: Vec<Piece>,
    confirms: bool,
    ack_every: u64,
    out: Vec<u8>,
}

/// What a channel of a worker is at.
#[derive(Clone, Debug, Default)]
struct Piece {
    tag: u64,
    address: Vec<u8>,
    properties: Vec<u8>,
    body: Vec<u8>,
    size: u64,
    /// Deliveries whose copies are published, and need no confirm or have it.
    done: Tags,
    /// Below, and with, this tag all is acknowledged.
    acknowledged: u64,
}

impl Workbench {
    fn new(job: &Job) -> Self {
        let address =
            |passage: &Passage| (passage.number.to_string().into_bytes(), Envelope::new("", &passage.output).address);
        Self {
            addresses: job.passages.iter().map(address).collect(),
            channels: vec![Piece::default(); job.channels.into()],
            confirms: job.confirms,
            ack_every: job.consume.ack_every.into(),
            out: Vec::new(),
        }
    }

    fn take(&mut self, frame: Frame<'_>) {
        let channel = frame.channel;
        // Channel 0 is the connection's own.
        let Some(piece) = self.channels.get_mut(usize::from(channel).wrapping_sub(1)) else { return };
        match Seen::of(frame) {
            Seen::Deliver { tag, consumer } => {
                piece.tag = tag;
                if let Some(address) = self.addresses.get(consumer) {
                    piece.address.clone_from(address);
                }
            }
            Seen::Header(payload) => {
                if let Some(header) = ContentHeader::parse(payload) {
                    piece.properties.clear();
                    piece.properties.extend_from_slice(header.properties);
                    piece.size = header.body_size;
                    piece.body.clear();
                }
            }
            Seen::Body(part) => {
                piece.body.extend_from_slice(part);
                if piece.body.len() as u64 == piece.size {
                    let Piece { tag, address, properties, body, .. } = piece;
                    let content = Content { address, properties, body };
                    write_publish(&mut self.out, channel, false, content, PAYLOAD_MAX);
                    if !self.confirms {
                        let tag = *tag;
                        piece.acknowledge(&mut self.out, channel, tag, false, self.ack_every);
                    }
                }
            }
            Seen::Ack(tag, multiple) => piece.acknowledge(&mut self.out, channel, tag, multiple, self.ack_every),
            Seen::CloseOk | Seen::Other => {}
        }
    }
}

impl Piece {
    /// Acknowledges what is done, `every` so many at a time.
    fn acknowledge(&mut self, out: &mut Vec<u8>, channel: u16, tag: u64, multiple: bool, every: u64) {
        if every == 1 {
            write_ack(out, channel, tag, multiple);
            return;
        }
        self.done.acknowledge(tag, multiple, |_| {});
        if self.done.below() >= self.acknowledged + every {
            self.acknowledged = self.done.below();
            write_ack(out, channel, self.acknowledged, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::read_frame;
    use crate::wire::writer::{ConsumerPrefix, write_address, write_deliver};

    fn job(confirms: bool, ack_every: u32) -> Job {
        let passage = Passage { input: "in".into(), output: "out".into(), number: 7 };
        let consume = Consume { consumers: 1, prefetch: Some(10), ack_every };
        Job { consume, passages: vec![passage], channels: 2, confirms, one_write_each: false }
    }

    /// What the worker writes when these bytes come.
    fn written(bench: &mut Workbench, mut bytes: &[u8]) -> Vec<u8> {
        while let Some(cut) = read_frame(bytes, usize::MAX).unwrap() {
            bench.take(cut.frame);
            bytes = &bytes[cut.consumed..];
        }
        std::mem::take(&mut bench.out)
    }

    fn delivery(tag: u64, body: &[u8]) -> Vec<u8> {
        let (mut address, mut out) = (Vec::new(), Vec::new());
        write_address(&mut address, b"", b"in");
        let content = Content { address: &address, properties: &[0x10, 0, 2], body };
        // Pieces of 8 bytes.
        write_deliver(&mut out, &ConsumerPrefix::new(2, b"7"), tag, false, content, 8);
        out
    }

    fn publish(body: &[u8]) -> Vec<u8> {
        let (mut address, mut out) = (Vec::new(), Vec::new());
        write_address(&mut address, b"", b"out");
        let content = Content { address: &address, properties: &[0x10, 0, 2], body };
        write_publish(&mut out, 2, false, content, PAYLOAD_MAX);
        out
    }

    fn ack(tag: u64, multiple: bool) -> Vec<u8> {
        let mut out = Vec::new();
        write_ack(&mut out, 2, tag, multiple);
        out
    }

    #[test]
    fn a_message_in_pieces_is_published_whole_and_acknowledged_behind_that() {
        let mut bench = Workbench::new(&job(false, 1));
        let body = b"twenty-one characters";
        assert_eq!(written(&mut bench, &delivery(1, body)), [publish(body), ack(1, false)].concat());
    }

    #[test]
    fn with_confirms_nothing_is_acknowledged_before_its_copy_is_confirmed() {
        let mut bench = Workbench::new(&job(true, 1));
        assert_eq!(written(&mut bench, &delivery(1, b"a")), publish(b"a"));
        assert_eq!(written(&mut bench, &delivery(2, b"b")), publish(b"b"));
        assert_eq!(written(&mut bench, &ack(2, true)), ack(2, true));
    }

    #[test]
    fn several_are_acknowledged_at_a_time_and_none_beyond_a_gap() {
        let mut bench = Workbench::new(&job(true, 2));
        assert_eq!(written(&mut bench, &[ack(2, false), ack(3, false)].concat()), b"");
        assert_eq!(written(&mut bench, &ack(1, false)), ack(3, true));
        assert_eq!(written(&mut bench, &ack(4, false)), b"");
    }
}
