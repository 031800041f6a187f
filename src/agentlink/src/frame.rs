//! The header of a ttrpc frame: ten bytes, pure, bounded.
//!
//! Source: `facts/kata.md` §2. `u32` payload length, `u32` stream id, both big-endian, `u8` type, `u8` flags. This module knows
//! nothing of what a frame holds and does no I/O.

/// The size of a header in bytes.
pub const HEADER_LEN: usize = 10;
/// The longest payload either side of the protocol accepts, in bytes.
pub const MAX_PAYLOAD: usize = 4 << 20;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 1: a call.
    Request,
    /// 2: its answer.
    Response,
    /// 3: a part of a stream.
    Data,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Kind::Request => 1,
            Kind::Response => 2,
            Kind::Data => 3,
        }
    }
}

/// What cannot be the beginning of a ttrpc frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The type byte is none of 1, 2, 3: the peer does not speak ttrpc, or bytes were lost before.
    #[error("the bytes are no ttrpc frame: type {number} (stream {stream}, length {length})")]
    UnknownKind {
        /// The type byte.
        number: u8,
        /// What stands where the stream id should be.
        stream: u32,
        /// What stands where the length should be.
        length: u32,
    },
    /// The payload is longer than the reader allows.
    #[error("the frame of stream {stream} announces {length} bytes; at most {most} are allowed")]
    TooLong {
        /// The stream.
        stream: u32,
        /// The announced length in bytes.
        length: u32,
        /// What is allowed, in bytes.
        most: usize,
    },
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Payload length in bytes.
    pub length: u32,
    /// Stream id.
    pub stream: u32,
    /// Type.
    pub kind: Kind,
    /// Flags; 0x1 remote closed, 0x2 remote open, 0x4 no data. Others are kept as they are.
    pub flags: u8,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// [`FrameError`] names the fault; nothing is guessed.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        Self::parse_within(bytes, MAX_PAYLOAD)
    }

    /// The same for whoever only forwards: the peers themselves answer a payload that is too long for them, call by call. One longer than
    /// `most` bytes is no message at all.
    pub(crate) fn parse_within(bytes: &[u8; HEADER_LEN], most: usize) -> Result<Self, FrameError> {
        let [l0, l1, l2, l3, s0, s1, s2, s3, number, flags] = *bytes;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        let kind = match number {
            1 => Kind::Request,
            2 => Kind::Response,
            3 => Kind::Data,
            number => return Err(FrameError::UnknownKind { number, stream, length }),
        };
        let header = Self { length, stream, kind, flags };
        if header.payload_len() > most {
            return Err(FrameError::TooLong { stream, length, most });
        }
        Ok(header)
    }

    /// The header's bytes.
    #[must_use]
    pub fn emit(self) -> [u8; HEADER_LEN] {
        let [l0, l1, l2, l3] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [l0, l1, l2, l3, s0, s1, s2, s3, self.kind.number(), self.flags]
    }

    /// The payload's length as a size.
    #[must_use]
    pub fn payload_len(self) -> usize {
        usize::try_from(self.length).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_health_check_header_reads_as_written_in_the_facts() {
        let bytes = [0, 0, 0, 0x14, 0, 0, 0, 1, 1, 0];
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(header, Header { length: 20, stream: 1, kind: Kind::Request, flags: 0 });
        assert_eq!(header.emit(), bytes);
    }

    #[test]
    fn four_mebibytes_are_allowed_and_one_more_is_not() {
        let header = |length| Header { length, stream: 7, kind: Kind::Data, flags: 4 }.emit();
        assert!(Header::parse(&header(4 << 20)).is_ok());
        let error = Header::parse(&header((4 << 20) + 1)).unwrap_err();
        assert_eq!(error, FrameError::TooLong { stream: 7, length: (4 << 20) + 1, most: 4 << 20 });
    }

    #[test]
    fn another_protocol_is_named_as_such() {
        let error = Header::parse(b"GET / HTTP").unwrap_err();
        assert!(matches!(error, FrameError::UnknownKind { number: b'T', .. }), "{error}");
    }

    proptest! {
        #[test]
        fn no_ten_bytes_panic_and_what_parses_is_emitted_unchanged(bytes: [u8; HEADER_LEN]) {
            if let Ok(header) = Header::parse(&bytes) {
                prop_assert!(header.payload_len() <= MAX_PAYLOAD);
                prop_assert_eq!(header.emit(), bytes);
            }
        }

        #[test]
        fn every_type_one_to_three_parses(length in 0u32..=(4 << 20), stream: u32, kind in 1u8..=3, flags: u8) {
            let mut bytes = Header { length, stream, kind: Kind::Request, flags }.emit();
            bytes[8] = kind;
            prop_assert_eq!(Header::parse(&bytes).unwrap().emit(), bytes);
        }
    }
}
