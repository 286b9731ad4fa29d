//! Every method against amq-protocol's generator, and every way a payload can be wrong.

use amq_protocol::frame::{AMQPFrame, WriteContext, gen_frame};
use amq_protocol::protocol::{
    AMQPClass, access, basic as amqp_basic, channel as amqp_channel, confirm as amqp_confirm,
    connection as amqp_connection, exchange as amqp_exchange, queue as amqp_queue, tx as amqp_tx,
};
use amq_protocol::types::{AMQPValue, FieldTable};

use super::*;

/// The payload of the frame that amq-protocol makes of `class`.
fn payload(class: AMQPClass) -> Vec<u8> {
    let frame = AMQPFrame::Method(1, class);
    let context = WriteContext::from(Vec::new());
    let (bytes, _) = gen_frame(&frame)(context).expect("memory can be written").into_inner();
    bytes[7..bytes.len() - 1].to_vec()
}

fn arguments() -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("x-max-priority".into(), AMQPValue::LongInt(10));
    table.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("dlx".into()));
    table
}

/// [`arguments`] on the wire.
const ARGUMENTS: &[u8] = b"\x16x-dead-letter-exchangeS\0\0\0\x03dlx\x0Ex-max-priorityI\0\0\0\x0A";

macro_rules! method {
    ($class:ident, $module:ident, $method:ident $fields:tt) => {
        AMQPClass::$class($module::AMQPMethod::$method($module::$method $fields))
    };
}

/// A method that a client may send and amq-protocol parses for us, with the variant that it becomes.
macro_rules! same {
    ($class:ident, $module:ident, $method:ident, $variant:ident $fields:tt) => {
        (method!($class, $module, $method $fields), ClientMethod::$variant($module::$method $fields))
    };
}
/// Like `same`, for a method with the field table `$table`.
macro_rules! with_table {
    ($class:ident, $module:ident, $method:ident, $table:ident, $variant:ident $fields:tt) => {{
        let mut method = $module::$method $fields;
        let class = AMQPClass::$class($module::AMQPMethod::$method(method.clone()));
        let is_empty = method.$table.inner().is_empty();
        method.$table = FieldTable::default();
        let table = if is_empty { Table::default() } else { Table::from_checked(ARGUMENTS) };
        (class, ClientMethod::$variant(WithTable { method, table }))
    }};
}

/// Every method that a client may send and amq-protocol parses for us, with the variant that it becomes.
fn owned_methods() -> Vec<(AMQPClass, ClientMethod<'static>)> {
    [connection_methods(), channel_methods(), exchange_methods(), queue_methods(), basic_methods()].concat()
}

/// Class connection.
fn connection_methods() -> Vec<(AMQPClass, ClientMethod<'static>)> {
    vec![
        with_table!(
            Connection,
            amqp_connection,
            StartOk,
            client_properties,
            ConnectionStartOk {
                client_properties: arguments(),
                mechanism: "PLAIN".into(),
                response: vec![0, b'u', 0, 0xFF].into(),
                locale: "en_US".into(),
            }
        ),
        same!(Connection, amqp_connection, SecureOk, ConnectionSecureOk { response: "secret".into() }),
        same!(Connection, amqp_connection, TuneOk, ConnectionTuneOk { channel_max: 1, frame_max: 4096, heartbeat: 3 }),
        same!(Connection, amqp_connection, Open, ConnectionOpen { virtual_host: "/".into() }),
        same!(
            Connection,
            amqp_connection,
            Close,
            ConnectionClose { reply_code: 200, reply_text: "bye".into(), class_id: 1, method_id: 2 }
        ),
        (method!(Connection, amqp_connection, CloseOk {}), ClientMethod::ConnectionCloseOk),
        same!(
            Connection,
            amqp_connection,
            UpdateSecret,
            ConnectionUpdateSecret { new_secret: "new".into(), reason: "expired".into() }
        ),
    ]
}

/// Classes channel and access.
fn channel_methods() -> Vec<(AMQPClass, ClientMethod<'static>)> {
    vec![
        (method!(Channel, amqp_channel, Open {}), ClientMethod::ChannelOpen),
        same!(Channel, amqp_channel, Flow, ChannelFlow { active: true }),
        same!(
            Channel,
            amqp_channel,
            Close,
            ChannelClose { reply_code: 200, reply_text: "bye".into(), class_id: 1, method_id: 2 }
        ),
        (method!(Channel, amqp_channel, CloseOk {}), ClientMethod::ChannelCloseOk),
        same!(
            Access,
            access,
            Request,
            AccessRequest {
                realm: "/data".into(),
                exclusive: false,
                passive: true,
                active: false,
                write: true,
                read: true,
            }
        ),
    ]
}

/// Class exchange.
fn exchange_methods() -> Vec<(AMQPClass, ClientMethod<'static>)> {
    vec![
        with_table!(
            Exchange,
            amqp_exchange,
            Declare,
            arguments,
            ExchangeDeclare {
                exchange: "logs".into(),
                kind: "topic".into(),
                passive: false,
                durable: true,
                auto_delete: false,
                internal: true,
                nowait: false,
                arguments: arguments(),
            }
        ),
        same!(
            Exchange,
            amqp_exchange,
            Delete,
            ExchangeDelete { exchange: "logs".into(), if_unused: true, nowait: false }
        ),
        with_table!(
            Exchange,
            amqp_exchange,
            Bind,
            arguments,
            ExchangeBind {
                destination: "a".into(),
                source: "b".into(),
                routing_key: "c".into(),
                nowait: true,
                arguments: arguments(),
            }
        ),
        with_table!(
            Exchange,
            amqp_exchange,
            Unbind,
            arguments,
            ExchangeUnbind {
                destination: "a".into(),
                source: "b".into(),
                routing_key: "c".into(),
                nowait: false,
                arguments: FieldTable::default(),
            }
        ),
    ]
}

/// Class queue.
fn queue_methods() -> Vec<(AMQPClass, ClientMethod<'static>)> {
    vec![
        with_table!(
            Queue,
            amqp_queue,
            Declare,
            arguments,
            QueueDeclare {
                queue: "tasks".into(),
                passive: true,
                durable: false,
                exclusive: true,
                auto_delete: false,
                nowait: true,
                arguments: arguments(),
            }
        ),
        with_table!(
            Queue,
            amqp_queue,
            Bind,
            arguments,
            QueueBind {
                queue: "tasks".into(),
                exchange: "logs".into(),
                routing_key: "a.b".into(),
                nowait: true,
                arguments: arguments(),
            }
        ),
        same!(Queue, amqp_queue, Purge, QueuePurge { queue: "tasks".into(), nowait: true }),
        same!(
            Queue,
            amqp_queue,
            Delete,
            QueueDelete { queue: "tasks".into(), if_unused: false, if_empty: true, nowait: false }
        ),
        with_table!(
            Queue,
            amqp_queue,
            Unbind,
            arguments,
            QueueUnbind {
                queue: "tasks".into(),
                exchange: "logs".into(),
                routing_key: "a.b".into(),
                arguments: arguments(),
            }
        ),
    ]
}

/// Classes basic, confirm and tx.
fn basic_methods() -> Vec<(AMQPClass, ClientMethod<'static>)> {
    vec![
        with_table!(
            Basic,
            amqp_basic,
            Consume,
            arguments,
            BasicConsume {
                queue: "tasks".into(),
                consumer_tag: "tag".into(),
                no_local: false,
                no_ack: true,
                exclusive: false,
                nowait: true,
                arguments: arguments(),
            }
        ),
        same!(Basic, amqp_basic, Cancel, BasicCancel { consumer_tag: "tag".into(), nowait: true }),
        same!(Basic, amqp_basic, Get, BasicGet { queue: "tasks".into(), no_ack: true }),
        same!(Basic, amqp_basic, RecoverAsync, BasicRecoverAsync { requeue: true }),
        same!(Basic, amqp_basic, Recover, BasicRecover { requeue: true }),
        same!(Confirm, amqp_confirm, Select, ConfirmSelect { nowait: true }),
        (method!(Tx, amqp_tx, Select {}), ClientMethod::TxSelect),
        (method!(Tx, amqp_tx, Commit {}), ClientMethod::TxCommit),
        (method!(Tx, amqp_tx, Rollback {}), ClientMethod::TxRollback),
    ]
}

/// Every method that we parse ourselves.
fn borrowed_methods() -> Vec<(AMQPClass, ClientMethod<'static>)> {
    vec![
        (
            method!(
                Basic,
                amqp_basic,
                Publish { exchange: "logs".into(), routing_key: "a.b".into(), mandatory: true, immediate: false }
            ),
            ClientMethod::BasicPublish(BasicPublish {
                exchange: b"logs",
                routing_key: b"a.b",
                mandatory: true,
                immediate: false,
            }),
        ),
        (
            method!(Basic, amqp_basic, Ack { delivery_tag: 1 << 40, multiple: true }),
            ClientMethod::BasicAck(BasicAck { delivery_tag: 1 << 40, multiple: true }),
        ),
        (
            method!(Basic, amqp_basic, Reject { delivery_tag: 7, requeue: true }),
            ClientMethod::BasicReject(BasicReject { delivery_tag: 7, requeue: true }),
        ),
        (
            method!(Basic, amqp_basic, Nack { delivery_tag: 7, multiple: false, requeue: true }),
            ClientMethod::BasicNack(BasicNack { delivery_tag: 7, multiple: false, requeue: true }),
        ),
        (
            method!(Basic, amqp_basic, Qos { prefetch_count: 500, global: true }),
            ClientMethod::BasicQos(BasicQos { prefetch_size: 0, prefetch_count: 500, global: true }),
        ),
    ]
}

/// Every method that a broker does not accept from a client.
fn server_methods() -> Vec<AMQPClass> {
    let mut methods = vec![
        method!(
            Connection,
            amqp_connection,
            Start {
                version_major: 0,
                version_minor: 9,
                server_properties: arguments(),
                mechanisms: "PLAIN".into(),
                locales: "en_US".into(),
            }
        ),
        method!(Connection, amqp_connection, Secure { challenge: "?".into() }),
        method!(Connection, amqp_connection, Tune { channel_max: 1, frame_max: 2, heartbeat: 3 }),
        method!(Connection, amqp_connection, OpenOk {}),
        method!(Connection, amqp_connection, Blocked { reason: "memory".into() }),
        method!(Connection, amqp_connection, Unblocked {}),
        method!(Connection, amqp_connection, UpdateSecretOk {}),
        method!(Channel, amqp_channel, OpenOk {}),
        method!(Channel, amqp_channel, FlowOk { active: true }),
        method!(Access, access, RequestOk {}),
        method!(Exchange, amqp_exchange, DeclareOk {}),
        method!(Exchange, amqp_exchange, DeleteOk {}),
        method!(Exchange, amqp_exchange, BindOk {}),
        method!(Exchange, amqp_exchange, UnbindOk {}),
    ];
    methods.extend(later_server_methods());
    methods
}

/// Those of classes queue, basic, confirm and tx.
fn later_server_methods() -> Vec<AMQPClass> {
    vec![
        method!(Queue, amqp_queue, DeclareOk { queue: "q".into(), message_count: 1, consumer_count: 2 }),
        method!(Queue, amqp_queue, BindOk {}),
        method!(Queue, amqp_queue, PurgeOk { message_count: 1 }),
        method!(Queue, amqp_queue, DeleteOk { message_count: 1 }),
        method!(Queue, amqp_queue, UnbindOk {}),
        method!(Basic, amqp_basic, QosOk {}),
        method!(Basic, amqp_basic, ConsumeOk { consumer_tag: "tag".into() }),
        method!(Basic, amqp_basic, CancelOk { consumer_tag: "tag".into() }),
        method!(
            Basic,
            amqp_basic,
            Return { reply_code: 312, reply_text: "NO_ROUTE".into(), exchange: "e".into(), routing_key: "k".into() }
        ),
        method!(
            Basic,
            amqp_basic,
            Deliver {
                consumer_tag: "tag".into(),
                delivery_tag: 1,
                redelivered: true,
                exchange: "e".into(),
                routing_key: "k".into(),
            }
        ),
        method!(
            Basic,
            amqp_basic,
            GetOk {
                delivery_tag: 1,
                redelivered: true,
                exchange: "e".into(),
                routing_key: "k".into(),
                message_count: 9,
            }
        ),
        method!(Basic, amqp_basic, GetEmpty {}),
        method!(Basic, amqp_basic, RecoverOk {}),
        method!(Confirm, amqp_confirm, SelectOk {}),
        method!(Tx, amqp_tx, SelectOk {}),
        method!(Tx, amqp_tx, CommitOk {}),
        method!(Tx, amqp_tx, RollbackOk {}),
    ]
}

#[test]
fn every_method_of_a_client_is_read_as_amq_protocol_wrote_it() {
    for (class, expected) in owned_methods().into_iter().chain(borrowed_methods()) {
        assert_eq!(ClientMethod::parse(&payload(class)), Ok(expected));
    }
}

#[test]
fn methods_that_only_servers_send_are_known_by_their_numbers() {
    for class in server_methods() {
        let id = MethodId { class_id: class.get_amqp_class_id(), method_id: class.get_amqp_method_id() };
        let bytes = payload(class);
        assert_eq!(MethodId::of(&bytes), Some(id));
        assert_eq!(ClientMethod::parse(&bytes), Ok(ClientMethod::ServerOnly(id)));
    }
}

#[test]
fn all_methods_of_the_protocol_are_covered_by_these_tests() {
    assert_eq!(owned_methods().len() + borrowed_methods().len() + server_methods().len(), 66);
}

#[test]
fn a_byte_too_few_or_too_many_is_malformed_in_every_method() {
    let all = owned_methods().into_iter().chain(borrowed_methods()).map(|(class, _)| class).chain(server_methods());
    for class in all {
        let id = MethodId { class_id: class.get_amqp_class_id(), method_id: class.get_amqp_method_id() };
        let bytes = payload(class);
        let longer = [&bytes[..], &[0]].concat();
        let shorter: Vec<&[u8]> = (4..bytes.len()).map(|len| &bytes[..len]).collect();
        for wrong in shorter.into_iter().chain([&longer[..]]) {
            let error = ClientMethod::parse(wrong).expect_err("its length is wrong");
            assert!(matches!(&error, MethodError::Malformed { method, .. } if *method == id), "{error:?}");
            assert_eq!(error.method(), Some(id));
        }
    }
}

#[test]
fn the_error_of_a_malformed_method_prints_its_fields() {
    let error = ClientMethod::parse(&[0, 60, 0, 80, 1, 2, 255]).expect_err("an ack has nine bytes");
    assert_eq!(error.to_string(), "cannot decode <<1,2,255>>");
    let error = ClientMethod::parse(&[0, 50, 0, 10]).expect_err("a declare has fields");
    assert_eq!(error.to_string(), "cannot decode <<>>");
    let huge = [&[0, 60, 0, 80][..], &[b'x'; 100_000]].concat();
    let text = ClientMethod::parse(&huge).expect_err("an ack has nine bytes").to_string();
    assert!((256..2000).contains(&text.len()), "{} bytes of text", text.len());
}

#[test]
fn names_that_are_not_utf8_are_refused_except_in_publish() {
    let mut get = payload(method!(Basic, amqp_basic, Get { queue: "tasks".into(), no_ack: true }));
    get[7] = 0xFF;
    let id = MethodId { class_id: 60, method_id: 70 };
    let error = ClientMethod::parse(&get).expect_err("the queue's name is not UTF-8");
    assert_eq!(error, MethodError::NotUtf8(id));
    assert_eq!(error.method(), Some(id));
    assert_eq!(error.to_string(), "Malformed UTF-8 in shortstr");

    let publish = [0, 60, 0, 40, 0, 0, 1, 0xFF, 1, 0xFE, 3];
    let Ok(ClientMethod::BasicPublish(publish)) = ClientMethod::parse(&publish) else { panic!("any bytes will do") };
    assert_eq!((publish.exchange, publish.routing_key), (&[0xFF][..], &[0xFE][..]));
    assert!(publish.mandatory && publish.immediate);
}

#[test]
fn a_wrong_length_is_reported_before_a_text_that_is_not_utf8() {
    let error = ClientMethod::parse(&[0, 60, 0, 70, 0, 0, 1, 0xFF]).expect_err("the bits are missing");
    assert_eq!(error.to_string(), "cannot decode <<0,0,1,255>>");
}

#[test]
fn prefetch_size_is_kept() {
    let qos = ClientMethod::parse(&[0, 60, 0, 10, 0, 0, 1, 0, 0, 5, 0]);
    let expected = BasicQos { prefetch_size: 256, prefetch_count: 5, global: false };
    assert_eq!(qos, Ok(ClientMethod::BasicQos(expected)));
}

#[test]
fn numbers_that_no_method_has_are_unknown() {
    for (class_id, method_id) in [(60, 61), (40, 41), (11, 10), (0, 0), (65535, 65535)] {
        let id = MethodId { class_id, method_id };
        let bytes = [class_id.to_be_bytes(), method_id.to_be_bytes()].concat();
        let error = ClientMethod::parse(&bytes).expect_err("there is no such method");
        assert_eq!(error, MethodError::Unknown(id));
        assert_eq!(error.method(), Some(id));
        assert_eq!(error.to_string(), format!("unknown method {class_id}.{method_id}"));
    }
}

#[test]
fn a_payload_that_names_no_method_is_refused() {
    let error = ClientMethod::parse(&[0, 60, 0]).expect_err("four bytes are needed");
    assert_eq!(error, MethodError::NoMethod);
    assert_eq!(error.method(), None);
    assert_eq!(error.to_string(), "unknown_frame");
    assert_eq!(MethodId::of(&[0, 60, 0]), None);
}

#[test]
fn tables_keep_the_bytes_that_came() {
    for table in [&b""[..], b"\x01kI\x00\x00\x00\x01\x01aV\x01kI\x00\x00\x00\x02", b"\x01\xFFV"] {
        let bytes = declare_with(table);
        let Ok(ClientMethod::QueueDeclare(declare)) = ClientMethod::parse(&bytes) else {
            panic!("repeated keys and keys of any bytes are accepted")
        };
        assert_eq!(declare.method.queue.as_str(), "q");
        assert_eq!(declare.table.bytes(), table);

        // With fields behind the table.
        let length = u32::try_from(table.len()).unwrap().to_be_bytes();
        let bytes = [&[0, 10, 0, 11][..], &length, table, b"\x05PLAIN\0\0\0\x01x\x02en"].concat();
        let Ok(ClientMethod::ConnectionStartOk(start_ok)) = ClientMethod::parse(&bytes) else {
            panic!("repeated keys and keys of any bytes are accepted")
        };
        assert_eq!(start_ok.table.bytes(), table);
        assert_eq!((start_ok.method.mechanism.as_str(), start_ok.method.locale.as_str()), ("PLAIN", "en"));
    }
}

/// queue.declare with these bytes as its arguments.
fn declare_with(arguments: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 50, 0, 10, 0, 0, 1, b'q', 0];
    bytes.extend_from_slice(&u32::try_from(arguments.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(arguments);
    bytes
}

#[test]
fn each_fault_of_an_argument_table_has_its_own_error() {
    let id = MethodId { class_id: 50, method_id: 10 };
    for (arguments, error) in [
        (&b"\x01kU\x00\x00"[..], TableError::UnknownTag(b'U')),
        (b"\x01kI\x00\x00", TableError::Truncated),
        (b"\x01kd\x7F\xF8\0\0\0\0\0\0", TableError::NotFinite),
    ] {
        let refused = ClientMethod::parse(&declare_with(arguments)).expect_err("the table is malformed");
        assert_eq!(refused, MethodError::Table { method: id, error });
        assert_eq!(refused.method(), Some(id));
        assert_eq!(refused.to_string(), error.to_string());
    }
}

#[test]
fn a_bomb_of_nested_arrays_is_refused_on_a_small_stack() {
    let levels = 20_000u32;
    let mut bomb = vec![1, b'k'];
    for level in (0..levels).rev() {
        bomb.push(b'A');
        bomb.extend_from_slice(&(level * 5).to_be_bytes());
    }
    assert!(bomb.len() > 100_000);
    let parse = move || ClientMethod::parse(&declare_with(&bomb)).expect_err("it nests too deep");
    let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(parse).expect("a thread starts");
    let error = thread.join().expect("the stack sufficed");
    assert!(matches!(error, MethodError::Table { error: TableError::TooDeep, .. }), "{error:?}");
}
