//! One row as bytes: a header of fixed length, the message's head, and its large body if it has one.

use crate::model::stored::OrderKey;
use crate::model::{Message, Position, WallMillis};
use crate::store::Row;
use std::io::{self, BufRead, Read};

/// The header has these numbers at these offsets: the first two have four bytes, the others eight.
pub(super) const HEADER_BYTES: usize = 48;
const FLAGS: usize = 0;
const HEAD_LEN: usize = 4;
const BODY_LEN: usize = 8;
const POSITION: usize = 16;
const EXPIRES_AT: usize = 24;
const BEHIND: usize = 32;
const NTH: usize = 40;

const REDELIVERED: u32 = 1;
const EXPIRES: u32 = 2;
const HAS_PLACE: u32 = 4;
const HAS_LARGE_BODY: u32 = 8;
const ALL_FLAGS: u32 = REDELIVERED | EXPIRES | HAS_PLACE | HAS_LARGE_BODY;

struct Header([u8; HEADER_BYTES]);

impl Header {
    fn put<const N: usize>(&mut self, at: usize, number: [u8; N]) {
        self.0[at..at + N].copy_from_slice(&number);
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(*self.0[at..].first_chunk().expect("it lies within the header"))
    }

    fn number(&self, at: usize) -> u64 {
        u64::from_le_bytes(*self.0[at..].first_chunk().expect("it lies within the header"))
    }
}

/// The bytes of a row's message, without the header.
pub(super) fn message_bytes(message: &Message) -> u64 {
    message.head_bytes().len() as u64 + message.large_body().map_or(0, |body| body.len() as u64)
}

/// Appends a record without its large body.
pub(super) fn put(to: &mut Vec<u8>, row: &Row) {
    let Row { position, redelivered, expires_at, place, message } = row;
    let (head, body) = (message.head_bytes(), message.large_body());
    let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
    let flags = flag(*redelivered, REDELIVERED)
        | flag(expires_at.is_some(), EXPIRES)
        | flag(place.is_some(), HAS_PLACE)
        | flag(body.is_some(), HAS_LARGE_BODY);
    let head_len = u32::try_from(head.len()).expect("a head has names, properties and 4 KiB of body at most");
    let mut header = Header([0; HEADER_BYTES]);
    header.put(FLAGS, flags.to_le_bytes());
    header.put(HEAD_LEN, head_len.to_le_bytes());
    header.put(BODY_LEN, body.map_or(0, |body| body.len() as u64).to_le_bytes());
    header.put(POSITION, position.0.to_le_bytes());
    header.put(EXPIRES_AT, expires_at.map_or(0, |at| at.0).to_le_bytes());
    header.put(BEHIND, place.map_or(0, |place| place.behind.0).to_le_bytes());
    header.put(NTH, place.map_or(0, |place| place.nth).to_le_bytes());
    to.extend_from_slice(&header.0);
    to.extend_from_slice(head);
}

/// Reads records from a sequence of bytes that holds nothing else.
pub(super) struct Records<R> {
    bytes: R,
    /// Bytes that are still to be read.
    left: u64,
    head: Vec<u8>,
}

impl<R: BufRead> Records<R> {
    pub(super) fn new(bytes: R, left: u64) -> Self {
        Self { bytes, left, head: Vec::new() }
    }

    /// The next row at or behind a position. Bytes that are no record are an error.
    pub(super) fn next(&mut self, from: Position) -> io::Result<Row> {
        let mut header = self.header()?;
        while header.number(POSITION) < from.0 {
            self.skip(header.word(HEAD_LEN).into())?;
            self.skip(header.number(BODY_LEN))?;
            header = self.header()?;
        }
        let flags = header.word(FLAGS);
        if flags & !ALL_FLAGS != 0 {
            return Err(damaged("an unknown flag is set"));
        }
        let has = |flag: u32| flags & flag != 0;
        self.take(header.word(HEAD_LEN).into())?;
        self.head.resize(header.word(HEAD_LEN) as usize, 0);
        self.bytes.read_exact(&mut self.head)?;
        let body = if has(HAS_LARGE_BODY) { Some(self.body(header.number(BODY_LEN))?) } else { None };
        let message = Message::from_stored(&self.head, body).ok_or_else(|| damaged("it is no message"))?;
        let place = OrderKey { behind: Position(header.number(BEHIND)), nth: header.number(NTH) };
        Ok(Row {
            position: Position(header.number(POSITION)),
            redelivered: has(REDELIVERED),
            expires_at: has(EXPIRES).then(|| WallMillis(header.number(EXPIRES_AT))),
            place: has(HAS_PLACE).then_some(place),
            message,
        })
    }

    fn header(&mut self) -> io::Result<Header> {
        self.take(HEADER_BYTES as u64)?;
        let mut header = Header([0; HEADER_BYTES]);
        self.bytes.read_exact(&mut header.0)?;
        Ok(header)
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.take(bytes)?;
        let mut left = usize::try_from(bytes).map_err(|_| damaged("a length beyond all memory"))?;
        while left > 0 {
            let found = self.bytes.fill_buf()?.len().min(left);
            if found == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.bytes.consume(found);
            left -= found;
        }
        Ok(())
    }

    fn body(&mut self, len: u64) -> io::Result<Vec<u8>> {
        self.take(len)?;
        let mut body = Vec::with_capacity(usize::try_from(len).map_err(|_| damaged("a body beyond all memory"))?);
        self.bytes.by_ref().take(len).read_to_end(&mut body)?;
        if body.len() as u64 == len { Ok(body) } else { Err(damaged("its body is cut off")) }
    }

    /// Checks a length against the bytes that are left, before memory is allocated for it.
    fn take(&mut self, bytes: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| damaged("it is longer than what holds it"))?;
        Ok(())
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
