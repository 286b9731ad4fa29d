//! The codec agrees with itself for every method and kind of value, and with bytes written by hand.

use conformance::frame::{Header, cut_frame, decode_header, decode_method, encode_header, encode_method, write_frame};
use conformance::spec::{self, Kind};
use conformance::value::Value;

fn every_tag() -> Value {
    let tagged = |tag: u8, value| Value::Tagged(tag, Box::new(value));
    let number = |tag, number| tagged(tag, Value::Number(number));
    let nested = vec![(b"deep".to_vec(), tagged(b'V', Value::Void))];
    let values = vec![
        tagged(b't', Value::Flag(true)),
        number(b'b', -128),
        number(b'B', 255),
        number(b's', -32_768),
        number(b'u', 65_535),
        number(b'I', -2_147_483_648),
        number(b'i', 4_294_967_295),
        number(b'l', -9_223_372_036_854_775_808),
        number(b'L', 5),
        number(b'T', 18_446_744_073_709_551_615),
        tagged(b'f', Value::Float(1.5)),
        tagged(b'd', Value::Float(-2.25)),
        tagged(b'D', Value::Decimal { scale: 2, unscaled: 31_415 }),
        tagged(b'S', Value::Text(b"text".to_vec())),
        tagged(b'x', Value::Text(vec![0, 255])),
        tagged(b'A', Value::Array(vec![number(b'I', 1), tagged(b'A', Value::Array(vec![]))])),
        tagged(b'F', Value::Table(nested)),
    ];
    let keys = (b'a'..).map(|key| vec![key]);
    Value::Table(keys.zip(values).collect())
}

#[test]
fn every_method_is_read_as_it_was_written() {
    for method in spec::methods() {
        let value = |(index, kind): (usize, Kind)| match kind {
            Kind::Bit => Value::Flag(index % 2 == 0),
            Kind::Octet => Value::Number(200),
            Kind::Short => Value::Number(60_000),
            Kind::Long => Value::Number(4_000_000_000),
            Kind::LongLong => Value::Number(10_000_000_000_000_000_000),
            Kind::ShortStr | Kind::LongStr => Value::Text(b"some text".to_vec()),
            Kind::Table => every_tag(),
        };
        let kinds = method.fields.iter().map(|field| field.kind);
        let values: Vec<Value> = kinds.enumerate().map(value).collect();
        let payload = encode_method(method, &values).unwrap();
        assert_eq!(decode_method(&payload), Ok((method, values)), "{}", method.name);
    }
}

#[test]
fn bits_share_an_octet_from_the_lowest_up() {
    let method = spec::by_name("queue.declare").unwrap();
    let mut values = vec![Value::Number(0), Value::Text(b"q".to_vec())];
    values.extend([false, true, false, true, false].map(Value::Flag));
    values.push(Value::Table(Vec::new()));
    let payload = encode_method(method, &values).unwrap();
    assert_eq!(payload, [0, 50, 0, 10, 0, 0, 1, b'q', 0b0_1010, 0, 0, 0, 0]);
}

#[test]
fn a_content_header_has_its_flags_from_the_highest_down() {
    let header = Header {
        class: 60,
        weight: 0,
        body_size: 3,
        properties: vec![(0, Value::Text(b"a".to_vec())), (3, Value::Number(2))],
    };
    let payload = encode_header(&header).unwrap();
    assert_eq!(payload, [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0x90, 0, 1, b'a', 2]);
    assert_eq!(decode_header(&payload), Ok(header));
}

#[test]
fn a_frame_is_cut_only_when_it_is_whole() {
    let mut bytes = Vec::new();
    write_frame(3, 258, b"abc", 0xCE, &mut bytes);
    assert_eq!(bytes, [3, 1, 2, 0, 0, 0, 3, b'a', b'b', b'c', 0xCE]);
    let mut buffer = bytes[..10].to_vec();
    assert_eq!(cut_frame(&mut buffer), Ok(None));
    buffer.extend([0xCE, 8]);
    let frame = cut_frame(&mut buffer).unwrap().unwrap();
    assert_eq!((frame.kind, frame.channel, frame.payload.as_slice()), (3, 258, &b"abc"[..]));
    assert_eq!(buffer, [8]);
}

#[test]
fn what_does_not_follow_the_layout_is_refused() {
    assert!(decode_method(&[0, 60, 0, 10, 0]).is_err());
    assert!(decode_method(&[0, 60, 0, 11, 0]).is_err());
    assert!(decode_method(&[0, 60, 3, 231]).is_err());
    // A table with the tag U, which this dialect does not have.
    assert!(decode_header(&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 5, 1, b'a', b'U', 0, 1]).is_err());
    let ack = spec::by_name("basic.ack").unwrap();
    assert!(encode_method(ack, &[Value::Flag(true), Value::Flag(true)]).is_err());
}
