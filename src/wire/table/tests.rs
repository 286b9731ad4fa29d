use amq_protocol::types::generation::gen_field_table;
use amq_protocol::types::parsing::parse_field_table;
use amq_protocol::types::{AMQPValue, DecimalValue, FieldTable};

use super::*;

/// One entry of every type, keys in order.
fn every_type(out: &mut TableWriter<'_>) {
    out.array(b"A", |array| {
        array.value(Value::I32(-2));
        array.table(|table| table.value(b"deep", Value::Void));
    });
    out.value(b"A-", Value::Array(Array::from_checked(b"")));
    out.value(b"B", Value::U8(200));
    out.value(b"D", Value::Decimal { scale: 2, value: 314 });
    out.table(b"F", |table| {
        table.value(b"z", Value::Bool(false));
        table.value(b"a", Value::LongString(b"after z"));
    });
    out.value(b"I", Value::I32(-70_000));
    out.value(b"S", Value::LongString(&[0xFF, 0, b'x']));
    out.value(b"T", Value::Timestamp(1_700_000_000));
    out.value(b"V", Value::Void);
    out.value(b"b", Value::I8(-5));
    out.value(b"d", Value::F64(2.5));
    out.value(b"f", Value::F32(-1.5));
    out.value(b"i", Value::U32(4_000_000_000));
    out.value(b"l", Value::I64(i64::MIN));
    out.value(b"s", Value::I16(-300));
    out.value(b"t", Value::Bool(true));
    out.value(b"u", Value::U16(60_000));
    out.value(b"x", Value::ByteArray(b"bytes"));
}

fn entries(write: impl FnOnce(&mut TableWriter<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut TableWriter::new(&mut bytes));
    bytes
}

#[test]
fn amq_protocol_reads_every_type_that_is_written() {
    let mut bytes = Vec::new();
    write_table(&mut bytes, every_type);
    let (rest, table) = parse_field_table(&bytes[..]).expect("it is a table");
    assert!(rest.is_empty());
    let get = |key: &str| table.inner().get(key).cloned().expect("the key is there");
    assert_eq!(get("B"), AMQPValue::ShortShortUInt(200));
    assert_eq!(get("D"), AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 }));
    assert_eq!(get("I"), AMQPValue::LongInt(-70_000));
    assert_eq!(get("S"), AMQPValue::LongString(vec![0xFF, 0, b'x'].into()));
    assert_eq!(get("T"), AMQPValue::Timestamp(1_700_000_000));
    assert_eq!(get("V"), AMQPValue::Void);
    assert_eq!(get("b"), AMQPValue::ShortShortInt(-5));
    assert_eq!(get("d"), AMQPValue::Double(2.5));
    assert_eq!(get("f"), AMQPValue::Float(-1.5));
    assert_eq!(get("i"), AMQPValue::LongUInt(4_000_000_000));
    assert_eq!(get("l"), AMQPValue::LongLongInt(i64::MIN));
    assert_eq!(get("s"), AMQPValue::ShortInt(-300));
    assert_eq!(get("t"), AMQPValue::Boolean(true));
    assert_eq!(get("u"), AMQPValue::ShortUInt(60_000));
    assert_eq!(get("x"), AMQPValue::ByteArray(b"bytes"[..].into()));
    let AMQPValue::FieldArray(array) = get("A") else { panic!("an array") };
    assert_eq!(array.as_slice()[0], AMQPValue::LongInt(-2));
}

#[test]
fn every_type_is_read_as_it_was_written() {
    let bytes = entries(every_type);
    let (table, form) = Table::check(&bytes).expect("it is a table");
    assert_eq!(form, Form::Canonical, "nested tables may be in any order");
    let again = entries(|out| {
        for entry in table {
            out.value(entry.key, entry.value);
        }
    });
    assert_eq!(again, bytes);
    assert_eq!(table.get(b"T"), Some(Value::Timestamp(1_700_000_000)));
    assert_eq!(table.get(b"missing"), None);
    let Some(Value::Array(array)) = table.get(b"A") else { panic!("an array") };
    assert_eq!(array.into_iter().next(), Some(Value::I32(-2)));
    assert_eq!(array.bytes().len(), 16);
    let integers: Vec<_> =
        [&b"B"[..], b"I", b"b", b"i", b"l", b"s", b"u", b"S"].map(|key| table.get(key).unwrap().as_integer()).into();
    let expected =
        [Some(200), Some(-70_000), Some(-5), Some(4_000_000_000), Some(i64::MIN), Some(-300), Some(60_000), None];
    assert_eq!(integers, expected);
}

#[test]
fn a_table_of_amq_protocol_is_read() {
    let mut table = FieldTable::default();
    table.insert("count".into(), AMQPValue::LongLongInt(3));
    table.insert("name".into(), AMQPValue::LongString("queue".into()));
    let write = gen_field_table(&table);
    let (bytes, _) = write(Vec::new().into()).expect("memory can be written").into_inner();
    let (read, _) = Table::check(&bytes[4..]).expect("it is a table");
    assert_eq!(read.get(b"count"), Some(Value::I64(3)));
    assert_eq!(read.get(b"name"), Some(Value::LongString(b"queue")));
    assert!(!read.is_empty());
}

#[test]
fn canonical_form_sorts_keys_and_keeps_the_first_of_repeated_ones() {
    let loose = entries(|out| {
        out.value(b"b", Value::I32(1));
        out.value(b"a", Value::I32(2));
        out.value(b"b", Value::I32(3));
        out.value(b"B", Value::I32(4));
    });
    let sorted = entries(|out| {
        out.value(b"B", Value::I32(4));
        out.value(b"a", Value::I32(2));
        out.value(b"b", Value::I32(1));
    });
    assert_eq!(canonical(&loose), Some(sorted.clone()));
    assert_eq!(canonical(&sorted), None);
    assert_eq!(canonical(b""), None);
}

#[test]
fn canonical_form_writes_values_as_rabbitmq_does_at_any_depth() {
    let loose = b"\x01aF\x00\x00\x00\x0b\x01xL\x00\x00\x00\x00\x00\x00\x00\x07\x01bA\x00\x00\x00\x02t\x05";
    let (_, form) = Table::check(loose).expect("it is a table");
    assert_eq!(form, Form::Loose);
    let strict = b"\x01aF\x00\x00\x00\x0b\x01xl\x00\x00\x00\x00\x00\x00\x00\x07\x01bA\x00\x00\x00\x02t\x01";
    assert_eq!(canonical(loose).as_deref(), Some(&strict[..]));
}

#[test]
fn canonical_does_not_rewrite_bytes_that_are_not_a_table() {
    assert_eq!(canonical(b"\x01bV\x01aA\x00\x00\x00\x09"), None);
}

#[test]
fn every_truncation_is_refused() {
    let bytes = entries(every_type);
    let ends: Vec<usize> = Table::check(&bytes)
        .map(|(table, _)| {
            table
                .iter()
                .scan(0, |end, entry| {
                    *end += entries(|out| out.value(entry.key, entry.value)).len();
                    Some(*end)
                })
                .collect()
        })
        .unwrap();
    for len in 1..bytes.len() {
        let expected = if ends.contains(&len) { Ok(()) } else { Err(TableError::Truncated) };
        assert_eq!(check(&bytes[..len]), expected, "{len} bytes");
    }
}

#[test]
fn unknown_tags_are_refused() {
    for tag in *b"UZ_\0" {
        assert_eq!(check(&[1, b'k', tag, 0, 0]), Err(TableError::UnknownTag(tag)));
    }
    assert_eq!(TableError::UnknownTag(85).to_string(), "field table has a value of unknown type 85");
    assert_eq!(TableError::Truncated.to_string(), "field table is truncated");
    assert_eq!(TableError::TooDeep.to_string(), "field table nests deeper than 100");
    assert_eq!(Table::from_checked(b"\x01kZ").iter().next(), None);
}

#[test]
fn floats_that_are_not_finite_are_refused_at_any_depth() {
    for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let wide = entries(|out| out.value(b"k", Value::F64(float)));
        #[expect(clippy::cast_possible_truncation, reason = "these keep their kind")]
        let narrow = entries(|out| out.array(b"k", |array| array.value(Value::F32(float as f32))));
        let deep = entries(|out| out.table(b"k", |table| table.array(b"k", |a| a.value(Value::F64(float)))));
        for bytes in [wide, narrow, deep] {
            assert_eq!(check(&bytes), Err(TableError::NotFinite));
        }
    }
    let text = "field table has a float that is infinite or not a number";
    assert_eq!(TableError::NotFinite.to_string(), text);
}

#[test]
fn sorted_entries_keep_repeated_keys_and_the_order_inside_of_tables() {
    let bytes = entries(|out| {
        out.value(b"b", Value::I32(2));
        out.value(b"b", Value::I32(1));
        out.table(b"a", |table| {
            table.value(b"y", Value::Void);
            table.value(b"x", Value::Void);
        });
    });
    let sorted = entries(|out| {
        out.table(b"a", |table| {
            table.value(b"y", Value::Void);
            table.value(b"x", Value::Void);
        });
        out.value(b"b", Value::I32(2));
        out.value(b"b", Value::I32(1));
    });
    assert_eq!(Table::from_checked(&bytes).sorted(), sorted);
    assert_eq!(Table::from_checked(&sorted).sorted(), sorted);
    assert_eq!(Table::from_checked(b"\x01aL\0\0\0\0\0\0\0\x07").sorted(), b"\x01al\0\0\0\0\0\0\0\x07");
}

/// `depth` arrays or tables inside one another, under one key.
fn nested(depth: usize, has_keys: bool) -> Vec<u8> {
    let mut value = vec![b'V'];
    for _ in 0..depth {
        let content = if has_keys { [&[1, b'k'], &value[..]].concat() } else { value };
        let len = u32::try_from(content.len()).unwrap();
        value = vec![if has_keys { b'F' } else { b'A' }];
        value.extend_from_slice(&len.to_be_bytes());
        value.extend_from_slice(&content);
    }
    [&[1, b'k'], &value[..]].concat()
}

#[test]
fn nesting_is_accepted_to_the_limit_and_refused_beyond() {
    for has_keys in [false, true] {
        assert_eq!(check(&nested(DEPTH_MAX, has_keys)), Ok(()));
        assert_eq!(check(&nested(DEPTH_MAX + 1, has_keys)), Err(TableError::TooDeep));
    }
}
