//! What a KataConfig says of itself: the fields of 1.4 and the later ones, made from the same facts so that both are true at every moment.
//! Pure: the time comes from outside, and a condition that says the same keeps the time it had.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peerpods_crds::{
    CompletedNodes, Condition, FailedNode, FailedNodes, InstallationStatus, InstallingNodes,
    KataConfigStatus, KataNodes, NOT_SET, UninstallationStatus, UninstallingNodes, UpgradeStatus, WORD_FALSE,
    WORD_TRUE,
};

use super::nodes::{self, Place};
use super::pools::{self, Target};
use super::world::{Node, World};
use crate::reconciled;

/// The only type of condition; its name is that of later upstream versions.
pub const IN_PROGRESS: &str = "InProgress";

/// Why the condition is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nothing is to be done.
    Idle,
    /// Nodes get Kata Containers for the first time.
    Installing,
    /// Nodes are changed.
    Updating,
    /// Nodes lose it.
    Uninstalling,
    /// A node could not be changed.
    Failed,
    /// Pods use a runtime class that is to go.
    BlockedByExistingKataPods,
    /// The spec makes no sense.
    InvalidSpec,
    /// No node has the label that `checkNodeEligibility` asks for.
    NoEligibleNodes,
    /// Another KataConfig is older.
    AnotherKataConfig,
    /// Objects were asked to go and are not gone.
    WaitingForObjects,
    /// A runtime class of a name of ours is another installer's, and leads elsewhere.
    ForeignRuntimeClass,
}

impl Reason {
    /// As the condition and Events have it; nothing when idle.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Idle => "",
            Self::Installing => "Installing",
            Self::Updating => "Updating",
            Self::Uninstalling => "Uninstalling",
            Self::Failed => "Failed",
            Self::BlockedByExistingKataPods => "BlockedByExistingKataPods",
            Self::InvalidSpec => "InvalidSpec",
            Self::NoEligibleNodes => "NoEligibleNodes",
            Self::AnotherKataConfig => "AnotherKataConfig",
            Self::WaitingForObjects => "WaitingForObjects",
            Self::ForeignRuntimeClass => "ForeignRuntimeClass",
        }
    }

    /// Whether something is under way that ends by itself.
    #[must_use]
    pub fn in_progress(self) -> bool {
        matches!(
            self,
            Self::Installing | Self::Updating | Self::Uninstalling | Self::Failed | Self::WaitingForObjects
        )
    }
}

/// What is known beyond the world's own facts.
#[derive(Debug, Clone)]
pub struct Outlook {
    /// Where.
    pub target: Target,
    /// Something was changed, and the machine config operator has not begun.
    pub waiting: bool,
    /// It is being removed.
    pub removing: bool,
    /// Removing has begun and has not ended: nodes are being changed back.
    pub unwinding: bool,
    /// The runtime classes there are.
    pub classes: Vec<String>,
    /// Why the condition is as it is.
    pub reason: Reason,
    /// The same for people.
    pub message: String,
}

/// The status of a KataConfig in this world.
#[must_use]
pub fn status(world: &World, outlook: &Outlook, now: Timestamp) -> KataConfigStatus {
    let before = world.config.status.clone().unwrap_or_default();
    let places = nodes::places(world, outlook.target, outlook.removing);
    let updating = pools::updating(world, outlook.target);
    KataConfigStatus {
        runtime_class: outlook.classes.first().cloned().unwrap_or_default(),
        runtime_classes: outlook.classes.clone(),
        total_nodes_count: total(world, outlook.target),
        installation_status: installation(world, outlook, &before, &places, updating),
        un_installation_status: removal(world, outlook, &places),
        upgrade_status: UpgradeStatus {},
        waiting_for_mco_to_start: outlook.waiting,
        kata_nodes: lists(world, outlook.target, &places),
        conditions: vec![condition(&before, outlook.reason, &outlook.message, now)],
        observed_generation: world.config.metadata.generation,
    }
}

/// B2: a pool that is not there yet has no nodes.
fn total(world: &World, target: Target) -> i32 {
    if target == Target::Plain {
        return counted(world.nodes.iter().filter(|node| target.has(node)).count());
    }
    world.pools.get(target.pool()).map_or(0, |pool| pool.machines)
}

fn installation(
    world: &World,
    outlook: &Outlook,
    before: &KataConfigStatus,
    places: &[(&Node, Place)],
    updating: bool,
) -> InstallationStatus {
    let installing = names(places, Place::Installing);
    let installed = names(places, Place::Installed);
    let word = match outlook.removing {
        true => before.installation_status.is_in_progress.clone(),
        // Nothing is known before the machine config operator has begun.
        false if outlook.waiting && !updating => before.installation_status.is_in_progress.clone(),
        false if updating || outlook.reason.in_progress() => WORD_TRUE.to_owned(),
        false if before.installation_status.is_in_progress == NOT_SET && outlook.reason != Reason::Idle => {
            NOT_SET.to_owned()
        }
        false => WORD_FALSE.to_owned(),
    };
    let completed = match outlook.target {
        Target::Plain => Some(counted(installed.len())),
        target => world.pools.get(target.pool()).map(|pool| pool.updated_machines),
    };
    InstallationStatus {
        is_in_progress: word,
        inprogress: InstallingNodes {
            in_progress_nodes_count: some(installing.len()),
            is_in_progress: (!installing.is_empty()).then_some(true),
            binaries_install_nodes_list: installing,
        },
        completed: CompletedNodes { completed_nodes_count: completed, completed_nodes_list: installed },
        failed: failures(world, outlook.target.pool(), places, Place::FailedToInstall),
    }
}

fn removal(world: &World, outlook: &Outlook, places: &[(&Node, Place)]) -> UninstallationStatus {
    let leaving = names(places, Place::Uninstalling);
    let status = match (outlook.removing, outlook.unwinding) {
        (true, true) => WORD_TRUE,
        (true, false) if outlook.reason != Reason::BlockedByExistingKataPods => WORD_FALSE,
        _ => NOT_SET,
    };
    let back = if status == NOT_SET { Vec::new() } else { nodes::back(world, places) };
    let blocked = outlook.removing && outlook.reason == Reason::BlockedByExistingKataPods;
    UninstallationStatus {
        in_progress: UninstallingNodes {
            status: status.to_owned(),
            in_progress_nodes_count: some(leaving.len()),
            binaries_uninstall_nodes_list: leaving,
        },
        completed: CompletedNodes { completed_nodes_count: some(back.len()), completed_nodes_list: back },
        failed: failures(world, "worker", places, Place::FailedToUninstall),
        error_message: if blocked { outlook.message.clone() } else { String::new() },
    }
}

/// B6: what a pool says of its failures comes beside the nodes' own reasons, and each list has its own.
fn failures(world: &World, pool: &str, places: &[(&Node, Place)], kind: Place) -> FailedNodes {
    let failed: Vec<FailedNode> = places
        .iter()
        .filter(|(_, place)| *place == kind)
        .map(|(node, _)| FailedNode {
            name: node.name.clone(),
            error: node.reason.clone().unwrap_or_default(),
        })
        .collect();
    // Without pools the first node speaks for all.
    let first = failed.first().filter(|_| !world.apis.machine_configs).map(|node| node.error.clone());
    let of_pool = world.pools.get(pool).and_then(|pool| pool.degraded.clone());
    let reason = of_pool.or(first).filter(|_| !failed.is_empty());
    FailedNodes {
        failed_nodes_count: some(failed.len()),
        failed_nodes_reason: reason.unwrap_or_default(),
        failed_nodes_list: failed,
    }
}

fn lists(world: &World, target: Target, places: &[(&Node, Place)]) -> KataNodes {
    let nodes = world.nodes.iter().filter(|node| target.has(node)).count();
    let installed = names(places, Place::Installed);
    KataNodes {
        node_count: counted(nodes),
        ready_node_count: counted(installed.len()),
        installed,
        installing: names(places, Place::Installing),
        waiting_to_install: names(places, Place::WaitingToInstall),
        failed_to_install: names(places, Place::FailedToInstall),
        uninstalling: names(places, Place::Uninstalling),
        waiting_to_uninstall: names(places, Place::WaitingToUninstall),
        failed_to_uninstall: names(places, Place::FailedToUninstall),
    }
}

fn names(places: &[(&Node, Place)], kind: Place) -> Vec<String> {
    let mut names: Vec<String> =
        places.iter().filter(|(_, place)| *place == kind).map(|(node, _)| node.name.clone()).collect();
    names.sort();
    names
}

fn counted(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn some(number: usize) -> Option<i32> {
    (number > 0).then(|| counted(number))
}

/// A step of a plan that could not be done.
#[derive(Debug, Clone)]
pub struct StepFailure {
    /// Which, and what the API server said.
    pub what: String,
    /// The runtime classes that were made as wanted before.
    pub done: BTreeSet<String>,
}

/// The status after a plan whose steps were not all done: nothing has come to its end, and there are no other runtime classes than those
/// that were there or were made.
#[must_use]
pub fn failed(
    world: &World,
    planned: &KataConfigStatus,
    failure: &StepFailure,
    now: Timestamp,
) -> KataConfigStatus {
    let before = world.config.status.clone().unwrap_or_default();
    let mut status = planned.clone();
    status.runtime_classes.retain(|class| failure.done.contains(class) || world.classes.contains_key(class));
    status.runtime_class = status.runtime_classes.first().cloned().unwrap_or_default();
    let word = match world.config.metadata.deletion_timestamp {
        Some(_) => &mut status.un_installation_status.in_progress.status,
        None => &mut status.installation_status.is_in_progress,
    };
    if word == WORD_FALSE {
        WORD_TRUE.clone_into(word);
    }
    let failed = before.conditions.iter().find(|old| old.reason == Reason::Failed.word());
    let what = reconciled::told_once(failed.map(|old| old.message.as_str()), failure.what.clone());
    status.conditions = vec![condition(&before, Reason::Failed, &what, now)];
    status
}

/// B11: the time is that of the last change, or each write would cause the next.
fn condition(before: &KataConfigStatus, reason: Reason, message: &str, now: Timestamp) -> Condition {
    let status = if reason.in_progress() { WORD_TRUE } else { WORD_FALSE };
    let new = Condition {
        kind: IN_PROGRESS.to_owned(),
        status: status.to_owned(),
        last_transition_time: Time(now),
        reason: reason.word().to_owned(),
        message: message.to_owned(),
    };
    match before.conditions.iter().find(|old| old.kind == IN_PROGRESS) {
        Some(old) if old.status == new.status && old.reason == new.reason => {
            Condition { last_transition_time: old.last_transition_time.clone(), ..new }
        }
        _ => new,
    }
}

#[cfg(test)]
mod tests;
