//! Rules as the kernel takes them: expressions that load something into a register, compare it, look it up in a set, or act.

use super::attribute::Writer;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
/// The register that verdicts are written to.
const VERDICT_REGISTER: u32 = 0;
/// `NFT_REG32_00`: the first of the sixteen registers of four bytes.
const FIRST_REGISTER: u32 = 8;

/// What becomes of a packet, as far as this table is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes.
    Drop,
    /// The rest of this chain is not asked; other tables are.
    Accept,
}

/// One expression. `at` counts registers of four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expression<'a> {
    /// Loads the packet's protocol family (`NFPROTO_IPV4`, `NFPROTO_IPV6`).
    LoadFamily { at: u32 },
    /// Loads the transport protocol's number.
    LoadTransport { at: u32 },
    /// Loads bytes from the network header on.
    LoadNetwork { offset: u32, length: u32, at: u32 },
    /// Loads bytes from the transport header on. A rule ends without a match where the packet (or its first fragment) has none there.
    LoadBeyondNetwork { offset: u32, length: u32, at: u32 },
    /// Goes on when the register holds these bytes.
    Equals { at: u32, bytes: &'a [u8] },
    /// Goes on when the register holds these bytes or more.
    AtLeast { at: u32, bytes: &'a [u8] },
    /// Goes on when the set has what the registers from `at` on hold.
    In { set: &'a str, at: u32 },
    /// Counts packets and bytes.
    Counter,
    /// Keeps the packet from connection tracking.
    Notrack,
    /// Decides.
    Verdict(Verdict),
}

impl Expression<'_> {
    fn name(self) -> &'static str {
        match self {
            Self::LoadFamily { .. } | Self::LoadTransport { .. } => "meta",
            Self::LoadNetwork { .. } | Self::LoadBeyondNetwork { .. } => "payload",
            Self::Equals { .. } | Self::AtLeast { .. } => "cmp",
            Self::In { .. } => "lookup",
            Self::Counter => "counter",
            Self::Notrack => "notrack",
            Self::Verdict(_) => "immediate",
        }
    }

    fn write(self, to: &mut Writer) -> &mut Writer {
        match self {
            // NFTA_META_DREG, NFTA_META_KEY: NFT_META_NFPROTO, NFT_META_L4PROTO
            Self::LoadFamily { at } => to.number(1, register(at)).number(2, 15),
            Self::LoadTransport { at } => to.number(1, register(at)).number(2, 16),
            // NFTA_PAYLOAD_BASE: NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER
            Self::LoadNetwork { offset, length, at } => payload(to, 1, offset, length, at),
            Self::LoadBeyondNetwork { offset, length, at } => payload(to, 2, offset, length, at),
            // NFT_CMP_EQ, NFT_CMP_GTE
            Self::Equals { at, bytes } => compare(to, 0, at, bytes),
            Self::AtLeast { at, bytes } => compare(to, 5, at, bytes),
            // NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG
            Self::In { set, at } => to.text(1, set).number(2, register(at)),
            Self::Counter | Self::Notrack => to,
            Self::Verdict(verdict) => {
                // NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA; NF_DROP, NF_ACCEPT
                let code = match verdict {
                    Verdict::Drop => 0,
                    Verdict::Accept => 1,
                };
                to.number(1, VERDICT_REGISTER).nested(2, |data| {
                    data.nested(NFTA_DATA_VERDICT, |verdict| verdict.number(NFTA_VERDICT_CODE, code))
                })
            }
        }
    }
}

/// `NFTA_CMP_SREG`, `NFTA_CMP_OP`, `NFTA_CMP_DATA`.
fn compare<'w>(to: &'w mut Writer, operator: u32, at: u32, bytes: &[u8]) -> &'w mut Writer {
    to.number(1, register(at)).number(2, operator).nested(3, |data| data.bytes(NFTA_DATA_VALUE, bytes))
}

/// `NFTA_PAYLOAD_DREG`, `_BASE`, `_OFFSET`, `_LEN`.
fn payload(to: &mut Writer, base: u32, offset: u32, length: u32, at: u32) -> &mut Writer {
    to.number(1, register(at)).number(2, base).number(3, offset).number(4, length)
}

/// The kernel's number of a register. A multiple of four may also be called by the number of the sixteen-byte register it begins,
/// and the `nft` program understands rules only when it is.
fn register(at: u32) -> u32 {
    if at.is_multiple_of(4) { 1 + at / 4 } else { FIRST_REGISTER + at }
}

/// A rule's expressions, in their order.
pub(super) fn write<'w>(expressions: &[Expression<'_>], to: &'w mut Writer) -> &'w mut Writer {
    for expression in expressions {
        to.nested(NFTA_LIST_ELEM, |element| {
            element.text(NFTA_EXPR_NAME, expression.name());
            element.nested(NFTA_EXPR_DATA, |data| expression.write(data))
        });
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_have_the_numbers_that_the_nft_program_uses() {
        // `nft --debug=netlink`: "reg 1", "reg 9", "reg 10" after an IPv4 address, "reg 1", "reg 2", "reg 13" after an IPv6 one.
        assert_eq!([0, 1, 2].map(register), [1, 9, 10]);
        assert_eq!([4, 5].map(register), [2, 13]);
    }

    #[test]
    fn a_verdict_is_written_as_the_nft_program_writes_it() {
        let mut writer = Writer::default();
        write(&[Expression::Verdict(Verdict::Accept)], &mut writer);
        let mut expected = vec![48, 0, 1, 0x80, 14, 0, 1, 0];
        expected.extend_from_slice(b"immediate\0\0\0");
        expected.extend([28, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 0, 16, 0, 2, 0x80]);
        expected.extend([12, 0, 2, 0x80, 8, 0, 1, 0, 0, 0, 0, 1]);
        assert_eq!(writer.into_bytes(), expected);
    }
}
