//! The methods and properties of AMQP 0-9-1 as a table: class, method, name, fields in wire order.
//!
//! It is written down a second time on purpose: the broker has its own codec, this one judges it.
//! How values travel is in [`crate::value`]; how frames do is in [`crate::frame`].

use std::sync::OnceLock;

/// The type of a method field or property on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One bit; consecutive bits share an octet, least significant first.
    Bit,
    /// 8 bits, unsigned.
    Octet,
    /// 16 bits, unsigned.
    Short,
    /// 32 bits, unsigned.
    Long,
    /// 64 bits, unsigned.
    LongLong,
    /// At most 255 bytes after a length octet.
    ShortStr,
    /// Bytes after a 32-bit length.
    LongStr,
    /// A field table after a 32-bit byte length.
    Table,
}

/// A named field of a method, or a property of a content header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The specification's name, such as `routing-key`.
    pub name: &'static str,
    /// How it travels.
    pub kind: Kind,
}

/// One method of the protocol.
#[derive(Debug, PartialEq, Eq)]
pub struct Method {
    /// Class id.
    pub class: u16,
    /// Method id within the class.
    pub id: u16,
    /// `class.method`, as the specification spells it.
    pub name: &'static str,
    /// Whether a content header and body follow.
    pub content: bool,
    /// Fields in wire order.
    pub fields: Vec<Field>,
}

const CONTENT: bool = true;
const PLAIN: bool = false;

/// (class, method, name, content follows, fields as `name:kind`)
type Row = (u16, u16, &'static str, bool, &'static str);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    (10, 10, "connection.start", PLAIN, "version-major:octet version-minor:octet server-properties:table mechanisms:longstr locales:longstr"),
    (10, 11, "connection.start-ok", PLAIN, "client-properties:table mechanism:shortstr response:longstr locale:shortstr"),
    (10, 20, "connection.secure", PLAIN, "challenge:longstr"),
    (10, 21, "connection.secure-ok", PLAIN, "response:longstr"),
    (10, 30, "connection.tune", PLAIN, "channel-max:short frame-max:long heartbeat:short"),
    (10, 31, "connection.tune-ok", PLAIN, "channel-max:short frame-max:long heartbeat:short"),
    (10, 40, "connection.open", PLAIN, "virtual-host:shortstr reserved-1:shortstr reserved-2:bit"),
    (10, 41, "connection.open-ok", PLAIN, "reserved-1:shortstr"),
    (10, 50, "connection.close", PLAIN, "reply-code:short reply-text:shortstr class-id:short method-id:short"),
    (10, 51, "connection.close-ok", PLAIN, ""),
    (10, 60, "connection.blocked", PLAIN, "reason:shortstr"),
    (10, 61, "connection.unblocked", PLAIN, ""),
    (10, 70, "connection.update-secret", PLAIN, "new-secret:longstr reason:shortstr"),
    (10, 71, "connection.update-secret-ok", PLAIN, ""),
    (20, 10, "channel.open", PLAIN, "reserved-1:shortstr"),
    (20, 11, "channel.open-ok", PLAIN, "reserved-1:longstr"),
    (20, 20, "channel.flow", PLAIN, "active:bit"),
    (20, 21, "channel.flow-ok", PLAIN, "active:bit"),
    (20, 40, "channel.close", PLAIN, "reply-code:short reply-text:shortstr class-id:short method-id:short"),
    (20, 41, "channel.close-ok", PLAIN, ""),
    (30, 10, "access.request", PLAIN, "realm:shortstr exclusive:bit passive:bit active:bit write:bit read:bit"),
    (30, 11, "access.request-ok", PLAIN, "ticket:short"),
    (40, 10, "exchange.declare", PLAIN, "ticket:short exchange:shortstr type:shortstr passive:bit durable:bit auto-delete:bit internal:bit nowait:bit arguments:table"),
    (40, 11, "exchange.declare-ok", PLAIN, ""),
    (40, 20, "exchange.delete", PLAIN, "ticket:short exchange:shortstr if-unused:bit nowait:bit"),
    (40, 21, "exchange.delete-ok", PLAIN, ""),
    (40, 30, "exchange.bind", PLAIN, "ticket:short destination:shortstr source:shortstr routing-key:shortstr nowait:bit arguments:table"),
    (40, 31, "exchange.bind-ok", PLAIN, ""),
    (40, 40, "exchange.unbind", PLAIN, "ticket:short destination:shortstr source:shortstr routing-key:shortstr nowait:bit arguments:table"),
    (40, 51, "exchange.unbind-ok", PLAIN, ""),
    (50, 10, "queue.declare", PLAIN, "ticket:short queue:shortstr passive:bit durable:bit exclusive:bit auto-delete:bit nowait:bit arguments:table"),
    (50, 11, "queue.declare-ok", PLAIN, "queue:shortstr message-count:long consumer-count:long"),
    (50, 20, "queue.bind", PLAIN, "ticket:short queue:shortstr exchange:shortstr routing-key:shortstr nowait:bit arguments:table"),
    (50, 21, "queue.bind-ok", PLAIN, ""),
    (50, 30, "queue.purge", PLAIN, "ticket:short queue:shortstr nowait:bit"),
    (50, 31, "queue.purge-ok", PLAIN, "message-count:long"),
    (50, 40, "queue.delete", PLAIN, "ticket:short queue:shortstr if-unused:bit if-empty:bit nowait:bit"),
    (50, 41, "queue.delete-ok", PLAIN, "message-count:long"),
    (50, 50, "queue.unbind", PLAIN, "ticket:short queue:shortstr exchange:shortstr routing-key:shortstr arguments:table"),
    (50, 51, "queue.unbind-ok", PLAIN, ""),
    (60, 10, "basic.qos", PLAIN, "prefetch-size:long prefetch-count:short global:bit"),
    (60, 11, "basic.qos-ok", PLAIN, ""),
    (60, 20, "basic.consume", PLAIN, "ticket:short queue:shortstr consumer-tag:shortstr no-local:bit no-ack:bit exclusive:bit nowait:bit arguments:table"),
    (60, 21, "basic.consume-ok", PLAIN, "consumer-tag:shortstr"),
    (60, 30, "basic.cancel", PLAIN, "consumer-tag:shortstr nowait:bit"),
    (60, 31, "basic.cancel-ok", PLAIN, "consumer-tag:shortstr"),
    (60, 40, "basic.publish", CONTENT, "ticket:short exchange:shortstr routing-key:shortstr mandatory:bit immediate:bit"),
    (60, 50, "basic.return", CONTENT, "reply-code:short reply-text:shortstr exchange:shortstr routing-key:shortstr"),
    (60, 60, "basic.deliver", CONTENT, "consumer-tag:shortstr delivery-tag:longlong redelivered:bit exchange:shortstr routing-key:shortstr"),
    (60, 70, "basic.get", PLAIN, "ticket:short queue:shortstr no-ack:bit"),
    (60, 71, "basic.get-ok", CONTENT, "delivery-tag:longlong redelivered:bit exchange:shortstr routing-key:shortstr message-count:long"),
    (60, 72, "basic.get-empty", PLAIN, "reserved-1:shortstr"),
    (60, 80, "basic.ack", PLAIN, "delivery-tag:longlong multiple:bit"),
    (60, 90, "basic.reject", PLAIN, "delivery-tag:longlong requeue:bit"),
    (60, 100, "basic.recover-async", PLAIN, "requeue:bit"),
    (60, 110, "basic.recover", PLAIN, "requeue:bit"),
    (60, 111, "basic.recover-ok", PLAIN, ""),
    (60, 120, "basic.nack", PLAIN, "delivery-tag:longlong multiple:bit requeue:bit"),
    (85, 10, "confirm.select", PLAIN, "nowait:bit"),
    (85, 11, "confirm.select-ok", PLAIN, ""),
    (90, 10, "tx.select", PLAIN, ""),
    (90, 11, "tx.select-ok", PLAIN, ""),
    (90, 20, "tx.commit", PLAIN, ""),
    (90, 21, "tx.commit-ok", PLAIN, ""),
    (90, 30, "tx.rollback", PLAIN, ""),
    (90, 31, "tx.rollback-ok", PLAIN, ""),
];

/// The properties of class basic; the first has flag bit 15, each next one bit less.
const PROPERTIES: &str = "content-type:shortstr content-encoding:shortstr headers:table delivery-mode:octet \
    priority:octet correlation-id:shortstr reply-to:shortstr expiration:shortstr message-id:shortstr \
    timestamp:longlong type:shortstr user-id:shortstr app-id:shortstr cluster-id:shortstr";

fn fields(text: &'static str) -> Vec<Field> {
    text.split_whitespace()
        .map(|field| {
            let (name, kind) = field.split_once(':').expect("the table writes name:kind");
            let kind = match kind {
                "bit" => Kind::Bit,
                "octet" => Kind::Octet,
                "short" => Kind::Short,
                "long" => Kind::Long,
                "longlong" => Kind::LongLong,
                "shortstr" => Kind::ShortStr,
                "longstr" => Kind::LongStr,
                "table" => Kind::Table,
                other => unreachable!("the table names no kind {other}"),
            };
            Field { name, kind }
        })
        .collect()
}

/// All methods.
pub fn methods() -> &'static [Method] {
    static METHODS: OnceLock<Vec<Method>> = OnceLock::new();
    METHODS.get_or_init(|| {
        let method =
            |&(class, id, name, content, text): &Row| Method { class, id, name, content, fields: fields(text) };
        ROWS.iter().map(method).collect()
    })
}

/// The method of that name (`queue.declare`).
pub fn by_name(name: &str) -> Option<&'static Method> {
    methods().iter().find(|method| method.name == name)
}

/// The method with these ids.
pub fn by_id(class: u16, id: u16) -> Option<&'static Method> {
    methods().iter().find(|method| (method.class, method.id) == (class, id))
}

/// The content properties in order of their flags, the first at bit 15.
pub fn properties() -> &'static [Field] {
    static FIELDS: OnceLock<Vec<Field>> = OnceLock::new();
    FIELDS.get_or_init(|| fields(PROPERTIES))
}
