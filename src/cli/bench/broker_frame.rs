//! The frames of the broker on which a load client acts, and the reasons for which a broker ends a load.

use super::target::plain;
use crate::wire::frame::{Frame, FrameKind};
use std::io;
use std::time::Duration;

/// A frame that a load client acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BrokerFrame<'a> {
    /// basic.deliver.
    Deliver { tag: u64, consumer: &'a [u8] },
    /// basic.ack from the broker: tag, multiple.
    Ack(u64, bool),
    /// The content header of a message.
    Header(&'a [u8]),
    /// A body, or a part of one.
    Body(&'a [u8]),
    /// connection.close-ok: the client closes the socket.
    CloseOk,
    /// Any other frame.
    Other,
}

impl<'a> BrokerFrame<'a> {
    pub(super) fn of(frame: Frame<'a>) -> Self {
        let payload = frame.payload;
        match frame.kind {
            FrameKind::Body => Self::Body(payload),
            FrameKind::Header => Self::Header(payload),
            FrameKind::Heartbeat => Self::Other,
            FrameKind::Method => Self::of_method(payload),
        }
    }

    fn of_method(payload: &'a [u8]) -> Self {
        match payload {
            [0, 60, 0, 60, len, rest @ ..] if rest.len() > usize::from(*len) + 8 => {
                let (consumer, rest) = rest.split_at(usize::from(*len));
                let tag = rest.first_chunk().map_or(0, |tag| u64::from_be_bytes(*tag));
                Self::Deliver { tag, consumer }
            }
            [0, 10, 0, 51] => Self::CloseOk,
            [0, 60, 0, 80, rest @ ..] => match rest.split_first_chunk() {
                Some((tag, [bits, ..])) => Self::Ack(u64::from_be_bytes(*tag), bits & 1 == 1),
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

/// A sentence for a method by which the broker ends, refuses or blocks the load; `None` for any other frame.
pub(super) fn ending(frame: &Frame<'_>) -> Option<String> {
    let [0, class, 0, method, fields @ ..] = frame.payload else { return None };
    if frame.kind != FrameKind::Method {
        return None;
    }
    match (class, method) {
        (10, 50) => Some(format!("the broker closed the connection: {}", reason(fields))),
        (20, 40) => Some(format!("the broker closed a channel: {}", reason(fields))),
        (10, 60) => Some(format!("the broker blocks publishers: {}", shortstr(fields))),
        (60, 30) => Some("the broker cancelled a consumer: its queue is gone".to_owned()),
        (60, 120) => Some("the broker refused a message (basic.nack)".to_owned()),
        _ => None,
    }
}

/// The reply code and text of a close. In most brokers, the text begins with the name of the code.
fn reason(fields: &[u8]) -> String {
    match fields.split_first_chunk() {
        Some((code, text)) => format!("{} {}", u16::from_be_bytes(*code), shortstr(text)),
        None => "no reason given".to_owned(),
    }
}

/// A short string, on one line.
fn shortstr(fields: &[u8]) -> String {
    let text = fields.split_first().map_or(&[][..], |(len, rest)| &rest[..rest.len().min((*len).into())]);
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Whether the error means that the broker closed the connection.
pub(super) fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
}

/// A sentence for the failure of a read or a write.
pub(super) fn sentence(error: &io::Error, patience: Duration) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("the broker has not answered for {patience:?}")
        }
        _ if is_hang_up(error) => "the broker closed the connection".to_owned(),
        _ => plain(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::read_frame;
    use crate::wire::writer::{write_channel_close, write_connection_close};
    use proptest::prelude::*;

    #[test]
    fn a_close_is_its_code_and_text() {
        let mut out = Vec::new();
        write_connection_close(&mut out, 530, "NOT_ALLOWED - vhost x\nnot found", None);
        let frame = read_frame(&out, usize::MAX).unwrap().unwrap().frame;
        let expected = "the broker closed the connection: 530 NOT_ALLOWED - vhost x not found";
        assert_eq!(ending(&frame).as_deref(), Some(expected));
        out.clear();
        write_channel_close(&mut out, 3, 404, "NOT_FOUND", None);
        let frame = read_frame(&out, usize::MAX).unwrap().unwrap().frame;
        assert_eq!(ending(&frame).as_deref(), Some("the broker closed a channel: 404 NOT_FOUND"));
    }

    proptest! {
        #[test]
        fn a_method_with_any_fields_is_read_without_a_panic(
            class in prop::sample::select(vec![10_u8, 20, 60]),
            method in prop::sample::select(vec![30_u8, 40, 50, 60, 80, 120]),
            fields in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let payload = [&[0, class, 0, method][..], &fields].concat();
            let mut bytes = vec![1, 0, 1, 0, 0, 0, payload.len() as u8];
            bytes.extend_from_slice(&payload);
            bytes.push(0xCE);
            let frame = read_frame(&bytes, usize::MAX).unwrap().unwrap().frame;
            let _ = BrokerFrame::of(frame);
            let text = ending(&frame).unwrap_or_default();
            prop_assert!(text.chars().all(|c| !c.is_control()), "{:?}", text);
        }
    }
}
