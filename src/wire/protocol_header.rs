//! The eight bytes with which a client opens a connection.

/// The broker's answer to a refused header, before it closes the connection.
pub const ANSWER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// Headers that mean 0-9-1; the second is AMQP 0-9's, which RabbitMQ treats alike.
const ACCEPTED: [[u8; 8]; 2] = [*b"AMQP\x00\x00\x09\x01", *b"AMQP\x01\x01\x00\x09"];

/// The verdict on the bytes received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolHeader {
    /// The header of AMQP 0-9-1; frames start after [`ANSWER`]`.len()` bytes.
    Accepted,
    /// The header of another protocol: send [`ANSWER`] and close.
    Refused,
    /// Fewer than eight bytes: read more. The decision needs all eight, as RabbitMQ's does.
    Incomplete,
}

/// Recognises the first bytes of a connection.
#[must_use]
pub fn recognise(input: &[u8]) -> ProtocolHeader {
    match input.first_chunk::<8>() {
        None => ProtocolHeader::Incomplete,
        Some(header) if ACCEPTED.contains(header) => ProtocolHeader::Accepted,
        Some(_) => ProtocolHeader::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_headers_of_0_9_1_are_accepted() {
        assert_eq!(recognise(b"AMQP\x00\x00\x09\x01"), ProtocolHeader::Accepted);
        assert_eq!(recognise(b"AMQP\x01\x01\x00\x09"), ProtocolHeader::Accepted);
        assert_eq!(recognise(b"AMQP\x00\x00\x09\x01and a frame"), ProtocolHeader::Accepted);
    }

    #[test]
    fn other_protocols_are_refused_once_eight_bytes_are_there() {
        for header in [&b"AMQP\x03\x01\x00\x00"[..], b"AMQP\x01\x01\x08\x00", b"AMQP\x00\x01\x00\x00", b"GET / HT"] {
            assert_eq!(recognise(header), ProtocolHeader::Refused);
            assert_eq!(recognise(&header[..7]), ProtocolHeader::Incomplete);
        }
        assert_eq!(recognise(b""), ProtocolHeader::Incomplete);
    }
}
