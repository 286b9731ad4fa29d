//! Message properties: kept as raw bytes, checked once, read where needed, rewritten field by field.

use std::fmt::{self, Display, Formatter};

use super::expiration::{ExpirationError, parse_expiration};
use super::reader::Reader;
use super::table::{Form, Table, TableError};

/// The flag bits that stand for properties; RabbitMQ ignores the other two.
const FLAGS: u16 = 0b1111_1111_1111_1100;

/// A fault of a property list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropertiesError {
    /// A property that the flags announce is missing or cut short.
    Truncated,
    /// Bytes are left after the last property.
    Trailing,
    /// The headers are not a field table.
    Headers(TableError),
}

impl Display for PropertiesError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("property list is truncated"),
            Self::Trailing => f.write_str("bytes are left after the last property"),
            Self::Headers(error) => write!(f, "headers: {error}"),
        }
    }
}

impl std::error::Error for PropertiesError {}

/// The fourteen properties, in wire order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Property {
    /// MIME type, shortstr.
    ContentType,
    /// MIME encoding, shortstr.
    ContentEncoding,
    /// Field table.
    Headers,
    /// Octet: 1 transient, 2 persistent.
    DeliveryMode,
    /// Octet.
    Priority,
    /// shortstr.
    CorrelationId,
    /// shortstr.
    ReplyTo,
    /// shortstr, milliseconds in decimal.
    Expiration,
    /// shortstr.
    MessageId,
    /// Seconds since 1970.
    Timestamp,
    /// shortstr.
    Type,
    /// shortstr.
    UserId,
    /// shortstr.
    AppId,
    /// shortstr.
    ClusterId,
}

/// All properties in wire order: flag bit 15 is the first.
const PROPERTIES: [Property; 14] = [
    Property::ContentType,
    Property::ContentEncoding,
    Property::Headers,
    Property::DeliveryMode,
    Property::Priority,
    Property::CorrelationId,
    Property::ReplyTo,
    Property::Expiration,
    Property::MessageId,
    Property::Timestamp,
    Property::Type,
    Property::UserId,
    Property::AppId,
    Property::ClusterId,
];

impl Property {
    const fn flag(self) -> u16 {
        1 << (15 - self as u16)
    }

    /// The content of this property at the reader, without its length.
    #[inline]
    fn read<'a>(self, reader: &mut Reader<'a>) -> Option<&'a [u8]> {
        match self {
            Self::Headers => reader.longstr(),
            Self::DeliveryMode | Self::Priority => reader.take(1),
            Self::Timestamp => reader.take(8),
            _ => reader.shortstr(),
        }
    }
}

/// A checked property list. The properties that the broker reads of every message are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties<'a> {
    raw: &'a [u8],
    flags: u16,
    delivery_mode: Option<u8>,
    priority: Option<u8>,
    expiration: Option<&'a [u8]>,
    headers: Option<Table<'a>>,
    form: Form,
}

impl<'a> Properties<'a> {
    /// Checks flags and property list in one walk without allocating, the headers included.
    ///
    /// # Errors
    /// The first fault found; RabbitMQ answers each with 541.
    #[inline]
    pub fn check(raw: &'a [u8]) -> Result<Self, PropertiesError> {
        Self::walk(raw, Table::check)
    }

    /// Like [`check`](Self::check), for a list from the store: floats that are not finite are allowed.
    ///
    /// # Errors
    /// Those of `check`, except for floats.
    pub fn check_stored(raw: &'a [u8]) -> Result<Self, PropertiesError> {
        Self::walk(raw, Table::check_stored)
    }

    /// Reads a list that an earlier [`check`](Self::check) has passed, without walking the headers again. Such a list is
    /// in canonical form or is about to be replaced by it.
    #[must_use]
    pub fn from_checked(raw: &'a [u8]) -> Option<Self> {
        Self::walk(raw, |bytes| Ok((Table::from_checked(bytes), Form::Canonical))).ok()
    }

    #[inline]
    fn walk(
        raw: &'a [u8],
        check_headers: impl FnOnce(&'a [u8]) -> Result<(Table<'a>, Form), TableError>,
    ) -> Result<Self, PropertiesError> {
        let mut reader = Reader::new(raw);
        let flags = reader.short().ok_or(PropertiesError::Truncated)?;
        let form = if flags & !FLAGS == 0 { Form::Canonical } else { Form::Loose };
        let mut properties =
            Self { raw, flags, delivery_mode: None, priority: None, expiration: None, headers: None, form };
        let mut check_headers = Some(check_headers);
        let mut left = flags & FLAGS;
        while left != 0 {
            let bit = left.leading_zeros();
            left &= !(0x8000 >> bit);
            let property = PROPERTIES[bit as usize];
            let content = property.read(&mut reader).ok_or(PropertiesError::Truncated)?;
            match property {
                Property::DeliveryMode => properties.delivery_mode = content.first().copied(),
                Property::Priority => properties.priority = content.first().copied(),
                Property::Expiration => properties.expiration = Some(content),
                Property::Headers => {
                    if let Some(check_headers) = check_headers.take() {
                        let (headers, form) = check_headers(content).map_err(PropertiesError::Headers)?;
                        properties.headers = Some(headers);
                        if form == Form::Loose {
                            properties.form = form;
                        }
                    }
                }
                _ => {}
            }
        }
        if reader.is_empty() { Ok(properties) } else { Err(PropertiesError::Trailing) }
    }

    /// Flags and list as they were read.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The content of one property without its length: the text of a shortstr, a table's entries, one or eight octets.
    #[must_use]
    pub fn get(&self, property: Property) -> Option<&'a [u8]> {
        if self.flags & property.flag() == 0 {
            return None;
        }
        self.contents().find(|(found, _)| *found == property).map(|(_, content)| content)
    }

    /// All properties that are present, in wire order.
    fn contents(&self) -> impl Iterator<Item = (Property, &'a [u8])> + use<'a> {
        let mut reader = Reader::new(self.raw.get(2..).unwrap_or_default());
        let flags = self.flags;
        PROPERTIES
            .into_iter()
            .filter(move |property| flags & property.flag() != 0)
            .map_while(move |property| Some((property, property.read(&mut reader)?)))
    }

    /// MIME type.
    #[must_use]
    pub fn content_type(&self) -> Option<&'a [u8]> {
        self.get(Property::ContentType)
    }

    /// MIME encoding.
    #[must_use]
    pub fn content_encoding(&self) -> Option<&'a [u8]> {
        self.get(Property::ContentEncoding)
    }

    /// The headers, when there are any; an empty table counts.
    #[must_use]
    pub fn headers(&self) -> Option<Table<'a>> {
        self.headers
    }

    /// 1 transient, 2 persistent, or another number that the publisher wrote.
    #[must_use]
    pub fn delivery_mode(&self) -> Option<u8> {
        self.delivery_mode
    }

    /// Whether the delivery mode is 2.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.delivery_mode == Some(2)
    }

    /// The priority as published.
    #[must_use]
    pub fn priority(&self) -> Option<u8> {
        self.priority
    }

    /// The identifier that relates a reply to its request.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&'a [u8]> {
        self.get(Property::CorrelationId)
    }

    /// The queue for replies.
    #[must_use]
    pub fn reply_to(&self) -> Option<&'a [u8]> {
        self.get(Property::ReplyTo)
    }

    /// The expiration's text as published.
    #[must_use]
    pub fn expiration(&self) -> Option<&'a [u8]> {
        self.expiration
    }

    /// The expiration in milliseconds.
    ///
    /// # Errors
    /// See [`ExpirationError`].
    pub fn expiration_ms(&self) -> Result<Option<u64>, ExpirationError> {
        self.expiration.map(parse_expiration).transpose()
    }

    /// The application's identifier of the message.
    #[must_use]
    pub fn message_id(&self) -> Option<&'a [u8]> {
        self.get(Property::MessageId)
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn timestamp(&self) -> Option<u64> {
        self.get(Property::Timestamp).and_then(|content| Reader::new(content).long_long())
    }

    /// The application's name for the kind of message.
    #[must_use]
    pub fn kind(&self) -> Option<&'a [u8]> {
        self.get(Property::Type)
    }

    /// The user that published; the broker verifies it.
    #[must_use]
    pub fn user_id(&self) -> Option<&'a [u8]> {
        self.get(Property::UserId)
    }

    /// The application that published.
    #[must_use]
    pub fn app_id(&self) -> Option<&'a [u8]> {
        self.get(Property::AppId)
    }

    /// Deprecated and passed through.
    #[must_use]
    pub fn cluster_id(&self) -> Option<&'a [u8]> {
        self.get(Property::ClusterId)
    }

    /// The list as RabbitMQ 4.2 delivers it: canonical headers (see [`Table::canonical`]), expiration printed from its
    /// number (`0100` becomes `100`), unused flag bits cleared. `None`, without allocating, if the list is in
    /// this form already. An expiration that is not a number is kept.
    #[must_use]
    #[inline]
    pub fn canonical(&self) -> Option<Vec<u8>> {
        let expiration = self.reprinted_expiration();
        if self.form == Form::Canonical && expiration.is_none() {
            return None;
        }
        Some(self.rewritten(expiration.as_deref()))
    }

    fn rewritten(&self, expiration: Option<&str>) -> Vec<u8> {
        let headers = self.headers.and_then(|headers| headers.canonical());
        let mut writer = PropertiesWriter::from(self);
        if let Some(headers) = &headers {
            writer = writer.headers(Table::from_checked(headers));
        }
        if let Some(expiration) = expiration {
            writer = writer.shortstr(Property::Expiration, expiration.as_bytes());
        }
        let mut raw = Vec::with_capacity(self.raw.len());
        writer.write(&mut raw);
        raw
    }

    #[inline]
    fn reprinted_expiration(&self) -> Option<String> {
        let text = self.expiration?;
        let is_printed = match text {
            [b'0'] => true,
            [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
            _ => false,
        };
        if is_printed {
            return None;
        }
        parse_expiration(text).ok().map(|ms| ms.to_string())
    }
}

#[derive(Clone, Copy, Debug)]
enum Content<'a> {
    Shortstr(&'a [u8]),
    Table(&'a [u8]),
    Octet(u8),
    Timestamp(u64),
}

/// Builds a raw property list, from nothing or from an existing one.
#[derive(Clone, Debug, Default)]
pub struct PropertiesWriter<'a> {
    contents: [Option<Content<'a>>; 14],
}

impl<'a> From<&Properties<'a>> for PropertiesWriter<'a> {
    fn from(properties: &Properties<'a>) -> Self {
        let mut writer = Self::default();
        for (property, bytes) in properties.contents() {
            writer.contents[property as usize] = match property {
                Property::Headers => Some(Content::Table(bytes)),
                Property::DeliveryMode | Property::Priority => bytes.first().copied().map(Content::Octet),
                Property::Timestamp => Reader::new(bytes).long_long().map(Content::Timestamp),
                _ => Some(Content::Shortstr(bytes)),
            };
        }
        writer
    }
}

impl<'a> PropertiesWriter<'a> {
    /// A list without properties.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets one of the text properties.
    ///
    /// # Panics
    /// When `property` is not a shortstr or `text` is longer than 255 bytes.
    #[must_use]
    pub fn shortstr(mut self, property: Property, text: &'a [u8]) -> Self {
        let is_text =
            !matches!(property, Property::Headers | Property::DeliveryMode | Property::Priority | Property::Timestamp);
        assert!(is_text && text.len() <= 255, "{property:?} is given at most 255 bytes of text");
        self.contents[property as usize] = Some(Content::Shortstr(text));
        self
    }

    /// Sets the headers.
    #[must_use]
    pub fn headers(mut self, headers: Table<'a>) -> Self {
        self.contents[Property::Headers as usize] = Some(Content::Table(headers.bytes()));
        self
    }

    /// Sets the delivery mode: 1 transient, 2 persistent.
    #[must_use]
    pub fn delivery_mode(mut self, mode: u8) -> Self {
        self.contents[Property::DeliveryMode as usize] = Some(Content::Octet(mode));
        self
    }

    /// Sets the priority.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.contents[Property::Priority as usize] = Some(Content::Octet(priority));
        self
    }

    /// Sets the timestamp, in seconds since 1970.
    #[must_use]
    pub fn timestamp(mut self, seconds: u64) -> Self {
        self.contents[Property::Timestamp as usize] = Some(Content::Timestamp(seconds));
        self
    }

    /// Leaves a property out.
    #[must_use]
    pub fn without(mut self, property: Property) -> Self {
        self.contents[property as usize] = None;
        self
    }

    /// Appends flags and list.
    ///
    /// # Panics
    /// When the headers are larger than 4 GiB.
    pub fn write(&self, out: &mut Vec<u8>) {
        let present = PROPERTIES.into_iter().filter(|property| self.contents[*property as usize].is_some());
        let flags = present.fold(0, |flags, property| flags | property.flag());
        out.extend_from_slice(&flags.to_be_bytes());
        for content in self.contents.iter().flatten() {
            match content {
                Content::Shortstr(text) => {
                    out.push(u8::try_from(text.len()).expect("set or read as a shortstr"));
                    out.extend_from_slice(text);
                }
                Content::Table(bytes) => {
                    let len = u32::try_from(bytes.len()).expect("headers are bounded by the frame they came in");
                    out.extend_from_slice(&len.to_be_bytes());
                    out.extend_from_slice(bytes);
                }
                Content::Octet(octet) => out.push(*octet),
                Content::Timestamp(seconds) => out.extend_from_slice(&seconds.to_be_bytes()),
            }
        }
    }

    /// Flags and list as bytes of their own.
    ///
    /// # Panics
    /// When the headers are larger than 4 GiB.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut raw = Vec::new();
        self.write(&mut raw);
        raw
    }
}

#[cfg(test)]
mod tests {
    use amq_protocol::protocol::BasicProperties;
    use amq_protocol::protocol::basic::{gen_properties, parse_properties};
    use amq_protocol::types::{AMQPValue, FieldTable};

    use super::*;
    use crate::wire::table::Value;

    const TEXTS: [(Property, &[u8]); 10] = [
        (Property::ContentType, b"text/plain"),
        (Property::ContentEncoding, b"gzip"),
        (Property::CorrelationId, b"correlation"),
        (Property::ReplyTo, b"reply"),
        (Property::Expiration, b"60000"),
        (Property::MessageId, b"id"),
        (Property::Type, b"kind"),
        (Property::UserId, b"guest"),
        (Property::AppId, b"app"),
        (Property::ClusterId, b"cluster"),
    ];

    fn headers() -> FieldTable {
        let mut headers = FieldTable::default();
        headers.insert("a".into(), AMQPValue::LongLongInt(1));
        headers
    }

    fn amq_properties() -> BasicProperties {
        BasicProperties::default()
            .with_content_type("text/plain".into())
            .with_content_encoding("gzip".into())
            .with_headers(headers())
            .with_delivery_mode(2)
            .with_priority(9)
            .with_correlation_id("correlation".into())
            .with_reply_to("reply".into())
            .with_expiration("60000".into())
            .with_message_id("id".into())
            .with_timestamp(1_700_000_000)
            .with_type("kind".into())
            .with_user_id("guest".into())
            .with_app_id("app".into())
            .with_cluster_id("cluster".into())
    }

    fn amq_bytes(properties: &BasicProperties) -> Vec<u8> {
        let write = gen_properties(properties);
        write(Vec::new().into()).expect("memory can be written").into_inner().0
    }

    #[test]
    fn every_property_amq_protocol_writes_is_read() {
        let raw = amq_bytes(&amq_properties());
        let properties = Properties::check(&raw).expect("they are well formed");
        for (property, text) in TEXTS {
            assert_eq!(properties.get(property), Some(text), "{property:?}");
        }
        assert_eq!(properties.content_type(), Some(&b"text/plain"[..]));
        assert_eq!(properties.content_encoding(), Some(&b"gzip"[..]));
        assert_eq!(properties.headers().and_then(|headers| headers.get(b"a")), Some(Value::I64(1)));
        assert_eq!(properties.delivery_mode(), Some(2));
        assert!(properties.is_persistent());
        assert_eq!(properties.priority(), Some(9));
        assert_eq!(properties.correlation_id(), Some(&b"correlation"[..]));
        assert_eq!(properties.reply_to(), Some(&b"reply"[..]));
        assert_eq!(properties.expiration(), Some(&b"60000"[..]));
        assert_eq!(properties.expiration_ms(), Ok(Some(60_000)));
        assert_eq!(properties.message_id(), Some(&b"id"[..]));
        assert_eq!(properties.timestamp(), Some(1_700_000_000));
        assert_eq!(properties.kind(), Some(&b"kind"[..]));
        assert_eq!(properties.user_id(), Some(&b"guest"[..]));
        assert_eq!(properties.app_id(), Some(&b"app"[..]));
        assert_eq!(properties.cluster_id(), Some(&b"cluster"[..]));
        assert_eq!(properties.raw(), raw);
        assert_eq!(properties.canonical(), None);
    }

    #[test]
    fn the_writer_writes_the_same_bytes_as_amq_protocol() {
        let table = b"\x01al\x00\x00\x00\x00\x00\x00\x00\x01";
        let written = TEXTS
            .into_iter()
            .fold(PropertiesWriter::new(), |writer, (property, text)| writer.shortstr(property, text))
            .headers(Table::from_checked(table))
            .delivery_mode(2)
            .priority(9)
            .timestamp(1_700_000_000)
            .to_vec();
        assert_eq!(written, amq_bytes(&amq_properties()));
        assert_eq!(PropertiesWriter::new().to_vec(), amq_bytes(&BasicProperties::default()));
    }

    #[test]
    fn rewriting_changes_only_the_given_properties() {
        let raw = amq_bytes(&amq_properties());
        let properties = Properties::check(&raw).unwrap();
        assert_eq!(PropertiesWriter::from(&properties).to_vec(), raw);
        let rewritten = PropertiesWriter::from(&properties).without(Property::Expiration).priority(1).to_vec();
        let (rest, parsed) = parse_properties(&rewritten[..]).expect("they are well formed");
        assert!(rest.is_empty());
        assert_eq!(*parsed.expiration(), None);
        assert_eq!(*parsed.priority(), Some(1));
        assert_eq!(parsed.headers(), &Some(headers()));
        assert_eq!(parsed.message_id().as_ref().map(ToString::to_string).as_deref(), Some("id"));
    }

    #[test]
    #[should_panic(expected = "Headers is given at most 255 bytes of text")]
    fn setting_a_text_for_a_property_of_another_type_panics() {
        let _ = PropertiesWriter::new().shortstr(Property::Headers, b"text");
    }

    #[test]
    fn absent_properties_are_absent() {
        let properties = Properties::check(&[0, 0]).unwrap();
        assert_eq!(properties.headers(), None);
        assert_eq!(properties.priority(), None);
        assert_eq!(properties.expiration_ms(), Ok(None));
        assert_eq!(properties.timestamp(), None);
        assert!(!properties.is_persistent());
        assert!(TEXTS.into_iter().all(|(property, _)| properties.get(property).is_none()));
        assert_eq!(properties.canonical(), None);
    }

    #[test]
    fn a_list_whose_length_disagrees_with_its_flags_is_refused() {
        let raw = amq_bytes(&amq_properties());
        for len in 0..raw.len() {
            assert_eq!(Properties::check(&raw[..len]), Err(PropertiesError::Truncated), "{len} bytes");
        }
        let longer = [&raw[..], &[0]].concat();
        assert_eq!(Properties::check(&longer), Err(PropertiesError::Trailing));
        assert_eq!(Properties::from_checked(&longer), None);
        let bad_headers = [0x20, 0, 0, 0, 0, 3, 1, b'k', b'U'];
        assert_eq!(Properties::check(&bad_headers), Err(PropertiesError::Headers(TableError::UnknownTag(b'U'))));
        assert_eq!(PropertiesError::Truncated.to_string(), "property list is truncated");
        assert_eq!(PropertiesError::Trailing.to_string(), "bytes are left after the last property");
        assert_eq!(PropertiesError::Headers(TableError::Truncated).to_string(), "headers: field table is truncated");
    }

    #[test]
    fn canonical_form_sorts_headers_and_reprints_the_expiration() {
        let loose = b"\x01bV\x01aV\x01bt\x01";
        let raw = PropertiesWriter::new()
            .headers(Table::from_checked(loose))
            .shortstr(Property::Expiration, b"+0100")
            .shortstr(Property::AppId, b"app")
            .to_vec();
        let expected = PropertiesWriter::new()
            .headers(Table::from_checked(b"\x01aV\x01bV"))
            .shortstr(Property::Expiration, b"100")
            .shortstr(Property::AppId, b"app")
            .to_vec();
        let canonical = Properties::check(&raw).unwrap().canonical().expect("it changes");
        assert_eq!(canonical, expected);
        assert_eq!(Properties::check(&canonical).unwrap().canonical(), None);
    }

    #[test]
    fn canonical_form_clears_the_unused_flag_bits() {
        let properties = Properties::check(&[0x10, 0x03, 2]).expect("RabbitMQ ignores them");
        assert_eq!(properties.canonical(), Some(vec![0x10, 0, 2]));
    }

    #[test]
    fn canonical_form_keeps_an_expiration_that_is_not_a_number() {
        let raw = PropertiesWriter::new().shortstr(Property::Expiration, b"10x").to_vec();
        assert_eq!(Properties::check(&raw).unwrap().canonical(), None);
    }
}
