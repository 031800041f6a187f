//! What is to be done about a PeerPodConfig. Pure.
//!
//! Every node that is selected advertises the limit, also nodes that come later or were made anew; a node that is no longer selected advertises
//! nothing (B10). A limit that cannot be read changes nothing and is told.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peerpods_crds::{Condition, PEERPODCONFIG_FINALIZER, PeerPodConfigStatus, WORD_FALSE, WORD_TRUE};

use super::configuration::{self, Fault, Findings};
use super::daemon_set::{self, Parts};
use super::world::{Node, World};
use crate::names;
use crate::objects::Desired;
use crate::reconciled::Finalizer;
use crate::settings::Settings;

/// The type of the condition.
pub const READY: &str = "Ready";
/// Until the next look at something that is missing and may be watched by nobody.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What is to be done, in this order.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Whether our finalizer is to be there: from before the first step on, or no more after the last.
    pub finalizer: Finalizer,
    /// What nodes are to advertise; none: nothing.
    pub capacity: Vec<Capacity>,
    /// Objects to apply.
    pub apply: Vec<Desired>,
    /// The status.
    pub status: PeerPodConfigStatus,
    /// Keys that are in the Secret and in the ConfigMap: worth an Event.
    pub clashes: Vec<String>,
    /// When to look again although nothing happened.
    pub again: Option<Duration>,
}

impl Plan {
    fn nothing(finalizer: Finalizer) -> Self {
        let status = PeerPodConfigStatus::default();
        Self { finalizer, capacity: Vec::new(), apply: Vec::new(), status, clashes: Vec::new(), again: None }
    }
}

/// What a node is to advertise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// The node.
    pub node: String,
    /// How many VMs; none: the resource is to go.
    pub limit: Option<u32>,
}

/// What is to be done about a PeerPodConfig.
#[must_use]
pub fn decide(world: &World, settings: &Settings, now: Timestamp) -> Plan {
    let removing = world.config.metadata.deletion_timestamp.is_some();
    if removing {
        return remove(world);
    }
    let findings = configuration::look(world);
    let limit = match limit(&world.config.spec.limit) {
        Ok(limit) => limit,
        Err(fault) => return refuse(world, &fault, now),
    };
    let capacity = capacity(world, limit);
    let runs = findings.faults.is_empty() || world.service.wanted > 0;
    let apply = runs.then(|| service(world, settings, limit, &findings)).into_iter().collect();
    let status = status(world, &findings, &capacity, now);
    Plan {
        finalizer: Finalizer::There,
        capacity,
        apply,
        again: (!findings.faults.is_empty()).then_some(LOOK_AGAIN),
        clashes: findings.clashes,
        status,
    }
}

/// A whole number, 0 or more.
fn limit(text: &str) -> Result<u32, Fault> {
    text.trim().parse().map_err(|_| Fault {
        reason: "InvalidLimit",
        text: format!(
            "spec.limit is {text:?}: it must be a whole number, 0 or more; nodes keep what they advertise"
        ),
    })
}

fn refuse(world: &World, fault: &Fault, now: Timestamp) -> Plan {
    let before = world.config.status.clone().unwrap_or_default();
    let condition = condition(&before, Some(fault), now);
    let status = PeerPodConfigStatus {
        setup_completed: false,
        conditions: vec![condition],
        observed_generation: world.config.metadata.generation,
        ..before
    };
    Plan { status, ..Plan::nothing(Finalizer::There) }
}

fn remove(world: &World) -> Plan {
    let finalizers = world.config.metadata.finalizers.as_deref().unwrap_or_default();
    let ours = finalizers.iter().any(|name| name == PEERPODCONFIG_FINALIZER);
    // Also nodes that are selected no more: an uninstall takes their label first. Another PeerPodConfig puts its own back.
    let advertising = |node: &&Node| ours && node.advertised.is_some();
    let gone = |node: &Node| Capacity { node: node.name.clone(), limit: None };
    Plan {
        capacity: world.nodes.iter().filter(advertising).map(gone).collect(),
        status: world.config.status.clone().unwrap_or_default(),
        ..Plan::nothing(Finalizer::Gone)
    }
}

/// What changes. D3: the limit is each node's own.
fn capacity(world: &World, limit: u32) -> Vec<Capacity> {
    let wanted = |node: &Node| selected(world, node).then_some(limit);
    let differs = |node: &&Node| node.advertised != wanted(node).map(|limit| limit.to_string());
    let change = |node: &Node| Capacity { node: node.name.clone(), limit: wanted(node) };
    world.nodes.iter().filter(differs).map(change).collect()
}

fn selector(world: &World) -> BTreeMap<String, String> {
    let own = &world.config.spec.node_selector;
    match own.is_empty() {
        true => [(names::WORKER_LABEL.to_owned(), String::new())].into(),
        false => own.clone(),
    }
}

fn selected(world: &World, node: &Node) -> bool {
    selector(world).iter().all(|(key, value)| node.labels.get(key) == Some(value))
}

fn service(world: &World, settings: &Settings, limit: u32, findings: &Findings) -> Desired {
    let spec = &world.config.spec;
    let owner = serde_json::json!({
        "apiVersion": format!("{}/v1alpha1", peerpods_crds::PEERPODS_GROUP),
        "kind": "PeerPodConfig",
        "name": world.config.metadata.name,
        "uid": world.config.metadata.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    });
    let parts = Parts {
        namespace: &settings.namespace,
        image: &settings.image,
        node_selector: &selector(world),
        secret: &spec.cloud_secret_name,
        config_map: &spec.config_map_name,
        limit,
        digest: &findings.digest,
    };
    daemon_set::daemon_set(&parts).owned_by(&owner)
}

fn status(world: &World, findings: &Findings, changes: &[Capacity], now: Timestamp) -> PeerPodConfigStatus {
    let before = world.config.status.clone().unwrap_or_default();
    let nodes = world.nodes.iter().filter(|node| selected(world, node)).count();
    let waiting = changes.iter().filter(|change| change.limit.is_some()).count();
    let starting = Fault {
        reason: "ServiceStarting",
        text: format!("the service is ready on {} of {} nodes", world.service.ready, world.service.wanted),
    };
    let settled = world.service.wanted > 0 && world.service.ready >= world.service.wanted;
    let fault = findings.faults.first().map(|first| Fault {
        reason: first.reason,
        text: findings.faults.iter().map(|fault| fault.text.as_str()).collect::<Vec<_>>().join("; "),
    });
    let fault = fault.or_else(|| (!settled && nodes > 0).then_some(starting));
    PeerPodConfigStatus {
        setup_completed: fault.is_none() && nodes > 0 && waiting == 0,
        advertised_nodes_count: i32::try_from(nodes - waiting.min(nodes)).unwrap_or(i32::MAX),
        ready_nodes_count: world.service.ready,
        conditions: vec![condition(&before, fault.as_ref(), now)],
        observed_generation: world.config.metadata.generation,
    }
}

fn condition(before: &PeerPodConfigStatus, fault: Option<&Fault>, now: Timestamp) -> Condition {
    let new = Condition {
        kind: READY.to_owned(),
        status: if fault.is_none() { WORD_TRUE } else { WORD_FALSE }.to_owned(),
        last_transition_time: Time(now),
        reason: fault.map_or("Ready", |fault| fault.reason).to_owned(),
        message: fault.map(|fault| fault.text.clone()).unwrap_or_default(),
    };
    match before.conditions.iter().find(|old| old.kind == READY) {
        Some(old) if old.status == new.status && old.reason == new.reason => {
            Condition { last_transition_time: old.last_transition_time.clone(), ..new }
        }
        _ => new,
    }
}

#[cfg(test)]
mod tests {
    use peerpods_crds::{PeerPodConfig, PeerPodConfigSpec};

    use super::super::world::{Keys, Service};
    use super::*;

    fn node(name: &str, label: &str, advertised: Option<&str>) -> Node {
        let labels = [(label.to_owned(), String::new())].into();
        Node { name: name.to_owned(), labels, advertised: advertised.map(str::to_owned) }
    }

    fn world(limit: &str) -> World {
        let node_selector = [(names::ROLE_LABEL.to_owned(), String::new())].into();
        let spec =
            PeerPodConfigSpec { limit: limit.to_owned(), node_selector, ..PeerPodConfigSpec::default() };
        let keys = |list: &[(&str, &str)]| {
            Some(Keys(
                list.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect(),
            ))
        };
        World {
            config: PeerPodConfig::new("peerpodconfig-openshift", spec),
            nodes: vec![
                node("a", names::ROLE_LABEL, None),
                node("b", names::ROLE_LABEL, Some("10")),
                node("c", names::WORKER_LABEL, Some("10")),
                node("d", names::WORKER_LABEL, None),
            ],
            secret: keys(&[("AWS_ACCESS_KEY_ID", "x")]),
            config_map: keys(&[("CLOUD_PROVIDER", "aws"), ("PODVM_AMI_ID", "ami-1")]),
            service: Service { wanted: 2, ready: 2 },
        }
    }

    fn plan(world: &World) -> Plan {
        decide(world, &Settings::default(), Timestamp::from_second(1_700_000_000).unwrap())
    }

    #[test]
    fn b10_every_selected_node_has_the_whole_limit_and_no_other_any() {
        let plan = plan(&world("10"));
        let change = |node: &str, limit| Capacity { node: node.to_owned(), limit };
        assert_eq!(plan.capacity, [change("a", Some(10)), change("c", None)]);
        assert_eq!(plan.status.advertised_nodes_count, 1);
        assert!(plan.finalizer == Finalizer::There && plan.apply.len() == 1);
    }

    #[test]
    fn a_limit_that_is_no_number_is_told_and_changes_nothing() {
        for bad in ["", "-1", "ten", "1.5", "99999999999"] {
            let plan = plan(&world(bad));
            assert!(plan.capacity.is_empty() && plan.apply.is_empty(), "{bad}");
            let condition = &plan.status.conditions[0];
            assert_eq!((condition.status.as_str(), condition.reason.as_str()), (WORD_FALSE, "InvalidLimit"));
            assert!(condition.message.contains("spec.limit"), "{}", condition.message);
        }
    }

    #[test]
    fn without_its_configuration_the_service_does_not_start_and_does_not_stop() {
        let mut without = world("10");
        without.secret = None;
        let kept = plan(&without);
        assert_eq!((kept.apply.len(), kept.status.conditions[0].reason.as_str()), (1, "MissingSecret"));
        assert!(kept.again.is_some());
        without.service = Service::default();
        assert!(plan(&without).apply.is_empty());
    }

    #[test]
    fn ready_is_when_all_nodes_advertise_and_all_services_are_ready() {
        let mut good = world("10");
        good.nodes = vec![node("b", names::ROLE_LABEL, Some("10"))];
        let first = plan(&good);
        assert!(first.status.setup_completed && first.capacity.is_empty());
        assert_eq!(first.status.conditions[0].status, WORD_TRUE);
        good.service.ready = 1;
        let starting = plan(&good);
        assert!(!starting.status.setup_completed);
        assert_eq!(starting.status.conditions[0].reason, "ServiceStarting");
        good.config.status = Some(starting.status.clone());
        let later = decide(&good, &Settings::default(), Timestamp::from_second(1_800_000_000).unwrap());
        assert_eq!(later.status, starting.status, "the same says the same, with its time");
    }

    #[test]
    fn b12_what_is_wrong_with_the_provider_stays_told() {
        let mut wrong = world("10");
        wrong.config_map = Some(Keys([("CLOUD_PROVIDER".to_owned(), b"gcp".to_vec())].into()));
        for _ in 0..3 {
            let status = plan(&wrong).status;
            let condition = &status.conditions[0];
            assert_eq!(condition.status, WORD_FALSE);
            assert!(condition.message.contains("\"gcp\""), "{}", condition.message);
            wrong.config.status = Some(status);
        }
    }

    #[test]
    fn at_its_end_nodes_advertise_nothing() {
        let mut gone = world("10");
        gone.config.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        gone.config.metadata.finalizers = Some(vec![PEERPODCONFIG_FINALIZER.to_owned()]);
        let plan = plan(&gone);
        let gone = |node: &str| Capacity { node: node.to_owned(), limit: None };
        assert_eq!(plan.capacity, [gone("b"), gone("c")], "also where the label went first");
        assert!(plan.finalizer == Finalizer::Gone && plan.apply.is_empty());
    }

    #[test]
    fn without_a_selector_workers_are_meant() {
        let mut plain = world("3");
        plain.config.spec.node_selector.clear();
        let plan = plan(&plain);
        let limits: Vec<_> = plan.capacity.iter().map(|one| (one.node.as_str(), one.limit)).collect();
        assert_eq!(limits, [("b", None), ("c", Some(3)), ("d", Some(3))]);
    }
}
