//! The probe's packets as bytes: VXLAN header (RFC 7348), Ethernet frame, ARP (RFC 826, 5227) or neighbour solicitation (RFC 4861),
//! padding. Sizes are MTUs: an Ethernet frame of MTU 1450 has 1464 bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use peerpods_podvm::network::MacAddr;

/// The MTU that surely passes, in bytes: room for the largest question.
pub(super) const SMALL: u32 = 100;
/// How much of a received frame is looked at.
pub(super) const LOOKED_AT: usize = 32;

const ETHERNET: usize = 14;
/// Begins the MAC addresses that questions come from: locally administered, and the asked MTU follows.
const ASKER: [u8; 3] = [0x02, b'p', b'p'];
/// "Nearest bridge" (IEEE 802.1Q 8.6.3): no bridge passes it on, so announcements end on the worker.
const NOBODY: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e]);
/// IEEE 802's "local experimental EtherType 1".
const EXPERIMENT: u16 = 0x88b5;
const MAGIC: &[u8; 8] = b"pp-mtu-1";
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;

/// A question every IP stack answers for an address of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) vni: u32,
    /// Who has it?
    pub(super) pod: IpAddr,
    /// And his MAC address.
    pub(super) mac: MacAddr,
}

impl Question {
    /// The UDP payload of a question as large as a packet of this MTU. The answer goes to a MAC address that tells the MTU.
    pub(super) fn packet(&self, mtu: u32) -> Vec<u8> {
        let asker = asker(mtu);
        let (kind, question) = match self.pod {
            IpAddr::V4(pod) => (ARP, arp(asker, pod)),
            IpAddr::V6(pod) => (IPV6, solicitation(asker, mtu, pod)),
        };
        packet(self.vni, self.mac, asker, kind, &question, mtu)
    }
}

/// The UDP payload with which the guest shows that packets of this MTU reach the worker.
pub(super) fn announcement(vni: u32, from: MacAddr, mtu: u32) -> Vec<u8> {
    let mut content = MAGIC.to_vec();
    content.extend(mtu.to_be_bytes());
    packet(vni, NOBODY, from, EXPERIMENT, &content, mtu)
}

/// What a frame says that came out of the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// A question of this MTU was answered.
    Answer(u32),
    /// The guest announced itself with this MTU.
    Announcement(u32),
}

/// Reads the start of a frame; `None` for what is not ours, or not from the pod.
pub(super) fn heard(frame: &[u8], pod: MacAddr) -> Option<Heard> {
    let (to, rest) = frame.split_first_chunk::<6>()?;
    let (from, rest) = rest.split_first_chunk::<6>()?;
    let (kind, content) = rest.split_first_chunk::<2>()?;
    if *from != pod.0 {
        return None;
    }
    if *to == NOBODY.0 && u16::from_be_bytes(*kind) == EXPERIMENT {
        let mtu = content.strip_prefix(MAGIC)?.first_chunk::<4>()?;
        return Some(Heard::Announcement(u32::from_be_bytes(*mtu)));
    }
    let asked = to.strip_prefix(&ASKER)?;
    let mtu = asked.iter().fold(0_u32, |mtu, byte| (mtu << 8) | u32::from(*byte));
    Some(Heard::Answer(mtu))
}

fn asker(mtu: u32) -> MacAddr {
    let [_, a, b, c] = mtu.to_be_bytes();
    let [x, y, z] = ASKER;
    MacAddr([x, y, z, a, b, c])
}

fn packet(vni: u32, to: MacAddr, from: MacAddr, kind: u16, content: &[u8], mtu: u32) -> Vec<u8> {
    // Flag I, reserved bytes, the identifier, a reserved byte.
    let mut out = vec![0x08, 0, 0, 0];
    out.extend((vni << 8).to_be_bytes());
    let header = out.len();
    out.extend(to.0);
    out.extend(from.0);
    out.extend(kind.to_be_bytes());
    out.extend(content);
    let whole = header + ETHERNET + usize::try_from(mtu).unwrap_or_default();
    out.resize(whole.max(out.len()), 0);
    out
}

/// "Who has it? Tell nobody": a probe, which no host remembers and its owner answers.
fn arp(asker: MacAddr, pod: Ipv4Addr) -> Vec<u8> {
    // Ethernet, IPv4, their lengths, request.
    let mut out = vec![0, 1, 0x08, 0, 6, 4, 0, 1];
    out.extend(asker.0);
    out.extend([0; 4]);
    out.extend([0; 6]);
    out.extend(pod.octets());
    out
}

/// From a link-local address of this question's own, so that the answer comes to its MAC address.
fn solicitation(asker: MacAddr, mtu: u32, pod: Ipv6Addr) -> Vec<u8> {
    let [high, low] = [(mtu >> 16) as u16, (mtu & 0xffff) as u16];
    let from = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x7070, 0, high, low);
    let [.., a, b, c] = pod.octets();
    let mut to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    to.iter_mut().skip(13).zip([a, b, c]).for_each(|(byte, of_pod)| *byte = of_pod);
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(pod.octets());
    // Option "source link-layer address", one unit of eight bytes.
    message.extend([1, 1]);
    message.extend(asker.0);
    let length = u16::try_from(message.len()).unwrap_or_default();
    let sum = checksum(&[&from.octets(), &to, &[0, 0], &length.to_be_bytes(), &[0, 0, 0, ICMPV6], &message]);
    message.splice(2..4, sum.to_be_bytes());
    let mut out = vec![0x60, 0, 0, 0];
    out.extend(length.to_be_bytes());
    // Neighbour discovery is believed only with a hop limit that no router has lowered.
    out.extend([ICMPV6, 255]);
    out.extend(from.octets());
    out.extend(to);
    out.extend(message);
    out
}

/// The internet checksum (RFC 1071) over parts of even lengths.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks_exact(2));
    let sum = words.fold(0_u32, |sum, word| sum + word.iter().fold(0, |w, byte| (w << 8) | u32::from(*byte)));
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);

    fn question(pod: &str) -> Question {
        Question { vni: 0x01_0203, pod: pod.parse().unwrap(), mac: POD }
    }

    #[test]
    fn packets_have_the_size_of_the_pods_largest_with_the_vxlan_header_in_front() {
        for pod in ["10.0.0.7", "fd00::7"] {
            let packet = question(pod).packet(1450);
            // 20 of IPv4 and 8 of UDP make 1500 of it.
            assert_eq!(packet.len(), 1472, "{pod}");
            assert_eq!(packet[..8], [8, 0, 0, 0, 1, 2, 3, 0]);
            assert_eq!(packet[8..14], POD.0);
            assert_eq!(question(pod).packet(SMALL).len(), 122);
        }
        assert_eq!(announcement(7, POD, 1450).len(), 1472);
    }

    #[test]
    fn an_answer_tells_the_size_of_its_question() {
        let asked = question("10.0.0.7").packet(65_485);
        let asker = &asked[14..20];
        let answer = [asker, &POD.0, &[8, 6]].concat();
        assert_eq!(heard(&answer, POD), Some(Heard::Answer(65_485)));
        assert_eq!(heard(&answer, MacAddr([2; 6])), None, "from somebody else");
        assert_eq!(heard(&answer[..13], POD), None);
        let other = [&[0xff; 6][..], &POD.0, &[8, 6]].concat();
        assert_eq!(heard(&other, POD), None);
    }

    #[test]
    fn an_announcement_is_heard_from_its_first_bytes() {
        let packet = announcement(7, POD, 8951);
        let frame = &packet[8..];
        assert_eq!(heard(&frame[..LOOKED_AT], POD), Some(Heard::Announcement(8951)));
        assert_eq!(heard(&frame[..20], POD), None);
    }

    #[test]
    fn the_checksum_of_a_solicitation_is_that_of_the_rfc() {
        let message = solicitation(asker(100), 100, "fd00::1234:5678".parse().unwrap());
        let (header, body) = message.split_at(40);
        let pseudo = [&header[8..40], &[0, 0, 0, 32, 0, 0, 0, ICMPV6]].concat();
        assert_eq!(body.len(), 32);
        assert_eq!(checksum(&[&pseudo, body]), 0, "over itself it is zero");
        assert_eq!(header[24..40], "ff02::1:ff34:5678".parse::<Ipv6Addr>().unwrap().octets());
    }
}
