//! SQL functions that decode properties, headers and arguments to JSON.

use crate::model::Message;
use crate::wire::properties::Properties;
use crate::wire::reader::Reader;
use crate::wire::table::{Table, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Result};
use serde_json::{Map, Value as Json, json};

/// The function for encoded tables.
const TABLE: &str = "amqp_table";

/// The views whose `arguments` are encoded tables.
const WITH_ARGUMENTS: [&str; 3] = ["v_queues", "v_exchanges", "v_bindings"];

/// Makes the views show `arguments` as JSON: for this connection, temporary views of the same names and columns hide
/// those of the file. If the file has no views, none are created.
pub(super) fn decode_arguments(connection: &Connection) -> Result<()> {
    for view in WITH_ARGUMENTS {
        let mut columns = connection.prepare("SELECT name FROM pragma_table_info(?1, 'main')")?;
        let columns = columns.query_map([view], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>>>()?;
        if columns.is_empty() {
            continue;
        }
        let decoded = columns.iter().map(|column| match column.as_str() {
            "arguments" => format!("{TABLE}(arguments) AS arguments"),
            other => other.to_owned(),
        });
        let decoded = decoded.collect::<Vec<_>>().join(", ");
        connection.execute_batch(&format!("CREATE TEMP VIEW {view} AS SELECT {decoded} FROM main.{view}"))?;
    }
    Ok(())
}

/// Adds `amqp_properties(head)`, `amqp_headers(head)` and `amqp_table(arguments)`. NULL stays NULL; the headers of a
/// message without headers are NULL.
pub(super) fn add_to(connection: &Connection) -> Result<()> {
    add(connection, "amqp_properties", |head| {
        let message = message_of(head)?;
        Some(Some(properties(&message.properties())))
    })?;
    add(connection, "amqp_headers", |head| {
        let message = message_of(head)?;
        Some(message.properties().headers().map(|headers| table(&headers)))
    })?;
    add(connection, TABLE, |arguments| {
        let bytes = Reader::new(arguments).longstr()?;
        Table::check_stored(bytes).ok().map(|(arguments, _)| Some(table(&arguments)))
    })
}

/// Adds a function. `make` returns `None` if it cannot read the bytes, and `Some(None)` for NULL.
fn add(
    connection: &Connection,
    name: &'static str,
    make: impl Fn(&[u8]) -> Option<Option<Json>> + Send + 'static,
) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function(name, 1, flags, move |context: &Context<'_>| {
        let bytes = match context.get_raw(0) {
            ValueRef::Null => return Ok(None),
            ValueRef::Blob(bytes) => bytes,
            // The temporary views decode arguments already.
            ValueRef::Text(json) if name == TABLE => return Ok(Some(String::from_utf8_lossy(json).into_owned())),
            _ => return Err(Error::UserFunctionError(format!("{name} expects a blob").into())),
        };
        let unreadable = || Error::UserFunctionError(format!("{name}: these bytes cannot be read").into());
        make(bytes).map(|json| json.map(|json| json.to_string())).ok_or_else(unreadable)
    })
}

/// A stored message, without its body if that is stored separately.
fn message_of(head: &[u8]) -> Option<Message> {
    Message::from_stored(head, None)
}

fn properties(properties: &Properties<'_>) -> Json {
    let texts = [
        ("content_type", properties.content_type()),
        ("content_encoding", properties.content_encoding()),
        ("correlation_id", properties.correlation_id()),
        ("reply_to", properties.reply_to()),
        ("expiration", properties.expiration()),
        ("message_id", properties.message_id()),
        ("type", properties.kind()),
        ("user_id", properties.user_id()),
        ("app_id", properties.app_id()),
        ("cluster_id", properties.cluster_id()),
    ];
    let others = [
        ("headers", properties.headers().map(|headers| table(&headers))),
        ("delivery_mode", properties.delivery_mode().map(Json::from)),
        ("priority", properties.priority().map(Json::from)),
        ("timestamp", properties.timestamp().map(Json::from)),
    ];
    let texts = texts.into_iter().filter_map(|(name, bytes)| Some((name.to_owned(), text(bytes?))));
    Json::Object(texts.chain(others.into_iter().filter_map(|(name, json)| Some((name.to_owned(), json?)))).collect())
}

fn table(table: &Table<'_>) -> Json {
    let entries = table.iter().map(|entry| (String::from_utf8_lossy(entry.key).into_owned(), value(&entry.value)));
    Json::Object(entries.collect::<Map<_, _>>())
}

/// Numbers become numbers and text becomes text. A value that JSON cannot express becomes an object or a text that
/// describes it.
fn value(value: &Value<'_>) -> Json {
    match *value {
        Value::Bool(it) => it.into(),
        Value::I8(it) => it.into(),
        Value::U8(it) => it.into(),
        Value::I16(it) => it.into(),
        Value::U16(it) => it.into(),
        Value::I32(it) => it.into(),
        Value::U32(it) => it.into(),
        Value::I64(it) => it.into(),
        Value::F32(it) => float(it.into()),
        Value::F64(it) => float(it),
        Value::Decimal { scale, value } => decimal(scale, value).into(),
        Value::LongString(bytes) => text(bytes),
        Value::Array(array) => array.iter().map(|item| self::value(&item)).collect(),
        Value::Timestamp(seconds) => seconds.into(),
        Value::Table(entries) => table(&entries),
        Value::Void => Json::Null,
        Value::ByteArray(bytes) => encoded(bytes),
    }
}

/// A float as JSON; as text if it is infinite or NaN, which JSON lacks.
fn float(number: f64) -> Json {
    serde_json::Number::from_f64(number).map_or_else(|| number.to_string().into(), Json::Number)
}

/// A decimal with all its digits, as text: a JSON number could lose some.
fn decimal(scale: u8, value: u32) -> String {
    let scale = usize::from(scale);
    let digits = format!("{value:0>width$}", width = scale + 1);
    let (whole, rest) = digits.split_at(digits.len() - scale);
    if rest.is_empty() { whole.to_owned() } else { format!("{whole}.{rest}") }
}

fn text(bytes: &[u8]) -> Json {
    str::from_utf8(bytes).map_or_else(|_| encoded(bytes), Json::from)
}

fn encoded(bytes: &[u8]) -> Json {
    json!({ "base64": STANDARD.encode(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::properties::{PropertiesWriter, Property};
    use crate::wire::table::write_table;

    fn call(function: &str, blob: &[u8]) -> Result<Option<String>> {
        let connection = Connection::open_in_memory().unwrap();
        add_to(&connection).unwrap();
        connection.query_row(&format!("SELECT {function}(?1)"), [blob], |row| row.get(0))
    }

    fn json_of(function: &str, blob: &[u8]) -> Json {
        serde_json::from_str(&call(function, blob).unwrap().expect("not NULL")).unwrap()
    }

    /// An encoded table with a value of every type, preceded by its length.
    fn every_type() -> Vec<u8> {
        let mut bytes = Vec::new();
        write_table(&mut bytes, |table| {
            let values = [
                ("t", Value::Bool(true)),
                ("b", Value::I8(-128)),
                ("B", Value::U8(255)),
                ("s", Value::I16(-32_768)),
                ("u", Value::U16(65_535)),
                ("I", Value::I32(i32::MIN)),
                ("i", Value::U32(u32::MAX)),
                ("l", Value::I64(i64::MIN)),
                ("f", Value::F32(0.5)),
                ("d", Value::F64(-1e300)),
                ("D", Value::Decimal { scale: 3, value: 12 }),
                ("S", Value::LongString("größer".as_bytes())),
                ("S!", Value::LongString(b"\xff")),
                ("T", Value::Timestamp(1_700_000_000)),
                ("V", Value::Void),
                ("x", Value::ByteArray(b"abc")),
            ];
            values.into_iter().for_each(|(key, value)| table.value(key.as_bytes(), value));
            table.array(b"A", |array| {
                array.value(Value::U8(1));
                array.table(|table| table.value(b"in", Value::Void));
            });
            table.table(b"F", |table| table.value(b"deep", Value::LongString(b"er")));
        });
        bytes
    }

    fn every_type_as_json() -> Json {
        json!({
            "t": true, "b": -128, "B": 255, "s": -32768, "u": 65535, "I": i32::MIN, "i": u32::MAX, "l": i64::MIN,
            "f": 0.5, "d": -1e300, "D": "0.012", "S": "größer", "S!": { "base64": "/w==" },
            "T": 1_700_000_000, "V": null, "x": { "base64": "YWJj" }, "A": [1, { "in": null }], "F": { "deep": "er" },
        })
    }

    fn head(properties: &PropertiesWriter<'_>) -> Vec<u8> {
        let properties = properties.to_vec();
        Message::new(b"x", b"y", &Properties::check(&properties).unwrap(), b"body").head_bytes().to_vec()
    }

    #[test]
    fn a_table_of_every_type_becomes_json() {
        assert_eq!(json_of("amqp_table", &every_type()), every_type_as_json());
        let bytes = every_type();
        let head = head(&PropertiesWriter::new().headers(Table::from_checked(&bytes[4..])));
        assert_eq!(json_of("amqp_headers", &head), every_type_as_json());
        assert_eq!(json_of("amqp_properties", &head), json!({ "headers": every_type_as_json() }));
    }

    #[test]
    fn floats_that_json_cannot_write_are_text() {
        assert_eq!(float(f64::NAN), "NaN");
        assert_eq!(float(f64::NEG_INFINITY), "-inf");
    }

    #[test]
    fn all_properties_come_under_their_names() {
        let texts = [
            (Property::ContentType, "content_type"),
            (Property::ContentEncoding, "content_encoding"),
            (Property::CorrelationId, "correlation_id"),
            (Property::ReplyTo, "reply_to"),
            (Property::MessageId, "message_id"),
            (Property::Type, "type"),
            (Property::UserId, "user_id"),
            (Property::AppId, "app_id"),
            (Property::ClusterId, "cluster_id"),
        ];
        let mut writer = PropertiesWriter::new().delivery_mode(2).priority(7).timestamp(99);
        writer = writer.shortstr(Property::Expiration, b"1500");
        let mut expected = json!({ "delivery_mode": 2, "priority": 7, "timestamp": 99, "expiration": "1500" });
        for (property, name) in texts {
            writer = writer.shortstr(property, name.as_bytes());
            expected[name] = name.into();
        }
        assert_eq!(json_of("amqp_properties", &head(&writer)), expected);
    }

    #[test]
    fn missing_headers_are_null_and_unreadable_bytes_are_an_error() {
        let bare = head(&PropertiesWriter::new());
        assert_eq!(call("amqp_headers", &bare).unwrap(), None);
        assert_eq!(json_of("amqp_properties", &bare), json!({}));
        assert_eq!(json_of("amqp_table", &[0; 4]), json!({}));
        for function in ["amqp_properties", "amqp_headers", TABLE] {
            let error = call(function, b"\x01nonsense").unwrap_err().to_string();
            assert!(error.contains(function), "{error}");
            let connection = Connection::open_in_memory().unwrap();
            add_to(&connection).unwrap();
            let of_null = format!("SELECT {function}(NULL) IS NULL");
            assert!(connection.query_row(&of_null, [], |row| row.get::<_, bool>(0)).unwrap());
            let of_text =
                connection.query_row(&format!("SELECT {function}('{{}}')"), [], |row| row.get::<_, String>(0));
            assert_eq!(of_text.ok(), (function == TABLE).then(|| "{}".to_owned()), "JSON stays as it is");
        }
    }

    #[test]
    fn decimals_keep_their_digits() {
        for (scale, value, expected) in [(0, 7, "7"), (2, 1234, "12.34"), (2, 5, "0.05"), (4, 0, "0.0000")] {
            assert_eq!(decimal(scale, value), expected);
        }
    }
}
