//! What a pod's packets must not reach, as a program for the kernel's classifier `bpf` (classic BPF). Pure.
//!
//! It runs on every frame the pod sends, in the pod's namespace on the worker, before the frame is handed to the pod's interface: a
//! container may have every right in its own namespace, which is in the VM, and cannot undo this. Classic BPF and not u32, because u32
//! needs a second module to drop a packet, cannot look behind a VLAN tag the kernel took off, and takes one filter an address.
//!
//! Every fragment of a packet names its destination, so fragments need no reassembly. A frame with two VLAN tags is dropped: a node may
//! take off more tags than are seen here.

use std::net::IpAddr;

use peerpods_podvm::metadata::{DNS_PORT, MetadataAccess};

/// Where the network header is: the kernel runs the program on the whole frame, from its MAC header on. Not the offsets "from the network
/// header" (`SKF_NET_OFF`): by these, kernels before 6.16 find nothing of a packet whose headers are not in its first piece.
const NETWORK: u32 = ETHERNET_HEADER;
/// What the kernel knows about a packet: its protocol (`linux/filter.h`).
const PROTOCOL: u32 = 0xffff_f000;

/// `TC_ACT_UNSPEC`: the next filter decides.
const PASS: u32 = u32::MAX;
/// `TC_ACT_SHOT`.
const DROP: u32 = 2;

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_LENGTH: u16 = 0x80;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const ETHERNET_HEADER: u32 = 14;
const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
const VLAN_TAGS: [u32; 2] = [0x8100, 0x88a8];
const TCP: u32 = 6;
const UDP: u32 = 17;

/// The addresses a pod is kept from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocked {
    /// Kept from altogether: its own VM, whose agent would answer it.
    pub(super) vm: IpAddr,
    /// Kept from but for DNS.
    pub(super) services: &'static [IpAddr],
}

impl Blocked {
    pub(super) fn new(vm: IpAddr, access: MetadataAccess) -> Self {
        Self { vm: vm.to_canonical(), services: access.blocked() }
    }

    fn all(&self) -> impl Iterator<Item = (IpAddr, Label)> {
        let services = self.services.iter().map(|address| (*address, Label::ButDns));
        std::iter::once((self.vm, Label::Drop)).chain(services)
    }

    /// The program's instructions as the kernel takes them, eight bytes each.
    pub(super) fn program(&self) -> Vec<u8> {
        let mut code = Code::default();
        code.load(LOAD_HALF, PROTOCOL);
        code.jump(JUMP_EQUAL, IPV6, Label::Ipv6, Label::Next);
        for tag in VLAN_TAGS {
            code.jump(JUMP_EQUAL, tag, Label::Drop, Label::Next);
        }
        code.jump(JUMP_EQUAL, IPV4, Label::Next, Label::Pass);
        code.load(LOAD_WORD, NETWORK + 16);
        for (address, found) in self.all() {
            if let IpAddr::V4(v4) = address {
                code.jump(JUMP_EQUAL, v4.to_bits(), found.of(Label::Dns4), Label::Next);
            }
        }
        code.give(PASS);

        code.here(Label::Ipv6);
        for (at, (address, found)) in (0_u8..).zip(self.all()) {
            if let IpAddr::V6(v6) = address {
                code.compare_address(v6.to_bits(), found.of(Label::Dns6), Label::Address(at));
                code.here(Label::Address(at));
            }
        }
        code.give(PASS);

        // Without options the ports are where they are; a resolver's client sends none.
        code.here(Label::Dns4);
        code.load(LOAD_BYTE, NETWORK);
        code.jump(JUMP_EQUAL, 0x45, Label::Next, Label::Drop);
        code.load(LOAD_HALF, NETWORK + 6);
        code.jump(JUMP_ANY_BIT, 0x1fff, Label::Drop, Label::Next);
        code.only_dns(NETWORK + 9, 20);
        code.here(Label::Dns6);
        code.only_dns(NETWORK + 6, 40);

        code.here(Label::Pass);
        code.give(PASS);
        code.here(Label::Drop);
        code.give(DROP);
        code.assemble()
    }
}

/// A place in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    /// The instruction that follows.
    Next,
    /// Stands for one of the next two, until it is known for which family.
    ButDns,
    Dns4,
    Dns6,
    Ipv6,
    /// Behind the comparison with an address.
    Address(u8),
    Pass,
    Drop,
}

impl Label {
    fn of(self, dns: Self) -> Self {
        if self == Self::ButDns { dns } else { self }
    }
}

/// Instructions with labels in place of distances.
#[derive(Debug, Default)]
struct Code {
    lines: Vec<(u16, u32, Label, Label)>,
    places: Vec<(Label, usize)>,
}

impl Code {
    fn here(&mut self, label: Label) {
        self.places.push((label, self.lines.len()));
    }

    fn load(&mut self, what: u16, from: u32) {
        self.lines.push((what, from, Label::Next, Label::Next));
    }

    fn give(&mut self, verdict: u32) {
        self.lines.push((RETURN, verdict, Label::Next, Label::Next));
    }

    fn jump(&mut self, when: u16, value: u32, yes: Label, no: Label) {
        self.lines.push((when, value, yes, no));
    }

    fn compare_address(&mut self, address: u128, same: Label, other: Label) {
        let bytes = address.to_be_bytes();
        let words: Vec<u32> =
            bytes.chunks(4).map(|w| w.iter().fold(0, |all, byte| all << 8 | u32::from(*byte))).collect();
        for (word, at) in words.iter().zip([24, 28, 32, 36]) {
            self.load(LOAD_WORD, NETWORK + at);
            self.jump(JUMP_EQUAL, *word, if at == 36 { same } else { Label::Next }, other);
        }
    }

    /// Passes what goes to the DNS port, and drops the rest. The length is looked at before what is at its end: a load beyond it would
    /// end the program, and the frame would go to the namespace itself.
    fn only_dns(&mut self, transport_at: u32, header: u32) {
        self.load(LOAD_LENGTH, 0);
        self.jump(JUMP_AT_LEAST, ETHERNET_HEADER + header + 4, Label::Next, Label::Drop);
        self.load(LOAD_HALF, NETWORK + header + 2);
        self.jump(JUMP_EQUAL, u32::from(DNS_PORT), Label::Next, Label::Drop);
        self.load(LOAD_BYTE, transport_at);
        self.jump(JUMP_EQUAL, UDP, Label::Pass, Label::Next);
        self.jump(JUMP_EQUAL, TCP, Label::Pass, Label::Drop);
    }

    fn assemble(&self) -> Vec<u8> {
        let distance = |from: usize, label: Label| -> u8 {
            let place = self.places.iter().find(|(known, _)| *known == label).map(|(_, at)| *at);
            // Every label is behind its jumps, and the program is shorter than a jump can be.
            place.and_then(|at| u8::try_from(at.checked_sub(from + 1)?).ok()).unwrap_or(0)
        };
        let line = |(at, (code, value, yes, no)): (usize, &(u16, u32, Label, Label))| {
            let [c0, c1] = code.to_ne_bytes();
            let [v0, v1, v2, v3] = value.to_ne_bytes();
            [c0, c1, distance(at, *yes), distance(at, *no), v0, v1, v2, v3]
        };
        self.lines.iter().enumerate().flat_map(line).collect()
    }
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
