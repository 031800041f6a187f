//! Who can send into a tunnel. Judged by packets, by the `nft` program, and by the kernel's own counters.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use peerpods_test_require::{Need, require};

use crate::bed::{Bed, NEEDS, Ns, PORT, Underlay, counter, ip, must, on, ping, settled};

const NFT: &[Need] = &[Need::Program("nft")];
pub(crate) const VNI: u32 = 555_000;

pub(crate) fn can(test: &str) -> bool {
    require(test, NEEDS) && require(test, NFT)
}

pub(crate) fn nft(netns: &str, args: &[&str]) -> String {
    must("ip", &[&["netns", "exec", netns, "nft"], args].concat())
}

pub(crate) fn table(netns: &str) -> String {
    nft(netns, &["list", "table", "inet", "peerpods"])
}

/// The packets that the rules with this comment (one a family) counted.
fn counted(netns: &str, comment: &str) -> u64 {
    let table = table(netns);
    let rules: Vec<&str> = table.lines().filter(|l| l.contains(comment)).collect();
    assert!(!rules.is_empty(), "{comment}: {table}");
    let packets = |rule: &&str| -> u64 {
        rule.split("packets ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    rules.iter().map(packets).sum()
}

/// A third machine, with a link to the worker (address 1 of network 201) and one to the VM (of 202).
fn third(bed: &Bed) -> Ns {
    let third = Ns::make("t");
    for (home, link, net) in [(&bed.worker.0, "und1", 201), (&bed.vm.0, "und2", 202)] {
        ip(&["-n", home, "link", "add", link, "type", "veth", "peer", "name", link, "netns", &third.0]);
        for (ns, last) in [(home, 1), (&third.0, 3)] {
            bed.underlay.give(ns, link, &bed.underlay.address(net, last));
            ip(&["-n", ns, "link", "set", link, "up"]);
        }
    }
    third
}

/// Another pod of the node, which may send whatever it likes.
fn neighbour(bed: &Bed) -> Ns {
    let (pod, worker) = (Ns::make("n"), bed.worker.0.as_str());
    ip(&["-n", worker, "link", "add", "nei0", "type", "veth", "peer", "name", "eth0", "netns", &pod.0]);
    ip(&["-n", worker, "addr", "add", "10.244.9.1/32", "dev", "nei0"]);
    ip(&["-n", worker, "link", "set", "nei0", "up"]);
    ip(&["-n", worker, "route", "add", "10.244.9.7/32", "dev", "nei0"]);
    ip(&["-n", &pod.0, "addr", "add", "10.244.9.7/24", "dev", "eth0"]);
    ip(&["-n", &pod.0, "link", "set", "eth0", "up"]);
    ip(&["-n", &pod.0, "route", "add", "default", "via", "10.244.9.1"]);
    for (ns, link, address) in [(worker, "nei0", "fd00:249::1"), (&pod.0, "eth0", "fd00:249::7")] {
        Underlay::V6.give(ns, link, address);
    }
    ip(&["-n", &pod.0, "-6", "route", "add", "default", "via", "fd00:249::1"]);
    settled(&pod.0, "eth0");
    pod
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum();
    (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
}

/// VXLAN around a broadcast frame around an ICMP echo request to `to`: what only the pod's own peer may send.
fn vxlan_ping(vni: u32, to: [u8; 4]) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4];
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum);
    let mut ip = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 1, 0, 0, 10, 244, 0, 99];
    ip.extend(to);
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    let mut out = vec![8, 0, 0, 0];
    out.extend(&vni.to_be_bytes()[1..]);
    out.push(0);
    out.extend([0xff; 6]);
    out.extend([2, 0, 0, 0, 0, 9, 8, 0]);
    [out, ip, icmp].concat()
}

fn send(from: &str, to: &str, packet: &[u8]) {
    let to: IpAddr = to.parse().unwrap();
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    on(from, || UdpSocket::bind((any, 0)).unwrap().send_to(packet, (to, PORT)).unwrap());
}

/// Waits until it is so. What must *not* have happened is asserted after something that comes later was seen.
#[track_caller]
fn soon(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(5), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How many echo requests a namespace was sent. Devices' own counters are no use: IPv6 announces itself through every tunnel.
fn echoes(netns: &str) -> u64 {
    counter(netns, "Icmp:", "InEchos")
}

#[test]
fn a_third_machine_cannot_send_into_a_pod_at_either_end() {
    if !can("a_third_machine_cannot_send_into_a_pod_at_either_end") {
        return;
    }
    for underlay in Underlay::BOTH {
        let bed = Bed::over(underlay);
        let pod = bed.pod(5, VNI);
        let third = third(&bed);
        pod.setup();
        assert!(pod.vm_answers());
        // Behind the worker's end is the node, behind the VM's the pod.
        let ends = [
            (&bed.vm.0, underlay.address(202, 1), &pod.podns.0, [10, 244, 0, 5]),
            (&bed.worker.0, underlay.address(201, 1), &bed.worker.0, [10, 244, 0, 1]),
        ];
        for (home, address, behind, to) in ends {
            let packet = vxlan_ping(VNI, to);
            let (before, dropped) = (echoes(behind), counted(home, "from anyone else"));
            send(&third.0, &address, &packet);
            soon(&format!("{home}: {}", table(home)), || counted(home, "from anyone else") == dropped + 1);
            assert_eq!(echoes(behind), before, "{home}: it arrived");
            // The same packet without our table, to know that it is one that would have arrived.
            nft(home, &["delete", "table", "inet", "peerpods"]);
            send(&third.0, &address, &packet);
            soon("the packet proves nothing", || echoes(behind) == before + 1);
            pod.setup();
        }
        assert!(pod.vm_answers());
    }
}

#[test]
fn fragments_hide_no_identifier() {
    if !can("fragments_hide_no_identifier") {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, VNI);
    let third = third(&bed);
    pod.setup();
    // The first fragment ends with the UDP header; the identifier is in the second.
    let inner = vxlan_ping(VNI, [10, 244, 0, 5]);
    let udp_length = u16::try_from(8 + inner.len()).unwrap();
    let mut udp = [9999_u16.to_be_bytes(), PORT.to_be_bytes(), udp_length.to_be_bytes(), [0, 0]].concat();
    udp.extend(&inner);
    let inject = || {
        for (flags, piece) in [(0x2000_u16, &udp[..8]), (1, &udp[8..])] {
            send_raw(&third.0, [10, 202, 0, 1], 77, flags, piece);
        }
    };
    let (before, dropped) = (echoes(&pod.podns.0), counted(&bed.vm.0, "from anyone else"));
    inject();
    soon("the fragments are dropped as one", || counted(&bed.vm.0, "from anyone else") == dropped + 1);
    assert_eq!(echoes(&pod.podns.0), before);
    let unread = counted(&bed.vm.0, "no identifier");
    send(&third.0, "10.202.0.1", &inner[..4]);
    let what = "what IPv6 would show of the first fragment";
    soon(what, || counted(&bed.vm.0, "no identifier") == unread + 1);
    nft(&bed.vm.0, &["delete", "table", "inet", "peerpods"]);
    inject();
    soon("the fragments prove nothing", || echoes(&pod.podns.0) > before);
}

/// An IPv4 packet whose header says everything, by a raw socket.
fn send_raw(from: &str, to: [u8; 4], id: u16, flags: u16, payload: &[u8]) {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
    };
    use std::os::fd::AsRawFd;
    let mut packet = vec![0x45, 0];
    packet.extend(u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(flags.to_be_bytes());
    packet.extend([64, 17, 0, 0, 10, 202, 0, 3]);
    packet.extend(to);
    packet.extend(payload);
    on(from, || {
        let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw).unwrap();
        let [a, b, c, d] = to;
        sendto(raw.as_raw_fd(), &packet, &SockaddrIn::new(a, b, c, d, 0), MsgFlags::empty()).unwrap();
    });
}

#[test]
fn identifiers_that_are_not_ours_are_left_alone() {
    if !can("identifiers_that_are_not_ours_are_left_alone") {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, VNI);
    pod.setup();
    // Another overlay on the same port, as flannel's or OVN's would be, between the worker and a third machine.
    let third = third(&bed);
    for (ns, remote, address) in
        [(&bed.worker.0, "10.201.0.3", "10.77.0.1/24"), (&third.0, "10.201.0.1", "10.77.0.3/24")]
    {
        let port = PORT.to_string();
        ip(&[
            "-n", ns, "link", "add", "other0", "type", "vxlan", "id", "42", "remote", remote, "dstport",
            &port,
        ]);
        ip(&["-n", ns, "addr", "add", address, "dev", "other0"]);
        ip(&["-n", ns, "link", "set", "other0", "up"]);
    }
    assert!(ping(&third.0, "10.77.0.1", &[]), "{}", table(&bed.worker.0));
    assert!(pod.vm_answers());
}

#[test]
fn nobody_sends_into_a_tunnel_by_way_of_the_worker() {
    if !can("nobody_sends_into_a_tunnel_by_way_of_the_worker") {
        return;
    }
    for underlay in Underlay::BOTH {
        by_way_of_the_worker(underlay);
    }
}

fn by_way_of_the_worker(underlay: Underlay) {
    let (family, forwarding) = match underlay {
        Underlay::V4 => ("ip", "net.ipv4.ip_forward=1"),
        Underlay::V6 => ("ip6", "net.ipv6.conf.all.forwarding=1"),
    };
    let bed = Bed::over(underlay);
    let (one, two) = (bed.pod(5, VNI), bed.pod(6, VNI + 1));
    one.setup();
    two.setup();
    let (worker, vm) = (bed.worker.0.as_str(), underlay.address(200, 2));
    must("ip", &["netns", "exec", worker, "sysctl", "-qw", forwarding]);
    // As on a node that hides pods behind its own address: what pod one sends to pod two's VM looks like the worker's.
    nft(worker, &["add", "table", family, "hide"]);
    nft(worker, &["add", "chain", family, "hide", "post", "{ type nat hook postrouting priority 100; }"]);
    nft(worker, &["add", "rule", family, "hide", "post", "oifname", "und0", "masquerade"]);
    let before = echoes(&two.podns.0);
    let neighbour = neighbour(&bed);
    let counts = || counted(worker, "by way of this host");
    assert_eq!(counts(), 0);
    send(&neighbour.0, &vm, &vxlan_ping(VNI + 1, [10, 244, 0, 6]));
    soon("it is counted", || counts() == 1);
    assert_eq!(echoes(&two.podns.0), before);
    nft(worker, &["delete", "table", "inet", "peerpods"]);
    send(&neighbour.0, &vm, &vxlan_ping(VNI + 1, [10, 244, 0, 6]));
    soon("the packet proves nothing", || echoes(&two.podns.0) > before);
}

#[test]
fn tunnels_packets_are_not_tracked() {
    if !can("tunnels_packets_are_not_tracked") || !require("tunnels_packets", &[Need::Program("conntrack")]) {
        return;
    }
    for underlay in Underlay::BOTH {
        not_tracked(underlay);
    }
}

fn not_tracked(underlay: Underlay) {
    let bed = Bed::over(underlay);
    let pod = bed.pod(5, VNI);
    // Somebody on the node who has connections tracked, as kube-proxy has.
    for ns in [&bed.worker.0, &bed.vm.0] {
        nft(ns, &["add", "table", "inet", "kubeproxy"]);
        nft(ns, &["add", "chain", "inet", "kubeproxy", "in", "{ type filter hook prerouting priority 0; }"]);
        nft(ns, &["add", "rule", "inet", "kubeproxy", "in", "ct", "state", "new", "counter"]);
    }
    let family = if underlay == Underlay::V4 { "ipv4" } else { "ipv6" };
    let tracked = |ns: &str| {
        let question = ["-L", "-f", family, "-p", "udp", "--dport", &PORT.to_string()];
        let all = must("ip", &[&["netns", "exec", ns, "conntrack"], &question[..]].concat());
        all.lines().count()
    };
    pod.setup();
    // What one end says before the other is there, such as IPv6's reports of groups, was tracked where it came.
    for ns in [&bed.worker.0, &bed.vm.0] {
        must("ip", &["netns", "exec", ns, "conntrack", "-F"]);
    }
    assert!(pod.vm_answers());
    assert_eq!((tracked(&bed.worker.0), tracked(&bed.vm.0)), (0, 0), "{}", table(&bed.worker.0));
    for ns in [&bed.worker.0, &bed.vm.0] {
        nft(ns, &["delete", "table", "inet", "peerpods"]);
    }
    assert!(pod.vm_answers());
    assert!(tracked(&bed.worker.0) > 0 && tracked(&bed.vm.0) > 0, "the test proves nothing");
}

#[test]
fn a_worker_with_another_preferred_address_sends_from_the_one_the_guest_knows() {
    if !can("a_worker_with_another_preferred_address_sends_from_the_one_the_guest_knows") {
        return;
    }
    for underlay in Underlay::BOTH {
        let bed = Bed::over(underlay);
        let mut pod = bed.pod(5, VNI);
        let (worker, other) = (bed.worker.0.as_str(), underlay.address(200, 9));
        underlay.give(worker, "und0", &other);
        let vm = format!("{}/{}", underlay.address(200, 2), if underlay == Underlay::V4 { 32 } else { 128 });
        ip(&["-n", worker, "route", "add", &vm, "dev", "und0", "src", &other]);
        pod.setup();
        assert!(pod.vm_answers(), "{underlay:?}");
        pod.teardown_worker().unwrap();
        let known = pod.spec.local.take();
        pod.setup_worker().unwrap();
        assert!(!pod.vm_answers(), "{underlay:?}: the route proves nothing");
        let device = ip(&["-n", &pod.netns.name, "-o", "link", "show", "vxlan1"]);
        pod.spec.local = known;
        pod.setup_worker().unwrap();
        let kept = ip(&["-n", &pod.netns.name, "-o", "link", "show", "vxlan1"]);
        assert_eq!(kept, device, "a running pod's device, of an older program, is not made anew");
    }
}
