//! What a session asks of its shell.

use crate::model::{
    AmqpError, ChannelKey, Command, ConsumerSlot, LendId, LimitId, Message, Name, QueueId, Refusals, RequestNo,
    SettleOutcome,
};
use crate::wire::writer::write_method;
use amq_protocol::protocol::{AMQPClass, connection};

/// One request to the shell. The shell carries effects out in order.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Check a login and call `Session::authenticated`.
    Authenticate {
        /// The SASL mechanism.
        mechanism: String,
        /// The client's response, as the mechanism defines it.
        response: Vec<u8>,
    },
    /// Open a vhost and call `Session::vhost_opened`.
    OpenVhost {
        /// The vhost's name, taken literally.
        vhost: Name,
    },
    /// Carry out a command; its answer comes as a notice. What the outlet has taken before goes first.
    Command {
        /// The channel that waits for the answer.
        channel: ChannelKey,
        /// The number of the channel's request.
        request: RequestNo,
        /// The command.
        command: Command,
    },
    /// Make a transaction take effect as a whole, and call `Session::committed`.
    Commit(Commit),
    /// Give back a delivery whose channel or consumer is gone.
    Bounce {
        /// The channel that the delivery was for.
        channel: ChannelKey,
        /// The queue that the delivery came from.
        queue: QueueId,
        /// The delivery's lending.
        lend: LendId,
        /// The channel limit of which the delivery holds a permit.
        permit: Option<LimitId>,
    },
    /// Deliveries were flushed to the socket.
    Written {
        /// The consumer's channel.
        channel: ChannelKey,
        /// The consumer.
        consumer: ConsumerSlot,
        /// The consumer's queue.
        queue: QueueId,
        /// The number of deliveries.
        count: u32,
        /// Body bytes of the deliveries.
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
    /// The connection ends: end all its channels (`Outlet::end_channel`), delete its exclusive queues, then call
    /// `Session::ended`.
    ConnectionEnds,
    /// Close the socket once the output is written.
    CloseSocket,
}

/// A message on its way into an exchange.
#[derive(Debug)]
pub(crate) struct Publish {
    /// The channel that the publish came on.
    pub channel: ChannelKey,
    /// The message, with exchange and routing key.
    pub message: Message,
    /// Return it when no queue takes it.
    pub mandatory: bool,
    /// The publish sequence number, if the channel is in confirm mode.
    pub sequence: Option<u64>,
}

/// A message of a transaction, routed when it was published.
#[derive(Debug)]
pub(crate) struct RoutedMessage {
    /// The message, with exchange and routing key.
    pub message: Message,
    /// Return it when no queue takes it.
    pub mandatory: bool,
    /// The queues that the message goes to, if they still exist when the transaction commits.
    pub queues: Vec<Name>,
}

/// A transaction's publishes, then its settlements, each in order.
#[derive(Debug)]
pub(crate) struct Commit {
    /// The channel that commits. Each queue owes it a promise for each message, numbered from 1 in their order, and one
    /// numbered 0 for the whole.
    pub channel: ChannelKey,
    /// The publishes.
    pub publishes: Vec<RoutedMessage>,
    /// The settlements.
    pub settlements: Vec<Settlement>,
}

/// A delivery is acknowledged, rejected or requeued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settlement {
    /// The queue that the delivery came from.
    pub queue: QueueId,
    /// The delivery's lending.
    pub lend: LendId,
    /// Acknowledged, rejected or requeued.
    pub outcome: SettleOutcome,
    /// Whether the delivery counts against the channel's limit.
    pub counted: bool,
    /// Whether the same method has settled another delivery before this one.
    pub continues: bool,
}

/// The output of a session: bytes for the socket, effects for the shell. Reused from pass to pass.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// For the socket.
    pub bytes: Vec<u8>,
    /// For the shell.
    pub effects: Vec<Effect>,
    /// Whether the shell must carry out the effects before more input is read: the answer may come at once.
    pub pause: bool,
    /// Methods taken since the shell last looked, each with its content if it came in the same read.
    pub methods: u32,
    /// Whether any of them is one that the client wants answered: not a publish, an ack, a nack or a reject.
    pub asks: bool,
    /// Publishes confirmed since the shell last looked.
    pub confirmed: u64,
    /// Errors that closed a channel or the connection since the shell last looked.
    pub failures: Vec<Failure>,
    /// How often each limit has refused something since the shell last looked.
    pub refusals: Refusals,
}

/// An error that closed a channel or the connection; for the log and the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The number of the channel that the error occurred on; 0 for the connection itself.
    pub channel: u16,
    /// The AMQP name of the method that failed; empty when no method did.
    pub operation: &'static str,
    /// The error.
    pub error: AmqpError,
}

impl Output {
    /// Adds a command; reading stops until the shell has carried it out.
    pub(super) fn command(&mut self, channel: ChannelKey, request: RequestNo, command: Command) {
        self.effects.push(Effect::Command { channel, request, command });
        self.pause = true;
    }

    /// Writes a method of class connection.
    pub(super) fn write_connection(&mut self, method: connection::AMQPMethod) {
        write_method(&mut self.bytes, 0, AMQPClass::Connection(method));
    }
}
