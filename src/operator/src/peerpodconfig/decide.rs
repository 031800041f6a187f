//! What is to be done about a PeerPodConfig. Pure.
//!
//! Every node that is selected advertises the limit, also nodes that come later or were made anew; a node that is no longer selected advertises
//! nothing (B10). A limit that cannot be read changes nothing and is told. Of several PeerPodConfigs the oldest counts: there is one service, and a node
//! has one number.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use peerpods_crds::{PEERPODCONFIG_FINALIZER, PeerPodConfigStatus};

use super::configuration::{self, Fault, Findings};
use super::daemon_set::{self, Parts};
use super::status::{self, Counts};
use super::world::{Node, World};
use crate::names;
use crate::objects::Desired;
use crate::quantity::Quantity;
use crate::reconciled::Finalizer;
use crate::settings::Settings;

/// Until the next look at something that is missing and may be watched by nobody.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Until the next look whether the one that counts is gone.
const LOOK_AT_THE_FIRST: Duration = Duration::from_secs(10);

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
    if let Some(first) = world.older.first() {
        return stand_by(world, first, now);
    }
    let findings = configuration::look(world, &settings.providers);
    let limit = match limit(&world.config.spec.limit) {
        Ok(limit) => limit,
        Err(fault) => {
            let status = status::refusal(world, &fault, now);
            return Plan { status, ..Plan::nothing(Finalizer::There) };
        }
    };
    let capacity = capacity(world, limit);
    // With a fault the service stays as it is: whatever rolled it out, its new pods could not start.
    let runs = findings.faults.is_empty();
    let apply = runs.then(|| service(world, settings, limit, &findings)).into_iter().collect();
    let nodes = world.nodes.iter().filter(|node| selected(world, node)).count();
    let waiting = capacity.iter().filter(|change| change.limit.is_some()).count();
    let status = status::status(world, &findings, Counts { nodes, waiting }, now);
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

/// Another counts: nothing is held, so this one can go at any time. Nobody tells when the other does.
fn stand_by(world: &World, first: &str, now: Timestamp) -> Plan {
    let fault = Fault {
        reason: "AnotherPeerPodConfig",
        text: format!("PeerPodConfig {first} is older, and a cluster has one: delete this one"),
    };
    let refusal = status::refusal(world, &fault, now);
    let status = PeerPodConfigStatus { advertised_nodes_count: 0, ready_nodes_count: 0, ..refusal };
    Plan { status, again: Some(LOOK_AT_THE_FIRST), ..Plan::nothing(Finalizer::Gone) }
}

fn remove(world: &World) -> Plan {
    let finalizers = world.config.metadata.finalizers.as_deref().unwrap_or_default();
    let ours = finalizers.iter().any(|name| name == PEERPODCONFIG_FINALIZER) && world.older.is_empty();
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
    let differs = |node: &&Node| !is_as_wanted(node.advertised.as_deref(), wanted(node));
    let change = |node: &Node| Capacity { node: node.name.clone(), limit: wanted(node) };
    world.nodes.iter().filter(differs).map(change).collect()
}

/// Quantities are compared, not texts: the API server answers `1k` where `1000` was written.
fn is_as_wanted(advertised: Option<&str>, wanted: Option<u32>) -> bool {
    match (advertised, wanted) {
        (Some(advertised), Some(limit)) => Quantity::parse(advertised) == Ok(limit.into()),
        (advertised, wanted) => advertised.is_none() && wanted.is_none(),
    }
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

#[cfg(test)]
mod tests;
