//! VMs that no sandbox owns, on a fake cloud: which are deleted, which never, and what `peerpods gc` does about them. Needs root for
//! the network namespaces; VMs have nothing behind their address, except where a pod has to live.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peerpods_hypervisor::Config;
use peerpods_hypervisor::config::{Collection, GuestIdentity};
use peerpods_proto::grpc::admin::vms_client::VmsClient;
use peerpods_proto::grpc::admin::{ListVmsRequest, Verdict};
use peerpods_provider::fake::{Calls, Fault, Operation};
use peerpods_provider::{ErrorKind, NODE_TAG, Provider, UserData, VmKey, VmSize, VmSpec};
use peerpods_test_require::{Need, require};
use peerpods_tests::node::{Node, Pod, eventually, in_private_network, processes_naming};
use peerpods_tests::shim::{admin_get, check_agent, grpc_channel};
use serde_json::Value;
use tokio::net::UnixStream;

const NEEDS: &[Need] = &[Need::Root, Need::NetworkNamespaces, Need::Program("ip"), Need::Program("nc")];
const GUEST_NEEDS: &[Need] = &[
    Need::Root,
    Need::NetworkNamespaces,
    Need::Program("ip"),
    Need::Variable("PEERPODS_TEST_GUEST_PROGRAMS"),
];
const GRACE: Duration = Duration::from_millis(700);

fn on_a_node<F: Future<Output = ()>>(test: &str, needs: &[Need], body: impl FnOnce() -> F + Send + 'static) {
    if require(test, needs) {
        in_private_network(body);
    }
}

/// Passes follow each other quickly.
fn quick(config: &mut Config) {
    config.cluster_id = Some("test".parse().unwrap());
    config.node = "here".to_owned();
    config.gc_interval = Duration::from_millis(150);
    config.gc_grace = GRACE;
}

/// A process that is connected to an agent socket and says nothing, until it is killed.
fn a_shim_of_its_own(socket: &Path) -> Child {
    Command::new("nc").arg("-U").arg(socket).stdin(Stdio::piped()).spawn().unwrap()
}

/// No pass comes while the test runs.
fn patient(config: &mut Config) {
    quick(config);
    config.gc_interval = Duration::from_secs(3600);
}

/// Makes a VM behind the service's back.
async fn plant(node: &Node, sandbox: &str, maker: Option<&str>) -> VmKey {
    let key = VmKey { cluster: "test".parse().unwrap(), sandbox: sandbox.parse().unwrap() };
    let spec = VmSpec {
        name: format!("podvm-{sandbox}"),
        image: None,
        machine_type: None,
        size: VmSize::default(),
        user_data: UserData::new("#cloud-config\n"),
        tags: maker.map(|maker| (NODE_TAG.to_owned(), maker.to_owned())).into_iter().collect(),
    };
    node.cloud.provider().create(&key, &spec).await.unwrap();
    key
}

fn there(node: &Node) -> Vec<String> {
    node.cloud.machines().iter().map(|made| made.key.sandbox.to_string()).collect()
}

/// Waits until so many more passes have listed VMs, and the grace is over several times.
async fn passes(node: &Node, more: u64) {
    let (from, began) = (node.cloud.calls(Operation::List), Instant::now());
    eventually("passes", || async {
        node.cloud.calls(Operation::List) >= from + more && began.elapsed() > GRACE * 3
    })
    .await;
}

fn verdicts(node: &Node) -> BTreeMap<String, String> {
    let output = succeeded(&node.peerpods(&["gc", "list", "--output", "json"]));
    let answer: Value = serde_json::from_str(&output).unwrap();
    let text = |vm: &Value, key: &str| vm[key].as_str().unwrap().to_owned();
    answer["vms"].as_array().unwrap().iter().map(|vm| (text(vm, "sandbox"), text(vm, "verdict"))).collect()
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_orphan_is_deleted_after_the_grace_and_seen_while_it_resists() {
    on_a_node("an_orphan_is_deleted_after_the_grace_and_seen_while_it_resists", NEEDS, || async {
        let mut node = Node::with_bare_vms(quick).await;
        node.cloud.script(Operation::Delete, Calls::All, Fault::Fail(ErrorKind::Transient));
        let began = Instant::now();
        plant(&node, "lost", Some("here")).await;
        eventually("its removal begins", || async { node.cloud.calls(Operation::Delete) > 1 }).await;
        assert!(began.elapsed() >= GRACE, "deleted after {:?}", began.elapsed());
        assert!(node.cloud.calls(Operation::List) >= 2, "deleted on a single sight");
        // A record is the queue: it is what a restart goes on with.
        let record = std::fs::read_to_string(node.dir.path().join("state/journal/lost.json")).unwrap();
        let record: Value = serde_json::from_str(&record).unwrap();
        assert_eq!(record["stage"], "stopping");
        assert!(record["why"].as_str().unwrap().contains("orphan"), "{record}");
        let told = admin_get(&node.socket(), "lost").await.unwrap();
        assert_eq!((told.state.as_str(), told.pod_name.as_str()), ("stopping", "unknown"));
        assert!(told.failure.contains("nobody owned its VM"), "{}", told.failure);
        assert!(told.troubles.iter().any(|t| t.step == "delete the VM" && t.tries > 0), "{told:?}");
        let listed = succeeded(&node.peerpods(&["sandbox", "list"]));
        assert!(listed.contains("cannot delete the VM, tried "), "{listed}");
        node.cloud.heal();
        node.assert_nothing_left().await;
        node.shut_down().await;
    });
}

#[test]
fn what_is_not_surely_an_orphan_of_this_node_is_never_deleted() {
    on_a_node("what_is_not_surely_an_orphan_of_this_node_is_never_deleted", NEEDS, || async {
        let mut node = Node::with_bare_vms(quick).await;
        let (pod, other) = (Pod::new(60).await, Pod::new(64).await);
        node.shim().create("live", &other.path).await.unwrap();
        plant(&node, "live", Some("here")).await;
        let held = node.shim().create("held", &pod.path).await.unwrap();
        let mut shim = a_shim_of_its_own(&held);
        plant(&node, "held", Some("here")).await;
        plant(&node, "theirs", Some("there")).await;
        plant(&node, "whose", None).await;
        passes(&node, 6).await;
        assert_eq!(there(&node), ["live", "held", "theirs", "whose"], "`held` has a record");
        // Its record is lost, and a shim is connected.
        node.shut_down().await;
        std::fs::remove_file(node.dir.path().join("state/journal/held.json")).unwrap();
        node.boot().await;
        passes(&node, 6).await;
        assert_eq!(there(&node), ["live", "held", "theirs", "whose"], "`held` has a shim");
        assert_eq!(node.cloud.calls(Operation::Delete), 0);
        let verdicts = verdicts(&node);
        assert_eq!((verdicts["live"].as_str(), verdicts["held"].as_str()), ("live", "held"));
        assert_eq!((verdicts["theirs"].as_str(), verdicts["whose"].as_str()), ("other-node", "no-node"));
        // Once the shim is gone it is an orphan like any other.
        shim.kill().unwrap();
        shim.wait().unwrap();
        eventually("it is deleted", || async { there(&node) == ["live", "theirs", "whose"] }).await;
        node.shut_down().await;
    });
}

#[test]
fn a_list_that_fails_and_a_dry_run_delete_nothing() {
    on_a_node("a_list_that_fails_and_a_dry_run_delete_nothing", NEEDS, || async {
        let mut node = Node::with_bare_vms(quick).await;
        node.cloud.script(Operation::List, Calls::All, Fault::Fail(ErrorKind::Transient));
        plant(&node, "lost", Some("here")).await;
        passes(&node, 6).await;
        assert_eq!((there(&node).len(), node.cloud.calls(Operation::Delete)), (1, 0));
        let error = refused(&node.peerpods(&["gc", "list"]));
        assert!(error.contains("could not be listed") && error.contains("transient"), "{error}");
        node.cloud.heal();
        eventually("it is deleted", || async { there(&node).is_empty() }).await;
        node.shut_down().await;

        let mut dry = Node::with_bare_vms(|config| {
            quick(config);
            config.gc = Collection::DryRun;
        })
        .await;
        plant(&dry, "lost", Some("here")).await;
        passes(&dry, 6).await;
        assert_eq!((there(&dry).len(), dry.cloud.calls(Operation::Delete)), (1, 0));
        dry.shut_down().await;
    });
}

#[test]
fn gc_lists_and_deletes_orphans_and_refuses_what_lives() {
    on_a_node("gc_lists_and_deletes_orphans_and_refuses_what_lives", NEEDS, || async {
        let mut node = Node::with_bare_vms(patient).await;
        let pod = Pod::new(61).await;
        node.shim().create("alive", &pod.path).await.unwrap();
        plant(&node, "alive", Some("here")).await;
        for sandbox in ["one", "two", "three"] {
            plant(&node, sandbox, Some("here")).await;
        }
        plant(&node, "theirs", Some("there")).await;
        let table = succeeded(&node.peerpods(&["gc", "list"]));
        assert!(table.starts_with("VM "), "{table}");
        assert!(table.contains("orphan, not seen by the sweep yet"), "{table}");
        assert!(table.contains("live: it belongs to a sandbox of this node, which is created"), "{table}");

        let error = refused(&node.peerpods(&["gc", "delete", "alive", "--yes"]));
        assert!(error.contains("peerpods sandbox stop alive"), "{error}");
        let error = refused(&node.peerpods(&["gc", "delete", "theirs", "--yes"]));
        assert!(
            error.contains("node there made it") && error.contains("gc adopt theirs --remove"),
            "{error}"
        );
        let error = refused(&node.peerpods(&["gc", "delete", "nothing", "--yes"]));
        assert!(error.contains("gc list"), "{error}");
        let error = refused(&node.peerpods(&["gc", "delete", "one"]));
        assert!(error.contains("--yes"), "nobody is there to be asked: {error}");
        let dry = succeeded(&node.peerpods(&["gc", "delete", "--orphans", "--dry-run"]));
        assert_eq!(dry.lines().count(), 3, "{dry}");
        assert_eq!((there(&node).len(), node.cloud.calls(Operation::Delete)), (5, 0));

        // By the VM's own id, then the rest; one that was refused does not keep the others.
        let by_id = node.cloud.machines()[1].instance.id.clone();
        succeeded(&node.peerpods(&["gc", "delete", &by_id, "--yes"]));
        assert_eq!(there(&node), ["alive", "two", "three", "theirs"]);
        refused(&node.peerpods(&["gc", "delete", "alive", "two", "--yes"]));
        assert_eq!(there(&node), ["alive", "three", "theirs"]);
        let json = succeeded(&node.peerpods(&["gc", "delete", "--orphans", "--yes", "--output", "json"]));
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json[0]["sandbox"], &json[0]["outcome"]), (&"three".into(), &"deleted".into()));
        succeeded(&node.peerpods(&["gc", "adopt", "theirs", "--remove", "--yes"]));
        assert_eq!(there(&node), ["alive"]);
        assert_eq!(succeeded(&node.peerpods(&["gc", "delete", "--orphans"])), "there are no orphans\n");
        node.shim().stop("alive").await.unwrap();
        node.assert_nothing_left().await;
        node.shut_down().await;
    });
}

#[test]
fn a_deletion_that_takes_long_is_told_and_goes_on_without_the_command() {
    on_a_node("a_deletion_that_takes_long_is_told_and_goes_on_without_the_command", NEEDS, || async {
        let mut node = Node::with_bare_vms(patient).await;
        plant(&node, "slow", Some("here")).await;
        node.cloud.script(Operation::Delete, Calls::All, Fault::Fail(ErrorKind::Denied));
        let error = refused(&node.peerpods(&["gc", "delete", "slow", "--yes", "--timeout", "2s"]));
        assert!(error.contains("cannot delete the VM") && error.contains("denied"), "{error}");
        assert!(error.contains("goes on"), "{error}");
        node.cloud.heal();
        node.assert_nothing_left().await;
        node.shut_down().await;
    });
}

#[test]
fn a_running_pod_whose_record_was_lost_is_adopted_and_goes_on() {
    on_a_node("a_running_pod_whose_record_was_lost_is_adopted_and_goes_on", GUEST_NEEDS, || async {
        let mut node = Node::with_guests(quick).await;
        let (pod, shim) = (Pod::new(62).await, node.shim());
        let socket = shim.create("kept", &pod.path).await.unwrap();
        shim.start("kept").await.unwrap();
        let attached = UnixStream::connect(&socket).await.unwrap();
        let tags = node.cloud.machines()[0].spec.tags.clone();
        assert_eq!(tags.get(NODE_TAG).map(String::as_str), Some("here"), "a VM names the node that made it");
        let vni = admin_get(&node.socket(), "kept").await.unwrap().vni.to_string();
        passes(&node, 3).await;
        assert_eq!(verdicts(&node)["kept"], "live");
        node.shut_down().await;
        let file = node.dir.path().join("state/journal/kept.json");
        std::fs::rename(&file, file.with_extension("json.corrupt")).unwrap();
        node.boot().await;
        passes(&node, 6).await;
        let netns = pod.path.to_str().unwrap().to_owned();
        let error =
            refused(&node.peerpods(&["gc", "adopt", "kept", "--netns", "/run/netns/none", "--vni", &vni]));
        assert!(error.contains("/run/netns/none"), "{error}");
        let error = refused(&node.peerpods(&["gc", "adopt", "kept", "--remove", "--yes"]));
        assert!(error.contains("a shim holds its agent socket"), "{error}");
        succeeded(&node.peerpods(&["gc", "adopt", "kept", "--netns", &netns, "--vni", &vni]));
        let told = admin_get(&node.socket(), "kept").await.unwrap();
        assert_eq!(
            (told.state.as_str(), told.netns.as_str(), told.pod_name.as_str()),
            ("running", &*netns, "web")
        );
        assert_eq!(check_agent(&socket).await.unwrap(), 1);
        let error = refused(&node.peerpods(&["gc", "adopt", "kept", "--netns", &netns, "--vni", &vni]));
        assert!(error.contains("belongs to a sandbox of this node"), "{error}");
        drop(attached);
        passes(&node, 3).await;
        assert_eq!(check_agent(&socket).await.unwrap(), 1, "it is a sandbox like any other");
        node.shim().stop("kept").await.unwrap();
        eventually("its VM is gone", || async { there(&node).is_empty() }).await;
        std::fs::remove_file(file.with_extension("json.corrupt")).unwrap();
        node.assert_nothing_left().await;
        node.shut_down().await;
    });
}

#[test]
fn a_vm_that_is_made_while_the_list_is_asked_for_has_its_owner() {
    on_a_node("a_vm_that_is_made_while_the_list_is_asked_for_has_its_owner", NEEDS, || async {
        let mut node = Node::with_bare_vms(patient).await;
        let (pod, shim) = (Pod::new(63).await, node.shim());
        // The provider looks at what there is only at the end of that time.
        node.cloud.script(Operation::List, Calls::All, Fault::Delay(Duration::from_millis(1500)));
        let mut vms = VmsClient::new(grpc_channel(&node.socket()).await.unwrap());
        let making = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            shim.create("young", &pod.path).await.unwrap();
            plant(&node, "young", Some("here")).await;
        };
        let (listed, ()) = tokio::join!(vms.list(ListVmsRequest {}), making);
        let listed = listed.unwrap().into_inner().vms;
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].verdict(), Verdict::Live, "{listed:?}");
        node.cloud.heal();
        shim.stop("young").await.unwrap();
        node.assert_nothing_left().await;
        node.shut_down().await;
    });
}

/// A pod that runs on a VM of this form, whose record is lost and whose link process dies while the service is away; the arguments of
/// `gc` that would adopt it.
async fn without_record_and_link(node: &mut Node, pod: &Pod, sandbox: &str) -> Vec<String> {
    let shim = node.shim();
    shim.create(sandbox, &pod.path).await.unwrap();
    shim.start(sandbox).await.unwrap();
    let vni = admin_get(&node.socket(), sandbox).await.unwrap().vni.to_string();
    node.shut_down().await;
    std::fs::remove_file(node.dir.path().join(format!("state/journal/{sandbox}.json"))).unwrap();
    let pods = node.dir.path().join("pods").display().to_string();
    let links = || processes_naming(&pods).into_iter().filter(|line| line.contains("peerpods-link"));
    assert_eq!(links().count(), 1);
    for line in links() {
        let pid = line.trim_start_matches("process ").split(':').next().unwrap().parse().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    eventually("the link is gone", || async { links().count() == 0 }).await;
    node.boot().await;
    let adopt = ["gc", "adopt", sandbox, "--netns", pod.path.to_str().unwrap(), "--vni", &vni];
    adopt.map(str::to_owned).to_vec()
}

#[test]
fn a_vm_whose_own_key_nobody_knows_any_more_is_not_adopted_and_one_with_a_certificate_is() {
    let name = "a_vm_whose_own_key_nobody_knows_any_more_is_not_adopted_and_one_with_a_certificate_is";
    on_a_node(name, GUEST_NEEDS, || async {
        let mut token = Node::with_guests(|config| {
            patient(config);
            config.guest_identity = GuestIdentity::Token;
        })
        .await;
        let pod = Pod::new(65).await;
        let adopt = without_record_and_link(&mut token, &pod, "stranger").await;
        let adopt: Vec<&str> = adopt.iter().map(String::as_str).collect();
        let error = refused(&token.peerpods(&adopt));
        assert!(
            error.contains("made its own key") && error.contains("gc adopt stranger --remove"),
            "{error}"
        );
        assert!(admin_get(&token.socket(), "stranger").await.is_err(), "it was adopted");
        succeeded(&token.peerpods(&["gc", "adopt", "stranger", "--remove", "--yes"]));
        token.assert_nothing_left().await;
        token.shut_down().await;
        // Its cloud's network goes with it: the other's is the same.
        drop(token);

        let mut stock = Node::with_guests(|config| {
            patient(config);
            config.guest_identity = GuestIdentity::Stock;
        })
        .await;
        let adopt = without_record_and_link(&mut stock, &pod, "known").await;
        let adopt: Vec<&str> = adopt.iter().map(String::as_str).collect();
        succeeded(&stock.peerpods(&adopt));
        let socket = stock.dir.path().join("pods/known/agent.ttrpc");
        eventually("its agent is reached", || async {
            check_agent(&socket).await.is_ok_and(|answer| answer == 1)
        })
        .await;
        stock.shim().stop("known").await.unwrap();
        stock.assert_nothing_left().await;
        stock.shut_down().await;
    });
}
