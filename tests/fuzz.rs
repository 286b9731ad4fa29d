//! The fuzz targets on stable: the same bodies over bytes that proptest makes, some of them close to valid.

#[path = "../fuzz/bodies/dialogue.rs"]
mod dialogue;
#[path = "../fuzz/bodies/frames.rs"]
mod frames;

use prontomq::internals::wire::table::{DEPTH_MAX, check};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::{prop_assert, proptest};

/// Field values that are mostly well formed, nested a few levels.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        any::<u8>().prop_map(|octet| vec![b't', octet]),
        any::<[u8; 8]>().prop_map(|octets| [&b"L"[..], &octets].concat()),
        any::<[u8; 4]>().prop_map(|octets| [&b"I"[..], &octets].concat()),
        vec(any::<u8>(), 0..20).prop_map(|bytes| sized(b"S", &bytes)),
        Just(b"V".to_vec()),
        Just(b"Ux".to_vec()),
        vec(any::<u8>(), 0..12),
    ];
    leaf.prop_recursive(6, 64, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|values| sized(b"A", &values.concat())),
            vec(entry(inner), 0..4).prop_map(|entries| sized(b"F", &entries.concat())),
        ]
    })
}

fn entry(value: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (vec(any::<u8>(), 0..3), value).prop_map(|(key, value)| [&short(&key), &value[..]].concat())
}

fn table() -> impl Strategy<Value = Vec<u8>> {
    vec(entry(value()), 0..5).prop_map(|entries| entries.concat())
}

/// Properties whose flags announce headers, mode, priority and expiration.
fn properties() -> impl Strategy<Value = Vec<u8>> {
    (table(), any::<u16>(), "[+-]?[0-9]{0,4}x?").prop_map(|(table, octets, expiration)| {
        let headers = sized(b"", &table);
        [&[0x39, 0][..], &headers, &octets.to_be_bytes(), &short(expiration.as_bytes())].concat()
    })
}

/// A method, a header or something else as a frame that is well formed around its payload.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let header = properties().prop_map(|raw| [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5][..], &raw].concat());
    let declare = table().prop_map(|table| [&[0, 50, 0, 10, 0, 0, 1, b'q', 0][..], &sized(b"", &table)].concat());
    let method = (0u8..10, 0u8..13, vec(any::<u8>(), 0..20))
        .prop_map(|(class, method, fields)| [&[0, class * 10, 0, method * 10][..], &fields].concat());
    prop_oneof![
        header.prop_map(|payload| framed(2, &payload)),
        declare.prop_map(|payload| framed(1, &payload)),
        method.prop_map(|payload| framed(1, &payload)),
        vec(any::<u8>(), 0..30).prop_map(|payload| framed(3, &payload)),
        Just(framed(8, b"")),
    ]
}

fn framed(frame_type: u8, payload: &[u8]) -> Vec<u8> {
    let channel = u8::from(frame_type != 8);
    [&[frame_type, 0, channel][..], &sized(b"", payload), &[0xCE]].concat()
}

fn short(bytes: &[u8]) -> Vec<u8> {
    let len = u8::try_from(bytes.len()).expect("a few bytes");
    [&[len], bytes].concat()
}

fn sized(tag: &[u8], bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).expect("a few bytes");
    [tag, &len.to_be_bytes(), bytes].concat()
}

#[test]
fn a_program_gets_as_far_as_the_queues() {
    let (connect, declare_a, publish_to_a) = ([0, 0], [3, 0, 1, 0, 0, 7], [7, 0, 0, 1, 0, 2, b'x', b'y', 2, 0, 255]);
    assert_eq!(dialogue::dialogue(&[&connect[..], &declare_a, &publish_to_a, &publish_to_a].concat()), 2);
}

proptest! {
    #[test]
    fn no_dialogue_breaks_the_broker(program in vec(any::<u8>(), 0..600)) {
        dialogue::dialogue(&program);
    }

    #[test]
    fn no_bytes_break_the_wire_layer(input in vec(any::<u8>(), 0..300)) {
        frames::frames(&input);
    }

    #[test]
    fn no_frames_break_the_wire_layer(input in vec(frame(), 0..4)) {
        frames::frames(&input.concat());
    }

    #[test]
    fn no_damaged_frames_break_the_wire_layer(
        input in vec(frame(), 1..4),
        at in any::<proptest::sample::Index>(),
        octet in any::<u8>(),
    ) {
        let mut input = input.concat();
        let at = at.index(input.len());
        input[at] = octet;
        frames::frames(&input);
    }

    #[test]
    fn no_table_breaks_the_wire_layer(input in table()) {
        frames::frames(&input);
    }

    #[test]
    fn no_properties_break_the_wire_layer(input in properties()) {
        frames::frames(&input);
    }

    #[test]
    fn tables_deeper_than_the_limit_are_refused(depth in DEPTH_MAX + 1..2000, has_keys in any::<bool>()) {
        let mut value = b"V".to_vec();
        for _ in 0..depth {
            value = if has_keys { sized(b"F", &[&b"\x01k"[..], &value].concat()) } else { sized(b"A", &value) };
        }
        prop_assert!(check(&[&b"\x01k"[..], &value].concat()).is_err());
        frames::frames(&framed(1, &[&[0, 50, 0, 10, 0, 0, 1, b'q', 0][..], &sized(b"", &value)].concat()));
    }
}
