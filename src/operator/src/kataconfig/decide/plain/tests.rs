//! A cluster without OpenShift's APIs as plain data. The test plays kubelet and DaemonSet controller.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peerpods_crds::{KATACONFIG_FINALIZER, KataConfig, KataConfigSpec, KataConfigStatus, NodeSelector};

use super::super::decide;
use super::*;
use crate::kataconfig::world::{Apis, FileWorker};

mod others;

struct Cluster {
    world: World,
    settings: Settings,
    objects: BTreeSet<String>,
    finalized: bool,
    clock: i64,
    plan: Plan,
}

impl Cluster {
    /// With one control plane node and so many others.
    fn new(workers: usize) -> Self {
        let config = KataConfig::new("example", KataConfigSpec::default());
        let apis = Apis { machine_configs: false, security_constraints: false };
        let mut world = World { apis, config, ..World::default() };
        world.nodes.push(node("cp0", &[(names::CONTROL_PLANE_LABEL, "")]));
        world.nodes.extend((0..workers).map(|n| node(&format!("w{n}"), &[("zone", "a")])));
        let (settings, objects) = (Settings::default(), BTreeSet::new());
        Self { world, settings, objects, finalized: false, clock: 1_700_000_000, plan: Plan::default() }
    }

    /// One reconciliation, done to the world.
    fn reconcile(&mut self) -> KataConfigStatus {
        self.clock += 1;
        let plan = decide(&self.world, &self.settings, Timestamp::from_second(self.clock).unwrap());
        assert!(plan.roles.is_empty(), "{:?}", plan.roles);
        if plan.finalizer == Finalizer::Add {
            self.world.config.metadata.finalizers = Some(vec![KATACONFIG_FINALIZER.to_owned()]);
        }
        for one in plan.first.iter().chain(&plan.apply) {
            assert!(!one.object.kind.group.contains("openshift"), "{}", one.object);
            self.objects.insert(one.object.to_string());
            if one.object.name == names::INSTALLER && one.object.kind == Kind::DAEMON_SET {
                self.world.installer = build::template_of(&one.body).map(str::to_owned);
            }
        }
        for Labels { node, change } in &plan.labels {
            let node = self.world.nodes.iter_mut().find(|one| one.name == *node).unwrap();
            for (label, value) in change {
                match value {
                    Some(value) => node.labels.insert((*label).to_owned(), (*value).to_owned()),
                    None => node.labels.remove(*label),
                };
            }
            // The DaemonSet controller takes the pods of another label away.
            node.worker = node.worker.take().filter(|worker| Some(worker.files) == node.files());
        }
        for gone in &plan.delete {
            self.objects.remove(&gone.to_string());
        }
        self.finalized = plan.finalizer == Finalizer::Remove;
        self.world.config.status = Some(plan.status.clone());
        self.plan = plan;
        self.world.config.status.clone().unwrap()
    }

    fn has(&self, object: &str) -> bool {
        self.objects.iter().any(|name| name.split_once('/').map_or(name.as_str(), |(_, name)| name) == object)
    }

    fn node(&mut self, name: &str) -> &mut Node {
        self.world.nodes.iter_mut().find(|node| node.name == name).unwrap()
    }

    /// The pod that the node's label asks for is there, and this far.
    fn pod_is(&mut self, name: &str, done: bool, failure: Option<&str>) {
        let node = self.node(name);
        let files = node.files().unwrap();
        node.worker = Some(FileWorker { files, done, failure: failure.map(str::to_owned) });
        node.reason = failure.map(str::to_owned);
    }

    fn install(&mut self) -> KataConfigStatus {
        self.reconcile();
        let names: Vec<String> = self.world.nodes.iter().map(|node| node.name.clone()).collect();
        for name in names.iter().filter(|name| *name != "cp0") {
            self.pod_is(name, true, None);
        }
        self.reconcile()
    }

    fn delete(&mut self) {
        self.world.config.metadata.deletion_timestamp =
            Some(Time(Timestamp::from_second(self.clock).unwrap()));
    }

    fn condition(&self) -> (String, String, String) {
        let condition = &self.world.config.status.as_ref().unwrap().conditions[0];
        (condition.status.clone(), condition.reason.clone(), condition.message.clone())
    }

    fn labels_of(&self, name: &str) -> (Option<&str>, bool) {
        let node = self.world.nodes.iter().find(|node| node.name == name).unwrap();
        (node.labels.get(names::FILES_LABEL).map(String::as_str), node.has_role())
    }
}

fn node(name: &str, labels: &[(&str, &str)]) -> Node {
    let labels: BTreeMap<_, _> =
        labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
    let runtime = "containerd://2.0.1".to_owned();
    Node { name: name.to_owned(), labels, ready: true, runtime, ..Node::default() }
}

fn pod(class: &str, name: &str, node: &str) -> PodUse {
    PodUse {
        class: class.to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        node: node.to_owned(),
    }
}

fn zone(zone: &str) -> Option<NodeSelector> {
    let match_labels = [("zone".to_owned(), zone.to_owned())].into();
    Some(NodeSelector { match_labels, ..NodeSelector::default() })
}

#[test]
fn files_come_first_then_the_role_then_the_classes() {
    let mut cluster = Cluster::new(2);
    cluster.world.config.spec.enable_peer_pods = true;
    let status = cluster.reconcile();
    assert!(cluster.has("peerpods-installer") && !cluster.has("peerpods-remover"), "{:?}", cluster.objects);
    assert_eq!(cluster.labels_of("cp0"), (None, false), "the control plane is not meant");
    assert_eq!(cluster.labels_of("w0"), (Some("installed"), false));
    assert!(!status.waiting_for_mco_to_start);
    assert_eq!(cluster.condition().1, "Installing");

    cluster.pod_is("w0", false, None);
    let status = cluster.reconcile();
    assert_eq!(status.installation_status.is_in_progress, "True");
    assert_eq!(status.installation_status.inprogress.binaries_install_nodes_list, ["w0"]);
    assert_eq!(status.kata_nodes.waiting_to_install, ["w1"]);
    assert_eq!(status.total_nodes_count, 2);

    cluster.pod_is("w0", true, None);
    let status = cluster.reconcile();
    assert_eq!((cluster.labels_of("w0"), cluster.labels_of("w1").1), ((Some("installed"), true), false));
    assert_eq!(status.installation_status.completed.completed_nodes_count, Some(1));
    assert!(!cluster.has("RuntimeClass kata"), "{:?}", cluster.objects);

    cluster.pod_is("w1", true, None);
    let status = cluster.reconcile();
    assert_eq!(status.installation_status.is_in_progress, "False");
    assert_eq!(status.installation_status.completed.completed_nodes_list, ["w0", "w1"]);
    assert_eq!(status.runtime_classes, ["kata", "kata-remote-cc"]);
    for object in
        ["RuntimeClass kata", "RuntimeClass kata-remote-cc", "peerpodconfig-openshift", names::MONITOR]
    {
        assert!(cluster.has(object), "{object}: {:?}", cluster.objects);
    }
    let first = cluster.reconcile();
    assert_eq!(cluster.reconcile(), first, "at rest nothing changes");
    assert!(cluster.plan.labels.is_empty() && cluster.plan.again.is_none());
}

#[test]
fn a_control_plane_alone_is_meant_and_a_selector_holds_there_too() {
    let mut cluster = Cluster::new(0);
    cluster.reconcile();
    assert_eq!(cluster.labels_of("cp0"), (Some("installed"), false));

    let mut cluster = Cluster::new(2);
    cluster.node("w1").labels.insert("zone".to_owned(), "b".to_owned());
    cluster.world.config.spec.kata_config_pool_selector = zone("b");
    cluster.reconcile();
    assert_eq!((cluster.labels_of("w0").0, cluster.labels_of("w1").0), (None, Some("installed")));
}

#[test]
fn what_is_no_linux_machine_is_never_meant() {
    let mut cluster = Cluster::new(1);
    for (label, value) in [
        ("kubernetes.io/os", "windows"),
        ("type", "virtual-kubelet"),
        ("eks.amazonaws.com/compute-type", "fargate"),
    ] {
        cluster.world.nodes.push(node(value, &[(label, value)]));
    }
    cluster.node("w0").labels.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
    cluster.reconcile();
    let meant: Vec<&str> = cluster.plan.labels.iter().map(|one| one.node.as_str()).collect();
    assert_eq!(meant, ["w0"]);
}

#[test]
fn a_node_that_failed_is_told_and_does_not_hold_up_the_others() {
    let mut cluster = Cluster::new(2);
    cluster.reconcile();
    cluster.pod_is("w0", true, None);
    cluster.pod_is("w1", false, Some("no Kata shim on this host"));
    let status = cluster.reconcile();
    assert_eq!(status.kata_nodes.failed_to_install, ["w1"]);
    let failed = &status.installation_status.failed;
    assert_eq!(failed.failed_nodes_list[0].error, "no Kata shim on this host");
    assert_eq!(
        (failed.failed_nodes_count, failed.failed_nodes_reason.as_str()),
        (Some(1), "no Kata shim on this host")
    );
    let (word, reason, message) = cluster.condition();
    assert_eq!((word.as_str(), reason.as_str()), ("True", "Failed"));
    assert!(message.contains("node w1: no Kata shim"), "{message}");
    assert!(cluster.has("RuntimeClass kata") && cluster.labels_of("w0").1 && !cluster.labels_of("w1").1);

    let mut cluster = Cluster::new(1);
    cluster.reconcile();
    cluster.pod_is("w0", false, Some("x"));
    cluster.reconcile();
    assert!(!cluster.has("RuntimeClass kata"), "nothing can run a pod of it");
}

#[test]
fn peer_pods_wait_until_nodes_have_their_files() {
    let mut cluster = Cluster::new(1);
    cluster.install();
    assert!(cluster.has("RuntimeClass kata"));
    cluster.world.config.spec.enable_peer_pods = true;
    cluster.reconcile();
    assert!(!cluster.has("RuntimeClass kata-remote-cc"), "the installer was changed a moment ago");
    cluster.pod_is("w0", false, None);
    let status = cluster.reconcile();
    assert!(!cluster.has("RuntimeClass kata-remote-cc") && cluster.condition().1 == "Updating", "{status:?}");
    assert_eq!(cluster.labels_of("w0"), (Some("installed"), true), "what runs there goes on");
    cluster.pod_is("w0", true, None);
    cluster.reconcile();
    assert!(cluster.has("RuntimeClass kata-remote-cc"));
}

#[test]
fn a_node_that_is_not_meant_any_more_loses_its_files_before_its_label() {
    let mut cluster = Cluster::new(2);
    cluster.install();
    cluster.node("w0").labels.insert("zone".to_owned(), "b".to_owned());
    cluster.world.config.spec.kata_config_pool_selector = zone("a");
    cluster.world.pods = vec![pod("kata", "till", "w0"), pod("kata", "other", "w1")];
    cluster.reconcile();
    assert_eq!(cluster.labels_of("w0"), (Some("installed"), true), "pods are on it");
    let (_, reason, message) = cluster.condition();
    assert!(reason == "BlockedByExistingKataPods" && message.contains("shop/till"), "{reason} {message}");
    assert!(!message.contains("shop/other") && cluster.plan.again.is_some());

    cluster.world.pods.clear();
    let status = cluster.reconcile();
    assert_eq!(cluster.labels_of("w0"), (Some("installed"), false), "nobody can come, somebody may have");
    assert!(status.conditions[0].reason == "Updating" && cluster.plan.again.is_some());
    cluster.world.pods = vec![pod("kata", "quick", "w0")];
    cluster.reconcile();
    assert_eq!(cluster.labels_of("w0"), (Some("installed"), true), "it keeps the node service");
    cluster.world.pods.clear();
    cluster.reconcile();
    cluster.reconcile();
    assert_eq!(cluster.labels_of("w0"), (Some("removed"), false));
    assert!(cluster.has("peerpods-remover"));
    let status = cluster.reconcile();
    assert_eq!(status.kata_nodes.waiting_to_uninstall, ["w0"]);
    cluster.pod_is("w0", false, None);
    assert_eq!(cluster.reconcile().un_installation_status.in_progress.binaries_uninstall_nodes_list, ["w0"]);
    assert_eq!(cluster.labels_of("w0").0, Some("removed"));
    cluster.pod_is("w0", true, None);
    cluster.reconcile();
    assert_eq!(cluster.labels_of("w0"), (None, false));
    assert!(!cluster.has("peerpods-remover") && cluster.has("peerpods-installer"));
    assert_eq!(cluster.labels_of("w1"), (Some("installed"), true));
}

#[test]
fn an_uninstall_waits_for_pods_then_for_files_then_for_objects() {
    let mut cluster = Cluster::new(2);
    cluster.world.config.spec.enable_peer_pods = true;
    cluster.install();
    cluster.world.pods = vec![pod("kata-remote-cc", "till", "w0")];
    cluster.delete();
    let status = cluster.reconcile();
    assert!(status.un_installation_status.error_message.contains("shop/till"));
    assert!(cluster.plan.labels.is_empty() && cluster.has("RuntimeClass kata"));

    cluster.world.pods.clear();
    cluster.world.going = vec!["PeerPodConfig peerpodconfig-openshift".to_owned()];
    let status = cluster.reconcile();
    assert_eq!(status.un_installation_status.in_progress.status, "True");
    assert_eq!(cluster.labels_of("w0"), (Some("installed"), false), "nobody can come, somebody may have");
    assert!(!cluster.has("RuntimeClass kata-remote-cc") && cluster.has("peerpodconfig-openshift"));
    cluster.world.pods = vec![pod("kata-remote-cc", "quick", "w0")];
    cluster.reconcile();
    assert_eq!(
        (cluster.labels_of("w0"), cluster.labels_of("w1")),
        ((Some("installed"), true), (Some("installed"), false))
    );
    assert!(cluster.has("peerpodconfig-openshift") && cluster.condition().1 == "BlockedByExistingKataPods");
    cluster.world.pods.clear();
    cluster.reconcile();
    assert_eq!(cluster.labels_of("w0"), (Some("installed"), false));
    cluster.reconcile();
    assert_eq!(cluster.labels_of("w0"), (Some("removed"), false));
    assert!(cluster.has("peerpods-remover") && !cluster.has("RuntimeClass kata"));
    cluster.pod_is("w0", true, None);
    cluster.pod_is("w1", false, Some("/etc/containerd/config.toml was changed"));
    let status = cluster.reconcile();
    assert_eq!((cluster.labels_of("w0").0, cluster.labels_of("w1").0), (None, Some("removed")));
    assert_eq!(status.un_installation_status.failed.failed_nodes_list[0].name, "w1");
    let (_, reason, message) = cluster.condition();
    assert!(reason == "Failed" && message.contains("peerpods.io/kata"), "{reason} {message}");
    cluster.pod_is("w1", true, None);
    cluster.reconcile();
    assert!(!cluster.finalized && cluster.condition().1 == "WaitingForObjects");
    cluster.world.going.clear();
    cluster.reconcile();
    assert!(cluster.finalized && cluster.objects.is_empty(), "left behind: {:?}", cluster.objects);
    assert!(cluster.world.nodes.iter().all(|node| node.files().is_none() && !node.has_role()));
}

#[test]
fn a_node_that_never_comes_back_is_told_of_and_its_end_ends_the_wait() {
    let mut cluster = Cluster::new(2);
    cluster.install();
    cluster.node("w1").ready = false;
    cluster.node("w1").worker = None;
    let status = cluster.reconcile();
    assert_eq!(status.kata_nodes.installed, ["w0", "w1"], "what was placed is there");
    assert_eq!(cluster.condition().0, "False");
    cluster.delete();
    cluster.reconcile();
    cluster.reconcile();
    cluster.pod_is("w0", true, None);
    cluster.reconcile();
    let (_, reason, message) = cluster.condition();
    assert!(reason == "Uninstalling" && message.contains("w1"), "{reason} {message}");
    assert!(!cluster.finalized);
    cluster.world.nodes.retain(|node| node.name != "w1");
    cluster.reconcile();
    assert!(cluster.finalized && cluster.objects.is_empty(), "{:?}", cluster.objects);
}

#[test]
fn b17_labels_that_somebody_set_are_undone_and_an_install_is_not_held_up_by_a_node_that_is_away() {
    let mut cluster = Cluster::new(2);
    cluster.world.config.spec.kata_config_pool_selector = zone("nowhere");
    cluster.node("w0").labels.insert(names::ROLE_LABEL.to_owned(), String::new());
    cluster.node("w1").labels.insert(names::FILES_LABEL.to_owned(), "what".to_owned());
    cluster.reconcile();
    assert_eq!((cluster.labels_of("w0"), cluster.labels_of("w1")), ((None, false), (Some("removed"), false)));

    let mut cluster = Cluster::new(2);
    cluster.node("w1").ready = false;
    cluster.reconcile();
    cluster.pod_is("w0", true, None);
    cluster.reconcile();
    assert!(
        cluster.has("RuntimeClass kata") && cluster.condition().2.contains("w1"),
        "{:?}",
        cluster.condition()
    );
}

#[test]
fn what_makes_no_sense_or_was_never_installed_can_be_deleted() {
    let mut cluster = Cluster::new(1);
    cluster.install();
    cluster.world.config.spec.kata_config_pool_selector = zone("a b");
    cluster.reconcile();
    assert_eq!(cluster.condition().1, "InvalidSpec");
    cluster.delete();
    cluster.reconcile();
    cluster.reconcile();
    cluster.pod_is("w0", true, None);
    cluster.reconcile();
    assert!(cluster.finalized);

    let mut cluster = Cluster::new(1);
    cluster.world.config.metadata.finalizers = Some(vec![KATACONFIG_FINALIZER.to_owned()]);
    cluster.delete();
    cluster.reconcile();
    assert!(cluster.finalized);
}

#[test]
fn constraints_are_made_where_there_is_their_api_alone() {
    let mut cluster = Cluster::new(1);
    cluster.world.apis.security_constraints = true;
    cluster.reconcile();
    cluster.pod_is("w0", true, None);
    let plan = decide(&cluster.world, &cluster.settings, Timestamp::UNIX_EPOCH);
    assert!(plan.apply.iter().any(|one| one.object.name == names::SCC));
}

#[test]
fn the_monitor_finds_the_container_runtime() {
    let mut cluster = Cluster::new(2);
    let command = |cluster: &Cluster| {
        let monitor = cluster.plan.apply.iter().find(|one| one.object.name == names::MONITOR).unwrap();
        monitor.body["spec"]["template"]["spec"]["containers"][0]["command"].to_string()
    };
    cluster.install();
    assert!(command(&cluster).contains("/run/containerd/containerd.sock"));
    cluster.world.nodes.iter_mut().for_each(|node| node.runtime = "cri-o://1.33.0".to_owned());
    cluster.reconcile();
    assert!(command(&cluster).contains("/run/crio/crio.sock"));
}
