//! The end of the service: what may finish, what is unwound, and that the end comes whatever hangs. Needs root and the guest programs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use peerpods_agentlink::{Connected, Link, LinkError, LinkSpec, LinkTarget, Shims};
use peerpods_hypervisor::journal::DiskJournal;
use peerpods_hypervisor::ledger::NoLedger;
use peerpods_hypervisor::{Config, Lifecycle, Parts, Status};
use peerpods_podnet::VxlanTunnel;
use peerpods_provider::fake::{Calls, FakeCloud, Fault, Operation};
use peerpods_test_require::{Need, require};
use peerpods_tests::node::{Node, Pod, eventually, in_private_network};
use peerpods_tests::shim::{GoShim, RsShim, admin_get, check_agent};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

const NEEDS: &[Need] = &[
    Need::Root,
    Need::NetworkNamespaces,
    Need::Program("ip"),
    Need::Variable("PEERPODS_TEST_GUEST_PROGRAMS"),
];

/// Longer than any test; what takes so long hangs.
const FOR_EVER: Duration = Duration::from_secs(3600);
/// Drain timeout, unwinding, farewell and a slow machine together. What hangs would take [`FOR_EVER`].
const BOUND: Duration = Duration::from_secs(25);

fn on_a_node<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F + Send + 'static) {
    if require(test, NEEDS) {
        in_private_network(body);
    }
}

fn start(shim: &GoShim, id: &'static str) -> JoinHandle<ttrpc::Result<()>> {
    let shim = shim.clone();
    tokio::spawn(async move { shim.start(id).await })
}

async fn ends_in_time(ending: impl Future<Output = ()>) {
    let began = Instant::now();
    assert!(tokio::time::timeout(BOUND, ending).await.is_ok(), "still there after {:?}", began.elapsed());
}

async fn until(life: &Lifecycle, wanted: impl FnMut(&Status) -> bool) {
    life.watch().wait_for(wanted).await.unwrap();
}

#[test]
fn a_start_in_flight_finishes_and_meanwhile_stops_are_served_and_nothing_new_begins() {
    on_a_node("a_start_in_flight_finishes_and_meanwhile_stops_are_served_and_nothing_new_begins", || async {
        let mut node = Node::with_guests(|_| {}).await;
        let (one, two, three, shim) = (Pod::new(1).await, Pod::new(2).await, Pod::new(3).await, node.shim());
        shim.create("old", &one.path).await.unwrap();
        shim.start("old").await.unwrap();
        node.cloud.script(Operation::Create, Calls::Nth(2), Fault::StayPending(Duration::from_secs(3)));
        let socket = shim.create("young", &two.path).await.unwrap();
        shim.create("waiting", &three.path).await.unwrap();
        let starting = start(&shim, "young");
        eventually("the VM is made", || async { node.cloud.born() == 2 }).await;
        let life = node.life();
        life.drain();
        until(&life, |status| matches!(status, Status::Draining { starts: 1 })).await;
        // Connections of their own, as the Go shim's calls are.
        for refused in [shim.create("new", &three.path).await.map(drop), shim.start("waiting").await] {
            let text = refused.unwrap_err().to_string();
            assert!(text.contains("shutting down"), "{text}");
        }
        shim.stop("old").await.unwrap();
        eventually("the deletion goes on", || async { node.cloud.machines().len() == 1 }).await;
        starting.await.unwrap().unwrap();
        ends_in_time(node.shut_down()).await;
        assert_eq!(check_agent(&socket).await.unwrap(), 1, "a running pod is left alone");
        node.boot().await;
        assert_eq!(admin_get(&node.socket(), "young").await.unwrap().state, "running");
        assert_eq!(admin_get(&node.socket(), "waiting").await.unwrap().state, "created");
        node.shim().stop("young").await.unwrap();
        node.shim().stop("waiting").await.unwrap();
        node.assert_nothing_left().await;
        node.shut_down().await;
    });
}

#[test]
fn a_start_that_is_not_done_in_time_is_unwound_and_says_why() {
    on_a_node("a_start_that_is_not_done_in_time_is_unwound_and_says_why", || async {
        let mut node = Node::with_bare_vms(|config| config.drain_timeout = Duration::from_secs(1)).await;
        let (pod, shim) = (Pod::new(4).await, node.shim());
        node.cloud.script(Operation::Create, Calls::All, Fault::StayPending(FOR_EVER));
        shim.create("late", &pod.path).await.unwrap();
        let starting = start(&shim, "late");
        eventually("the VM is made", || async { node.cloud.born() == 1 }).await;
        ends_in_time(node.shut_down()).await;
        let text = starting.await.unwrap().unwrap_err().to_string();
        assert!(text.contains("shutting down"), "{text}");
        assert_eq!(node.leftovers(), Vec::<String>::new());
    });
}

#[test]
fn a_second_signal_unwinds_at_once_and_leaves_deletions_to_the_next_start() {
    on_a_node("a_second_signal_unwinds_at_once_and_leaves_deletions_to_the_next_start", || async {
        let mut node = Node::with_bare_vms(|config| config.drain_timeout = FOR_EVER).await;
        let (pod, shim) = (Pod::new(5).await, node.shim());
        node.cloud.script(Operation::Create, Calls::All, Fault::StayPending(FOR_EVER));
        node.cloud.script(Operation::Delete, Calls::All, Fault::Delay(FOR_EVER));
        shim.create("late", &pod.path).await.unwrap();
        let starting = start(&shim, "late");
        eventually("the VM is made", || async { node.cloud.born() == 1 }).await;
        let life = node.life();
        life.drain();
        until(&life, |status| matches!(status, Status::Draining { starts: 1 })).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(life.status(), Status::Draining { starts: 1 }, "it waits until it is asked again");
        life.hurry();
        ends_in_time(node.shut_down()).await;
        starting.await.unwrap().unwrap_err();
        let record = std::fs::read_to_string(node.dir.path().join("state/journal/late.json")).unwrap();
        assert!(record.contains("\"stopping\""), "the unwinding is on record: {record}");
        node.cloud.heal();
        node.boot().await;
        node.assert_nothing_left().await;
        node.shut_down().await;
    });
}

#[test]
fn the_end_comes_when_the_provider_hangs_and_the_next_start_goes_on_with_the_deletion() {
    on_a_node(
        "the_end_comes_when_the_provider_hangs_and_the_next_start_goes_on_with_the_deletion",
        || async {
            let mut node = Node::with_bare_vms(|config| config.drain_timeout = Duration::from_secs(1)).await;
            let (one, two, shim) = (Pod::new(6).await, Pod::new(7).await, node.shim());
            for operation in [Operation::Create, Operation::Delete] {
                node.cloud.script(operation, Calls::All, Fault::Delay(FOR_EVER));
            }
            shim.create("stuck", &one.path).await.unwrap();
            shim.create("stopped", &two.path).await.unwrap();
            let starting = start(&shim, "stuck");
            eventually("the VM is asked for", || async { node.cloud.calls(Operation::Create) == 1 }).await;
            shim.stop("stopped").await.unwrap();
            ends_in_time(node.shut_down()).await;
            starting.await.unwrap().unwrap_err();
            node.cloud.heal();
            node.boot().await;
            node.assert_nothing_left().await;
            node.shut_down().await;
        },
    );
}

#[test]
fn clients_that_stall_do_not_hold_the_end_up() {
    on_a_node("clients_that_stall_do_not_hold_the_end_up", || async {
        let mut node = Node::with_bare_vms(|_| {}).await;
        let mut stalled = Vec::new();
        // Silent, half a gRPC preface, half a ttrpc frame, a whole preface and then nothing.
        for said in [&b""[..], b"P", b"\0\0\0\x10\0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let mut stream = UnixStream::connect(node.socket()).await.unwrap();
            stream.write_all(said).await.unwrap();
            stalled.push(stream);
        }
        let held = RsShim::connect(node.socket()).await.unwrap();
        held.version().await.unwrap();
        ends_in_time(node.shut_down()).await;
    });
}

#[test]
fn a_service_is_not_ready_before_its_socket_closes() {
    on_a_node("a_service_is_not_ready_before_its_socket_closes", || async {
        let mut node = Node::with_bare_vms(|_| {}).await;
        let (pod, shim, life) = (Pod::new(8).await, node.shim(), node.life());
        assert_eq!((life.status(), life.is_draining(), life.trouble()), (Status::Serving, false, None));
        node.cloud.script(Operation::Create, Calls::All, Fault::StayPending(Duration::from_secs(2)));
        node.cloud.script(Operation::Create, Calls::All, Fault::DieAfter(Duration::from_secs(2)));
        shim.create("slow", &pod.path).await.unwrap();
        let starting = start(&shim, "slow");
        eventually("the VM is made", || async { node.cloud.born() == 1 }).await;
        life.drain();
        assert!(life.is_draining());
        shim.version().await.unwrap();
        starting.await.unwrap().unwrap_err();
        ends_in_time(node.shut_down()).await;
        assert_eq!(life.status(), Status::Ended);
        shim.version().await.unwrap_err();
    });
}

/// A link that makes sockets and then never answers again.
struct HangingLink;

#[async_trait::async_trait]
impl Link for HangingLink {
    async fn open(&self, _: &LinkSpec) -> Result<(), LinkError> {
        Ok(())
    }

    async fn connect(&self, _: &LinkSpec, _: &LinkTarget) -> Result<Connected, LinkError> {
        std::future::pending().await
    }

    async fn shims(&self, _: &LinkSpec) -> Result<Option<Shims>, LinkError> {
        Ok(None)
    }

    async fn close(&self, _: &LinkSpec) -> Result<(), LinkError> {
        std::future::pending().await
    }
}

/// A service with these parts of its own, ended by its life.
fn service(dir: &std::path::Path, cloud: &Arc<FakeCloud>) -> (GoShim, Lifecycle, JoinHandle<()>) {
    let config = Config {
        socket: dir.join("h.sock"),
        pods_dir: dir.join("pods"),
        state_dir: dir.join("state"),
        drain_timeout: Duration::from_secs(1),
        ..Config::default()
    };
    let parts = Parts {
        provider: Arc::new(cloud.provider()),
        tunnel: Arc::new(VxlanTunnel::new()),
        link: Arc::new(HangingLink),
        ledger: Arc::new(NoLedger),
        journal: Arc::new(DiskJournal::open(dir.join("state/journal")).unwrap()),
    };
    let (shim, life) = (GoShim::new(config.socket.clone()), Lifecycle::new());
    let told = life.clone();
    let task = tokio::spawn(async move { peerpods_hypervisor::run(config, parts, told).await.unwrap() });
    (shim, life, task)
}

#[test]
fn the_end_comes_when_the_link_hangs() {
    on_a_node("the_end_comes_when_the_link_hangs", || async {
        let (dir, cloud, pod) = (tempfile::tempdir().unwrap(), FakeCloud::bare(), Pod::new(9).await);
        let (shim, life, task) = service(dir.path(), &cloud);
        until(&life, |status| *status == Status::Serving).await;
        shim.create("stuck", &pod.path).await.unwrap();
        let starting = start(&shim, "stuck");
        eventually("the VM is made", || async { cloud.born() == 1 }).await;
        life.drain();
        ends_in_time(async { task.await.unwrap() }).await;
        starting.await.unwrap().unwrap_err();
        assert!(cloud.leftovers().is_empty(), "the VM does not wait for the link");
        assert!(dir.path().join("state/journal/stuck.json").exists(), "what is not done is on record");
    });
}

#[test]
fn the_end_comes_when_the_provider_hangs_before_anything_is_served() {
    on_a_node("the_end_comes_when_the_provider_hangs_before_anything_is_served", || async {
        let (dir, cloud) = (tempfile::tempdir().unwrap(), FakeCloud::bare());
        cloud.script(Operation::Verify, Calls::All, Fault::Delay(FOR_EVER));
        let (_, life, task) = service(dir.path(), &cloud);
        eventually("the provider is asked", || async { cloud.calls(Operation::Verify) == 1 }).await;
        life.drain();
        ends_in_time(async { task.await.unwrap() }).await;
        assert_eq!(life.status(), Status::Ended);
    });
}
