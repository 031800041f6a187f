//! The node service with 1, 100 and 1,000 sandboxes: latency of CreateVM, StartVM and StopVM, memory, descriptors, and its own start.
//!
//! The service is a process (`peerpods-test-node`, the composition of `peerpods hypervisor` with the fake cloud). Link processes, pod
//! namespaces and tunnels are real; VMs are instant ([`peerpods_tests::bench::instant`]). `BENCH_SANDBOXES` (1000) and `BENCH_RUNS`
//! (100 lives at each size) make it smaller.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a benchmark fails by panicking"
)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use peerpods_provider::fake::FakeCloud;
use peerpods_test_require::{Need, require};
use peerpods_tests::bench::instant::{INSTANT, InstantVms};
use peerpods_tests::bench::pods::{self, Pods};
use peerpods_tests::bench::process::Footprint;
use peerpods_tests::bench::{self, Aim, Report, Row, Samples, Unit, Value};
use peerpods_tests::daemon::{Daemon, image};
use peerpods_tests::kill::node::KilledNode;
use peerpods_tests::node::{in_private_network, processes_naming};
use peerpods_tests::shim::GoShim;

const NEEDS: &[Need] = &[
    Need::Root,
    Need::NetworkNamespaces,
    Need::Program("qemu-system-x86_64"),
    Need::Path("/dev/net/tun"),
    Need::Variable("PEERPODS_TEST_IMAGE"),
];

/// Starts of the service for one figure.
const BOOTS: usize = 10;
/// StartVM calls at once.
const CROWD: usize = 50;
/// How many sandboxes are made at a time on the way to the next size.
const AT_ONCE: usize = 4;

fn main() {
    if !bench::is_asked_for() || !require("sandboxes", NEEDS) {
        return;
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    in_private_network(measure);
}

async fn measure() {
    let mut report = Report::new("sandboxes");
    report.note(
        "The service is a process of its own with the fake cloud; link processes, pod namespaces and tunnels are real; VMs take no time.",
    );
    report.note(INSTANT);
    pods::remove_stale().await;
    the_program(&mut report);
    let vms = InstantVms::new().await;
    let mut node = Populated::new(KilledNode::at_rest(FakeCloud::new(vms.launcher())));
    let empty = node.start_of_the_service(&mut report).await;
    for size in sizes() {
        node.grow(size).await;
        node.lives(size, &mut report).await;
        if size >= 100 {
            node.footprint(size, &empty, &mut report).await;
        }
        if size == 100 {
            node.crowd(&mut report).await;
        }
    }
    node.start_of_the_service(&mut report).await;
    node.clear().await;
    report.finish();
}

fn sizes() -> Vec<usize> {
    let most = bench::number("BENCH_SANDBOXES", 1000);
    [1, 100, 1000].into_iter().filter(|size| *size <= most).collect()
}

/// `peerpods hypervisor` itself, without sandboxes.
fn the_program(report: &mut Report) {
    let mut daemon = Daemon::start(image());
    std::thread::sleep(Duration::from_secs(1));
    let own = Footprint::of(daemon.pid());
    let mut boots = Samples::new(Unit::Millis);
    for _ in 0..BOOTS {
        daemon.kill_9();
        boots.took(daemon.boot_until_accepting());
    }
    let (rss, starts) = (mib(own.rss_kib), boots.value());
    report.row(
        Row::new("The service", "memory of `peerpods hypervisor`, resident, no sandbox", rss)
            .aim(Aim::at_most(&rss, 25.0))
            .upstream("47 MB"),
    );
    let private = mib(own.private_kib);
    report.row(Row::new("The service", "  of it: its own pages", private));
    report.row(
        Row::new("The service", "`peerpods hypervisor`: exec to socket accepting, no record", starts)
            .aim(Aim::new("below 218 ms", starts.median < 218.0))
            .upstream("218 / 274 / 420 ms"),
    );
}

fn mib(kib: u64) -> Value {
    Value::single(Unit::MiB, kib as f64 / 1024.0)
}

/// The node, and the sandboxes that stay.
struct Populated {
    node: KilledNode,
    shim: GoShim,
    pods: Pods,
    made: u32,
    running: usize,
}

impl Populated {
    fn new(node: KilledNode) -> Self {
        Self { shim: node.shim(), node, pods: Pods::default(), made: 0, running: 0 }
    }

    /// Told apart by its first eight digits, as VM names are.
    fn id(&mut self) -> String {
        self.made += 1;
        format!("{:08x}", self.made).repeat(8)
    }

    /// Starts the service again and again on what is there; it runs afterwards. Answers what it takes with nothing done yet.
    async fn start_of_the_service(&mut self, report: &mut Report) -> Footprint {
        let mut accepts = Samples::new(Unit::Millis);
        for boot in 0..BOOTS {
            if boot > 0 || self.running > 0 {
                self.node.kill_9();
            }
            self.node.boot();
            accepts.took(self.node.accepting().await);
            self.node.ready().await;
        }
        let value = accepts.value();
        let what = format!("exec to socket accepting, {} sandboxes on record and running", self.running);
        let row = Row::new("The service", what, value).aim(Aim::new("below 218 ms", value.median < 218.0));
        report.row(row.upstream("218 / 274 / 420 ms (none)"));
        tokio::time::sleep(Duration::from_secs(2)).await;
        Footprint::of(self.node.pid())
    }

    /// Makes running sandboxes until there are `size`.
    async fn grow(&mut self, size: usize) {
        let more = size.saturating_sub(self.running);
        let paths = self.pods.make(more).await;
        let named: Vec<(String, PathBuf)> = paths.into_iter().map(|path| (self.id(), path)).collect();
        let shim = &self.shim;
        let made = futures::stream::iter(named).for_each_concurrent(AT_ONCE, |(id, path)| async move {
            shim.create(&id, &path).await.unwrap();
            shim.start(&id).await.unwrap();
        });
        made.await;
        self.running = size;
        println!("  {size} sandboxes run");
    }

    /// Lives of one more sandbox, one after the other, beside those that stay.
    async fn lives(&mut self, size: usize, report: &mut Report) {
        let runs = bench::number("BENCH_RUNS", 100);
        let paths = self.pods.make(runs).await;
        let (mut create, mut start, mut stop) =
            (Samples::new(Unit::Millis), Samples::new(Unit::Millis), Samples::new(Unit::Millis));
        for path in paths {
            let id = self.id();
            create.took(timed(self.shim.create(&id, &path)).await);
            start.took(timed(self.shim.start(&id)).await);
            stop.took(timed(self.shim.stop(&id)).await);
        }
        let group = format!("Calls with {size} sandboxes running");
        let (create, start, stop) = (create.value(), start.value(), stop.value());
        report.row(Row::new(&group, "CreateVM", create).upstream("7 ms (few)"));
        report.row(
            Row::new(&group, "StartVM, the VM there at once", start)
                .aim(Aim::p99_at_most(&start, 50.0))
                .upstream("118 ms (few)"),
        );
        report.row(
            Row::new(&group, "StopVM until answered", stop)
                .aim(Aim::p99_at_most(&stop, 50.0))
                .upstream("116 ms (few)"),
        );
    }

    /// What the service and the links take, after a while of rest.
    async fn footprint(&mut self, size: usize, empty: &Footprint, report: &mut Report) {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (now, n) = (Footprint::of(self.node.pid()), size as f64);
        let group = format!("What {size} running sandboxes take");
        let rss = mib(now.rss_kib);
        let limit = 25.0 + 0.0625 * n;
        report.row(
            Row::new(&group, "the service, resident", rss)
                .against("without sandboxes", mib(empty.rss_kib))
                .aim(Aim::new("≤ 25 MiB + 64 KiB a sandbox", rss.median <= limit))
                .upstream("47 MB + 0.24 MB a sandbox"),
        );
        let each = |after: u64, before: u64| (after as f64 - before as f64) / n;
        let more = Value::single(Unit::KiB, each(now.rss_kib, empty.rss_kib));
        report.row(Row::new(&group, "  of it: for each sandbox", more).upstream("240 kB"));
        let open = Value::single(Unit::Count, each(now.descriptors, empty.descriptors));
        report.row(Row::new(&group, "descriptors of the service for each sandbox", open).upstream("2"));
        let links = self.links();
        let total: u64 = links.iter().map(|pid| Footprint::of(*pid).pss_kib).sum();
        let link = Value::single(Unit::KiB, total as f64 / links.len() as f64);
        report.row(Row::new(&group, "a link process, its share of memory (PSS)", link));
    }

    fn links(&self) -> Vec<u32> {
        let lines = processes_naming(&self.node.dir().display().to_string());
        let links = lines.iter().filter(|line| line.contains("peerpods-link"));
        links.filter_map(|line| line.strip_prefix("process ")?.split_once(':')?.0.parse().ok()).collect()
    }

    /// Many StartVM at once.
    async fn crowd(&mut self, report: &mut Report) {
        let paths = self.pods.make(CROWD).await;
        let named: Vec<(String, PathBuf)> = paths.into_iter().map(|path| (self.id(), path)).collect();
        for (id, path) in &named {
            self.shim.create(id, path).await.unwrap();
        }
        let began = Instant::now();
        let calls = named.iter().map(|(id, _)| timed(self.shim.start(id)));
        let each = futures::future::join_all(calls).await;
        let all = Value::single(Unit::Seconds, began.elapsed().as_secs_f64());
        let mut samples = Samples::new(Unit::Millis);
        each.into_iter().for_each(|took| samples.took(took));
        let group = format!("{CROWD} StartVM at once, 100 sandboxes running");
        report.row(Row::new(&group, "until all are answered", all).upstream("8.1 s (moto bound)"));
        report.row(Row::new(&group, "each", samples.value()));
        for (id, _) in &named {
            self.shim.stop(id).await.unwrap();
        }
    }

    /// Not by StopVM: the kernel removes only some forty VXLAN devices a second one by one.
    async fn clear(mut self) {
        self.node.kill_9();
        drop(self.node);
        self.pods.remove().await;
    }
}

async fn timed(call: impl Future<Output = ttrpc::Result<impl Sized>>) -> Duration {
    let began = Instant::now();
    call.await.unwrap();
    began.elapsed()
}
