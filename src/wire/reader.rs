//! A cursor over borrowed bytes that reads AMQP's elementary types and never panics.

/// Reads forward through a byte slice; every method returns `None`, without moving, when too few bytes are left.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the first byte of `bytes`.
    #[must_use]
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes that are not read yet.
    #[must_use]
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    #[inline]
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    /// One octet.
    #[inline]
    pub fn octet(&mut self) -> Option<u8> {
        self.array::<1>().map(|[octet]| octet)
    }

    /// A 16-bit number.
    #[inline]
    pub fn short(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// A 32-bit number.
    #[inline]
    pub fn long(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A 64-bit number.
    #[inline]
    pub fn long_long(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The bytes of a shortstr, without their length octet.
    #[inline]
    pub fn shortstr(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let len = ahead.octet()?;
        let bytes = ahead.take(usize::from(len))?;
        *self = ahead;
        Some(bytes)
    }

    /// The bytes behind a 32-bit length: a longstr, a table, an array.
    #[inline]
    pub fn longstr(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let len = usize::try_from(ahead.long()?).ok()?;
        let bytes = ahead.take(len)?;
        *self = ahead;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_past_the_end_returns_none_and_does_not_move() {
        let mut reader = Reader::new(&[5, b'a', b'b']);
        assert_eq!(reader.shortstr(), None);
        assert_eq!(reader.long(), None);
        assert_eq!(reader.rest(), &[5, b'a', b'b']);
        let mut reader = Reader::new(&[0, 0, 0, 9, 1]);
        assert_eq!(reader.longstr(), None);
        assert_eq!(reader.rest().len(), 5);
        assert_eq!(reader.long_long(), None);
    }

    #[test]
    fn elementary_types_are_read_in_network_order() {
        let mut reader = Reader::new(&[1, 1, 2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 7, 1, b'x', 0, 0, 0, 1, b'y']);
        assert_eq!(reader.octet(), Some(1));
        assert_eq!(reader.short(), Some(0x0102));
        assert_eq!(reader.long(), Some(0x0000_0100));
        assert_eq!(reader.long_long(), Some(7));
        assert_eq!(reader.shortstr(), Some(&b"x"[..]));
        assert_eq!(reader.longstr(), Some(&b"y"[..]));
        assert!(reader.is_empty());
    }
}
