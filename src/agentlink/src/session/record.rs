//! The records of a session on the wire ([`super`] has the format): pure, bounded. What they mean is not known here.

use bytes::{BufMut, BytesMut};

use super::Id;

/// The size of a record's head: type and length.
pub(crate) const HEAD: usize = 3;
/// The most bytes one DATA carries.
pub(crate) const MAX_DATA: usize = 16 * 1024;
/// The longest reason in bytes.
const MAX_REASON: usize = 200;

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    Hello { id: Id, turn: u32, received: u64 },
    Welcome { id: Id, received: u64 },
    Gone,
    Data { position: u64, bytes: &'a [u8] },
    Ack { consumed: u64 },
    Ping,
    Pong,
    Fin { position: u64 },
    Reset { reason: &'a [u8] },
}

/// What cannot be a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("a record of the unknown type {0}")]
    Unknown(u8),
    #[error("a record of type {kind} with {length} bytes")]
    Length { kind: u8, length: usize },
}

impl<'a> Record<'a> {
    /// Reads the first record of `bytes` and says how long it is; none when it is not whole yet. A fault is found as soon as the head is
    /// there: nothing is collected for it.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, RecordError> {
        let Some(([kind, high, low], rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if !allowed(*kind)?.contains(&length) {
            return Err(RecordError::Length { kind: *kind, length });
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let record = Self::from_body(*kind, body).ok_or(RecordError::Length { kind: *kind, length })?;
        Ok(Some((record, HEAD + length)))
    }

    fn from_body(kind: u8, body: &'a [u8]) -> Option<Self> {
        Some(match kind {
            1 => {
                let (id, rest) = body.split_first_chunk::<16>()?;
                let (turn, received) = rest.split_first_chunk::<4>()?;
                let turn = u32::from_be_bytes(*turn);
                Self::Hello { id: Id(*id), turn, received: number(received)?.0 }
            }
            2 => {
                let (id, received) = body.split_first_chunk::<16>()?;
                Self::Welcome { id: Id(*id), received: number(received)?.0 }
            }
            3 => Self::Gone,
            4 => {
                let (position, bytes) = number(body)?;
                Self::Data { position, bytes }
            }
            5 => Self::Ack { consumed: number(body)?.0 },
            6 => Self::Ping,
            7 => Self::Pong,
            8 => Self::Fin { position: number(body)?.0 },
            _ => Self::Reset { reason: body },
        })
    }

    /// Appends the record. What is longer than its bound allows is cut, which only a reason may be.
    pub(crate) fn emit(&self, out: &mut BytesMut) {
        let body_length = self.body_length();
        out.reserve(HEAD + body_length);
        out.put_u8(self.kind());
        out.put_u16(u16::try_from(body_length).unwrap_or(u16::MAX));
        match *self {
            Self::Hello { id, turn, received } => {
                out.put_slice(&id.0);
                out.put_u32(turn);
                out.put_u64(received);
            }
            Self::Welcome { id, received } => {
                out.put_slice(&id.0);
                out.put_u64(received);
            }
            Self::Data { position, bytes } => {
                out.put_u64(position);
                out.put_slice(bytes);
            }
            Self::Ack { consumed: number } | Self::Fin { position: number } => out.put_u64(number),
            Self::Reset { reason } => out.put_slice(cut(reason)),
            Self::Gone | Self::Ping | Self::Pong => {}
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Hello { .. } => 1,
            Self::Welcome { .. } => 2,
            Self::Gone => 3,
            Self::Data { .. } => 4,
            Self::Ack { .. } => 5,
            Self::Ping => 6,
            Self::Pong => 7,
            Self::Fin { .. } => 8,
            Self::Reset { .. } => 9,
        }
    }

    fn body_length(&self) -> usize {
        match self {
            Self::Hello { .. } => 28,
            Self::Welcome { .. } => 24,
            Self::Data { bytes, .. } => 8 + bytes.len(),
            Self::Ack { .. } | Self::Fin { .. } => 8,
            Self::Reset { reason } => cut(reason).len(),
            Self::Gone | Self::Ping | Self::Pong => 0,
        }
    }
}

/// How long a body of that type may be.
fn allowed(kind: u8) -> Result<std::ops::RangeInclusive<usize>, RecordError> {
    Ok(match kind {
        1 => 28..=28,
        2 => 24..=24,
        4 => 9..=8 + MAX_DATA,
        5 | 8 => 8..=8,
        3 | 6 | 7 => 0..=0,
        9 => 0..=MAX_REASON,
        other => return Err(RecordError::Unknown(other)),
    })
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    bytes.split_first_chunk().map(|(first, rest)| (u64::from_be_bytes(*first), rest))
}

fn cut(reason: &[u8]) -> &[u8] {
    reason.get(..MAX_REASON).unwrap_or(reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn emitted(record: &Record<'_>) -> BytesMut {
        let mut out = BytesMut::new();
        record.emit(&mut out);
        out
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        assert_eq!(
            &emitted(&Record::Data { position: 258, bytes: b"ab" })[..],
            b"\x04\0\x0a\0\0\0\0\0\0\x01\x02ab"
        );
        assert_eq!(&emitted(&Record::Ping)[..], b"\x06\0\0");
        let hello = emitted(&Record::Hello { id: Id([7; 16]), turn: 3, received: 9 });
        assert_eq!(
            &hello[..],
            [&[1, 0, 28][..], &[7; 16], &[0, 0, 0, 3], &[0, 0, 0, 0, 0, 0, 0, 9]].concat()
        );
    }

    #[test]
    fn faults_are_found_by_the_head_alone() {
        for (head, fault) in [
            ([0, 0, 0], RecordError::Unknown(0)),
            ([10, 0, 0], RecordError::Unknown(10)),
            ([4, 0, 8], RecordError::Length { kind: 4, length: 8 }),
            ([4, 0x40, 9], RecordError::Length { kind: 4, length: 16393 }),
            ([9, 0, 201], RecordError::Length { kind: 9, length: 201 }),
            ([6, 0, 1], RecordError::Length { kind: 6, length: 1 }),
            ([1, 0, 27], RecordError::Length { kind: 1, length: 27 }),
        ] {
            assert_eq!(Record::parse(&head), Err(fault));
        }
    }

    #[test]
    fn a_long_reason_is_cut() {
        let out = emitted(&Record::Reset { reason: &[b'x'; 300] });
        assert_eq!(Record::parse(&out).unwrap().unwrap().1, HEAD + 200);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_parses_is_emitted_unchanged(mut bytes: Vec<u8>, kind in 0u8..12) {
            if let Some(first) = bytes.first_mut() { *first = kind; }
            if let Ok(Some((record, length))) = Record::parse(&bytes) {
                prop_assert!(length <= bytes.len());
                prop_assert_eq!(&emitted(&record)[..], &bytes[..length]);
            }
        }

        #[test]
        fn every_record_is_read_as_written_and_not_before_it_is_whole(
            id: [u8; 16], turn: u32, n: u64, bytes in prop::collection::vec(any::<u8>(), 1..300), cut: prop::sample::Index,
        ) {
            let id = Id(id);
            let reason = &bytes[..bytes.len().min(200)];
            for record in [
                Record::Hello { id, turn, received: n }, Record::Welcome { id, received: n }, Record::Gone,
                Record::Data { position: n, bytes: &bytes }, Record::Ack { consumed: n }, Record::Ping, Record::Pong,
                Record::Fin { position: n }, Record::Reset { reason },
            ] {
                let out = emitted(&record);
                prop_assert_eq!(Record::parse(&out), Ok(Some((record, out.len()))));
                prop_assert_eq!(Record::parse(&out[..cut.index(out.len())]), Ok(None));
            }
        }
    }
}
