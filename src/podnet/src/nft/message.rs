//! Messages to and from nf_tables, all of the family `inet`.

use super::attribute::{Reader, Writer};
use super::expression::{self, Expression};

/// `NFNL_SUBSYS_NFTABLES`, the upper half of a message's type.
const SUBSYSTEM: u16 = 10;
/// `NFPROTO_INET`: IPv4 and IPv6 together.
const INET: u8 = 1;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
/// Netlink header and nfgenmsg.
const HEADERS: usize = 20;
/// So many elements fit a message, whose list can have 64 KiB, whatever their comments.
const ELEMENTS_A_MESSAGE: usize = 128;
/// The longest comment the `nft` program accepts, in bytes, its zero included.
const COMMENT: usize = 128;

/// Where packets pass by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Every packet that arrives.
    Prerouting,
    /// Packets for this host. Fragments of IPv4 are whole again here, those of IPv6 are not.
    Input,
    /// Packets that arrive and are sent on.
    Forward,
    /// Every packet sent from here.
    Output,
}

/// A base chain; what none of its rules decides goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) hook: Hook,
    /// Chains of lower numbers are asked first.
    pub(crate) priority: i32,
}

/// One part of a set's key; for the eyes of the `nft` program, which shows elements by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyPart {
    /// An IPv4 source address.
    Ipv4,
    /// An IPv6 source address.
    Ipv6,
    /// A UDP port.
    Port,
    /// So many bits at a place in the transport header.
    Bits { offset: u32, length: u32 },
}

/// A set to be made. Its key's parts take multiples of four bytes each, unless there is only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewSet {
    pub(crate) name: &'static str,
    pub(crate) key: &'static [KeyPart],
    /// The key's length in bytes.
    pub(crate) length: u32,
    /// A number unique in its batch.
    pub(crate) id: u32,
}

/// An element of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    pub(crate) key: Vec<u8>,
    pub(crate) comment: Option<String>,
}

/// A rule as it is found: enough to know it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) chain: String,
    pub(crate) comment: String,
}

/// A message but for its sequence number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    kind: u16,
    flags: u16,
    family: u8,
    resource: u16,
    attributes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16, write: impl FnOnce(&mut Writer) -> &mut Writer) -> Self {
        let mut writer = Writer::default();
        write(&mut writer);
        let kind = SUBSYSTEM << 8 | kind;
        Self { kind, flags, family: INET, resource: 0, attributes: writer.into_bytes() }
    }

    /// Makes a table; Ok when it is there.
    pub(crate) fn new_table(name: &str) -> Self {
        Self::new(0, NLM_F_CREATE, |to| to.text(1, name).number(2, 0))
    }

    /// Removes a table with all it holds.
    pub(crate) fn remove_table(name: &str) -> Self {
        Self::new(2, 0, |to| to.text(1, name))
    }

    pub(crate) fn new_chain(table: &str, chain: Chain) -> Self {
        let hook = match chain.hook {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
        };
        Self::new(3, NLM_F_CREATE, |to| {
            to.text(1, table).text(3, chain.name).text(7, "filter");
            // NFTA_CHAIN_POLICY: NF_ACCEPT
            to.number(5, 1).nested(4, |to| to.number(1, hook).number(2, chain.priority.cast_unsigned()))
        })
    }

    /// A rule at the end of a chain.
    pub(crate) fn new_rule(table: &str, chain: &str, comment: &str, expressions: &[Expression<'_>]) -> Self {
        Self::new(6, NLM_F_CREATE | NLM_F_APPEND, |to| {
            to.text(1, table).text(2, chain);
            to.nested(4, |to| expression::write(expressions, to)).bytes(7, &comment_data(comment))
        })
    }

    pub(crate) fn new_set(table: &str, set: &NewSet) -> Self {
        Self::new(9, NLM_F_CREATE, |to| {
            to.text(1, table).text(2, set.name).number(3, 0).number(4, key_type(set.key));
            to.number(5, set.length).number(10, set.id).bytes(13, &key_data(set.key))
        })
    }

    pub(crate) fn add_elements(table: &str, set: &str, elements: &[Element]) -> Vec<Self> {
        Self::elements(12, NLM_F_CREATE, table, set, elements)
    }

    /// All of them must be there.
    pub(crate) fn remove_elements(table: &str, set: &str, elements: &[Element]) -> Vec<Self> {
        Self::elements(14, 0, table, set, elements)
    }

    fn elements(kind: u16, flags: u16, table: &str, set: &str, elements: &[Element]) -> Vec<Self> {
        let message = |some: &[Element]| {
            Self::new(kind, flags, |to| {
                to.text(1, table).text(2, set).nested(3, |list| {
                    for element in some {
                        list.nested(1, |to| write_element(element, to));
                    }
                    list
                })
            })
        };
        elements.chunks(ELEMENTS_A_MESSAGE).map(message).collect()
    }

    /// Asks for the rules of a table. Older kernels answer with those of all tables.
    pub(super) fn list_rules(table: &str) -> Self {
        Self::new(7, NLM_F_DUMP, |to| to.text(1, table))
    }

    pub(super) fn list_elements(table: &str, set: &str) -> Self {
        Self::new(13, NLM_F_DUMP, |to| to.text(1, table).text(2, set))
    }

    /// Asks for the number that every change by anybody raises.
    pub(super) fn generation() -> Self {
        Self { family: 0, ..Self::new(16, 0, |to| to) }
    }

    /// The messages between a begin and an end: all of them or none. Refused with `ERESTART` when `generation` is not the present one.
    /// The last message is numbered `messages.len()`, and it alone is answered when all is well.
    pub(super) fn batch(generation: u32, messages: &[Self]) -> Vec<u8> {
        let frame = |kind: u16, attributes: Vec<u8>| Self {
            kind,
            flags: 0,
            family: 0,
            resource: SUBSYSTEM,
            attributes,
        };
        let mut known = Writer::default();
        known.number(1, generation);
        // NFNL_MSG_BATCH_BEGIN with NFNL_BATCH_GENID, NFNL_MSG_BATCH_END
        let mut out = frame(0x10, known.into_bytes()).encode(0, 0);
        for (message, number) in messages.iter().zip(1_u32..) {
            let last = usize::try_from(number).is_ok_and(|number| number == messages.len());
            out.extend(message.encode(number, if last { NLM_F_ACK } else { 0 }));
        }
        out.extend(frame(0x11, Vec::new()).encode(u32::MAX, 0));
        out
    }

    pub(super) fn encode(&self, sequence: u32, flags: u16) -> Vec<u8> {
        let length = u32::try_from(HEADERS + self.attributes.len()).unwrap_or(u32::MAX);
        let mut out = length.to_ne_bytes().to_vec();
        out.extend(self.kind.to_ne_bytes());
        out.extend((NLM_F_REQUEST | self.flags | flags).to_ne_bytes());
        out.extend(sequence.to_ne_bytes());
        // The sender's port: the kernel knows.
        out.extend([0; 4]);
        // Family, version, resource.
        out.extend([self.family, 0]);
        out.extend(self.resource.to_be_bytes());
        out.extend_from_slice(&self.attributes);
        out
    }
}

#[cfg(feature = "fuzzing")]
impl Message {
    /// What it changes in a table that is there.
    pub(crate) fn edit(&self) -> super::fuzzing::Edit {
        use super::fuzzing::Edit;
        let of = Reader(&self.attributes);
        let set = || of.text(2).unwrap_or_default().to_owned();
        match self.kind & 0xff {
            2 => Edit::NoTable,
            12 => Edit::Add(set(), elements(&self.attributes)),
            14 => Edit::Remove(set(), elements(&self.attributes)),
            _ => Edit::Other,
        }
    }
}

fn write_element<'w>(element: &Element, to: &'w mut Writer) -> &'w mut Writer {
    to.nested(1, |key| key.bytes(1, &element.key));
    match &element.comment {
        Some(comment) => to.bytes(6, &comment_data(comment)),
        None => to,
    }
}

/// A comment on a rule or an element, as the `nft` program stores it: type 0, length, text, zero byte.
fn comment_data(comment: &str) -> Vec<u8> {
    let mut end = comment.len().min(COMMENT - 1);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    let text = comment.get(..end).unwrap_or_default();
    field(0, &[text.as_bytes(), &[0]].concat())
}

fn comment(data: &[u8]) -> Option<&str> {
    let (&[0, length], rest) = data.split_first_chunk::<2>()? else { return None };
    std::str::from_utf8(rest.get(..usize::from(length))?.strip_suffix(&[0])?).ok()
}

/// The `nft` program's own form for what the kernel only keeps: type, length, value; numbers in the machine's order.
fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, u8::try_from(value.len()).unwrap_or(u8::MAX)];
    out.extend_from_slice(value);
    out
}

fn number(kind: u8, value: u32) -> Vec<u8> {
    field(kind, &value.to_ne_bytes())
}

/// The `nft` program's numbers of data types, six bits for each part of the key.
fn key_type(parts: &[KeyPart]) -> u32 {
    let of = |part: &KeyPart| match part {
        KeyPart::Ipv4 => 7,
        KeyPart::Ipv6 => 8,
        KeyPart::Port => 13,
        KeyPart::Bits { .. } => 4,
    };
    parts.iter().fold(0, |all, part| all << 6 | of(part))
}

/// What the `nft` program keeps with a set whose key was declared by `typeof`.
fn key_data(parts: &[KeyPart]) -> Vec<u8> {
    const PAYLOAD: u32 = 7;
    const CONCAT: u32 = 13;
    const BIG_ENDIAN: u32 = 2;
    let one = |part: &KeyPart| {
        let inner = match part {
            KeyPart::Ipv4 => [number(0, 12), number(1, 11)].concat(),
            KeyPart::Ipv6 => [number(0, 13), number(1, 8)].concat(),
            KeyPart::Port => [number(0, 6), number(1, 2)].concat(),
            KeyPart::Bits { offset, length } => {
                [number(0, 0), number(1, 0), number(2, 3), number(3, *offset), number(4, *length)].concat()
            }
        };
        [number(0, PAYLOAD), field(1, &inner)].concat()
    };
    let (order, all) = match parts {
        [only] => (BIG_ENDIAN, one(only)),
        parts => {
            let each = parts.iter().zip(0_u8..).flat_map(|(part, at)| field(at, &one(part)));
            (0, [number(0, CONCAT), field(1, &each.collect::<Vec<u8>>())].concat())
        }
    };
    [number(0, order), field(3, &all)].concat()
}

/// A rule of the table in an answer's attributes.
pub(super) fn rule(attributes: &[u8], table: &str) -> Option<Rule> {
    let found = Reader(attributes);
    let comment = found.get(7).and_then(comment).unwrap_or_default().to_owned();
    (found.text(1)? == table).then_some(Rule { chain: found.text(2)?.to_owned(), comment })
}

/// The elements in an answer's attributes.
pub(super) fn elements(attributes: &[u8]) -> Vec<Element> {
    let list = Reader(attributes).inner(3);
    list.filter_map(|(_, element)| {
        let element = Reader(element);
        let key = element.inner(1).get(1)?.to_vec();
        Some(Element { key, comment: element.get(6).and_then(comment).map(str::to_owned) })
    })
    .collect()
}

/// The number in an answer to [`Message::generation`].
pub(super) fn generation(attributes: &[u8]) -> Option<u32> {
    Reader(attributes).number(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_types_of_a_key_are_stored_as_the_nft_program_stores_them() {
        // Of `typeof ip saddr . udp dport . @th,96,24` and `typeof udp dport`, by `nft --debug=mnl`.
        const PEERS: &str = "000400000000035c00040d00000001540014000407000000010c00040c00000001040b0000000114000407000000010c\
                             0004060000000104020000000226000407000000011e0004000000000104000000000204030000000304600000000404\
                             18000000";
        const PORTS: &str = "0004020000000314000407000000010c000406000000010402000000";
        let parts = [KeyPart::Ipv4, KeyPart::Port, KeyPart::Bits { offset: 96, length: 24 }];
        if cfg!(target_endian = "little") {
            assert_eq!(hex::encode(key_data(&parts)), PEERS);
            assert_eq!(hex::encode(key_data(&[KeyPart::Port])), PORTS);
        }
        assert_eq!(key_type(&parts), 0x7344);
        let parts = [KeyPart::Ipv6, KeyPart::Port, KeyPart::Bits { offset: 96, length: 24 }];
        assert_eq!(key_type(&parts), 0x8344);
    }

    #[test]
    fn elements_and_their_comments_come_back() {
        let some: Vec<Element> = (0..300_u32)
            .map(|n| Element { key: n.to_be_bytes().to_vec(), comment: (n != 1).then(|| format!("no {n}")) })
            .collect();
        let messages = Message::add_elements("t", "s", &some);
        assert_eq!(messages.len(), 3);
        let back: Vec<Element> = messages.iter().flat_map(|m| elements(&m.attributes)).collect();
        assert_eq!(back, some);
    }

    #[test]
    fn a_long_comment_is_cut_between_characters() {
        let stored = comment_data(&"é".repeat(100));
        assert_eq!(comment(&stored), Some("é".repeat(63).as_str()));
        assert_eq!(comment(&[]), None);
        assert_eq!(comment(&[0, 9, b'a', 0]), None);
    }

    #[test]
    fn a_batch_is_framed_and_only_its_last_message_is_answered() {
        let messages = [Message::new_table("a"), Message::remove_table("a")];
        let bytes = Message::batch(7, &messages);
        let mut rest = bytes.as_slice();
        let mut seen = Vec::new();
        while let Some((head, _)) = rest.split_first_chunk::<16>() {
            let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let short = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
            seen.push((short(4), short(6) & NLM_F_ACK != 0));
            rest = &rest[length..];
        }
        assert_eq!(seen, [(0x10, false), (0xa00, false), (0xa02, true), (0x11, false)]);
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes: Vec<u8>) {
            let _ = (rule(&bytes, "peerpods"), elements(&bytes), generation(&bytes), comment(&bytes));
        }
    }
}
