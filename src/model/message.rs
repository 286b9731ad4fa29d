//! A message as it was published: address, properties and body, shared by every queue that holds it.
//!
//! A queue knows the message's place and its holder.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::time::Duration;

use crate::wire::properties::Properties;
use crate::wire::writer::{Content, SHORTSTR_BYTES_MAX};

/// Bodies up to this many bytes lie in the same allocation as address and properties; larger ones in their own, so that
/// they are copied only once and shared by a message's re-addressed copies.
pub const SMALL_BODY_BYTES_MAX: usize = 4096;

/// The layout of the allocation: this prefix, exchange and routing key as shortstrs, properties, small body.
const PREFIX_BYTES: usize = 16;
const FLAGS: usize = 0;
const PRIORITY: usize = 1;
const ADDRESS_LEN: usize = 2;
const PROPERTIES_LEN: usize = 4;
const EXPIRATION: usize = 8;

const PERSISTENT: u8 = 1;
const HAS_HEADERS: u8 = 2;
const DEAD_LETTER: u8 = 4;
const OWN_DEATHS_SHIFT: u32 = 3;
/// The largest number of deaths that a message is marked with.
pub const OWN_DEATHS_MAX: u8 = 31;

/// Stands for "no expiration"; every valid one is far smaller.
const NEVER: u64 = u64::MAX;

/// The two reference counts before the bytes of an `Arc`.
const ARC_BYTES: usize = 16;
/// A vector's pointer, length and capacity, inside its `Arc`.
const VEC_BYTES: usize = 24;

/// New allocations are copied from here and then filled in place: one allocation from several slices without `unsafe`.
static ZEROS: [u8; 5120] = [0; 5120];

/// An immutable message; a clone shares it.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    bytes: Arc<[u8]>,
    large_body: Option<Arc<Vec<u8>>>,
}

impl Message {
    /// Copies a message out of a read buffer. The properties are kept in canonical form. An expiration that is not a
    /// number counts as none; the session refuses such a publish before.
    ///
    /// # Panics
    /// When exchange or routing key are longer than a shortstr (255 bytes).
    #[must_use]
    pub fn new(exchange: &[u8], routing_key: &[u8], properties: &Properties<'_>, body: &[u8]) -> Self {
        if body.len() > SMALL_BODY_BYTES_MAX {
            return Self::with_large_body(exchange, routing_key, properties, Some(Arc::new(body.to_vec())));
        }
        with_canonical(properties, |properties| Self {
            bytes: pack(exchange, routing_key, properties, body),
            large_body: None,
        })
    }

    /// Takes a body that was collected in a buffer of its own; a large one is kept without copying.
    ///
    /// # Panics
    /// When exchange or routing key are longer than a shortstr (255 bytes).
    #[must_use]
    pub fn with_body(exchange: &[u8], routing_key: &[u8], properties: &Properties<'_>, body: Vec<u8>) -> Self {
        if body.len() <= SMALL_BODY_BYTES_MAX {
            return Self::new(exchange, routing_key, properties, &body);
        }
        Self::with_large_body(exchange, routing_key, properties, Some(Arc::new(body)))
    }

    /// A message with the same body, another address and other properties, for dead-lettering.
    ///
    /// # Panics
    /// When exchange or routing key are longer than a shortstr (255 bytes).
    #[must_use]
    pub fn with_address(&self, exchange: &[u8], routing_key: &[u8], properties: &Properties<'_>) -> Self {
        match &self.large_body {
            Some(body) => Self::with_large_body(exchange, routing_key, properties, Some(Arc::clone(body))),
            None => Self::new(exchange, routing_key, properties, self.body()),
        }
    }

    fn with_large_body(
        exchange: &[u8],
        routing_key: &[u8],
        properties: &Properties<'_>,
        large_body: Option<Arc<Vec<u8>>>,
    ) -> Self {
        with_canonical(properties, |properties| Self {
            bytes: pack(exchange, routing_key, properties, &[]),
            large_body,
        })
    }

    /// The exchange that the message was published to; empty for the default exchange.
    #[must_use]
    pub fn exchange(&self) -> &[u8] {
        let address = self.address();
        &address[1..1 + usize::from(address[0])]
    }

    /// The routing key of the publish.
    #[must_use]
    pub fn routing_key(&self) -> &[u8] {
        let address = self.address();
        &address[2 + usize::from(address[0])..]
    }

    /// Property flags and list, in canonical form.
    #[must_use]
    pub fn properties_raw(&self) -> &[u8] {
        let start = PREFIX_BYTES + self.address_len();
        &self.bytes[start..start + self.properties_len()]
    }

    /// The properties, ready to be read.
    ///
    /// # Panics
    /// Never: they were checked when the message was made.
    #[must_use]
    pub fn properties(&self) -> Properties<'_> {
        Properties::from_checked(self.properties_raw()).expect("a message is made of checked properties")
    }

    /// The whole body.
    #[must_use]
    #[inline]
    pub fn body(&self) -> &[u8] {
        match &self.large_body {
            Some(body) => body,
            None => &self.bytes[PREFIX_BYTES + self.address_len() + self.properties_len()..],
        }
    }

    /// The body, if it has an allocation of its own; such a body is written without copying.
    #[must_use]
    pub fn large_body(&self) -> Option<&Arc<Vec<u8>>> {
        self.large_body.as_ref()
    }

    /// The body's length in bytes.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.body().len()
    }

    /// The message in the form that frame writers take.
    #[must_use]
    #[inline]
    pub fn content(&self) -> Content<'_> {
        let (address_len, properties_len) = (self.address_len(), self.properties_len());
        let (address, rest) = self.bytes[PREFIX_BYTES..].split_at(address_len);
        let (properties, small_body) = rest.split_at(properties_len);
        let body = self.large_body.as_ref().map_or(small_body, |body| body.as_slice());
        Content { address, properties, body }
    }

    /// The priority; 0 if the publisher set none.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.bytes[PRIORITY]
    }

    /// Whether its delivery mode is 2.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.bytes[FLAGS] & PERSISTENT != 0
    }

    /// Whether it has a headers table, which may be empty.
    #[must_use]
    pub fn has_headers(&self) -> bool {
        self.bytes[FLAGS] & HAS_HEADERS != 0
    }

    /// Whether a broker dead-lettered it, and so wrote its `x-death` headers; a publisher's own do not count.
    #[must_use]
    pub fn is_dead_letter(&self) -> bool {
        self.bytes[FLAGS] & DEAD_LETTER != 0
    }

    /// How many entries of `x-death`, from the front, brokers wrote since the publish; none stands for all.
    #[must_use]
    pub fn own_deaths(&self) -> Option<u8> {
        match self.bytes[FLAGS] >> OWN_DEATHS_SHIFT {
            0 => None,
            own => Some(own),
        }
    }

    /// Marks a message that is not shared yet as dead-lettered, and sets [`own_deaths`](Self::own_deaths).
    ///
    /// # Panics
    /// When it was cloned before, or more than [`OWN_DEATHS_MAX`] are to be kept.
    #[must_use]
    pub fn into_dead_letter(mut self, own_deaths: Option<u8>) -> Self {
        let own = own_deaths.unwrap_or(0);
        assert!(own <= OWN_DEATHS_MAX, "the number has five bits");
        let bytes = Arc::get_mut(&mut self.bytes).expect("the copy was just made");
        bytes[FLAGS] |= DEAD_LETTER | own << OWN_DEATHS_SHIFT;
        self
    }

    /// How long the message may wait in a queue, counted from its arrival there.
    #[must_use]
    pub fn expiration(&self) -> Option<Duration> {
        match u64::from_le_bytes(self.field(EXPIRATION)) {
            NEVER => None,
            ms => Some(Duration::from_millis(ms)),
        }
    }

    /// The memory that the message takes, in bytes, for budgets. Clones share it.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        let large = self.large_body.as_ref().map_or(0, |body| ARC_BYTES + VEC_BYTES + body.capacity());
        ARC_BYTES + self.bytes.len() + large
    }

    fn address(&self) -> &[u8] {
        &self.bytes[PREFIX_BYTES..PREFIX_BYTES + self.address_len()]
    }

    #[inline]
    fn address_len(&self) -> usize {
        usize::from(u16::from_le_bytes(self.field(ADDRESS_LEN)))
    }

    #[inline]
    fn properties_len(&self) -> usize {
        u32::from_le_bytes(self.field(PROPERTIES_LEN)) as usize
    }

    #[inline]
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        *self.bytes[at..].first_chunk().expect("every message has the prefix")
    }
}

/// The form in which a store keeps a message: its bytes, unchanged.
impl Message {
    /// Prefix, address, properties and small body.
    #[must_use]
    pub fn head_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A message of the stored [`head_bytes`](Self::head_bytes) and [`large_body`](Self::large_body); `None` if these are not a
    /// message.
    #[must_use]
    pub fn from_stored(head: &[u8], large_body: Option<Vec<u8>>) -> Option<Self> {
        let message = Self { bytes: Arc::from(head), large_body: large_body.map(Arc::new) };
        message.is_well_formed().then_some(message)
    }

    fn is_well_formed(&self) -> bool {
        let Some((prefix, rest)) = self.bytes.split_first_chunk::<PREFIX_BYTES>() else {
            return false;
        };
        let (address_len, properties_len) = (self.address_len(), self.properties_len());
        if rest.len() < address_len + properties_len {
            return false;
        }
        let (address, rest) = rest.split_at(address_len);
        let (properties, small_body) = rest.split_at(properties_len);
        let has_its_body = match &self.large_body {
            Some(body) => small_body.is_empty() && body.len() > SMALL_BODY_BYTES_MAX,
            None => small_body.len() <= SMALL_BODY_BYTES_MAX,
        };
        let Ok(properties) = Properties::check_stored(properties) else {
            return false;
        };
        let mut expected = [0; PREFIX_BYTES];
        write_prefix(&mut expected, address_len, &properties);
        if prefix[FLAGS] & DEAD_LETTER != 0 {
            expected[FLAGS] |= prefix[FLAGS] & (DEAD_LETTER | OWN_DEATHS_MAX << OWN_DEATHS_SHIFT);
        }
        has_its_body && is_address(address) && *prefix == expected
    }
}

/// Whether the bytes are two shortstrs and nothing else.
fn is_address(bytes: &[u8]) -> bool {
    let shortstr_len = |bytes: &[u8]| bytes.first().map(|len| 1 + usize::from(*len));
    shortstr_len(bytes).is_some_and(|exchange| {
        exchange <= bytes.len() && shortstr_len(&bytes[exchange..]) == Some(bytes.len() - exchange)
    })
}

impl Debug for Message {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("exchange", &String::from_utf8_lossy(self.exchange()))
            .field("routing_key", &String::from_utf8_lossy(self.routing_key()))
            .field("properties_bytes", &self.properties_len())
            .field("body_bytes", &self.body_len())
            .finish()
    }
}

#[inline]
fn with_canonical(properties: &Properties<'_>, make: impl FnOnce(&Properties<'_>) -> Message) -> Message {
    match properties.canonical() {
        None => make(properties),
        Some(raw) => make(&Properties::from_checked(&raw).expect("canonical properties are properties")),
    }
}

fn pack(exchange: &[u8], routing_key: &[u8], properties: &Properties<'_>, body: &[u8]) -> Arc<[u8]> {
    let address_len = 2 + exchange.len() + routing_key.len();
    let len = PREFIX_BYTES + address_len + properties.raw().len() + body.len();
    let mut bytes = zeroed(len);
    let to = Arc::get_mut(&mut bytes).expect("nobody else has seen the new allocation");

    let (prefix, to) = to.split_at_mut(PREFIX_BYTES);
    write_prefix(prefix, address_len, properties);
    let to = put_shortstr(to, exchange);
    let to = put_shortstr(to, routing_key);
    let (to_properties, to_body) = to.split_at_mut(properties.raw().len());
    to_properties.copy_from_slice(properties.raw());
    to_body.copy_from_slice(body);
    bytes
}

#[inline]
fn zeroed(len: usize) -> Arc<[u8]> {
    match ZEROS.get(..len) {
        Some(zeros) => Arc::from(zeros),
        None => Arc::from(vec![0; len]),
    }
}

#[inline]
fn write_prefix(prefix: &mut [u8], address_len: usize, properties: &Properties<'_>) {
    let address_len = u16::try_from(address_len).expect("two shortstrs have at most 512 bytes");
    let properties_len = u32::try_from(properties.raw().len()).expect("properties fit the frame they came in");
    let expiration = properties.expiration_ms().ok().flatten().unwrap_or(NEVER);
    let persistent = if properties.is_persistent() { PERSISTENT } else { 0 };
    let has_headers = if properties.headers().is_some() { HAS_HEADERS } else { 0 };
    prefix[FLAGS] = persistent | has_headers;
    prefix[PRIORITY] = properties.priority().unwrap_or(0);
    prefix[ADDRESS_LEN..PROPERTIES_LEN].copy_from_slice(&address_len.to_le_bytes());
    prefix[PROPERTIES_LEN..EXPIRATION].copy_from_slice(&properties_len.to_le_bytes());
    prefix[EXPIRATION..PREFIX_BYTES].copy_from_slice(&expiration.to_le_bytes());
}

#[inline]
fn put_shortstr<'t>(to: &'t mut [u8], text: &[u8]) -> &'t mut [u8] {
    assert!(text.len() <= SHORTSTR_BYTES_MAX, "exchange and routing key are shortstrs");
    let (to_text, rest) = to.split_at_mut(1 + text.len());
    to_text[0] = u8::try_from(text.len()).unwrap_or(u8::MAX);
    to_text[1..].copy_from_slice(text);
    rest
}

#[cfg(test)]
mod stored_tests {
    use super::*;

    fn sample(body_len: usize) -> Message {
        let properties = Properties::check(&[0x10, 0, 2]).expect("delivery mode 2");
        Message::with_body(b"logs", b"a.b", &properties, vec![7; body_len])
    }

    #[test]
    fn a_stored_message_is_read_back_equal() {
        for len in [0, 5, SMALL_BODY_BYTES_MAX, SMALL_BODY_BYTES_MAX + 1] {
            let message = sample(len);
            let body = message.large_body().map(|body| body.to_vec());
            let dead = sample(len).into_dead_letter(Some(17));
            let found = Message::from_stored(dead.head_bytes(), body.clone());
            assert!(
                found.is_some_and(|found| found == dead && found.is_dead_letter() && found.own_deaths() == Some(17))
            );
            assert_eq!(Message::from_stored(message.head_bytes(), body), Some(message));
        }
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let message = sample(5);
        let head = message.head_bytes();
        for len in 0..head.len() - 5 {
            assert_eq!(Message::from_stored(&head[..len], None), None, "{len} bytes");
        }
        for at in 0..PREFIX_BYTES {
            let mut damaged = head.to_vec();
            damaged[at] ^= 0x40;
            assert_eq!(Message::from_stored(&damaged, None), None, "byte {at}");
        }
        assert_eq!(Message::from_stored(head, Some(vec![0; 5000])), None, "two bodies");
        let large = sample(5000);
        let cut = large.large_body().map(|body| body[..10].to_vec());
        assert_eq!(Message::from_stored(large.head_bytes(), cut), None, "a large body that is small");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::properties::{PropertiesWriter, Property};
    use crate::wire::table::Table;

    fn properties(raw: &[u8]) -> Properties<'_> {
        Properties::check(raw).expect("the properties are well formed")
    }

    #[test]
    fn a_message_returns_the_parts_it_was_made_of() {
        let raw = PropertiesWriter::new().delivery_mode(2).priority(7).shortstr(Property::Expiration, b"1500").to_vec();
        for len in [0, 1, 100, SMALL_BODY_BYTES_MAX, SMALL_BODY_BYTES_MAX + 1, 100_000] {
            let body: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0]).collect();
            let copied = Message::new(b"logs", b"a.b", &properties(&raw), &body);
            let taken = Message::with_body(b"logs", b"a.b", &properties(&raw), body.clone());
            assert_eq!(copied, taken);
            assert_eq!(copied.exchange(), b"logs");
            assert_eq!(copied.routing_key(), b"a.b");
            assert_eq!(copied.properties_raw(), raw);
            assert_eq!(copied.properties(), properties(&raw));
            assert_eq!(copied.body(), body);
            assert_eq!(copied.body_len(), len);
            assert_eq!(copied.priority(), 7);
            assert!(copied.is_persistent());
            assert!(!copied.has_headers());
            assert_eq!(copied.expiration(), Some(Duration::from_millis(1500)));
            let content = copied.content();
            assert_eq!(content, Content { address: b"\x04logs\x03a.b", properties: &raw, body: &body });
            assert_eq!(copied.large_body().is_some(), len > SMALL_BODY_BYTES_MAX);
        }
    }

    #[test]
    fn a_message_without_properties_has_the_defaults() {
        let message = Message::new(b"", b"", &properties(&[0, 0]), b"");
        assert_eq!(message.exchange(), b"");
        assert_eq!(message.routing_key(), b"");
        assert_eq!(message.priority(), 0);
        assert!(!message.is_persistent());
        assert_eq!(message.expiration(), None);
    }

    #[test]
    fn the_longest_names_and_large_properties_fit() {
        let headers = [&b"\x01kS\x00\x00\x40\x00"[..], &[b'h'; 16_384]].concat();
        let raw = PropertiesWriter::new().headers(Table::from_checked(&headers)).to_vec();
        let name = [0xFF; 255];
        let message = Message::new(&name, &name, &properties(&raw), b"body");
        assert_eq!((message.exchange(), message.routing_key()), (&name[..], &name[..]));
        assert_eq!(message.properties_raw(), raw);
        assert_eq!(message.body(), b"body");
        assert!(message.has_headers());
    }

    #[test]
    #[should_panic(expected = "exchange and routing key are shortstrs")]
    fn a_name_longer_than_a_shortstr_is_refused() {
        let _ = Message::new(&[0; 256], b"", &properties(&[0, 0]), b"");
    }

    #[test]
    fn properties_are_kept_in_canonical_form() {
        let raw = PropertiesWriter::new()
            .headers(Table::from_checked(b"\x01bV\x01aV"))
            .shortstr(Property::Expiration, b"0100")
            .to_vec();
        let canonical = PropertiesWriter::new()
            .headers(Table::from_checked(b"\x01aV\x01bV"))
            .shortstr(Property::Expiration, b"100")
            .to_vec();
        for body in [vec![], vec![0; 5000]] {
            let message = Message::new(b"", b"q", &properties(&raw), &body);
            assert_eq!(message.properties_raw(), canonical);
            assert_eq!(message.expiration(), Some(Duration::from_millis(100)));
        }
    }

    #[test]
    fn a_clone_and_a_re_addressed_copy_share_a_large_body() {
        let message = Message::with_body(b"", b"q", &properties(&[0, 0]), vec![1; 10_000]);
        let copy = message.with_address(b"dlx", b"dead", &properties(&[0x08, 0, 3]));
        assert_eq!((copy.exchange(), copy.routing_key(), copy.priority()), (&b"dlx"[..], &b"dead"[..], 3));
        let (original, shared) = (message.large_body().unwrap(), copy.large_body().unwrap());
        assert!(Arc::ptr_eq(original, shared));
        assert!(Arc::ptr_eq(message.clone().large_body().unwrap(), original));

        let small = Message::new(b"", b"q", &properties(&[0, 0]), b"small");
        assert_eq!(small.with_address(b"dlx", b"dead", &properties(&[0, 0])).body(), b"small");
    }

    #[test]
    fn budgets_see_the_bytes_that_are_allocated() {
        let small = Message::new(b"", b"q", &properties(&[0, 0]), b"1234");
        assert_eq!(small.allocated_bytes(), 16 + PREFIX_BYTES + 3 + 2 + 4);
        let large = Message::with_body(b"", b"q", &properties(&[0, 0]), vec![0; 10_000]);
        assert_eq!(large.allocated_bytes(), 16 + PREFIX_BYTES + 3 + 2 + 16 + 24 + 10_000);
        assert_eq!(size_of::<Message>(), 24);
    }

    #[test]
    fn debug_output_shows_sizes_and_no_contents() {
        let message = Message::new(b"logs", b"a.b", &properties(&[0, 0]), b"secret");
        let printed = format!("{message:?}");
        assert!(printed.contains("body_bytes: 6") && !printed.contains("secret"), "{printed}");
    }
}
