//! The payload of a content header frame.

use super::reader::Reader;

/// The fixed part of a content header, its properties left raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    /// The class of the method that the content belongs to; 60 in every valid content.
    pub class_id: u16,
    /// Reserved; the session refuses any value but 0.
    pub weight: u16,
    /// How many bytes of body follow.
    pub body_size: u64,
    /// Flags and property list, for [`Properties::check`](super::properties::Properties::check).
    pub properties: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    /// Reads a header frame's payload; `None` when it is shorter than the fixed part;
    /// [`read_frame`](super::frame::read_frame) refuses such frames.
    #[must_use]
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        Some(Self {
            class_id: reader.short()?,
            weight: reader.short()?,
            body_size: reader.long_long()?,
            properties: reader.rest(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_part_is_read_and_the_properties_are_left_raw() {
        let payload = [0, 60, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 0x10, 0, 2];
        let header = ContentHeader::parse(&payload).expect("it is long enough");
        assert_eq!(header, ContentHeader { class_id: 60, weight: 1, body_size: 258, properties: &[0x10, 0, 2] });
        assert_eq!(ContentHeader::parse(&payload[..11]), None);
    }
}
