//! What a session asks of its shell.

use crate::model::{
    AmqpError, ChannelKey, Command, ConsumerSlot, LendId, LimitId, Message, Name, QueueId, Refusals, RequestNo,
    SettleOutcome,
};

/// One thing only the shell can do. Effects are carried out in order.
#[derive(Debug)]
pub(crate) enum Effect {
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
    /// Carry out a command; its answer comes as a notice. What was gathered before goes first.
    Command {
        /// The channel that waits.
        channel: ChannelKey,
        /// Which of its requests.
        request: RequestNo,
        /// What to do.
        command: Command,
    },
    /// Make a transaction take effect as a whole, and call `Session::committed`.
    Commit(Commit),
    /// Give back a delivery that came too late.
    Bounce {
        /// The channel it was for.
        channel: ChannelKey,
        /// The queue it came from.
        queue: QueueId,
        /// The lending.
        lend: LendId,
        /// The limit of the channel of which it holds a permit.
        permit: Option<LimitId>,
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
    /// All that a queue delivered before it applied the channel's limit has arrived.
    QueueLimited {
        /// The channel.
        channel: ChannelKey,
        /// The queue.
        queue: QueueId,
        /// The limit.
        limit: LimitId,
    },
    /// The connection ends: as `Outlet::end_channel` for all, and its exclusive queues are deleted. Then `Session::ended`.
    ConnectionEnds,
    /// Close the socket once the output is written.
    CloseSocket,
}

/// A message on its way into an exchange.
#[derive(Debug)]
pub(crate) struct Publish {
    /// The channel it came on.
    pub channel: ChannelKey,
    /// The message, addressed.
    pub message: Message,
    /// Return it when no queue takes it.
    pub mandatory: bool,
    /// Its publish sequence number, where the channel waits for promises.
    pub sequence: Option<u64>,
}

/// A message of a transaction, routed when it was published.
#[derive(Debug)]
pub(crate) struct RoutedMessage {
    /// The message, addressed.
    pub message: Message,
    /// Return it when no queue takes it.
    pub mandatory: bool,
    /// The queues it goes to, as far as they are still there when the transaction commits.
    pub queues: Vec<Name>,
}

/// What a transaction held back: publishes in order, then settlements in order.
#[derive(Debug)]
pub(crate) struct Commit {
    /// The channel that commits. Each queue owes it a promise for each message, numbered from 1 in their order, and one
    /// numbered 0 for the whole.
    pub channel: ChannelKey,
    /// Its publishes.
    pub publishes: Vec<RoutedMessage>,
    /// Its settlements.
    pub settlements: Vec<Settlement>,
}

/// A delivery that is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settlement {
    /// The queue it came from.
    pub queue: QueueId,
    /// Which lending.
    pub lend: LendId,
    /// What became of it.
    pub outcome: SettleOutcome,
    /// Whether it held a permit of the channel.
    pub counted: bool,
    /// Whether the method that settles it has settled another one before.
    pub continues: bool,
}

/// What a session gives out: bytes for the socket, effects for the shell. Reused from pass to pass.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// For the socket.
    pub bytes: Vec<u8>,
    /// For the shell.
    pub effects: Vec<Effect>,
    /// Whether the shell must carry out the effects before more input is read: an answer may be at hand at once.
    pub pause: bool,
    /// Publishes confirmed since the shell last looked.
    pub confirmed: u64,
    /// Errors that closed a channel or the connection since the shell last looked.
    pub failures: Vec<Failure>,
    /// What limits have refused since the shell last looked.
    pub refusals: Refusals,
}

/// An error that closed a channel or the connection; for the log and the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The number of the channel that it came up on; 0 when it came up on none.
    pub channel: u16,
    /// The method that failed, in AMQP's words; empty when none did.
    pub operation: &'static str,
    /// The error.
    pub error: AmqpError,
}

impl Output {
    /// Hands over a command; reading stops until the shell has seen to it.
    pub(super) fn command(&mut self, channel: ChannelKey, request: RequestNo, command: Command) {
        self.effects.push(Effect::Command { channel, request, command });
        self.pause = true;
    }
}
