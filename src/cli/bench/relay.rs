//! A worker: it takes messages from one queue, publishes them to another, and acknowledges them, all on one channel.
//!
//! Each channel publishes once for each of its deliveries, in order. So confirm n belongs to delivery tag n, and the
//! worker acknowledges with the same tag and flag as the broker's confirm.

use super::broker_frame::BrokerFrame;
use super::client::{CHANNEL, Client, PAYLOAD_MAX};
use super::confirms::Tags;
use super::message::Envelope;
use super::meter::Meter;
use super::running::{self, Ending, RunningThreads};
use super::scenario::Consume;
use super::target::Target;
use crate::wire::content_header::ContentHeader;
use crate::wire::frame::Frame;
use crate::wire::writer::{Content, write_ack, write_publish};
use ahash::AHashMap;
use std::io;
use std::sync::Arc;

/// The task of one worker.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) consume: Consume,
    pub(super) pairs: Vec<QueuePair>,
    /// Channels of the connection.
    pub(super) channels: u16,
    /// Whether a delivery is acknowledged only once its copy is confirmed.
    pub(super) confirms: bool,
    /// Whether each message is written by itself instead of in batches.
    pub(super) one_write_each: bool,
}

/// The two queues of a worker.
#[derive(Clone, Debug)]
pub(super) struct QueuePair {
    pub(super) input: String,
    pub(super) output: String,
    /// The number of the pair, which is also the consumer tag.
    pub(super) number: u16,
}

/// Connects and starts working.
pub(super) fn start(target: &Target, job: Job, meter: &Arc<Meter>) -> io::Result<RunningThreads> {
    let mut client = Client::connect(target, job.channels)?;
    let channels = CHANNEL..=job.channels;
    if let Some(prefetch) = job.consume.prefetch {
        channels.clone().try_for_each(|channel| client.prefetch(channel, prefetch))?;
    }
    if job.confirms {
        channels.clone().try_for_each(|channel| client.confirm_select(channel))?;
    }
    let pairs = job.pairs.iter().cycle().zip(channels.cycle());
    for (pair, channel) in pairs.take(job.pairs.len().max(job.channels.into())) {
        client.consume(channel, &pair.input, &pair.number.to_string(), false)?;
    }
    client.allow_silence()?;
    let stream = client.stream.try_clone()?;
    let thread = running::start_thread("a worker", meter, move |_| work(&mut client, &job));
    Ok(RunningThreads { stream: Some(stream), threads: vec![thread], ending: Ending::Cut })
}

/// Relays messages until the run is over.
fn work(client: &mut Client, job: &Job) -> io::Result<()> {
    let mut state = RelayState::new(job);
    // With one frame at a time, only the last frame of a message leads to a write.
    let frames = if job.one_write_each { 1 } else { usize::MAX };
    loop {
        client.next_frames(frames, |frame| state.take(frame))?;
        if !state.out.is_empty() {
            client.write(&state.out)?;
            state.out.clear();
        }
    }
}

/// The state of a worker: partial messages, and the output.
struct RelayState {
    /// Exchange and routing key of each output, by its consumer tag.
    addresses: AHashMap<Vec<u8>, Vec<u8>>,
    channels: Vec<RelayChannel>,
    confirms: bool,
    ack_every: u64,
    out: Vec<u8>,
}

/// The state of one channel of a worker.
#[derive(Clone, Debug, Default)]
struct RelayChannel {
    tag: u64,
    address: Vec<u8>,
    properties: Vec<u8>,
    body: Vec<u8>,
    size: u64,
    /// Deliveries whose copies are published and, if required, confirmed.
    done: Tags,
    /// All deliveries up to this tag are acknowledged.
    acknowledged: u64,
}

impl RelayState {
    fn new(job: &Job) -> Self {
        let address =
            |pair: &QueuePair| (pair.number.to_string().into_bytes(), Envelope::new("", &pair.output).address);
        Self {
            addresses: job.pairs.iter().map(address).collect(),
            channels: vec![RelayChannel::default(); job.channels.into()],
            confirms: job.confirms,
            ack_every: job.consume.ack_every.into(),
            out: Vec::new(),
        }
    }

    fn take(&mut self, frame: Frame<'_>) {
        let channel = frame.channel;
        // Frames of channel 0 concern the whole connection.
        let Some(channel_state) = self.channels.get_mut(usize::from(channel).wrapping_sub(1)) else { return };
        match BrokerFrame::of(frame) {
            BrokerFrame::Deliver { tag, consumer } => {
                channel_state.tag = tag;
                if let Some(address) = self.addresses.get(consumer) {
                    channel_state.address.clone_from(address);
                }
            }
            BrokerFrame::Header(payload) => {
                if let Some(header) = ContentHeader::parse(payload) {
                    channel_state.properties.clear();
                    channel_state.properties.extend_from_slice(header.properties);
                    channel_state.size = header.body_size;
                    channel_state.body.clear();
                }
            }
            BrokerFrame::Body(part) => {
                channel_state.body.extend_from_slice(part);
                if channel_state.body.len() as u64 == channel_state.size {
                    let RelayChannel { tag, address, properties, body, .. } = channel_state;
                    let content = Content { address, properties, body };
                    write_publish(&mut self.out, channel, false, content, PAYLOAD_MAX);
                    if !self.confirms {
                        let tag = *tag;
                        channel_state.acknowledge(&mut self.out, channel, tag, false, self.ack_every);
                    }
                }
            }
            BrokerFrame::Ack(tag, multiple) => {
                channel_state.acknowledge(&mut self.out, channel, tag, multiple, self.ack_every);
            }
            BrokerFrame::CloseOk | BrokerFrame::Other => {}
        }
    }
}

impl RelayChannel {
    /// Acknowledges finished deliveries, `every` at a time.
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
        let pair = QueuePair { input: "in".into(), output: "out".into(), number: 7 };
        let consume = Consume { consumers: 1, prefetch: Some(10), ack_every };
        Job { consume, pairs: vec![pair], channels: 2, confirms, one_write_each: false }
    }

    /// The output of the worker for these bytes.
    fn written(state: &mut RelayState, mut bytes: &[u8]) -> Vec<u8> {
        while let Some(cut) = read_frame(bytes, usize::MAX).unwrap() {
            state.take(cut.frame);
            bytes = &bytes[cut.consumed..];
        }
        std::mem::take(&mut state.out)
    }

    fn delivery(tag: u64, body: &[u8]) -> Vec<u8> {
        let (mut address, mut out) = (Vec::new(), Vec::new());
        write_address(&mut address, b"", b"in");
        let content = Content { address: &address, properties: &[0x10, 0, 2], body };
        // The body is cut into frames of 8 bytes.
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
    fn a_message_in_several_frames_is_published_whole_and_then_acknowledged() {
        let mut state = RelayState::new(&job(false, 1));
        let body = b"twenty-one characters";
        assert_eq!(written(&mut state, &delivery(1, body)), [publish(body), ack(1, false)].concat());
    }

    #[test]
    fn with_confirms_a_delivery_is_acknowledged_after_its_copy_is_confirmed() {
        let mut state = RelayState::new(&job(true, 1));
        assert_eq!(written(&mut state, &delivery(1, b"a")), publish(b"a"));
        assert_eq!(written(&mut state, &delivery(2, b"b")), publish(b"b"));
        assert_eq!(written(&mut state, &ack(2, true)), ack(2, true));
    }

    #[test]
    fn deliveries_are_acknowledged_several_at_a_time_and_none_beyond_a_gap() {
        let mut state = RelayState::new(&job(true, 2));
        assert_eq!(written(&mut state, &[ack(2, false), ack(3, false)].concat()), b"");
        assert_eq!(written(&mut state, &ack(1, false)), ack(3, true));
        assert_eq!(written(&mut state, &ack(4, false)), b"");
    }
}
