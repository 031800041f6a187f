//! A cluster as plain data, changed by plans and by a machine config operator that is played by the test: the handshake of
//! OpenShift sandboxed containers, step by step, and the faults of upstream.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peerpods_crds::{KataConfig, KataConfigSpec, NodeSelector, Requirement, WORD_FALSE, WORD_TRUE};

use super::*;
use crate::kataconfig::world::{Node, Pool};

mod edits;
mod fields;
mod pools;
mod webhook;

const ELIGIBLE: &str = names::ELIGIBLE_LABEL;

struct Cluster {
    world: World,
    settings: Settings,
    /// What was applied, by object.
    objects: BTreeMap<String, serde_json::Value>,
    finalized: bool,
    clock: i64,
    plan: Plan,
}

impl Cluster {
    fn new(workers: usize) -> Self {
        let config = KataConfig::new("example", KataConfigSpec::default());
        let mut world = World { config, ..World::default() };
        world.config.metadata.uid = Some("u-1".to_owned());
        let done = |machines: i32, target: &str| Pool {
            updated: true,
            machines,
            updated_machines: machines,
            target: Some(target.to_owned()),
            ..Pool::default()
        };
        world.pools.insert("master".to_owned(), done(3, "rendered-master-0"));
        world.pools.insert("worker".to_owned(), done(i32::try_from(workers).unwrap(), "rendered-worker-0"));
        for n in 0..workers {
            world.nodes.push(node(&format!("worker{n}"), names::WORKER_LABEL, "rendered-worker-0"));
        }
        for n in 0..3 {
            world.nodes.push(node(&format!("master{n}"), names::MASTER_LABEL, "rendered-master-0"));
        }
        let (settings, objects) = (Settings::default(), BTreeMap::new());
        Self { world, settings, objects, finalized: false, clock: 1_700_000_000, plan: Plan::default() }
    }

    fn spec(&mut self) -> &mut KataConfigSpec {
        &mut self.world.config.spec
    }

    /// One reconciliation, done to the world.
    fn reconcile(&mut self) -> KataConfigStatus {
        self.clock += 1;
        let plan = decide(&self.world, &self.settings, Timestamp::from_second(self.clock).unwrap());
        if plan.finalizer == Finalizer::Add {
            self.world.config.metadata.finalizers = Some(vec![KATACONFIG_FINALIZER.to_owned()]);
        }
        for one in plan.first.iter().chain(&plan.apply) {
            self.objects.insert(one.object.to_string(), one.whole());
            if one.object.kind == Kind::MACHINE_CONFIG {
                self.world.machine_configs.insert(one.object.name.clone());
            }
            if one.object.kind == Kind::MACHINE_CONFIG_POOL {
                self.world.pools.entry(one.object.name.clone()).or_default();
            }
            if one.object.kind == Kind::CONTAINER_RUNTIME_CONFIG {
                self.world.log_level_config = true;
            }
        }
        for role in &plan.roles {
            let node = self.world.nodes.iter_mut().find(|node| node.name == role.node).unwrap();
            match role.has {
                true => node.labels.insert(names::ROLE_LABEL.to_owned(), String::new()),
                false => node.labels.remove(names::ROLE_LABEL),
            };
        }
        for gone in plan.delete.iter().map(|gone| &gone.object) {
            self.objects.remove(&gone.to_string());
            match gone.kind {
                Kind::MACHINE_CONFIG => drop(self.world.machine_configs.remove(&gone.name)),
                Kind::MACHINE_CONFIG_POOL => drop(self.world.pools.remove(&gone.name)),
                _ => {}
            }
        }
        self.finalized = plan.finalizer == Finalizer::Remove;
        self.world.config.status = Some(plan.status.clone());
        self.plan = plan;
        self.world.config.status.clone().unwrap()
    }

    fn has(&self, object: &str) -> bool {
        self.objects.keys().any(|name| name == object)
    }

    fn pool(&mut self, name: &str) -> &mut Pool {
        self.world.pools.get_mut(name).unwrap()
    }

    fn node(&mut self, name: &str) -> &mut Node {
        self.world.nodes.iter_mut().find(|node| node.name == name).unwrap()
    }

    /// The machine config operator begins with a pool.
    fn begins(&mut self, pool: &str, machines: i32) {
        let pool = self.pool(pool);
        (pool.updating, pool.updated, pool.machines) = (true, false, machines);
    }

    /// It works on a node.
    fn works_on(&mut self, name: &str) {
        self.node(name).state = Some("Working".to_owned());
    }

    /// It is done with a node, which now has its pool's configuration.
    fn done_with(&mut self, name: &str, rendered: &str) {
        let node = self.node(name);
        (node.state, node.current) = (Some("Done".to_owned()), Some(rendered.to_owned()));
    }

    fn ends(&mut self, pool: &str, rendered: &str, machines: i32) {
        let pool = self.pool(pool);
        (pool.updating, pool.updated) = (false, true);
        (pool.machines, pool.updated_machines, pool.target) = (machines, machines, Some(rendered.to_owned()));
    }

    /// All of an install with one worker.
    fn install(&mut self) {
        self.reconcile();
        self.begins("kata-oc", 1);
        self.reconcile();
        self.done_with("worker0", "R");
        self.ends("kata-oc", "R", 1);
        self.ends("worker", "rendered-worker-0", 0);
        let status = self.reconcile();
        assert_eq!(status.installation_status.is_in_progress, WORD_FALSE, "{status:#?}");
    }

    fn delete(&mut self) {
        self.world.config.metadata.deletion_timestamp =
            Some(Time(Timestamp::from_second(self.clock).unwrap()));
    }

    fn condition(&self) -> (String, String) {
        let status = self.world.config.status.as_ref().unwrap();
        (status.conditions[0].status.clone(), status.conditions[0].reason.clone())
    }
}

fn node(name: &str, label: &str, current: &str) -> Node {
    Node {
        name: name.to_owned(),
        labels: [(label.to_owned(), String::new())].into(),
        state: Some("Done".to_owned()),
        current: Some(current.to_owned()),
        ..Node::default()
    }
}

fn pod(class: &str, name: &str) -> PodUse {
    PodUse {
        class: class.to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        node: String::new(),
    }
}

#[test]
fn an_install_goes_through_the_handshake_of_the_machine_config_operator() {
    let mut cluster = Cluster::new(2);
    let status = cluster.reconcile();
    assert!(
        cluster.has("MachineConfig 50-enable-sandboxed-containers-extension")
            && cluster.has("MachineConfigPool kata-oc")
    );
    assert!(cluster.world.nodes.iter().all(|node| node.has_role() == node.is_worker()));
    assert_eq!(
        (status.waiting_for_mco_to_start, status.installation_status.is_in_progress.as_str()),
        (true, "")
    );
    assert!(!cluster.objects.keys().any(|name| name.starts_with("RuntimeClass")));

    cluster.begins("kata-oc", 2);
    let status = cluster.reconcile();
    assert_eq!(
        (status.waiting_for_mco_to_start, status.installation_status.is_in_progress.as_str()),
        (false, WORD_TRUE)
    );
    assert_eq!(
        (status.total_nodes_count, cluster.condition()),
        (2, (WORD_TRUE.to_owned(), "Installing".to_owned()))
    );

    cluster.works_on("worker0");
    let status = cluster.reconcile();
    assert_eq!(status.installation_status.inprogress.binaries_install_nodes_list, ["worker0"]);
    assert_eq!(
        (status.kata_nodes.installing, status.kata_nodes.waiting_to_install),
        (vec!["worker0".to_owned()], vec!["worker1".to_owned()])
    );

    cluster.pool("kata-oc").target = Some("R".to_owned());
    cluster.done_with("worker0", "R");
    cluster.pool("kata-oc").updated_machines = 1;
    let status = cluster.reconcile();
    assert_eq!(status.installation_status.completed.completed_nodes_list, ["worker0"]);
    assert_eq!(status.installation_status.completed.completed_nodes_count, Some(1));
    assert!(!cluster.has("RuntimeClass kata"));

    cluster.done_with("worker1", "R");
    cluster.ends("kata-oc", "R", 2);
    let status = cluster.reconcile();
    assert_eq!(
        (status.installation_status.is_in_progress.as_str(), cluster.condition().0.as_str()),
        (WORD_FALSE, WORD_FALSE)
    );
    assert_eq!((status.runtime_class.as_str(), status.runtime_classes), ("kata", vec!["kata".to_owned()]));
    for object in [
        "RuntimeClass kata",
        "SecurityContextConstraints sandboxed-containers-operator-scc",
        "DaemonSet openshift-sandboxed-containers-operator/openshift-sandboxed-containers-monitor",
    ] {
        assert!(cluster.has(object), "{object}: {:?}", cluster.objects.keys());
    }
    assert!(!cluster.has("ContainerRuntimeConfig kata-crio-config"));
}

#[test]
fn b11_at_rest_nothing_changes_from_one_look_to_the_next() {
    let mut cluster = Cluster::new(1);
    cluster.install();
    let first = cluster.reconcile();
    // With the time of the condition.
    assert_eq!(cluster.reconcile(), first);
    assert!(cluster.plan.roles.is_empty() && cluster.plan.again.is_none());
}

#[test]
fn b3_removing_waits_for_pods_of_every_class_then_for_nodes_then_for_objects() {
    let mut cluster = Cluster::new(1);
    cluster.spec().enable_peer_pods = true;
    cluster.install();
    assert!(cluster.has("RuntimeClass kata-remote-cc"));
    cluster.world.pods = vec![pod("kata-remote-cc", "b"), pod("kata", "a"), pod("runc", "c")];
    cluster.delete();
    let status = cluster.reconcile();
    let message = &status.un_installation_status.error_message;
    assert!(
        message.contains("shop/a (kata), shop/b (kata-remote-cc)") && !message.contains("shop/c"),
        "{message}"
    );
    assert_eq!(cluster.condition(), (WORD_FALSE.to_owned(), "BlockedByExistingKataPods".to_owned()));
    assert!(
        cluster.world.nodes[0].has_role() && cluster.has("MachineConfigPool kata-oc"),
        "nothing else changes"
    );

    cluster.world.pods.clear();
    let status = cluster.reconcile();
    assert!(!cluster.world.nodes[0].has_role());
    assert!(cluster.world.machine_configs.is_empty());
    assert_eq!(status.un_installation_status.in_progress.status, WORD_TRUE);
    assert!(status.waiting_for_mco_to_start && status.un_installation_status.error_message.is_empty());
    cluster.reconcile();
    assert!(cluster.has("MachineConfigPool kata-oc"));

    cluster.begins("worker", 1);
    cluster.works_on("worker0");
    let status = cluster.reconcile();
    assert!(!status.waiting_for_mco_to_start);
    assert_eq!(status.un_installation_status.in_progress.binaries_uninstall_nodes_list, ["worker0"]);

    cluster.done_with("worker0", "rendered-worker-0");
    cluster.ends("worker", "rendered-worker-0", 1);
    cluster.world.going = vec!["PeerPodConfig peerpodconfig-openshift".to_owned()];
    cluster.reconcile();
    assert!(!cluster.finalized, "an object is still going");
    cluster.world.going.clear();
    cluster.reconcile();
    assert!(cluster.finalized);
    assert!(cluster.objects.is_empty(), "left behind: {:?}", cluster.objects.keys());
}

#[test]
fn where_no_node_is_meant_nothing_is_waited_for() {
    let mut cluster = Cluster::new(1);
    let match_labels = [("kata".to_owned(), "true".to_owned())].into();
    cluster.spec().kata_config_pool_selector = Some(NodeSelector { match_labels, ..NodeSelector::default() });
    let status = cluster.reconcile();
    assert!(!status.waiting_for_mco_to_start && cluster.has("RuntimeClass kata"));
    cluster.delete();
    cluster.reconcile();
    cluster.reconcile();
    assert!(cluster.finalized && cluster.objects.is_empty());
}

#[test]
fn a_control_plane_alone_is_its_own_pool() {
    let mut cluster = Cluster::new(0);
    let status = cluster.reconcile();
    assert!(status.waiting_for_mco_to_start && !cluster.has("MachineConfigPool kata-oc"));
    let config = &cluster.objects["MachineConfig 50-enable-sandboxed-containers-extension"];
    assert_eq!(config["metadata"]["labels"][names::MACHINE_CONFIG_ROLE], "master");
    cluster.begins("master", 3);
    assert_eq!(cluster.reconcile().installation_status.is_in_progress, WORD_TRUE);
    cluster.ends("master", "R", 3);
    for n in 0..3 {
        cluster.done_with(&format!("master{n}"), "R");
    }
    let status = cluster.reconcile();
    assert_eq!((status.total_nodes_count, status.kata_nodes.ready_node_count), (3, 3));
    assert_eq!(
        cluster.objects["RuntimeClass kata"]["scheduling"]["nodeSelector"],
        json!({ names::MASTER_LABEL: "" })
    );

    cluster.delete();
    assert!(cluster.reconcile().waiting_for_mco_to_start);
    cluster.begins("master", 3);
    cluster.reconcile();
    cluster.ends("master", "rendered-master-0", 3);
    cluster.reconcile();
    cluster.reconcile();
    assert!(cluster.finalized && cluster.objects.is_empty(), "{:?}", cluster.objects.keys());
}

#[test]
fn a_selector_moves_nodes_both_ways_and_a_new_worker_joins() {
    let mut cluster = Cluster::new(1);
    cluster.install();
    cluster.world.nodes.push(node("worker9", names::WORKER_LABEL, "rendered-worker-0"));
    assert!(cluster.reconcile().waiting_for_mco_to_start);
    assert_eq!(cluster.plan.roles, [Role { node: "worker9".to_owned(), has: true }]);
    let expression =
        Requirement { key: "zone".to_owned(), operator: "In".to_owned(), values: vec!["a".to_owned()] };
    cluster.node("worker9").labels.insert("zone".to_owned(), "a".to_owned());
    cluster.spec().kata_config_pool_selector =
        Some(NodeSelector { match_expressions: vec![expression], ..NodeSelector::default() });
    cluster.reconcile();
    assert_eq!(cluster.plan.roles, [Role { node: "worker0".to_owned(), has: false }]);
}

#[test]
fn eligible_nodes_are_waited_for_and_not_with_peer_pods() {
    let mut cluster = Cluster::new(1);
    cluster.spec().check_node_eligibility = true;
    cluster.reconcile();
    assert_eq!(cluster.condition(), (WORD_FALSE.to_owned(), "NoEligibleNodes".to_owned()));
    assert!(cluster.objects.is_empty() && cluster.plan.again.is_some());
    assert_eq!(cluster.plan.finalizer, Finalizer::Leave, "it can be deleted at once");
    cluster.node("worker0").labels.insert(ELIGIBLE.to_owned(), "true".to_owned());
    cluster.reconcile();
    assert!(cluster.world.nodes[0].has_role());

    let mut cluster = Cluster::new(1);
    cluster.spec().check_node_eligibility = true;
    cluster.spec().enable_peer_pods = true;
    cluster.reconcile();
    assert!(cluster.has("MachineConfig 50-kata-remote-cc") && !cluster.world.nodes[0].has_role());
}

#[test]
fn b4_peer_pods_are_turned_off_again() {
    let mut cluster = Cluster::new(1);
    cluster.install();
    let before: Vec<String> = cluster.objects.keys().cloned().collect();
    cluster.spec().enable_peer_pods = true;
    assert!(cluster.reconcile().waiting_for_mco_to_start, "nodes get two more files");
    assert!(!cluster.has("RuntimeClass kata-remote-cc"));
    cluster.begins("kata-oc", 1);
    cluster.reconcile();
    assert_eq!(cluster.condition().1, "Updating");
    cluster.done_with("worker0", "R2");
    cluster.ends("kata-oc", "R2", 1);
    assert_eq!(cluster.reconcile().runtime_classes, ["kata", "kata-remote-cc"]);

    cluster.spec().enable_peer_pods = false;
    cluster.world.pods = vec![pod("kata-remote-cc", "a")];
    cluster.reconcile();
    assert!(cluster.has("RuntimeClass kata-remote-cc"), "a pod uses it");
    assert_eq!(cluster.condition().1, "BlockedByExistingKataPods");
    cluster.world.pods.clear();
    assert!(cluster.reconcile().waiting_for_mco_to_start);
    let after: Vec<String> = cluster.objects.keys().cloned().collect();
    assert_eq!(after, before);
}

#[test]
fn b1_a_second_kataconfig_changes_nothing_and_can_be_deleted() {
    let mut cluster = Cluster::new(1);
    cluster.world.older = vec!["first".to_owned()];
    cluster.reconcile();
    assert!(cluster.objects.is_empty() && cluster.plan.roles.is_empty());
    assert_eq!(cluster.condition().1, "AnotherKataConfig");
    assert!(cluster.plan.again.is_some(), "the first may go");
    cluster.world.config.metadata.finalizers = Some(vec![KATACONFIG_FINALIZER.to_owned()]);
    cluster.delete();
    cluster.reconcile();
    assert!(cluster.finalized && cluster.plan.delete.is_empty());
}

#[test]
fn b2_a_pool_that_is_not_there_yet_has_no_nodes() {
    let mut cluster = Cluster::new(1);
    cluster.node("worker0").labels.insert(names::ROLE_LABEL.to_owned(), String::new());
    assert_eq!(cluster.reconcile().total_nodes_count, 0);
}

#[test]
fn b6_failures_are_told_with_their_reasons_and_each_in_its_list() {
    let mut cluster = Cluster::new(1);
    cluster.reconcile();
    cluster.begins("kata-oc", 1);
    cluster.pool("kata-oc").degraded = Some("Node worker0 is reporting: \"disk full\"".to_owned());
    let node = cluster.node("worker0");
    (node.state, node.reason) = (Some("Degraded".to_owned()), Some("disk full".to_owned()));
    let failed = cluster.reconcile().installation_status.failed;
    assert_eq!(
        (failed.failed_nodes_count, failed.failed_nodes_list[0].error.as_str()),
        (Some(1), "disk full")
    );
    assert!(failed.failed_nodes_reason.contains("disk full"));
    assert_eq!(cluster.condition(), (WORD_TRUE.to_owned(), "Failed".to_owned()));
}

#[test]
fn b16_what_makes_no_sense_says_so_and_can_be_deleted() {
    let mut cluster = Cluster::new(1);
    cluster.install();
    let expression = Requirement { key: "zone".to_owned(), operator: "Foo".to_owned(), values: Vec::new() };
    cluster.spec().kata_config_pool_selector =
        Some(NodeSelector { match_expressions: vec![expression], ..NodeSelector::default() });
    cluster.spec().log_level = "loud".to_owned();
    let status = cluster.reconcile();
    assert_eq!(cluster.condition(), (WORD_FALSE.to_owned(), "InvalidSpec".to_owned()));
    let message = &status.conditions[0].message;
    assert!(
        message.contains("spec.logLevel: \"loud\"") && message.contains("matchExpressions[0].operator"),
        "{message}"
    );
    assert!(cluster.plan.roles.is_empty() && cluster.plan.apply.is_empty(), "nothing changes");
    cluster.delete();
    cluster.reconcile();
    assert!(!cluster.world.nodes[0].has_role());
}

#[test]
fn b17_every_node_loses_the_role_whatever_its_labels_are_now() {
    let mut cluster = Cluster::new(1);
    cluster.install();
    let match_labels = [("gone".to_owned(), "x".to_owned())].into();
    cluster.spec().kata_config_pool_selector = Some(NodeSelector { match_labels, ..NodeSelector::default() });
    cluster.delete();
    cluster.reconcile();
    assert_eq!(cluster.plan.roles, [Role { node: "worker0".to_owned(), has: false }]);
}
