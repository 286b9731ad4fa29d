//! Bounds the memory of contents and transactions that are not complete: a client may leave them so for as long as it likes.
//!
//! A connection is measured after each pass. Of the channels that were active in the pass, the largest are closed until the
//! connection is within its limits again: a channel that only waits is not closed for what another one sends.

use super::effect::Output;
use super::machine::Session;
use super::method_ids::BASIC_PUBLISH;
use super::outlet::Outlet;
use crate::model::{AmqpError, NamedLimit, Now};

impl Session {
    /// Closes channels with 506 whose unfinished bytes are too many; all other connections have `others` such bytes. Call it
    /// at the end of a pass, and carry out the effects.
    pub(crate) fn bound_unfinished(&mut self, others: u64, now: Now, outlet: &mut dyn Outlet, out: &mut Output) {
        if self.due.active.is_empty() {
            return;
        }
        let own = self.settings.connection_unfinished_bytes_max;
        // Two frames are always allowed: the client does not decide where a read ends.
        let rest = self.settings.unfinished_bytes_max.saturating_sub(others).max(self.tuning.payload_max as u64 * 2);
        if self.unfinished_bytes() <= own.min(rest) {
            return;
        }
        let (limit, text) = if own <= rest {
            let text = "contents and transactions that are not complete take more than";
            (NamedLimit::ConnectionUnfinishedBytes, format!("{text} {own} bytes of this connection"))
        } else {
            let text = "contents and transactions that are not complete take too many bytes of all connections";
            (NamedLimit::UnfinishedBytes, text.to_owned())
        };
        let error = AmqpError::limit_reached(text);
        let mut active: Vec<(usize, u16)> = Vec::new();
        for number in &self.due.active {
            let bytes = self.channels.get_mut(*number).map_or(0, |channel| channel.unfinished_bytes());
            active.push((bytes, *number));
        }
        active.sort_unstable();
        while self.is_running()
            && self.unfinished_bytes() > own.min(rest)
            && let Some((1.., number)) = active.pop()
        {
            out.refusals.note(limit);
            self.fail(number, &error, Some(BASIC_PUBLISH), now, outlet, out);
        }
    }

    /// Unfinished bytes as of now: the metrics of the last pass, and what the active channels have added since.
    fn unfinished_bytes(&mut self) -> u64 {
        let mut bytes = self.metrics.unfinished_bytes;
        for number in &self.due.active {
            if let Some(channel) = self.channels.get_mut(*number) {
                bytes += channel.unfinished_bytes() as i64 - channel.measured.unfinished_bytes;
            }
        }
        u64::try_from(bytes).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::channel::Channel;
    use super::super::channel::Stage;
    use super::super::outlet::NoQueues;
    use super::super::state::State;
    use super::*;
    use crate::model::{Monotonic, WallMillis};
    use crate::session::{Effect, ServerProperties, SessionSettings};
    use crate::wire::writer::{Content as Sent, write_method, write_publish};
    use amq_protocol::protocol::{AMQPClass, channel, tx};
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::time::Duration;

    const NOW: Now = Now { monotonic: Monotonic(0), wall: WallMillis(0) };
    const FRAME_MAX: u32 = 4096;
    const LIMIT: u64 = 100_000;
    /// Most bytes that one pass adds: six steps of a frame or a message each, in vectors that double.
    const PASS_BYTES: u64 = 6 * 40_000;
    const CHANNELS: u16 = 3;

    /// An action of a client on a channel; skipped if the channel is in no state for it.
    #[derive(Clone, Debug)]
    enum Step {
        Begin(u64),
        Piece(usize),
        Select,
        Publish(usize),
        Commit,
        Rollback,
        Close,
    }

    fn step() -> impl Strategy<Value = (u16, Step)> {
        let step = prop_oneof![
            3 => (1u64..200_000).prop_map(Step::Begin),
            8 => (1usize..4000).prop_map(Step::Piece),
            1 => Just(Step::Select),
            6 => (0usize..30_000).prop_map(Step::Publish),
            1 => Just(Step::Commit),
            1 => Just(Step::Rollback),
            1 => Just(Step::Close),
        ];
        (1..=CHANNELS, step)
    }

    fn settings() -> SessionSettings {
        SessionSettings {
            properties: ServerProperties::default(),
            mechanisms: Vec::new(),
            channel_max: 8,
            frame_max: FRAME_MAX,
            frame_min: FRAME_MAX,
            heartbeat_seconds: 0,
            handshake_timeout: Duration::from_secs(10),
            message_bytes_max: 1 << 20,
            connection_unfinished_bytes_max: LIMIT,
            unfinished_bytes_max: 2 * LIMIT,
            channel_consumers_max: 10,
            channel_unacked_max: 10,
            gets_in_flight_max: 10,
            parked_bytes_max: 1 << 20,
        }
    }

    /// The frames of one step; none if the channel is in no state for it. `missing` is how many bytes of a content are to come.
    fn frames(number: u16, step: &Step, missing: &mut Option<u64>, is_transactional: &mut bool) -> Vec<u8> {
        let mut out = Vec::new();
        let mut tx = |method| write_method(&mut out, number, AMQPClass::Tx(method));
        match (step, *missing) {
            (Step::Begin(size), None) => {
                *missing = Some(*size);
                let content = Sent { address: &[0, 1, b'q'], properties: &[0, 0], body: b"" };
                write_publish(&mut out, number, false, content, FRAME_MAX as usize - 8);
                // The header ends with the size, the flags of properties and the frame's end.
                let at = out.len() - 11;
                out[at..at + 8].copy_from_slice(&size.to_be_bytes());
            }
            (Step::Piece(len), Some(left)) => {
                let len = (*len as u64).min(left);
                *missing = Some(left - len).filter(|left| *left > 0);
                out.push(3);
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&(len as u32).to_be_bytes());
                out.resize(out.len() + len as usize, b'x');
                out.push(0xCE);
            }
            (Step::Select, None) => {
                *is_transactional = true;
                tx(tx::AMQPMethod::Select(tx::Select {}));
            }
            (Step::Publish(len), None) => {
                let content = Sent { address: &[0, 1, b'q'], properties: &[0, 0], body: &vec![b'x'; *len] };
                write_publish(&mut out, number, false, content, FRAME_MAX as usize - 8);
            }
            (Step::Commit, None) if *is_transactional => tx(tx::AMQPMethod::Commit(tx::Commit {})),
            (Step::Rollback, None) if *is_transactional => tx(tx::AMQPMethod::Rollback(tx::Rollback {})),
            _ => {}
        }
        out
    }

    /// A connection, and the state of its channels as the client knows it.
    struct Client {
        session: Session,
        out: Output,
        missing: [Option<u64>; CHANNELS as usize],
        is_transactional: [bool; CHANNELS as usize],
    }

    impl Client {
        fn new() -> Self {
            let mut session = Session::new(Arc::new(settings()), 1, NOW);
            session.state = State::Running;
            let (missing, is_transactional) = Default::default();
            Self { session, out: Output::default(), missing, is_transactional }
        }

        fn give(&mut self, input: &[u8]) {
            let mut used = 0;
            while used < input.len() {
                self.out.pause = false;
                used += self.session.receive(&input[used..], NOW, &mut NoQueues, &mut self.out);
                self.carry_out();
            }
            assert!(self.session.is_running());
        }

        /// Answers commits at once: no queue takes a message.
        fn carry_out(&mut self) {
            while !self.out.effects.is_empty() {
                for effect in std::mem::take(&mut self.out.effects) {
                    if let Effect::Commit(commit) = effect {
                        self.session.committed(commit.channel, &[], 0, NOW, &mut NoQueues, &mut self.out);
                    }
                }
            }
        }

        /// Opens the channels again that either side has closed.
        fn reopen(&mut self) {
            for number in 1..=CHANNELS {
                let at = usize::from(number - 1);
                let mut frames = Vec::new();
                match self.session.channels.get_mut(number).map(|channel| channel.stage) {
                    Some(Stage::Open) => continue,
                    Some(Stage::Closing) => {
                        let ok = channel::AMQPMethod::CloseOk(channel::CloseOk {});
                        write_method(&mut frames, number, AMQPClass::Channel(ok));
                    }
                    None => {}
                }
                let open = channel::AMQPMethod::Open(channel::Open {});
                write_method(&mut frames, number, AMQPClass::Channel(open));
                self.give(&frames);
                (self.missing[at], self.is_transactional[at]) = (None, false);
            }
        }

        fn counted(&mut self) -> u64 {
            let mut bytes = 0;
            for number in 1..=CHANNELS {
                let channel: Option<&mut Channel> = self.session.channels.get_mut(number);
                bytes += channel.map_or(0, |channel| channel.unfinished_bytes() as u64);
            }
            bytes
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn unfinished_bytes_are_counted_exactly_and_bounded(
            passes in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..60),
            others in prop_oneof![Just(0), 0..LIMIT * 3],
        ) {
            let mut client = Client::new();
            let most = LIMIT.min((2 * LIMIT).saturating_sub(others).max(2 * u64::from(FRAME_MAX)));
            let mut closed = 0;
            for pass in &passes {
                client.reopen();
                for (number, step) in pass {
                    let at = usize::from(number - 1);
                    let (mut missing, mut is_transactional) = (client.missing[at], client.is_transactional[at]);
                    if matches!(step, Step::Close) && missing.is_none() {
                        let error = AmqpError::precondition_failed("the broker found something");
                        client.session.fail(*number, &error, None, NOW, &mut NoQueues, &mut client.out);
                        client.carry_out();
                        client.reopen();
                        continue;
                    }
                    let input = frames(*number, step, &mut missing, &mut is_transactional);
                    client.give(&input);
                    (client.missing[at], client.is_transactional[at]) = (missing, is_transactional);
                }
                prop_assert!(client.counted() <= most + PASS_BYTES + (3 << 20), "no more memory than announced is set aside");
                client.session.bound_unfinished(others, NOW, &mut NoQueues, &mut client.out);
                client.carry_out();
                let refusals = std::mem::take(&mut client.out.refusals);
                closed += refusals.of(NamedLimit::ConnectionUnfinishedBytes) + refusals.of(NamedLimit::UnfinishedBytes);
                let (counted, reported) = (client.counted(), client.session.metrics().unfinished_bytes);
                prop_assert_eq!(i64::try_from(counted).unwrap(), reported);
                // A channel that was closed within a content still counts how many bytes of it are to come.
                prop_assert!(counted <= most + u64::from(CHANNELS) * 256, "{} of {}, {} channels were closed", counted, most, closed);
            }
            client.session.forget_channels();
            prop_assert_eq!(client.session.metrics(), crate::session::SessionMetrics::default());
        }
    }
}
