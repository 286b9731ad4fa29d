//! The whole wire layer over arbitrary bytes; run by the fuzz target `frames` and, on stable, by `tests/fuzz.rs`.

use prontomq::internals::model::message::Message;
use prontomq::internals::wire::content_header::ContentHeader;
use prontomq::internals::wire::frame::{FrameKind, payload_max, read_frame};
use prontomq::internals::wire::method::ClientMethod;
use prontomq::internals::wire::properties::{Properties, PropertiesWriter};
use prontomq::internals::wire::protocol_header::recognise;
use prontomq::internals::wire::table::{Table, Value};
use prontomq::internals::wire::writer::{ConsumerPrefix, write_deliver, write_get_ok, write_return};

const FRAME_MAX: u32 = 4096;

/// Reads `input` as every kind of thing it could be. Panics where something that was accepted does not hold what its
/// acceptance promises.
pub(crate) fn frames(input: &[u8]) {
    let _ = recognise(input);
    stream(input);
    let _ = ClientMethod::parse(input);
    table(input);
    content(input, input);
}

/// Frames one after the other, as a connection cuts them.
fn stream(input: &[u8]) {
    let limit = payload_max(FRAME_MAX);
    let mut at = 0;
    while let Ok(Some(cut)) = read_frame(&input[at..], limit) {
        let payload = cut.frame.payload;
        assert!(payload.len() <= limit + 8, "a payload keeps to the limit");
        match cut.frame.kind {
            FrameKind::Method => drop(ClientMethod::parse(payload)),
            FrameKind::Header => {
                let header = ContentHeader::parse(payload).expect("its length was checked");
                content(header.properties, payload);
            }
            FrameKind::Body | FrameKind::Heartbeat => {}
        }
        at += cut.consumed;
    }
    if let Err(error) = read_frame(&input[at..], limit) {
        assert!(!error.reply_text().is_empty());
    }
}

fn table(input: &[u8]) {
    let Ok((table, _)) = Table::check(input) else {
        return;
    };
    visit(table);
    if let Some(canonical) = table.canonical() {
        assert!(canonical.len() <= input.len(), "canonical form never grows");
        let (canonical, _) = Table::check(&canonical).expect("canonical form is a table");
        assert_eq!(canonical.canonical(), None, "and stays as it is");
    }
}

/// Every value, however deep; its keys are found again.
fn visit(table: Table<'_>) {
    for entry in table {
        assert!(table.get(entry.key).is_some());
        match entry.value {
            Value::Table(nested) => visit(nested),
            Value::Array(array) => {
                for value in array {
                    if let Value::Table(nested) = value {
                        visit(nested);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Properties that are accepted make a message, and the message can be written.
fn content(raw: &[u8], body: &[u8]) {
    let Ok(properties) = Properties::check(raw) else {
        return;
    };
    assert_eq!(Properties::from_checked(raw).map(|again| again.raw()), Some(raw));
    let rewritten = PropertiesWriter::from(&properties).to_vec();
    assert_eq!(Properties::check(&rewritten).map(|again| again.priority()), Ok(properties.priority()));
    let message = Message::new(b"exchange", b"key", &properties, body);
    assert_eq!(message.body(), body);
    assert_eq!(message.priority(), properties.priority().unwrap_or(0));
    let kept = Properties::check(message.properties_raw()).expect("canonical properties are properties");
    assert_eq!(kept.canonical(), None, "a message's properties are canonical");
    assert_eq!(message.properties().raw(), message.properties_raw());

    let limit = payload_max(FRAME_MAX);
    let mut out = Vec::new();
    write_deliver(&mut out, &ConsumerPrefix::new(1, b"tag"), 1, false, message.content(), limit);
    write_get_ok(&mut out, 1, 2, true, 0, message.content(), limit);
    write_return(&mut out, 1, 312, "NO_ROUTE", message.content(), limit);
    let mut at = 0;
    while at < out.len() {
        let cut = read_frame(&out[at..], usize::MAX).expect("what is written is well formed").expect("and complete");
        at += cut.consumed;
    }
}
