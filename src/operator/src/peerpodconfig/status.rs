//! The status of a PeerPodConfig: whether peer pods can be had, and why not. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peerpods_crds::{Condition, PeerPodConfigStatus, WORD_FALSE, WORD_TRUE};

use super::configuration::{Fault, Findings};
use super::world::{Service, World};
use crate::reconciled;

/// The type of the condition.
pub const READY: &str = "Ready";
/// The reason while the service's pods begin.
pub const STARTING: &str = "ServiceStarting";
/// The reason when they cannot.
const FAILING: &str = "ServiceFailing";
/// The reason when a step of ours failed.
const FAILED: &str = "Failed";
/// As much of what others said as a condition may have, in characters.
const MESSAGE: usize = 1000;

/// How many nodes there are to tell of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    /// Nodes that are selected.
    pub nodes: usize,
    /// Those of them that do not advertise the limit yet.
    pub waiting: usize,
}

/// The status of one that counts.
pub(super) fn status(
    world: &World,
    findings: &Findings,
    counts: Counts,
    now: Timestamp,
) -> PeerPodConfigStatus {
    let Counts { nodes, waiting } = counts;
    let fault = findings.faults.first().map(|first| Fault {
        reason: first.reason,
        text: findings.faults.iter().map(|fault| fault.text.as_str()).collect::<Vec<_>>().join("; "),
    });
    let fault = fault.or_else(|| unsettled(&world.service).filter(|_| nodes > 0));
    PeerPodConfigStatus {
        setup_completed: fault.is_none() && nodes > 0 && waiting == 0,
        advertised_nodes_count: i32::try_from(nodes - waiting.min(nodes)).unwrap_or(i32::MAX),
        ready_nodes_count: world.service.ready,
        conditions: vec![condition(&before(world), fault.as_ref(), now)],
        observed_generation: world.config.metadata.generation,
    }
}

/// The status of one that changes nothing as it is: all else stays as it was told.
pub(super) fn refusal(world: &World, fault: &Fault, now: Timestamp) -> PeerPodConfigStatus {
    let before = before(world);
    PeerPodConfigStatus {
        setup_completed: false,
        conditions: vec![condition(&before, Some(fault), now)],
        observed_generation: world.config.metadata.generation,
        ..before
    }
}

/// The status when a step failed: what was planned only as far as it was seen before, and why it is not so.
#[must_use]
pub fn failed(
    before: &PeerPodConfigStatus,
    planned: &PeerPodConfigStatus,
    why: String,
    now: Timestamp,
) -> PeerPodConfigStatus {
    let failed = before.conditions.iter().find(|old| old.reason == FAILED);
    let text = reconciled::told_once(failed.map(|old| old.message.as_str()), why);
    let fault = Fault { reason: FAILED, text };
    PeerPodConfigStatus {
        setup_completed: false,
        conditions: vec![condition(before, Some(&fault), now)],
        ..planned.clone()
    }
}

fn before(world: &World) -> PeerPodConfigStatus {
    world.config.status.clone().unwrap_or_default()
}

/// Why the service is not ready everywhere: what its pods say, where one says something.
fn unsettled(service: &Service) -> Option<Fault> {
    let Service { wanted, ready, stuck } = service;
    if *wanted > 0 && ready >= wanted {
        return None;
    }
    let Some(first) = stuck.first() else {
        let text = format!("the service is ready on {ready} of {wanted} nodes");
        return Some(Fault { reason: STARTING, text });
    };
    let text = format!(
        "the service fails on {} of {wanted} nodes, as on {}: {}",
        stuck.len(),
        first.node,
        first.why
    );
    Some(Fault { reason: FAILING, text })
}

fn condition(before: &PeerPodConfigStatus, fault: Option<&Fault>, now: Timestamp) -> Condition {
    let new = Condition {
        kind: READY.to_owned(),
        status: if fault.is_none() { WORD_TRUE } else { WORD_FALSE }.to_owned(),
        last_transition_time: Time(now),
        reason: fault.map_or("Ready", |fault| fault.reason).to_owned(),
        message: fault.map(|fault| fault.text.chars().take(MESSAGE).collect()).unwrap_or_default(),
    };
    match before.conditions.iter().find(|old| old.kind == READY) {
        Some(old) if old.status == new.status && old.reason == new.reason => {
            Condition { last_transition_time: old.last_transition_time.clone(), ..new }
        }
        _ => new,
    }
}
