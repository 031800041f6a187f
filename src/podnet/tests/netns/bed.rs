//! The test bed, and how code and programs are run inside its namespaces.

use std::fmt::Write as _;
use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use peerpods_podnet::{
    GuestTunnel, PodNetns, PodNetnsSpec, Tunnel, TunnelError, TunnelSpec, VxlanTunnel, guest, pod_netns,
};
use peerpods_podvm::network::{Carried, PodInterface, PodNetwork};
use peerpods_test_require::Need;

pub(crate) const NEEDS: &[Need] = &[
    Need::Root,
    Need::NetworkNamespaces,
    Need::Program("ip"),
    Need::Program("tc"),
    Need::Program("ss"),
    Need::Program("ping"),
];

pub(crate) const VM_IP: &str = "10.200.0.2";
pub(crate) const NODE_IP: &str = "10.244.0.1";
pub(crate) const PORT: u16 = 9000;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A name no other test and no other run uses.
pub(crate) fn unique(what: &str) -> String {
    format!("ppt{}x{}{what}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A named namespace that goes with the value.
pub(crate) struct Ns(pub(crate) String);

impl Ns {
    pub(crate) fn make(what: &str) -> Self {
        let ns = Self(unique(what));
        ip(&["netns", "add", &ns.0]);
        ip(&["-n", &ns.0, "link", "set", "lo", "up"]);
        ns
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }
}

impl Drop for Ns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

/// The family of the network between worker and VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Underlay {
    V4,
    V6,
}

impl Underlay {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Address `last` of network `net`; in network 200 the worker is 1 and the VM 2.
    pub(crate) fn address(self, net: u8, last: u8) -> String {
        match self {
            Self::V4 => format!("10.{net}.0.{last}"),
            Self::V6 => format!("fd00:{net}::{last}"),
        }
    }

    pub(crate) fn give(self, ns: &str, link: &str, address: &str) {
        let net = format!("{address}/{}", if self == Self::V4 { 24 } else { 64 });
        let no_detection: &[&str] = if self == Self::V4 { &[] } else { &["nodad"] };
        ip(&[&["-n", ns, "addr", "add", &net, "dev", link], no_detection].concat());
    }
}

/// A worker and a VM on one underlay network.
pub(crate) struct Bed {
    pub(crate) worker: Ns,
    pub(crate) vm: Ns,
    pub(crate) underlay: Underlay,
}

/// One pod: its namespace on the worker, its `podns` in the VM, its tunnel.
pub(crate) struct Pod {
    underlay: Underlay,
    worker: String,
    pub(crate) vm: String,
    pub(crate) netns: PodNetns,
    pub(crate) podns: Ns,
    pub(crate) spec: TunnelSpec,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::over(Underlay::V4)
    }

    pub(crate) fn over(underlay: Underlay) -> Self {
        let bed = Self { worker: Ns::make("w"), vm: Ns::make("v"), underlay };
        let (w, v) = (bed.worker.0.as_str(), bed.vm.0.as_str());
        ip(&["-n", w, "link", "add", "und0", "type", "veth", "peer", "name", "und0", "netns", v]);
        for (ns, last) in [(w, 1), (v, 2)] {
            underlay.give(ns, "und0", &underlay.address(200, last));
            ip(&["-n", ns, "link", "set", "und0", "up"]);
        }
        settled(w, "und0");
        settled(v, "und0");
        bed
    }

    /// The pod 10.244.0.`last`/24 behind the gateway [`NODE_IP`], with nothing laid yet.
    pub(crate) fn pod(&self, last: u8, vni: u32) -> Pod {
        let pod_address = format!("10.244.0.{last}/24").parse().unwrap();
        let node_address = format!("{NODE_IP}/24").parse().unwrap();
        self.pod_with(PodNetnsSpec { node_address, pod_address, mtu: 1500 }, vni)
    }

    pub(crate) fn pod_with(&self, spec: PodNetnsSpec, vni: u32) -> Pod {
        let name = unique("p");
        let netns = inside(&self.worker.0, || async { PodNetns::create(&name, spec).await.unwrap() });
        settled(&name, "eth0");
        settled(&self.worker.0, &netns.node_interface);
        let podns = Ns(unique("g"));
        inside(&self.vm.0, || async { guest::ensure_podns(&podns.path()).await.unwrap() });
        let spec = TunnelSpec {
            vni,
            port: PORT,
            local: self.underlay.address(200, 1).parse().ok(),
            remote: self.underlay.address(200, 2).parse().unwrap(),
            pod_interface: "eth0".to_owned(),
            ordinal: 0,
        };
        Pod {
            underlay: self.underlay,
            worker: self.worker.0.clone(),
            vm: self.vm.0.clone(),
            netns,
            podns,
            spec,
        }
    }
}

impl Pod {
    pub(crate) fn observe(&self) -> Result<PodInterface, TunnelError> {
        inside(&self.worker, || async { VxlanTunnel::new().observe(&self.netns.path).await })
            .map(|pod| pod.primary)
    }

    pub(crate) fn setup_worker(&self) -> Result<(), TunnelError> {
        inside(&self.worker, || async { VxlanTunnel::new().setup(&self.netns.path, &self.spec).await })
    }

    pub(crate) fn teardown_worker(&self) -> Result<(), TunnelError> {
        inside(&self.worker, || async { VxlanTunnel::new().teardown(&self.netns.path, &self.spec).await })
    }

    /// What the worker would send to the guest.
    pub(crate) fn network(&self) -> PodNetwork {
        let primary = Carried { vxlan_id: self.spec.vni, interface: self.observe().unwrap() };
        let worker = format!("{}/24", self.underlay.address(200, 1)).parse().unwrap();
        PodNetwork::new(primary, Vec::new(), worker, PORT)
    }

    pub(crate) fn setup_guest(&self) -> Result<(), TunnelError> {
        let network = self.network();
        let tunnel = GuestTunnel { podns: self.podns.path() };
        inside(&self.vm, || async { tunnel.setup(&network).await })
    }

    pub(crate) fn teardown_guest(&self) -> Result<(), TunnelError> {
        let network = self.network();
        let tunnel = GuestTunnel { podns: self.podns.path() };
        inside(&self.vm, || async { tunnel.teardown(&network).await })
    }

    /// Both ends, as a session lays them.
    pub(crate) fn setup(&self) {
        self.setup_guest().unwrap();
        self.setup_worker().unwrap();
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.network().podip.addr()
    }

    /// Somebody answers a ping to the pod's address from the node's side.
    pub(crate) fn answers(&self) -> bool {
        ping(&self.worker, &self.address().to_string(), &[])
    }

    /// It is the VM that answers it.
    pub(crate) fn vm_answers(&self) -> bool {
        let before = counter(&self.podns.0, "Icmp:", "InEchos");
        self.answers() && counter(&self.podns.0, "Icmp:", "InEchos") > before
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        inside(&self.worker, || async { pod_netns::remove(&self.netns.name).await.unwrap() });
    }
}

/// Runs a future in a runtime of its own whose every thread is in the namespace, as a daemon started there would.
pub(crate) fn inside<T: Send, W: Future<Output = T>>(netns: &str, work: impl FnOnce() -> W + Send) -> T {
    on(netns, || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap().block_on(work())
    })
}

/// Runs blocking code on a thread in the namespace.
pub(crate) fn on<T: Send>(netns: &str, work: impl FnOnce() -> T + Send) -> T {
    let path = Path::new("/run/netns").join(netns);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(std::fs::File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

pub(crate) fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

/// Runs a program that has to succeed; answers with what it printed.
pub(crate) fn must(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {stderr}", args.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn ip(args: &[&str]) -> String {
    must("ip", args)
}

/// One echo within a second, out of two tries.
pub(crate) fn ping(netns: &str, to: &str, options: &[&str]) -> bool {
    let args = [&["netns", "exec", netns, "ping", "-n", "-c1", "-W1"], options, &[to]].concat();
    (0..2).any(|_| run("ip", &args).status.success())
}

/// A counter of a namespace's own IP stack.
pub(crate) fn counter(netns: &str, group: &str, name: &str) -> u64 {
    let snmp = must("ip", &["netns", "exec", netns, "cat", "/proc/net/snmp"]);
    let mut rows = snmp.lines().filter(|l| l.starts_with(group)).map(|l| l.split_ascii_whitespace());
    let at = rows.next().unwrap().position(|column| column == name).unwrap();
    rows.next().unwrap().nth(at).unwrap().parse().unwrap()
}

/// Waits for the carrier to be noticed, which the kernel does a little later.
pub(crate) fn settled(netns: &str, link: &str) {
    let up = || ip(&["-n", netns, "-br", "link", "show", "dev", link]).contains(" UP ");
    assert!(
        (0..100).any(|_| up() || {
            std::thread::sleep(Duration::from_millis(20));
            false
        }),
        "{link} in {netns}"
    );
}

/// Fails with the lines that differ, and only these.
#[track_caller]
pub(crate) fn assert_same(found: &str, expected: &str, when: &str) {
    let only = |a: &str, b: &str| a.lines().filter(|l| !b.contains(l)).collect::<Vec<_>>().join("\n");
    assert!(
        found == expected,
        "{when}\nnew:\n{}\nmissing:\n{}",
        only(found, expected),
        only(expected, found)
    );
}

/// Everything a tunnel could change in a namespace, one object a line, without what changes by itself: the kernel's IPv6 addresses
/// (their duplicate detection runs on) and the operational state.
pub(crate) fn dump(netns: &str) -> String {
    let mut out = String::new();
    let mut add = |program: &str, args: &[&str]| {
        let all = [&["-n", netns, "-d", "-j"], args].concat();
        let shown = must(program, &all)
            .replace("\"operstate\":\"UP\",", "")
            .replace("\"operstate\":\"UNKNOWN\",", "");
        let _ = writeln!(out, "{netns} {program} {args:?}: {}", shown.replace("},{", "},\n{"));
    };
    add("ip", &["link"]);
    add("ip", &["-4", "addr"]);
    add("ip", &["-4", "route", "show", "table", "all"]);
    add("ip", &["neigh", "show", "nud", "permanent"]);
    add("tc", &["qdisc"]);
    for link in must("ip", &["-n", netns, "-br", "link"]).lines() {
        let name = link.split([' ', '@']).next().unwrap();
        add("tc", &["filter", "show", "dev", name, "ingress"]);
    }
    out
}

/// The UDP ports open in a namespace.
pub(crate) fn udp_ports(netns: &str) -> Vec<u16> {
    let lines = must("ip", &["netns", "exec", netns, "ss", "-ulnH4"]);
    let local = lines.lines().filter_map(|l| l.split_ascii_whitespace().nth(3));
    local.filter_map(|a| a.rsplit(':').next()?.parse().ok()).collect()
}
