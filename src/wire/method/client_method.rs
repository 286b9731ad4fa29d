//! The methods that a client may send: one variant for each.

use crate::wire::reader::Reader;
use crate::wire::table::Table;
use amq_protocol::protocol as amqp;

/// The identity of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MethodId {
    /// 10 connection, 20 channel, 30 access, 40 exchange, 50 queue, 60 basic, 85 confirm, 90 tx.
    pub class_id: u16,
    /// The method within its class.
    pub method_id: u16,
}

impl MethodId {
    /// Reads the identity off a method frame's payload; `None` when it is shorter than four bytes;
    /// [`read_frame`](crate::wire::frame::read_frame) refuses such frames.
    #[must_use]
    #[inline]
    pub fn of(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        Some(Self { class_id: reader.short()?, method_id: reader.short()? })
    }
}

/// A method and its field table: arguments, or a client's properties.
#[derive(Clone, Debug, PartialEq)]
pub struct WithTable<'a, M> {
    /// The other fields. The table among them is empty: amq-protocol's type keeps neither repeated keys nor the order
    /// of nested tables, and both matter when arguments are compared.
    pub method: M,
    /// The table as the client sent it.
    pub table: Table<'a>,
}

/// A method from a client.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the variants are AMQP's method names")]
pub enum ClientMethod<'a> {
    BasicPublish(BasicPublish<'a>),
    BasicAck(BasicAck),
    BasicNack(BasicNack),
    BasicReject(BasicReject),
    BasicQos(BasicQos),
    BasicConsume(WithTable<'a, amqp::basic::Consume>),
    BasicCancel(amqp::basic::Cancel),
    BasicGet(amqp::basic::Get),
    BasicRecover(amqp::basic::Recover),
    BasicRecoverAsync(amqp::basic::RecoverAsync),
    ConnectionStartOk(WithTable<'a, amqp::connection::StartOk>),
    ConnectionSecureOk(amqp::connection::SecureOk),
    ConnectionTuneOk(amqp::connection::TuneOk),
    ConnectionOpen(amqp::connection::Open),
    ConnectionClose(amqp::connection::Close),
    ConnectionCloseOk,
    ConnectionUpdateSecret(amqp::connection::UpdateSecret),
    ChannelOpen,
    ChannelFlow(amqp::channel::Flow),
    ChannelClose(amqp::channel::Close),
    ChannelCloseOk,
    AccessRequest(amqp::access::Request),
    ExchangeDeclare(WithTable<'a, amqp::exchange::Declare>),
    ExchangeDelete(amqp::exchange::Delete),
    ExchangeBind(WithTable<'a, amqp::exchange::Bind>),
    ExchangeUnbind(WithTable<'a, amqp::exchange::Unbind>),
    QueueDeclare(WithTable<'a, amqp::queue::Declare>),
    QueueBind(WithTable<'a, amqp::queue::Bind>),
    QueuePurge(amqp::queue::Purge),
    QueueDelete(amqp::queue::Delete),
    QueueUnbind(WithTable<'a, amqp::queue::Unbind>),
    ConfirmSelect(amqp::confirm::Select),
    TxSelect,
    TxCommit,
    TxRollback,
    /// A well-formed method that a broker does not accept from a client.
    ServerOnly(MethodId),
}

/// basic.publish; its content follows in frames of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicPublish<'a> {
    /// The exchange's name, any bytes; empty means the default exchange.
    pub exchange: &'a [u8],
    /// Any bytes.
    pub routing_key: &'a [u8],
    /// Return the message when no queue takes it.
    pub mandatory: bool,
    /// Not implemented by any current broker.
    pub immediate: bool,
}

/// basic.ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicAck {
    /// 0 with `multiple` means everything.
    pub delivery_tag: u64,
    /// All tags up to this one.
    pub multiple: bool,
}

/// basic.nack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicNack {
    /// 0 with `multiple` means everything.
    pub delivery_tag: u64,
    /// All tags up to this one.
    pub multiple: bool,
    /// Give it back to its queue.
    pub requeue: bool,
}

/// basic.reject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicReject {
    /// The delivery.
    pub delivery_tag: u64,
    /// Give it back to its queue.
    pub requeue: bool,
}

/// basic.qos; amq-protocol's type drops the prefetch size, which must be refused when it is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicQos {
    /// Bytes; anything but 0 is not implemented.
    pub prefetch_size: u32,
    /// Messages; 0 means no limit.
    pub prefetch_count: u16,
    /// For the whole channel instead of each new consumer.
    pub global: bool,
}
