//! Netlink attributes: a length, a type, a value, padded to four bytes. Numbers of nf_tables are big-endian.

/// The type's bit for "its value is attributes again".
const NESTED: u16 = 0x8000;
/// A type without its two flag bits.
const TYPE: u16 = 0x3fff;
/// Length and type.
const HEADER: usize = 4;

/// Attributes being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// Any value. One that is longer than an attribute can be is cut; everything written here is far shorter.
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let value = value.get(..usize::from(u16::MAX) - HEADER).unwrap_or(value);
        let length = u16::try_from(value.len() + HEADER).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A text, ended by a zero byte.
    pub(super) fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        self.bytes(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// A number.
    pub(super) fn number(&mut self, kind: u16, number: u32) -> &mut Self {
        self.bytes(kind, &number.to_be_bytes())
    }

    /// Attributes inside an attribute.
    pub(super) fn nested(&mut self, kind: u16, inner: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        let mut written = Self::default();
        inner(&mut written);
        self.bytes(kind | NESTED, &written.0)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The attributes in a piece of a message, type and value. Ends at the first that is not whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Reader<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, _) = self.0.split_first_chunk::<HEADER>()?;
        let [l0, l1, k0, k1] = *head;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]) & TYPE, value))
    }
}

impl<'a> Reader<'a> {
    /// The value of the first attribute of that type.
    pub(super) fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.into_iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The attributes inside one.
    pub(super) fn inner(self, kind: u16) -> Reader<'a> {
        Reader(self.get(kind).unwrap_or_default())
    }

    /// A text without its zero byte.
    pub(super) fn text(self, kind: u16) -> Option<&'a str> {
        let value = self.get(kind)?;
        std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
    }

    /// A number.
    pub(super) fn number(self, kind: u16) -> Option<u32> {
        self.get(kind)?.try_into().ok().map(u32::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut writer = Writer::default();
        writer.text(1, "peerpods").nested(2, |inner| inner.number(3, 7).bytes(4, &[1, 2, 3]));
        let bytes = writer.into_bytes();
        assert_eq!(bytes.len() % 4, 0);
        let reader = Reader(&bytes);
        assert_eq!(reader.text(1), Some("peerpods"));
        assert_eq!(reader.inner(2).number(3), Some(7));
        assert_eq!(reader.inner(2).get(4), Some(&[1, 2, 3][..]));
        assert_eq!(reader.get(9), None);
        assert_eq!(reader.inner(9).count(), 0);
    }

    #[test]
    fn the_bytes_are_those_of_the_nft_program() {
        // As `nft --debug=mnl` prints the priority of a chain's hook.
        let mut writer = Writer::default();
        writer.nested(4, |hook| hook.number(1, 0).number(2, 0xffff_fed4));
        let expected = [20, 0, 4, 0x80, 8, 0, 1, 0, 0, 0, 0, 0, 8, 0, 2, 0, 0xff, 0xff, 0xfe, 0xd4];
        assert_eq!(writer.into_bytes(), expected);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_reading_ends(bytes: Vec<u8>) {
            prop_assert!(Reader(&bytes).count() <= bytes.len() / HEADER);
            let _ = Reader(&bytes).inner(1).number(2);
        }
    }
}
