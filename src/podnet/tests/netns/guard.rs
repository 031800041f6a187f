//! Who can send into a tunnel, and what is left of the table that decides it. Judged by the `nft` program, by packets, and by the
//! kernel's own counters.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use peerpods_podnet::{GuestTunnel, LaidTunnel, Tunnel, VxlanTunnel, pod_netns};
use peerpods_test_require::{Need, require};

use crate::bed::{Bed, NEEDS, NODE_IP, Ns, PORT, Pod, VM_IP, counter, inside, ip, must, on, ping};

const NFT: &[Need] = &[Need::Program("nft")];
const VNI: u32 = 555_000;

fn can(test: &str) -> bool {
    require(test, NEEDS) && require(test, NFT)
}

fn nft(netns: &str, args: &[&str]) -> String {
    must("ip", &[&["netns", "exec", netns, "nft"], args].concat())
}

fn table(netns: &str) -> String {
    nft(netns, &["list", "table", "inet", "peerpods"])
}

fn has_table(netns: &str) -> bool {
    nft(netns, &["list", "tables"]).contains("peerpods")
}

/// The packets that the rule with this comment counted.
fn counted(netns: &str, comment: &str) -> u64 {
    let table = table(netns);
    let rule = table.lines().find(|l| l.contains(comment)).unwrap_or_else(|| panic!("{comment}: {table}"));
    rule.split("packets ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

/// A third machine, with a link to the worker (10.201.0.1) and one to the VM (10.202.0.1).
fn third(bed: &Bed) -> Ns {
    let third = Ns::make("t");
    for (home, link, net) in [(&bed.worker.0, "und1", "10.201.0"), (&bed.vm.0, "und2", "10.202.0")] {
        ip(&["-n", home, "link", "add", link, "type", "veth", "peer", "name", link, "netns", &third.0]);
        for (ns, last) in [(home, 1), (&third.0, 3)] {
            ip(&["-n", ns, "addr", "add", &format!("{net}.{last}/24"), "dev", link]);
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
    let address: SocketAddr = format!("{to}:{PORT}").parse().unwrap();
    on(from, || UdpSocket::bind("0.0.0.0:0").unwrap().send_to(packet, address).unwrap());
    std::thread::sleep(Duration::from_millis(100));
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
    let bed = Bed::new();
    let pod = bed.pod(5, VNI);
    let third = third(&bed);
    pod.setup();
    assert!(pod.vm_answers());
    // Behind the worker's end is the node, behind the VM's the pod.
    let ends = [
        (&bed.vm.0, "10.202.0.1", &pod.podns.0, [10, 244, 0, 5]),
        (&bed.worker.0, "10.201.0.1", &bed.worker.0, [10, 244, 0, 1]),
    ];
    for (home, address, behind, to) in ends {
        let packet = vxlan_ping(VNI, to);
        let (before, dropped) = (echoes(behind), counted(home, "from anyone else"));
        send(&third.0, address, &packet);
        assert_eq!(echoes(behind), before, "{home}: it arrived");
        assert_eq!(counted(home, "from anyone else"), dropped + 1, "{home}");
        // The same packet without our table, to know that it is one that would have arrived.
        nft(home, &["delete", "table", "inet", "peerpods"]);
        send(&third.0, address, &packet);
        assert_eq!(echoes(behind), before + 1, "{home}: the packet proves nothing");
        pod.setup();
    }
    assert!(pod.vm_answers());
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
        std::thread::sleep(Duration::from_millis(100));
    };
    let (before, dropped) = (echoes(&pod.podns.0), counted(&bed.vm.0, "from anyone else"));
    inject();
    assert_eq!(echoes(&pod.podns.0), before);
    assert_eq!(counted(&bed.vm.0, "from anyone else"), dropped + 1, "{}", table(&bed.vm.0));
    let unread = counted(&bed.vm.0, "no identifier");
    send(&third.0, "10.202.0.1", &inner[..4]);
    assert_eq!(counted(&bed.vm.0, "no identifier"), unread + 1, "what IPv6 would show of the first fragment");
    nft(&bed.vm.0, &["delete", "table", "inet", "peerpods"]);
    inject();
    assert!(echoes(&pod.podns.0) > before, "the fragments prove nothing");
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
    let bed = Bed::new();
    let (one, two) = (bed.pod(5, VNI), bed.pod(6, VNI + 1));
    one.setup();
    two.setup();
    must("ip", &["netns", "exec", &bed.worker.0, "sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    // As on a node that hides pods behind its own address: what pod one sends to pod two's VM looks like the worker's.
    nft(&bed.worker.0, &["add", "table", "ip", "hide"]);
    nft(
        &bed.worker.0,
        &["add", "chain", "ip", "hide", "post", "{ type nat hook postrouting priority 100; }"],
    );
    nft(&bed.worker.0, &["add", "rule", "ip", "hide", "post", "oifname", "und0", "masquerade"]);
    let before = echoes(&two.podns.0);
    let neighbour = neighbour(&bed);
    let counts = || counted(&bed.worker.0, "by way of this host");
    assert_eq!(counts(), 0);
    send(&neighbour.0, VM_IP, &vxlan_ping(VNI + 1, [10, 244, 0, 6]));
    assert_eq!(echoes(&two.podns.0), before);
    assert_eq!(counts(), 1, "{}", table(&bed.worker.0));
    nft(&bed.worker.0, &["delete", "table", "inet", "peerpods"]);
    send(&neighbour.0, VM_IP, &vxlan_ping(VNI + 1, [10, 244, 0, 6]));
    assert!(echoes(&two.podns.0) > before, "the packet proves nothing");
}

#[test]
fn tunnels_packets_are_not_tracked() {
    if !can("tunnels_packets_are_not_tracked") || !require("tunnels_packets", &[Need::Program("conntrack")]) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, VNI);
    // Somebody on the node who has connections tracked, as kube-proxy has.
    for ns in [&bed.worker.0, &bed.vm.0] {
        nft(ns, &["add", "table", "inet", "kubeproxy"]);
        nft(ns, &["add", "chain", "inet", "kubeproxy", "in", "{ type filter hook prerouting priority 0; }"]);
        nft(ns, &["add", "rule", "inet", "kubeproxy", "in", "ct", "state", "new", "counter"]);
    }
    let tracked = |ns: &str| {
        let all =
            must("ip", &["netns", "exec", ns, "conntrack", "-L", "-p", "udp", "--dport", &PORT.to_string()]);
        all.lines().count()
    };
    // The VM's end announces itself as soon as it is there; the worker's is there by then.
    pod.setup_worker().unwrap();
    pod.setup_guest().unwrap();
    assert!(pod.vm_answers());
    assert_eq!((tracked(&bed.worker.0), tracked(&bed.vm.0)), (0, 0), "{}", table(&bed.worker.0));
    for ns in [&bed.worker.0, &bed.vm.0] {
        nft(ns, &["delete", "table", "inet", "peerpods"]);
    }
    assert!(pod.vm_answers());
    assert!(tracked(&bed.worker.0) > 0 && tracked(&bed.vm.0) > 0, "the test proves nothing");
}

#[test]
fn each_tunnel_takes_its_own_with_it_and_the_last_the_table() {
    if !can("each_tunnel_takes_its_own_with_it_and_the_last_the_table") {
        return;
    }
    let bed = Bed::new();
    let (one, two) = (bed.pod(5, VNI), bed.pod(6, VNI + 1));
    nft(&bed.worker.0, &["add", "table", "inet", "calico"]);
    let bare = nft(&bed.worker.0, &["list", "ruleset"]);
    one.setup();
    let with_one = table(&bed.worker.0);
    two.setup();
    let with_both = table(&bed.worker.0);
    for pod in [&one, &two] {
        let element = format!(
            "{VM_IP} . {PORT} . {:#x} comment \"VNI {}, pod {}\"",
            pod.spec.vni,
            pod.spec.vni,
            pod.netns.path.display()
        );
        assert!(with_both.contains(&element), "{element} in {with_both}");
    }
    one.setup();
    two.setup_worker().unwrap();
    assert_eq!(table(&bed.worker.0), with_both, "set twice");
    two.teardown_worker().unwrap();
    assert_eq!(uncounted(&table(&bed.worker.0)), uncounted(&with_one));
    two.teardown_worker().unwrap();
    assert!(one.vm_answers());
    one.teardown_worker().unwrap();
    assert_eq!(nft(&bed.worker.0, &["list", "ruleset"]), bare);
    assert!(has_table(&bed.vm.0));
    one.teardown_guest().unwrap();
    two.teardown_guest().unwrap();
    assert!(!has_table(&bed.vm.0));
    one.teardown_guest().unwrap();
}

fn uncounted(table: &str) -> String {
    let words = table.split(' ').map(|w| if w.chars().all(|c| c.is_ascii_digit()) { "N" } else { w });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_pods_namespace_that_goes_first_leaves_nothing() {
    if !can("a_pods_namespace_that_goes_first_leaves_nothing") {
        return;
    }
    let bed = Bed::new();
    let (one, two) = (bed.pod(5, VNI), bed.pod(6, VNI + 1));
    one.setup_worker().unwrap();
    inside(&bed.worker.0, || async { pod_netns::remove(&one.netns.name).await.unwrap() });
    assert!(table(&bed.worker.0).contains("VNI 555000"));
    one.teardown_worker().unwrap();
    assert!(!has_table(&bed.worker.0), "its own teardown");

    two.setup_worker().unwrap();
    inside(&bed.worker.0, || async { VxlanTunnel::new().collect().await.unwrap() });
    assert!(has_table(&bed.worker.0), "a living pod's is not collected");
    inside(&bed.worker.0, || async { pod_netns::remove(&two.netns.name).await.unwrap() });
    inside(&bed.worker.0, || async { VxlanTunnel::new().collect().await.unwrap() });
    assert!(!has_table(&bed.worker.0), "nobody tore it down");
}

#[test]
fn a_table_that_somebody_damaged_is_whole_after_the_next_setup() {
    if !can("a_table_that_somebody_damaged_is_whole_after_the_next_setup") {
        return;
    }
    let bed = Bed::new();
    let (one, two) = (bed.pod(5, VNI), bed.pod(6, VNI + 1));
    one.setup();
    two.setup();
    let whole = uncounted(&table(&bed.worker.0));
    let damages: [&[&str]; 4] = [
        &["flush", "chain", "inet", "peerpods", "input"],
        &["flush", "set", "inet", "peerpods", "tunnels"],
        &["flush", "set", "inet", "peerpods", "ports"],
        &["add", "rule", "inet", "peerpods", "output", "drop"],
    ];
    for damage in damages {
        nft(&bed.worker.0, damage);
        assert_ne!(uncounted(&table(&bed.worker.0)), whole);
        one.setup_worker().unwrap();
        assert_eq!(uncounted(&table(&bed.worker.0)), whole, "{damage:?}");
    }
    nft(&bed.worker.0, &["flush", "ruleset"]);
    one.setup_worker().unwrap();
    two.setup_worker().unwrap();
    assert_eq!(uncounted(&table(&bed.worker.0)), whole);
    assert!(one.vm_answers() && two.vm_answers() && ping(&one.podns.0, NODE_IP, &[]));
}

#[test]
fn a_ruleset_that_was_flushed_guards_all_tunnels_again_in_one_look() {
    if !can("a_ruleset_that_was_flushed_guards_all_tunnels_again_in_one_look") {
        return;
    }
    let bed = Bed::new();
    let (one, two) = (bed.pod(5, VNI), bed.pod(6, VNI + 1));
    one.setup();
    two.setup();
    let laid = || {
        let of = |pod: &Pod| LaidTunnel { netns: pod.netns.path.clone(), spec: pod.spec.clone() };
        vec![of(&one), of(&two)]
    };
    let keep = || {
        inside(&bed.worker.0, || async { VxlanTunnel::new().keep(&laid).await.unwrap() });
        for pod in [&one, &two] {
            let (guest, network) = (GuestTunnel { podns: pod.podns.path() }, pod.network());
            inside(&bed.vm.0, || async { guest.keep(&network).await.unwrap() });
        }
    };
    for home in [&bed.worker.0, &bed.vm.0] {
        let whole = uncounted(&table(home));
        for damage in [&["flush", "ruleset"][..], &["flush", "set", "inet", "peerpods", "peers4"]] {
            nft(home, damage);
            keep();
            assert_eq!(uncounted(&table(home)), whole, "{home} {damage:?}");
        }
    }
    assert!(one.vm_answers() && two.vm_answers());
    let generation = || nft(&bed.worker.0, &["list", "ruleset"]);
    let before = generation();
    keep();
    assert_eq!(generation(), before, "a whole one is left alone, counters and all");
    inside(&bed.worker.0, || async { VxlanTunnel::new().keep(&Vec::new).await.unwrap() });
    assert!(has_table(&bed.worker.0), "what is not named is not withdrawn");
}

#[test]
fn a_change_whose_caller_went_away_is_not_done_after_a_later_one() {
    if !can("a_change_whose_caller_went_away_is_not_done_after_a_later_one") {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, VNI);
    let laid = || vec![LaidTunnel { netns: pod.netns.path.clone(), spec: pod.spec.clone() }];
    inside(&bed.worker.0, || async {
        let tunnel = VxlanTunnel::new();
        for patience in 0..20 {
            // Dropped somewhere in the middle: the thread that changes the table does not know.
            let kept = tokio::time::timeout(Duration::from_micros(100 * patience), tunnel.keep(&laid)).await;
            drop(kept);
            tunnel.teardown(&pod.netns.path, &pod.spec).await.unwrap();
            assert!(!has_table(&bed.worker.0), "after {patience}");
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(!has_table(&bed.worker.0), "long after {patience}");
        }
    });
}

#[test]
fn many_tunnels_at_once_lose_none_of_each_other() {
    if !can("many_tunnels_at_once_lose_none_of_each_other") {
        return;
    }
    let bed = Bed::new();
    let pods: Vec<Pod> = (0..8).map(|n| bed.pod(10 + n, VNI + u32::from(n))).collect();
    inside(&bed.worker.0, || async {
        let all =
            pods.iter().map(|pod| async move { VxlanTunnel::new().setup(&pod.netns.path, &pod.spec).await });
        for done in futures::future::join_all(all).await {
            done.unwrap();
        }
    });
    let shown = table(&bed.worker.0);
    for pod in &pods {
        assert_eq!(shown.matches(&format!("\"VNI {},", pod.spec.vni)).count(), 1, "{shown}");
    }
    inside(&bed.worker.0, || async {
        let all = pods
            .iter()
            .map(|pod| async move { VxlanTunnel::new().teardown(&pod.netns.path, &pod.spec).await });
        for done in futures::future::join_all(all).await {
            done.unwrap();
        }
    });
    assert!(!has_table(&bed.worker.0));
}
