//! What StartVM adds to the time the VM itself needs.
//!
//! ```text
//! instant VMs   StartVM from the moment the guest's port opens to its return, for a port that was open already, that refused
//!               connections before, and that was silent before; the first on a node at rest, and while another pod is taken away
//! QEMU          StartVM with a VM's console watched, and in turn the same VM from the provider alone
//! ```
//!
//! `BENCH_RUNS` sets the number of pairs with QEMU (5), `BENCH_STARTS` that of starts with instant VMs (200, half as many of each other kind).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peerpods_agentlink::process::LinkProcesses;
use peerpods_hypervisor::journal::DiskJournal;
use peerpods_hypervisor::ledger::NoLedger;
use peerpods_hypervisor::{Config, Parts};
use peerpods_podnet::VxlanTunnel;
use peerpods_provider::fake::FakeCloud;
use peerpods_provider::{Provider, VmKey};
use peerpods_provider_qemu::{QemuConfig, QemuProvider};
use peerpods_test_require::{Need, require};
use peerpods_tests::bench::instant::{Boot, INSTANT, InstantVms};
use peerpods_tests::bench::pods::{self, Pods};
use peerpods_tests::bench::watched::{Birth, Watched};
use peerpods_tests::bench::{self, Aim, Report, Row, Samples, Unit, Value};
use peerpods_tests::daemon::image;
use peerpods_tests::kill::node::KilledNode;
use peerpods_tests::node::{Pod, built, eventually, in_private_network};
use peerpods_tests::shim::{GoShim, admin_get};
use tokio_util::sync::CancellationToken;

const NEEDS: &[Need] = &[
    Need::Root,
    Need::NetworkNamespaces,
    Need::Program("qemu-system-x86_64"),
    Need::Path("/dev/net/tun"),
    Need::Variable("PEERPODS_TEST_IMAGE"),
];

fn main() {
    if bench::is_asked_for() && require("start", NEEDS) {
        in_private_network(measure);
    }
}

async fn measure() {
    let mut report = Report::new("start");
    pods::remove_stale().await;
    report.note(INSTANT);
    instant(&mut report).await;
    qemu(&mut report).await;
    report.finish();
}

/// With VMs that take no time of the machine.
async fn instant(report: &mut Report) {
    let vms = InstantVms::new().await;
    let mut node = KilledNode::at_rest(FakeCloud::new(vms.launcher()));
    node.boot();
    node.ready().await;
    let starts = bench::number("BENCH_STARTS", 200);
    let (mut pods, seed) = (Pods::default(), fastrand::u32(..) << 12);
    let group = "From the guest's port open to StartVM's return, instant VMs";
    let (rest, phases) = open_before(&node, &mut pods, Before::AllGone, seed, starts).await;
    report.row(whole_call(group, "port open before StartVM: the whole call", &rest));
    phases.tell(report, group);
    let (busy, _) = open_before(&node, &mut pods, Before::StopAnswered, seed + 1000, starts / 2).await;
    report.row(whole_call(group, "the same, while the last pod is taken away", &busy));
    type Booting = (&'static str, fn(Duration) -> Boot, &'static str);
    let boots: [Booting; 2] = [
        ("port refused before", Boot::Refusing, "0.5–3.5 s, median 1.6 s"),
        ("silence before", Boot::Silent, "0.6–15.6 s"),
    ];
    for (k, (what, boot, upstream)) in (2..).zip(boots) {
        let value = waited(&node, &vms, &mut pods, boot, seed + k * 1000, starts / 2).await;
        let row = Row::new(group, what, value).aim(Aim::p99_at_most(&value, 50.0)).upstream(upstream);
        report.row(row);
    }
    node.kill_9();
    drop(node);
    pods.remove().await;
}

fn whole_call(group: &str, what: &str, took: &Value) -> Row {
    Row::new(group, what, *took).aim(Aim::p99_at_most(took, 50.0)).upstream("median 118 ms")
}

/// What a sandbox waits for before it is created.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// The last one's StopVM: its tunnel is removed meanwhile, and the kernel lets only one change devices at a time.
    StopAnswered,
    /// Nothing of the last one is left, and the kernel has had a moment to forget it.
    AllGone,
}

/// Starts with VMs that are there at once, one after the other: how long the calls took, and what the service says of them.
async fn open_before(
    node: &KilledNode,
    pods: &mut Pods,
    before: Before,
    first: u32,
    n: usize,
) -> (Value, Phases) {
    let (mut told, mut all) = (Phases::default(), Samples::new(Unit::Millis));
    for (n, path) in (first..).zip(pods.make(n).await) {
        let (id, took) = one(node, n, path).await;
        all.took(took);
        told.add(&admin_get(&node.socket(), &id).await.unwrap().phases);
        node.shim().stop(&id).await.unwrap();
        if before == Before::AllGone {
            while admin_get(&node.socket(), &id).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    (all.value(), told)
}

/// Starts with VMs that boot for 0.3 to 1.3 s, one at a time, so that nothing waits for another's turn on the machine; the time from each
/// one's port to the return.
async fn waited(
    node: &KilledNode,
    vms: &InstantVms,
    pods: &mut Pods,
    boot: fn(Duration) -> Boot,
    first: u32,
    n: usize,
) -> Value {
    let paths = pods.make(n).await;
    let mut samples = Samples::new(Unit::Millis);
    for (n, path) in (first..).zip(paths) {
        vms.boot(boot(Duration::from_millis(fastrand::u64(300..1300))));
        let (id, _) = one(node, n, path).await;
        samples.took(vms.opened(&id[..8]).elapsed());
        node.shim().stop(&id).await.unwrap();
    }
    samples.value()
}

/// Creates and starts a sandbox; its id, and how long StartVM took.
async fn one(node: &KilledNode, n: u32, path: PathBuf) -> (String, Duration) {
    // Told apart by its first eight digits, as VM names are.
    let id = format!("{n:08x}").repeat(8);
    node.shim().create(&id, &path).await.unwrap();
    let began = Instant::now();
    node.shim().start(&id).await.unwrap();
    (id, began.elapsed())
}

/// What the service says of its own work.
#[derive(Default)]
struct Phases(Vec<(String, Samples)>);

impl Phases {
    fn add(&mut self, phases: &[peerpods_proto::grpc::admin::Phase]) {
        for phase in phases {
            let took = Duration::from_micros(phase.took_us);
            match self.0.iter_mut().find(|(name, _)| *name == phase.name) {
                Some((_, samples)) => samples.took(took),
                None => {
                    let mut samples = Samples::new(Unit::Millis);
                    samples.took(took);
                    self.0.push((phase.name.clone(), samples));
                }
            }
        }
    }

    fn tell(&self, report: &mut Report, group: &str) {
        for (name, samples) in &self.0 {
            report.row(Row::new(group, format!("  phase: {name}"), samples.value()));
        }
    }
}

/// With real VMs, in turn with and without the service.
async fn qemu(report: &mut Report) {
    let dir = tempfile::Builder::new().prefix("ppb").tempdir_in("/tmp").unwrap();
    let provider = Arc::new(Watched::new(Arc::new(QemuProvider::new(QemuConfig {
        image: image(),
        state_dir: dir.path().join("vms"),
        run_dir: dir.path().join("qemu"),
        bridge: "ppbench0".into(),
        subnet: "10.154.0.0/24".parse().unwrap(),
        ..QemuConfig::default()
    }))));
    let shutdown = CancellationToken::new();
    let service = tokio::spawn(peerpods_hypervisor::run(
        config(dir.path()),
        parts(provider.clone(), dir.path()),
        shutdown.clone(),
    ));
    let shim = GoShim::new(dir.path().join("h.sock"));
    eventually("the service answers", || async { shim.version().await.is_ok() }).await;

    let mut times: BTreeMap<&str, Samples> = BTreeMap::new();
    for n in 0..bench::number("BENCH_RUNS", 5) {
        let mut note =
            |what, took| times.entry(what).or_insert_with(|| Samples::new(Unit::Millis)).took(took);
        let id = format!("{n:08x}").repeat(8);
        let pod = Pod::new(u8::try_from(n % 200).unwrap()).await;
        let (began, birth, phases) = served(&shim, &provider, dir.path(), &id, &pod).await;
        note_served(&mut note, began, &birth);
        let agent = phases.iter().find(|p| p.name == "agent answered").map(|p| p.took_us).unwrap_or_default();
        note("4 agent", Duration::from_micros(agent));
        let birth = alone(&provider, n).await;
        note("0 alone", birth.steps["listening"] - birth.asked);
    }
    shutdown.cancel();
    service.await.unwrap().unwrap();
    if !times.is_empty() {
        tell_qemu(report, &times);
    }
}

fn note_served(
    note: &mut impl FnMut(&'static str, Duration),
    (began, returned): (Instant, Instant),
    birth: &Birth,
) {
    note("1 call", returned - began);
    note("2 before", birth.asked - began);
    note("3 after", returned.saturating_duration_since(birth.steps["listening"]));
    note("5 agent up", returned.saturating_duration_since(birth.steps["agent"]));
    let mut before = birth.asked;
    note("b0 the provider answers", birth.made - before);
    before = birth.made;
    for (name, step) in [
        ("b1 the kernel has started PID 1", "kernel"),
        ("b2 mounts", "mounts"),
        ("b3 modules", "modules"),
        ("b4 the VM's own network", "network"),
        ("b5 the service process is started", "service"),
        ("b6 user data", "user data"),
        ("b7 port open", "listening"),
        ("b8 pod network", "pod network"),
        ("b9 agent started", "agent"),
    ] {
        let at = birth.steps[step];
        note(name, at.saturating_duration_since(before));
        before = at;
    }
}

fn tell_qemu(report: &mut Report, times: &BTreeMap<&str, Samples>) {
    let value = |what| times[what].value();
    let group = "A real VM (QEMU, software emulation)";
    let call = value("1 call");
    let row = Row::new(group, "StartVM: call to return", call);
    report.row(row.against("QEMU alone: asked for to port open", value("0 alone")));
    let before = value("2 before");
    report.row(Row::new(group, "  before the VM is asked for", before));
    let after = value("3 after");
    report.row(Row::new(group, "  port open to return; the guest goes on booting", after));
    let agent = value("5 agent up");
    let row = Row::new(group, "  agent started to return: TLS and an answer, emulated", agent);
    report.row(row);
    let group = "A real VM's way to its agent, by what its console says";
    for (name, samples) in times.iter().filter(|(name, _)| name.starts_with('b')) {
        report.row(Row::new(group, &name[3..], samples.value()));
    }
}

fn config(dir: &Path) -> Config {
    Config {
        socket: dir.join("h.sock"),
        pods_dir: dir.join("pods"),
        state_dir: dir.join("state"),
        ..Config::default()
    }
}

fn parts(provider: Arc<Watched>, dir: &Path) -> Parts {
    Parts {
        provider,
        tunnel: Arc::new(VxlanTunnel::new()),
        link: Arc::new(LinkProcesses::new(built("peerpods-link"))),
        ledger: Arc::new(NoLedger),
        journal: Arc::new(DiskJournal::open(dir.join("state/journal")).unwrap()),
    }
}

type Told = Vec<peerpods_proto::grpc::admin::Phase>;

/// The whole service: when StartVM was called and when it returned, the VM's birth and the phases the service tells.
async fn served(
    shim: &GoShim,
    provider: &Watched,
    dir: &Path,
    id: &str,
    pod: &Pod,
) -> ((Instant, Instant), Birth, Told) {
    shim.create(id, &pod.path).await.unwrap();
    let began = Instant::now();
    shim.start(id).await.unwrap();
    let returned = Instant::now();
    let birth = provider.birth(id, "agent").await;
    let socket = dir.join("h.sock");
    let told = admin_get(&socket, id).await.unwrap();
    shim.stop(id).await.unwrap();
    eventually("the sandbox is gone", || async { admin_get(&socket, id).await.is_err() }).await;
    ((began, returned), birth, told.phases)
}

/// The provider and nothing else, with what the service had asked for.
async fn alone(provider: &Watched, n: usize) -> Birth {
    let key = VmKey { cluster: "bench".parse().unwrap(), sandbox: format!("alone{n}").parse().unwrap() };
    let spec = provider.last_spec();
    provider.create(&key, &spec).await.unwrap();
    let birth = provider.birth(key.sandbox.as_str(), "listening").await;
    provider.delete(&key).await.unwrap();
    birth
}
