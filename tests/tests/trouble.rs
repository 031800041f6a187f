//! What goes wrong around a sandbox: the service ends, the provider fails, the VM dies, two services meet. Needs root and the guest
//! programs; VMs are network namespaces.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use peerpods_agentlink::process::LinkProcesses;
use peerpods_hypervisor::journal::DiskJournal;
use peerpods_hypervisor::ledger::NoLedger;
use peerpods_hypervisor::{Config, Parts, RunError};
use peerpods_podnet::VxlanTunnel;
use peerpods_provider::ErrorKind;
use peerpods_provider::fake::{Calls, Fault, Operation};
use peerpods_test_require::{Need, require};
use peerpods_tests::node::{Node, Pod, built, eventually, in_private_network};
use peerpods_tests::shim::{RsShim, admin_get, check_agent};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

const NEEDS: &[Need] = &[
    Need::Root,
    Need::NetworkNamespaces,
    Need::Program("ip"),
    Need::Variable("PEERPODS_TEST_GUEST_PROGRAMS"),
];

fn on_a_node<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F + Send + 'static) {
    if require(test, NEEDS) {
        in_private_network(body);
    }
}

#[test]
fn a_stop_that_comes_while_the_service_ends_is_carried_out() {
    on_a_node("a_stop_that_comes_while_the_service_ends_is_carried_out", || async {
        let mut node = Node::with_guests(|_| {}).await;
        let (pod, shim) = (Pod::new(20).await, node.shim());
        shim.create("late", &pod.path).await.unwrap();
        shim.start("late").await.unwrap();
        // Longer than the socket takes to close: the deletion is waited for all the same.
        node.cloud.script(Operation::Delete, Calls::All, Fault::Delay(Duration::from_secs(3)));
        // A client that began to speak gRPC and fell silent holds the end up; the shim's connection is older than the end.
        let mut stalled = UnixStream::connect(node.socket()).await.unwrap();
        stalled.write_all(b"P").await.unwrap();
        let held = RsShim::connect(node.socket()).await.unwrap();
        held.version().await.unwrap();
        let began = Instant::now();
        let ending = async {
            node.shut_down().await;
            began.elapsed()
        };
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            held.stop("late").await
        };
        let (took, stopped) = tokio::join!(ending, stopping);
        stopped.unwrap();
        assert!(took < Duration::from_secs(20), "the end took {took:?}");
        assert_eq!(node.leftovers(), Vec::<String>::new(), "the stop was answered and not done");
    });
}

#[test]
fn a_vm_that_dies_under_a_running_pod_is_noticed_and_removed() {
    on_a_node("a_vm_that_dies_under_a_running_pod_is_noticed_and_removed", || async {
        let mut node = Node::with_guests(|_| {}).await;
        let (pod, shim) = (Pod::new(21).await, node.shim());
        shim.create("mortal", &pod.path).await.unwrap();
        shim.start("mortal").await.unwrap();
        let key = node.cloud.machines().remove(0).key;
        node.cloud.power_off(&key).await.unwrap();
        node.assert_nothing_left().await;
        assert!(admin_get(&node.socket(), "mortal").await.is_err());
        node.shut_down().await;
    });
}

#[test]
fn a_deletion_that_fails_is_repeated_and_holds_nothing_else_up() {
    on_a_node("a_deletion_that_fails_is_repeated_and_holds_nothing_else_up", || async {
        let mut node = Node::with_guests(|_| {}).await;
        let (pod, shim) = (Pod::new(22).await, node.shim());
        let socket = shim.create("sticky", &pod.path).await.unwrap();
        shim.start("sticky").await.unwrap();
        node.cloud.script(Operation::Delete, Calls::First(3), Fault::Fail(ErrorKind::Transient));
        shim.stop("sticky").await.unwrap();
        assert!(!socket.exists(), "the shim's side ends at once");
        eventually("it was tried again", || async { node.cloud.calls(Operation::Delete) > 3 }).await;
        node.assert_nothing_left().await;
        node.shut_down().await;
    });
}

#[test]
fn a_provider_that_is_unusable_after_a_restart_does_not_keep_pods_from_being_stopped() {
    on_a_node(
        "a_provider_that_is_unusable_after_a_restart_does_not_keep_pods_from_being_stopped",
        || async {
            let mut node = Node::with_guests(|_| {}).await;
            let (pod, other, shim) = (Pod::new(23).await, Pod::new(24).await, node.shim());
            let socket = shim.create("old", &pod.path).await.unwrap();
            shim.start("old").await.unwrap();
            node.shut_down().await;
            node.cloud.script(Operation::Verify, Calls::All, Fault::Fail(ErrorKind::Denied));
            node.boot().await;
            assert_eq!(check_agent(&socket).await.unwrap(), 1);
            let refused = node.shim().create("new", &other.path).await.unwrap_err().to_string();
            assert!(refused.contains("no VM can be made"), "{refused}");
            node.shim().stop("old").await.unwrap();
            node.assert_nothing_left().await;
            node.shut_down().await;
        },
    );
}

#[test]
fn a_second_service_on_the_same_state_is_refused_whatever_its_socket() {
    on_a_node("a_second_service_on_the_same_state_is_refused_whatever_its_socket", || async {
        let mut node = Node::with_bare_vms(|_| {}).await;
        let config = Config {
            socket: node.dir.path().join("other.sock"),
            pods_dir: node.dir.path().join("pods"),
            state_dir: node.dir.path().join("state"),
            ..Config::default()
        };
        let parts = Parts {
            provider: Arc::new(node.cloud.provider()),
            tunnel: Arc::new(VxlanTunnel::new()),
            link: Arc::new(LinkProcesses::new(built("peerpods-link"))),
            ledger: Arc::new(NoLedger),
            journal: Arc::new(DiskJournal::open(node.dir.path().join("state/journal")).unwrap()),
        };
        let refused = peerpods_hypervisor::run(config, parts, CancellationToken::new()).await.unwrap_err();
        assert!(matches!(refused, RunError::InUse { .. }), "{refused}");
        assert!(node.shim().version().await.is_ok());
        node.shut_down().await;
    });
}

#[test]
fn creations_that_fail_or_lose_their_answer_end_in_one_vm() {
    on_a_node("creations_that_fail_or_lose_their_answer_end_in_one_vm", || async {
        let mut node = Node::with_guests(|_| {}).await;
        node.cloud.script(Operation::Create, Calls::Nth(1), Fault::Fail(ErrorKind::Transient));
        node.cloud.script(Operation::Create, Calls::Nth(2), Fault::LoseAnswer(ErrorKind::Transient));
        node.cloud.script(Operation::Get, Calls::Nth(2), Fault::Fail(ErrorKind::Throttled));
        let (pod, shim) = (Pod::new(25).await, node.shim());
        let socket = shim.create("unlucky", &pod.path).await.unwrap();
        shim.start("unlucky").await.unwrap();
        assert_eq!(
            (node.cloud.calls(Operation::Create), node.cloud.born()),
            (2, 1),
            "adopted, not made again"
        );
        assert_eq!(check_agent(&socket).await.unwrap(), 1);
        shim.stop("unlucky").await.unwrap();
        node.assert_nothing_left().await;
        node.shut_down().await;
    });
}

#[test]
fn a_permanent_refusal_is_told_after_one_call_and_leaves_nothing() {
    on_a_node("a_permanent_refusal_is_told_after_one_call_and_leaves_nothing", || async {
        let mut node = Node::with_bare_vms(|_| {}).await;
        node.cloud.script(Operation::Create, Calls::All, Fault::Fail(ErrorKind::Quota));
        let (pod, shim) = (Pod::new(26).await, node.shim());
        shim.create("refused", &pod.path).await.unwrap();
        let told = shim.start("refused").await.unwrap_err().to_string();
        assert!(told.contains("quota code Scripted request") && told.contains("try: "), "{told}");
        node.assert_nothing_left().await;
        assert_eq!(node.cloud.calls(Operation::Create), 1);
        node.shut_down().await;
    });
}

#[test]
fn a_full_node_says_who_is_on_it_also_after_a_restart() {
    on_a_node("a_full_node_says_who_is_on_it_also_after_a_restart", || async {
        let mut node = Node::with_guests(|config| config.limit_per_node = Some(1)).await;
        let (pod, other, shim) = (Pod::new(27).await, Pod::new(28).await, node.shim());
        shim.create("holder", &pod.path).await.unwrap();
        shim.create("second", &other.path).await.unwrap();
        shim.start("holder").await.unwrap();
        let told = shim.start("second").await.unwrap_err().to_string();
        assert!(told.contains("default/web (holder)") && told.contains("PEERPODS_LIMIT_PER_NODE"), "{told}");
        node.shut_down().await;
        node.boot().await;
        let told = shim.create("third", &other.path).await.unwrap_err().to_string();
        assert!(told.contains("RESOURCE_EXHAUSTED") && told.contains("default/web (holder)"), "{told}");
        shim.stop("holder").await.unwrap();
        node.assert_nothing_left().await;
        shim.create("third", &other.path).await.unwrap();
        shim.start("third").await.unwrap();
        shim.stop("third").await.unwrap();
        node.assert_nothing_left().await;
        node.shut_down().await;
    });
}
