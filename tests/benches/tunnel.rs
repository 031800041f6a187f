//! The pod's path to its VM against the kernel's own VXLAN laid by hand, and against the underlay itself.
//!
//! ```text
//! ours       node ─ veth ─ pod ─ redirect ─ vxlan1 ═══ bridge ═══ VM's podns     laid by CreateVM, StartVM and the real guest
//! by hand    the same with ip and tc
//! underlay   node ─ bridge ─ veth ─ VM
//! ```
//!
//! Namespaces stand for VMs, so both ends are this kernel's. `BENCH_RUNS` (7 rounds): in each every path is measured once, in turn.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark fails by panicking")]

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use peerpods_test_require::{Need, require};
use peerpods_tests::bench::traffic::{Listening, Way};
use peerpods_tests::bench::{self, Aim, Report, Row, Samples, Unit, Value};
use peerpods_tests::node::{Node, Pod, in_private_network, output, processes_naming, run};

const NEEDS: &[Need] = &[
    Need::Root,
    Need::NetworkNamespaces,
    Need::Program("ip"),
    Need::Program("tc"),
    Need::Variable("PEERPODS_TEST_GUEST_PROGRAMS"),
];

const SPAN: Duration = Duration::from_millis(700);
const ROUND_TRIPS: usize = 4000;
/// The VM by hand, beside those of the fake cloud.
const VM: &str = "10.151.0.200";
const POD: Ipv4Addr = Ipv4Addr::new(10, 153, 0, 2);

fn main() {
    if bench::is_asked_for() && require("tunnel", NEEDS) {
        in_private_network(measure);
    }
}

async fn measure() {
    let mut report = Report::new("tunnel");
    report.note("Both ends are namespaces of one kernel on the same cores: what a path costs, not what a network gives.");
    let mut node = Node::with_guests(|_| {}).await;
    let (pod, shim) = (Pod::new(1).await, node.shim());
    shim.create("tunnel", &pod.path).await.unwrap();
    shim.start("tunnel").await.unwrap();
    let hand = ByHand::lay();
    let paths = Paths {
        ours: Listening::in_netns(podns_of_the_guest(), pod.address),
        hand: Listening::in_netns(hand.netns("d"), POD),
        underlay: Listening::in_netns(hand.netns("v"), VM.parse().unwrap()),
    };
    paths.compare(&mut report);
    shim.stop("tunnel").await.unwrap();
    node.assert_nothing_left().await;
    node.shut_down().await;
    report.finish();
}

/// The pod's namespace inside the VM, which has a mount namespace of its own.
fn podns_of_the_guest() -> File {
    let guests = processes_naming("--podns");
    let mut own = guests.iter().filter_map(|line| line.strip_prefix("process ")?.split_once(": "));
    let (pid, line) =
        own.find(|(_, line)| is_guest(line)).unwrap_or_else(|| panic!("no guest in {guests:#?}"));
    let podns = line.split(' ').skip_while(|word| *word != "--podns").nth(1).unwrap();
    File::open(format!("/proc/{pid}/root{podns}")).unwrap()
}

fn is_guest(line: &str) -> bool {
    let program = line.split(' ').next().unwrap_or_default();
    Path::new(program).file_name().is_some_and(|name| name == "peerpods-guest")
}

struct Paths {
    ours: Listening,
    hand: Listening,
    underlay: Listening,
}

/// One path's figures of one kind, ours, by hand and the underlay's.
type Three = [Samples; 3];

/// What is measured of a path, with its name.
type Kind = (&'static str, fn(&Listening) -> f64);

impl Paths {
    fn compare(&self, report: &mut Report) {
        let kinds: [Kind; 5] = [
            ("TCP, 1 stream, node to pod", |path| path.tcp(Way::There, 1, SPAN)),
            ("TCP, 1 stream, pod to node", |path| path.tcp(Way::Back, 1, SPAN)),
            ("TCP, 4 streams, node to pod", |path| path.tcp(Way::There, 4, SPAN)),
            ("TCP, 4 streams, pod to node", |path| path.tcp(Way::Back, 4, SPAN)),
            ("UDP, 1400 bytes, node to pod, what arrives", |path| path.udp(SPAN)),
        ];
        let three = |unit| -> Three { std::array::from_fn(|_| Samples::new(unit)) };
        let mut throughput: Vec<Three> = kinds.iter().map(|_| three(Unit::MiBPerSecond)).collect();
        let mut latency = three(Unit::Micros);
        for round in 0..bench::number("BENCH_RUNS", 7) {
            let all = [&self.ours, &self.hand, &self.underlay];
            for ((_, measure), samples) in kinds.iter().zip(&mut throughput) {
                for n in in_turn(round) {
                    samples[n].push(measure(all[n]));
                }
            }
            for n in in_turn(round) {
                all[n].round_trips(ROUND_TRIPS, &mut latency[n]);
            }
        }
        for ((kind, _), samples) in kinds.iter().zip(&throughput) {
            tell(report, "Throughput of the pod's path", kind, samples, |r| (r >= 0.95, "≥ 0.95 ×"));
        }
        let group = "Latency of the pod's path";
        tell(report, group, "TCP, one byte there and back", &latency, |r| (r <= 1.05, "≤ 1.05 ×"));
    }
}

/// No path is always the first.
fn in_turn(round: usize) -> [usize; 3] {
    std::array::from_fn(|n| (n + round) % 3)
}

fn tell(report: &mut Report, group: &str, what: &str, three: &Three, aim: fn(f64) -> (bool, &'static str)) {
    let [ours, hand, underlay]: [Value; 3] = std::array::from_fn(|n| three[n].value());
    let (met, text) = aim(ours.median / hand.median);
    report.row(
        Row::new(group, what, ours)
            .against("the kernel's VXLAN by hand", hand)
            .aim(Aim::new(format!("{text} that"), met)),
    );
    report.row(Row::new(group, format!("{what}  "), ours).against("the underlay: bridge and veth", underlay));
}

/// A pod and a VM joined with ip and tc. Namespaces `w` (pod), `v` (VM) and `d` (the pod's in the VM) go with the value.
struct ByHand;

impl ByHand {
    fn name(which: &str) -> String {
        format!("ppbt{}{which}", std::process::id())
    }

    fn netns(&self, which: &str) -> File {
        File::open(format!("/run/netns/{}", Self::name(which))).unwrap()
    }

    fn lay() -> Self {
        let hand = Self;
        let [w, v, d] = ["w", "v", "d"].map(Self::name);
        for ns in [&w, &v, &d] {
            ip(&format!("netns add {ns}"));
            ip(&format!("-n {ns} link set lo up"));
        }
        let bridges = output("ip", &["-o", "link", "show", "type", "bridge"]);
        let bridge = bridges.split(": ").nth(1).unwrap();
        ip(&format!("link add bhv type veth peer name eth0 netns {v}"));
        ip(&format!("link set bhv master {bridge} up"));
        ip(&format!("-n {v} addr add {VM}/24 dev eth0"));
        ip(&format!("-n {v} link set eth0 up"));
        ip(&format!("link add bhp type veth peer name eth0 netns {w}"));
        ip("addr add 10.153.0.1/24 dev bhp");
        ip("link set bhp up");
        ip(&format!("-n {w} addr add {POD}/24 dev eth0"));
        ip(&format!("-n {w} link set eth0 up"));
        hand.tunnel(&w, &v, &d);
        hand
    }

    fn tunnel(&self, w: &str, v: &str, d: &str) {
        ip(&format!("link add bhx type vxlan id 777 remote {VM} dstport 9000 nolearning"));
        ip(&format!("link set bhx netns {w} name vxlan1"));
        ip(&format!("-n {w} link set vxlan1 up"));
        for (from, to) in [("eth0", "vxlan1"), ("vxlan1", "eth0")] {
            tc(w, &format!("qdisc add dev {from} ingress"));
            let action = format!("action mirred egress redirect dev {to}");
            tc(w, &format!("filter add dev {from} parent ffff: protocol all u32 match u32 0 0 {action}"));
        }
        let mac = output("ip", &["netns", "exec", w, "cat", "/sys/class/net/eth0/address"]);
        ip(&format!("-n {v} link add bhy type vxlan id 777 remote 10.151.0.1 dstport 9000 nolearning"));
        ip(&format!("-n {v} link set bhy netns {d} name eth0"));
        ip(&format!("-n {d} link set eth0 address {} mtu 1450", mac.trim()));
        ip(&format!("-n {d} addr add {POD}/24 dev eth0"));
        ip(&format!("-n {d} link set eth0 up"));
        ip(&format!("-n {d} route add default via 10.153.0.1"));
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        for which in ["w", "v", "d"] {
            drop(std::process::Command::new("ip").args(["netns", "del", &Self::name(which)]).output());
        }
    }
}

fn ip(arguments: &str) {
    run("ip", &arguments.split(' ').collect::<Vec<_>>());
}

fn tc(netns: &str, arguments: &str) {
    let within = format!("netns exec {netns} tc {arguments}");
    ip(&within);
}
