//! What a session asks of its shell.

use crate::model::{AmqpError, ChannelKey, Command, ConsumerSlot, LendId, Message, Name, QueueId, RequestNo};

/// One thing only the shell can do. Effects are carried out in order.
#[derive(Debug)]
pub enum Effect {
    /// Check a login and call `Session::authenticated`.
    Authenticate {
        /// The SASL mechanism.
        mechanism: String,
        /// What the client said.
        response: Vec<u8>,
    },
    /// Open a vhost and call `Session::vhost_opened`.
    OpenVhost {
        /// Its name, taken literally.
        vhost: Name,
    },
    /// Publish and call `Session::published`.
    Publish(Publish),
    /// Check that a publish inside a transaction could be made; its error closes the channel.
    CheckPublish(Publish),
    /// Carry out a command; its answer comes as a notice. What was gathered before goes first.
    Command {
        /// The channel that waits.
        channel: ChannelKey,
        /// Which of its requests.
        request: RequestNo,
        /// What to do.
        command: Command,
    },
    /// A transaction's publishes and settlements follow, and then `TransactionEnds`.
    TransactionBegins,
    /// They take effect together: make them durable in one go and call `Session::sealed`.
    TransactionEnds {
        /// The channel that commits.
        channel: ChannelKey,
    },
    /// Settle deliveries of one queue.
    Settle(Settle),
    /// Give back a delivery that came too late.
    Bounce {
        /// The channel it was for.
        channel: ChannelKey,
        /// The queue it came from.
        queue: QueueId,
        /// The lending.
        lend: LendId,
        /// Whether it took a permit of the channel.
        counted: bool,
    },
    /// Deliveries were flushed to the socket.
    Written {
        /// The consumer's channel.
        channel: ChannelKey,
        /// The consumer.
        consumer: ConsumerSlot,
        /// Its queue.
        queue: QueueId,
        /// How many.
        count: u32,
        /// Their body bytes.
        bytes: u64,
    },
    /// The channel's own prefetch limit changed.
    ChannelLimit {
        /// The channel.
        channel: ChannelKey,
        /// The limit; 0 is none.
        limit: u32,
        /// Deliveries that count against it from the start.
        outstanding: u32,
    },
    /// The channel has ended: all it holds goes back, its consumers go.
    ChannelEnded {
        /// The channel.
        channel: ChannelKey,
    },
    /// The connection ends: as `ChannelEnded` for all, and its exclusive queues are deleted. Then `Session::ended`.
    ConnectionEnds,
    /// Close the socket once the output is written.
    CloseSocket,
}

/// A message on its way into an exchange.
#[derive(Debug)]
pub struct Publish {
    /// The channel it came on.
    pub channel: ChannelKey,
    /// The message, addressed.
    pub message: Message,
    /// Return it when no queue takes it.
    pub mandatory: bool,
    /// Its publish sequence number, where the channel waits for promises.
    pub sequence: Option<u64>,
    /// What is wrong with it, to be reported only after the exchange was found in order.
    pub fault: Option<Box<AmqpError>>,
}

/// Deliveries of one queue, settled alike.
#[derive(Debug)]
pub struct Settle {
    /// The channel that held them.
    pub channel: ChannelKey,
    /// The queue they came from.
    pub queue: QueueId,
    /// What became of them.
    pub outcome: SettleOutcome,
    /// Which lendings.
    pub lends: Vec<LendId>,
    /// How many of them held a permit of the channel.
    pub counted: u32,
}

/// What became of deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleOutcome {
    /// Acknowledged.
    Acknowledged,
    /// Back into the queue.
    Requeued,
    /// Rejected without requeue.
    Rejected,
}

/// What a session gives out: bytes for the socket, effects for the shell. Reused from pass to pass.
#[derive(Debug, Default)]
pub struct Output {
    /// For the socket.
    pub bytes: Vec<u8>,
    /// For the shell.
    pub effects: Vec<Effect>,
    /// Whether the shell must carry out the effects before more input is read: an answer may be at hand at once.
    pub pause: bool,
    /// Publishes confirmed since the shell last looked.
    pub confirmed: u64,
    /// What was refused since the shell last looked.
    pub refusals: Refusals,
}

/// How often a limit was reached, by limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Channels closed for contents and transactions that were not complete.
    pub unfinished: u64,
    /// Consumers beyond those of a channel.
    pub consumers: u64,
    /// Gets on a channel with too many unacknowledged deliveries.
    pub gets: u64,
}

/// How far back a settlement looks for one to join.
const MERGE_LOOK_BACK: usize = 8;

impl Output {
    /// Hands over a command; reading stops until the shell has seen to it.
    pub(super) fn command(&mut self, channel: ChannelKey, request: RequestNo, command: Command) {
        self.effects.push(Effect::Command { channel, request, command });
        self.pause = true;
    }

    /// Settles one delivery, together with others of the same queue and fate where possible.
    pub(super) fn settle(
        &mut self,
        channel: ChannelKey,
        queue: QueueId,
        outcome: SettleOutcome,
        lend: LendId,
        counted: bool,
    ) {
        let counted = u32::from(counted);
        for effect in self.effects.iter_mut().rev().take(MERGE_LOOK_BACK) {
            match effect {
                Effect::Settle(settle)
                    if settle.channel == channel && settle.queue == queue && settle.outcome == outcome =>
                {
                    settle.lends.push(lend);
                    settle.counted += counted;
                    return;
                }
                Effect::Settle(settle) if settle.channel != channel || settle.outcome == outcome => {}
                _ => break,
            }
        }
        self.effects.push(Effect::Settle(Settle { channel, queue, outcome, lends: vec![lend], counted }));
    }
}
