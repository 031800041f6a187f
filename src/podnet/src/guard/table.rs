//! What is in the table: sets, chains, rules, and how a tunnel is written into the sets. Pure.

use std::net::IpAddr;

use crate::nft::{Chain, Element, Expression, Hook, KeyPart, Message, NewSet, Verdict};

/// The table's name; its family is `inet`.
pub(super) const NAME: &str = "peerpods";

/// `NF_IP_PRI_RAW`: before connection tracking, and before whoever else may decide.
const RAW: i32 = -300;
const PREROUTING: Chain = Chain { name: "prerouting", hook: Hook::Prerouting, priority: RAW };
const INPUT: Chain = Chain { name: "input", hook: Hook::Input, priority: RAW };
const FORWARD: Chain = Chain { name: "forward", hook: Hook::Forward, priority: RAW };
const OUTPUT: Chain = Chain { name: "output", hook: Hook::Output, priority: RAW };

/// As they are made, which is how the kernel lists them.
pub(super) const CHAINS: [Chain; 4] = [PREROUTING, INPUT, FORWARD, OUTPUT];

/// The VXLAN network identifier, 12 bytes from the UDP header's beginning.
const VNI: KeyPart = KeyPart::Bits { offset: 96, length: 24 };
const PEERS4: NewSet =
    NewSet { name: "peers4", key: &[KeyPart::Ipv4, KeyPart::Port, VNI], length: 12, id: 1 };
const PEERS6: NewSet =
    NewSet { name: "peers6", key: &[KeyPart::Ipv6, KeyPart::Port, VNI], length: 24, id: 2 };
const TUNNELS: NewSet = NewSet { name: "tunnels", key: &[KeyPart::Port, VNI], length: 8, id: 3 };
const PORTS: NewSet = NewSet { name: "ports", key: &[KeyPart::Port], length: 2, id: 4 };
/// All sets, those that hold everything first.
pub(super) const SETS: [NewSet; 4] = [PEERS4, PEERS6, TUNNELS, PORTS];

/// Written into every rule's comment, so that a table of another version is known and replaced.
const VERSION: &str = "[1]";
/// Between a tunnel's number and its pod's namespace in an element's comment.
const OF: &str = ", pod ";
/// Longer comments are not stored; such a tunnel is removed by its teardown alone.
const COMMENT_MAX: usize = 127;

const IPV4: &[u8] = &[2];
const IPV6: &[u8] = &[10];
const UDP: &[u8] = &[17];

/// What connection tracking sees of tunnels' packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tracking {
    /// Nothing.
    Bypassed,
    /// Whatever there is of it in a kernel whose nf_tables has no `notrack`: nothing, as a rule.
    Seen,
}

/// A tunnel and the one that may send its packets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Peer {
    pub(super) port: u16,
    pub(super) vni: u32,
    pub(super) address: IpAddr,
    /// The pod's network namespace, where it is known.
    pub(super) netns: Option<String>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RuleText {
    pub(super) chain: &'static str,
    pub(super) comment: String,
    expressions: Vec<Expression<'static>>,
}

impl Peer {
    /// Which tunnel it is, by port and identifier, whoever its peer is.
    pub(super) fn tunnel(&self) -> (u16, u32) {
        (self.port, self.vni)
    }

    fn element(&self) -> Element {
        let address = match self.address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let number = format!("VNI {}", self.vni);
        let comment = match &self.netns {
            Some(netns) if number.len() + OF.len() + netns.len() <= COMMENT_MAX => {
                format!("{number}{OF}{netns}")
            }
            _ => number,
        };
        Element { key: [address, self.tunnel_key()].concat(), comment: Some(comment) }
    }

    fn tunnel_key(&self) -> Vec<u8> {
        let [_, vni @ ..] = self.vni.to_be_bytes();
        [&self.port.to_be_bytes()[..], &[0, 0], &vni, &[0]].concat()
    }

    /// None for what we would not have written.
    fn read(element: &Element) -> Option<Self> {
        let (rest, tunnel) = element.key.split_last_chunk::<8>()?;
        let address = match rest.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(rest).ok()?),
            16 => IpAddr::from(<[u8; 16]>::try_from(rest).ok()?),
            _ => return None,
        };
        let [p0, p1, 0, 0, v0, v1, v2, 0] = *tunnel else { return None };
        let comment = element.comment.as_deref().unwrap_or_default();
        Some(Self {
            port: u16::from_be_bytes([p0, p1]),
            vni: u32::from_be_bytes([0, v0, v1, v2]),
            address,
            netns: comment.split_once(OF).map(|(_, netns)| netns.to_owned()),
        })
    }
}

/// The tunnels in what was found in the sets. A set that somebody else made may have keys of another length: they are none of ours.
pub(super) fn peers(sets: &[Option<Vec<Element>>]) -> Vec<Peer> {
    let of = |(set, found): (&NewSet, &Option<Vec<Element>>)| -> Vec<Peer> {
        let fits = |element: &&Element| u32::try_from(element.key.len()) == Ok(set.length);
        found.iter().flatten().filter(fits).filter_map(Peer::read).collect()
    };
    let mut all: Vec<Peer> = SETS.iter().zip(sets).take(2).flat_map(of).collect();
    all.sort();
    all
}

/// What each set has to hold for these tunnels, sorted, in the order of [`SETS`].
pub(super) fn contents(peers: &[Peer]) -> [Vec<Element>; 4] {
    let bare = |key: Vec<u8>| Element { key, comment: None };
    let (v4, v6): (Vec<&Peer>, Vec<&Peer>) = peers.iter().partition(|peer| peer.address.is_ipv4());
    let mut all = [
        v4.into_iter().map(Peer::element).collect::<Vec<_>>(),
        v6.into_iter().map(Peer::element).collect(),
        peers.iter().map(|peer| bare(peer.tunnel_key())).collect(),
        peers.iter().map(|peer| bare(peer.port.to_be_bytes().to_vec())).collect(),
    ];
    for set in &mut all {
        set.sort();
        set.dedup();
    }
    all
}

/// Everything anew, in place of what there is.
pub(super) fn build(peers: &[Peer], tracking: Tracking) -> Vec<Message> {
    // The first makes sure that there is one to remove.
    let mut out = vec![Message::new_table(NAME), Message::remove_table(NAME), Message::new_table(NAME)];
    out.extend(SETS.iter().map(|set| Message::new_set(NAME, set)));
    for (set, elements) in SETS.iter().zip(contents(peers)) {
        out.extend(Message::add_elements(NAME, set.name, &elements));
    }
    out.extend(CHAINS.map(|chain| Message::new_chain(NAME, chain)));
    for rule in rules(tracking) {
        out.push(Message::new_rule(NAME, rule.chain, &rule.comment, &rule.expressions));
    }
    out
}

/// The rules, in their order.
pub(super) fn rules(tracking: Tracking) -> Vec<RuleText> {
    use Expression::{AtLeast, Counter, In, LoadBeyondNetwork};
    let vni = |at| LoadBeyondNetwork { offset: 12, length: 3, at };
    let on = |chain: Chain, comment: &str, expressions: Vec<Expression<'static>>| RuleText {
        chain: chain.name,
        comment: format!("{comment} {VERSION}"),
        expressions,
    };
    let of = |chain, side, comment: &str, then: &[Expression<'static>]| {
        [Family::V4, Family::V6].map(|family| on(chain, comment, [&family.peer(side)[..], then].concat()))
    };
    let drop = [Counter, Expression::Verdict(Verdict::Drop)];
    let accept = [Expression::Verdict(Verdict::Accept)];
    let mut all: Vec<RuleText> = of(INPUT, Side::Source, "tunnels' peers", &accept).into();
    all.push(on(
        INPUT,
        "a tunnel's packets from anyone else",
        [&udp_port(0)[..], &[vni(1), In { set: TUNNELS.name, at: 0 }], &drop].concat(),
    ));
    // A load that finds nothing ends its rule. What a fragment hides from this rule is dropped by the next.
    let readable = [vni(0), AtLeast { at: 0, bytes: &[0, 0, 0] }];
    let ours = [&udp_port(0)[..], &[In { set: PORTS.name, at: 0 }]].concat();
    all.push(on(INPUT, "identifiers that are not ours", [&ours[..], &readable, &accept].concat()));
    all.push(on(INPUT, "no identifier to be read", [&ours[..], &drop].concat()));
    // Address translation would give a pod's packet this host's address, which is what the other end waits for.
    all.extend(of(FORWARD, Side::Destination, "into a tunnel by way of this host", &drop));
    if tracking == Tracking::Bypassed {
        let notrack = [Expression::Notrack];
        all.extend(of(PREROUTING, Side::Source, "not tracked", &notrack));
        all.extend(of(OUTPUT, Side::Destination, "not tracked", &notrack));
    }
    all
}

/// Loads the port that a UDP packet is sent to.
fn udp_port(at: u32) -> [Expression<'static>; 3] {
    [
        Expression::LoadTransport { at: 0 },
        Expression::Equals { at: 0, bytes: UDP },
        Expression::LoadBeyondNetwork { offset: 2, length: 2, at },
    ]
}

#[derive(Debug, Clone, Copy)]
enum Family {
    V4,
    V6,
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Source,
    Destination,
}

impl Family {
    /// Goes on for packets from or to a tunnel's peer.
    fn peer(self, side: Side) -> Vec<Expression<'static>> {
        let (number, set, offset, length, beyond) = match (self, side) {
            (Self::V4, Side::Source) => (IPV4, PEERS4, 12, 4, 1),
            (Self::V4, Side::Destination) => (IPV4, PEERS4, 16, 4, 1),
            (Self::V6, Side::Source) => (IPV6, PEERS6, 8, 16, 4),
            (Self::V6, Side::Destination) => (IPV6, PEERS6, 24, 16, 4),
        };
        let [transport, equals, port] = udp_port(beyond);
        vec![
            Expression::LoadFamily { at: 0 },
            Expression::Equals { at: 0, bytes: number },
            transport,
            equals,
            Expression::LoadNetwork { offset, length, at: 0 },
            port,
            Expression::LoadBeyondNetwork { offset: 12, length: 3, at: beyond + 1 },
            Expression::In { set: set.name, at: 0 },
        ]
    }
}
