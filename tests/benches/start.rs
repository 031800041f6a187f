//! What StartVM adds to the time QEMU itself needs: the same image on the same machine, in turn without and with the service.
//!
//! ```text
//! A  QEMU alone      QemuProvider::create, then TCP connects every 10 ms until the guest's port accepts
//! B  the service     StartVM over ttrpc until its return: tunnel, link, TLS, the agent's answer
//! ```
//!
//! Run with `make bench`; `BENCH_RUNS` sets the number of pairs (5). Prints a table; asserts nothing, for these machines are noisy: read
//! the differences of one run, not absolute times.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a benchmark fails by panicking"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peerpods_agentlink::ca::ClusterCa;
use peerpods_agentlink::process::LinkProcesses;
use peerpods_hypervisor::journal::DiskJournal;
use peerpods_hypervisor::ledger::NoLedger;
use peerpods_hypervisor::{Config, Parts};
use peerpods_podnet::VxlanTunnel;
use peerpods_podvm::guest_config::{ApfConfig, SecretText};
use peerpods_podvm::user_data::{APF_PATH, CloudConfig, File};
use peerpods_provider::{Provider, UserData, VmKey, VmSize, VmSpec};
use peerpods_provider_qemu::{QemuConfig, QemuProvider};
use peerpods_test_require::{Need, require};
use peerpods_tests::daemon::image;
use peerpods_tests::node::{Pod, eventually, in_private_network};
use peerpods_tests::shim::{GoShim, admin_get};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const NEEDS: &[Need] = &[
    Need::Root,
    Need::NetworkNamespaces,
    Need::Program("qemu-system-x86_64"),
    Need::Path("/dev/net/tun"),
    Need::Variable("PEERPODS_TEST_IMAGE"),
    Need::Variable("PEERPODS_LINK_PROGRAM"),
];

fn main() {
    // `cargo test --all-targets` runs benchmarks too, with this argument missing.
    if !std::env::args().any(|a| a == "--bench") || !require("start", NEEDS) {
        return;
    }
    let runs = std::env::var("BENCH_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(5_u32);
    in_private_network(move || compare(runs));
}

async fn compare(runs: u32) {
    let dir = tempfile::Builder::new().prefix("ppb").tempdir_in("/tmp").unwrap();
    let provider: Arc<dyn Provider> = Arc::new(QemuProvider::new(QemuConfig {
        image: image(),
        state_dir: dir.path().join("vms"),
        run_dir: dir.path().join("qemu"),
        bridge: "ppbench0".into(),
        subnet: "10.154.0.0/24".parse().unwrap(),
        ..QemuConfig::default()
    }));
    for remark in provider.verify().await.unwrap().remarks {
        println!("{remark}");
    }
    let shutdown = CancellationToken::new();
    let service = tokio::spawn(peerpods_hypervisor::run(
        config(dir.path()),
        parts(&provider, dir.path()),
        shutdown.clone(),
    ));
    let shim = GoShim::new(dir.path().join("h.sock"));
    eventually("the service answers", || async { shim.version().await.is_ok() }).await;

    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for n in 0..runs {
        times
            .entry("1 QEMU alone: create to port open")
            .or_default()
            .push(alone(provider.as_ref(), dir.path(), n).await);
        for (what, took) in served(&shim, dir.path(), n).await {
            times.entry(what).or_default().push(took);
        }
        println!("pair {} of {runs} done", n + 1);
    }
    shutdown.cancel();
    service.await.unwrap().unwrap();
    print_table(&times);
}

fn config(dir: &Path) -> Config {
    Config {
        socket: dir.join("h.sock"),
        pods_dir: dir.join("pods"),
        state_dir: dir.join("state"),
        ..Config::default()
    }
}

fn parts(provider: &Arc<dyn Provider>, dir: &Path) -> Parts {
    let link = std::env::var_os("PEERPODS_LINK_PROGRAM").unwrap_or_default();
    Parts {
        provider: provider.clone(),
        tunnel: Arc::new(VxlanTunnel::new()),
        link: Arc::new(LinkProcesses::new(link.into())),
        ledger: Arc::new(NoLedger),
        journal: Arc::new(DiskJournal::open(dir.join("state/journal")).unwrap()),
    }
}

/// A: the provider and nothing else. The guest gets keys, or it would not open its port, and no pod network.
async fn alone(provider: &dyn Provider, dir: &Path, n: u32) -> Duration {
    let key = VmKey { cluster: "bench".parse().unwrap(), sandbox: format!("alone{n}").parse().unwrap() };
    let spec = spec(dir, &key);
    let began = Instant::now();
    let instance = provider.create(&key, &spec).await.unwrap();
    let address = SocketAddr::new(instance.addresses[0], 15150);
    while !accepts(address).await {
        assert!(began.elapsed() < Duration::from_secs(120), "the port of {address} never opened");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = began.elapsed();
    provider.delete(&key).await.unwrap();
    took
}

/// One attempt. Packets to a VM that boots are dropped, so an attempt that hangs is given up.
async fn accepts(address: SocketAddr) -> bool {
    let attempt = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address));
    attempt.await.is_ok_and(|connected| connected.is_ok())
}

fn spec(dir: &Path, key: &VmKey) -> VmSpec {
    let authority = ClusterCa::load_or_create(&dir.join("bench-ca")).unwrap();
    let server = authority.issue_server("podvm-bench").unwrap();
    let apf = ApfConfig {
        pod_network: None,
        pod_namespace: "bench".into(),
        pod_name: "bench".into(),
        tls_server_key: Some(SecretText::new(server.expose_key())),
        tls_server_cert: Some(server.certificate.clone()),
        tls_client_ca: Some(authority.certificate_pem().into()),
        ..ApfConfig::default()
    };
    VmSpec {
        name: format!("podvm-{}", key.sandbox),
        image: None,
        machine_type: None,
        size: VmSize::default(),
        user_data: UserData::new(
            CloudConfig::new(vec![File::new(APF_PATH, apf.to_json())]).render().unwrap(),
        ),
        tags: BTreeMap::new(),
    }
}

/// B: the whole service, with the phases it reports.
async fn served(shim: &GoShim, dir: &Path, n: u32) -> Vec<(&'static str, Duration)> {
    let id = format!("{n:08x}").repeat(8);
    let pod = Pod::new(u8::try_from(n % 200).unwrap()).await;
    let creating = Instant::now();
    shim.create(&id, &pod.path).await.unwrap();
    let create = creating.elapsed();
    let starting = Instant::now();
    shim.start(&id).await.unwrap();
    let start = starting.elapsed();
    let told = admin_get(&dir.join("h.sock"), &id).await.unwrap();
    let phase = |name: &str| {
        let found = told.phases.iter().find(|p| p.name == name);
        found.map(|p| Duration::from_micros(p.took_us)).unwrap_or_default()
    };
    let open = phase("VM created") + phase("address known") + phase("tunnel laid") + phase("agent port open");
    let stopping = Instant::now();
    shim.stop(&id).await.unwrap();
    let stop = stopping.elapsed();
    eventually("the sandbox is gone", || async { admin_get(&dir.join("h.sock"), &id).await.is_err() }).await;
    vec![
        ("2 StartVM: call to return", start),
        ("3   of it: VM asked for to port open", open),
        ("4   of it: port open to agent's answer", phase("agent answered")),
        ("5   of it: the service's own work", start.saturating_sub(open + phase("agent answered"))),
        ("6 CreateVM", create),
        ("7 StopVM (answered; deletion goes on)", stop),
    ]
}

fn print_table(times: &BTreeMap<&str, Vec<Duration>>) {
    println!("\n{:<44}{:>10}{:>10}{:>10}", "ms", "min", "median", "max");
    let median = |what: &str| {
        let mut sorted = times[what].clone();
        sorted.sort();
        sorted[sorted.len() / 2].as_secs_f64() * 1e3
    };
    for (what, all) in times {
        let of = |d: Option<&Duration>| d.copied().unwrap_or_default().as_secs_f64() * 1e3;
        println!(
            "{:<44}{:>10.1}{:>10.1}{:>10.1}",
            &what[2..],
            of(all.iter().min()),
            median(what),
            of(all.iter().max())
        );
    }
    let added = median("2 StartVM: call to return") - median("1 QEMU alone: create to port open");
    let agent = median("4   of it: port open to agent's answer");
    let own = median("5   of it: the service's own work");
    println!("\nWhat we add, medians in ms:");
    println!("{:<44}{own:>20.1}", "  the service: records, keys, link, tunnel");
    println!("{:<44}{agent:>20.1}", "  the guest: pod network, agent, TLS, Check");
    println!("{:<44}{added:>20.1}", "  StartVM less QEMU alone, boot noise included");
}
