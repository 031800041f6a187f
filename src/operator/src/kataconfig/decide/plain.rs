//! A cluster without a machine config operator. Our own pods place files on nodes and remove them; two labels of a node say how far it is.
//!
//! ```text
//!                  peerpods.io/kata   node-role.kubernetes.io/kata-oc
//!   meant          installed          -      the installer places files and restarts the container runtime
//!   installed      installed          there  pods of our classes may come, the node service runs
//!   closed         installed          -      no new pod comes; one that came meanwhile opens it again
//!   to leave       removed            -      the remover removes files
//!   as before      -                  -
//! ```
//!
//! Each step waits for the one before, as the pod on that very node tells it. Nothing here reboots a node.

use std::collections::BTreeMap;

use super::removal::{self, Removing};
use super::{Finalizer, Installing, LOOK_AGAIN, Labels, Plan, named};
use crate::kataconfig::build::{self, NodeFiles};
use crate::kataconfig::nodes::{self, Place};
use crate::kataconfig::selector::Selector;
use crate::kataconfig::status::{self, Outlook, Reason};
use crate::kataconfig::world::{Files, Node, PodUse, World};
use crate::names;
use crate::objects::{Desired, Kind, ObjectRef, Removal};
use crate::settings::Settings;

/// What is wished of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Our files on it.
    Files,
    /// As it was, but pods use what is on it.
    NoneWhenUnused,
    /// As it was.
    None,
}

/// The next labels of a node; nothing while something is waited for.
fn labels(node: &Node, wish: Wish) -> Option<Labels> {
    let mut change = BTreeMap::new();
    match (wish, node.files()) {
        (Wish::Files, _) if !node.is_to_have_files() => {
            change.insert(names::FILES_LABEL, Some(Files::Installed.word()));
        }
        (Wish::Files, _) if !node.has_role() && nodes::plain_place(node) == Some(Place::Installed) => {
            change.insert(names::ROLE_LABEL, Some(""));
        }
        // A pod that came while the node was closed needs the node service as long as it lives.
        (Wish::NoneWhenUnused, _)
            if !node.has_role() && nodes::plain_place(node) == Some(Place::Installed) =>
        {
            change.insert(names::ROLE_LABEL, Some(""));
        }
        (Wish::Files | Wish::NoneWhenUnused, _) => {}
        // The role first, and alone: pods are looked for once more when none can come.
        (Wish::None, _) if node.has_role() => {
            change.insert(names::ROLE_LABEL, None);
        }
        (Wish::None, files) => {
            let next = match files {
                Some(Files::Installed) => Some(Some(Files::Removed.word())),
                Some(Files::Removed) if is_clean(node) => Some(None),
                _ => None,
            };
            change.extend(next.map(|value| (names::FILES_LABEL, value)));
        }
    }
    (!change.is_empty()).then(|| Labels { node: node.name.clone(), change })
}

/// Whether our files are gone from a node that is to lose them.
fn is_clean(node: &Node) -> bool {
    node.worker_for(Files::Removed).is_some_and(|worker| worker.done)
}

/// Whether a node is still to lose files when these labels are set.
fn needs_remover(node: &Node, changes: &[Labels]) -> bool {
    let change = changes.iter().find(|one| one.node == node.name);
    match change.and_then(|one| one.change.get(names::FILES_LABEL)) {
        Some(value) => *value == Some(Files::Removed.word()),
        None => node.files() == Some(Files::Removed),
    }
}

/// An install, or a change, or a look whether all is as it should be.
pub(super) fn install(installing: &Installing<'_>, selector: &Selector) -> Plan {
    let Installing { world, settings, .. } = *installing;
    let peer_pods = world.config.spec.enable_peer_pods;
    let still_used = if peer_pods { Vec::new() } else { installing.users_of_peer_pods() };
    let keep_peer_pods = peer_pods || !still_used.is_empty();
    let (changes, leaving) = turns(world, settings, selector);
    let installer = installer(installing, keep_peer_pods);
    let at_rest = is_at_rest(world, &installer, &changes);
    let classes = installing.classes(keep_peer_pods, at_rest && is_usable(world, selector));
    let (reason, message) = match failed(world) {
        Some(message) => (Reason::Failed, message),
        None if !at_rest => in_progress(installing),
        None => settled(world, &classes, &still_used, &leaving),
    };
    let outlook = outlook(installing, &classes, reason, message);
    let (remover, mut delete) = remover(world, settings, &changes);
    delete.extend(installing.superfluous(keep_peer_pods, &[]));
    let look_again = !still_used.is_empty() || !leaving.is_empty() || changes.iter().any(closes);
    Plan {
        finalizer: Finalizer::Add,
        first: [build::installer_account(&settings.namespace), installer]
            .into_iter()
            .chain(remover)
            .collect(),
        labels: changes,
        apply: installing.objects(&classes),
        delete,
        status: status::status(world, &outlook, installing.now),
        again: look_again.then_some(LOOK_AGAIN),
        ..Plan::default()
    }
}

/// Whether a node is closed by this plan, which is followed by a look for pods.
fn closes(change: &Labels) -> bool {
    change.change.get(names::ROLE_LABEL) == Some(&None)
}

/// Whether no node has to be waited for: none is at work, and this plan asks for no work.
fn is_at_rest(world: &World, installer: &Desired, changes: &[Labels]) -> bool {
    let same_form = build::template_of(&installer.body) == world.installer.as_deref();
    let asks = changes.iter().any(|one| closes(one) || one.change.contains_key(names::FILES_LABEL));
    same_form && !asks && !nodes::under_way(world)
}

/// What is told: of the classes those that lead to us.
fn outlook(installing: &Installing<'_>, classes: &[String], reason: Reason, message: String) -> Outlook {
    let leads_to_us = |class: &&String| installing.world.taken(class).is_none();
    Outlook {
        target: installing.target,
        waiting: false,
        removing: false,
        unwinding: false,
        classes: classes.iter().filter(leads_to_us).cloned().collect(),
        reason,
        message,
    }
}

/// The next labels of all nodes, and the pods that keep nodes from leaving.
fn turns<'a>(world: &'a World, settings: &Settings, selector: &Selector) -> (Vec<Labels>, Vec<&'a PodUse>) {
    let meant = nodes::meant(&world.nodes, selector);
    let (mut changes, mut leaving) = (Vec::new(), Vec::new());
    for node in &world.nodes {
        let users: Vec<&PodUse> = match node.files() {
            Some(Files::Installed) => users_on(world, settings, node),
            _ => Vec::new(),
        };
        let wish = match (meant.iter().any(|one| one.name == node.name), users.is_empty()) {
            (true, _) => Wish::Files,
            (false, false) => Wish::NoneWhenUnused,
            (false, true) => Wish::None,
        };
        if wish == Wish::NoneWhenUnused {
            leaving.extend(users);
        }
        changes.extend(labels(node, wish));
    }
    (changes, leaving)
}

fn users_on<'a>(world: &'a World, settings: &Settings, node: &Node) -> Vec<&'a PodUse> {
    let ours = |pod: &&PodUse| removal::is_ours(&pod.class, world, settings) && pod.node == node.name;
    world.pods.iter().filter(ours).collect()
}

fn installer(installing: &Installing<'_>, peer_pods: bool) -> Desired {
    let level = installing.world.config.spec.effective_log_level();
    let files = NodeFiles {
        classes: if peer_pods { &installing.settings.peer_pod_classes } else { &[] },
        log_level: (level != peerpods_crds::DEFAULT_LOG_LEVEL).then_some(level),
    };
    build::installer(installing.settings, files)
}

/// The remover while a node needs it; otherwise it goes.
fn remover(world: &World, settings: &Settings, changes: &[Labels]) -> (Option<Desired>, Vec<Removal>) {
    match world.nodes.iter().any(|node| needs_remover(node, changes)) {
        true => (Some(build::remover(settings)), Vec::new()),
        false => (None, vec![daemon_set(settings, Files::Removed).if_ours()]),
    }
}

fn daemon_set(settings: &Settings, files: Files) -> ObjectRef {
    ObjectRef::namespaced(Kind::DAEMON_SET, &settings.namespace, build::name_for(files))
}

/// Whether a pod of a class would find a node; where none is meant nobody waits for one.
fn is_usable(world: &World, selector: &Selector) -> bool {
    let installed = |node: &Node| nodes::plain_place(node) == Some(Place::Installed);
    nodes::meant(&world.nodes, selector).is_empty() || world.nodes.iter().any(installed)
}

/// What nodes failed by.
fn failed(world: &World) -> Option<String> {
    let told = |node: &Node| {
        let why = node.reason.as_deref().unwrap_or("its pod gives no reason");
        match nodes::plain_place(node)? {
            Place::FailedToInstall => Some(format!("node {}: {why}", node.name)),
            Place::FailedToUninstall => Some(format!(
                "node {}: {why}; mend it, delete the Node, or take its label {} away, which leaves our files there",
                node.name,
                names::FILES_LABEL
            )),
            _ => None,
        }
    };
    let all: Vec<String> = world.nodes.iter().filter_map(told).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn in_progress(installing: &Installing<'_>) -> (Reason, String) {
    let first = installing.before.runtime_classes.is_empty();
    let message =
        "files are placed on nodes or removed, and their container runtimes restarted; nothing reboots";
    (if first { Reason::Installing } else { Reason::Updating }, message.to_owned())
}

fn settled(
    world: &World,
    classes: &[String],
    still_used: &[&PodUse],
    leaving: &[&PodUse],
) -> (Reason, String) {
    if !leaving.is_empty() {
        let what =
            "nodes that are not meant any more keep what they have until these pods are gone (kubectl drain)";
        return (Reason::BlockedByExistingKataPods, named(what, leaving));
    }
    if !still_used.is_empty() {
        let what = "peer pods stay until these pods are gone";
        return (Reason::BlockedByExistingKataPods, named(what, still_used));
    }
    let taken: Vec<String> = classes.iter().filter_map(|class| taken(world, class)).collect();
    match taken.is_empty() {
        true => (Reason::Idle, not_ready(world).unwrap_or_default()),
        false => (Reason::ForeignRuntimeClass, taken.join("; ")),
    }
}

/// What is wrong with a runtime class of somebody else's.
fn taken(world: &World, class: &str) -> Option<String> {
    let handler = &world.taken(class)?.handler;
    Some(format!(
        "RuntimeClass {class} was made by somebody else and leads to the handler {handler}, not to {class}: it is left alone, and its \
         pods are none of ours; delete it, and ours is made"
    ))
}

/// Nodes that nothing can be done on for now.
fn not_ready(world: &World) -> Option<String> {
    let waiting = |node: &&Node| {
        let waits =
            [Place::WaitingToInstall, Place::WaitingToUninstall, Place::Installing, Place::Uninstalling];
        !node.ready && nodes::plain_place(node).is_some_and(|place| waits.contains(&place))
    };
    let names: Vec<&str> = world.nodes.iter().filter(waiting).map(|node| node.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "not ready, and waited for: {}; a Node that never comes back can be deleted",
            names.join(", ")
        )
    })
}

/// What keeps the node service on nodes that pods came to while they were closed.
pub(super) fn kept(world: &World, settings: &Settings) -> Vec<Labels> {
    let used = world.nodes.iter().filter(|node| !users_on(world, settings, node).is_empty());
    used.filter_map(|node| labels(node, Wish::NoneWhenUnused)).collect()
}

/// The end: no new pods, then files, then everything else, and the object itself last.
pub(super) fn unwind(removing: &Removing<'_>) -> Plan {
    let Removing { world, settings, .. } = *removing;
    let changes: Vec<Labels> = world.nodes.iter().filter_map(|node| labels(node, Wish::None)).collect();
    let (remover, mut delete) = remover(world, settings, &changes);
    // A pod that came before them is seen by the next look, and needs everything else.
    let closed = !changes.iter().any(closes);
    let nodes_done = closed && remover.is_none();
    let finished = nodes_done && world.going.is_empty();
    match closed {
        true => delete.extend(removal::peer_pod_objects(world, settings)),
        false => delete.extend(removal::peer_pod_classes(world, settings)),
    }
    delete.push(ObjectRef::cluster(Kind::RUNTIME_CLASS, names::KATA_CLASS).if_ours());
    if nodes_done {
        delete.extend(when_nodes_are_done(world, settings));
    }
    let (reason, message) = why(world, nodes_done);
    let outlook = Outlook { unwinding: !finished, ..removing.outlook(reason, message) };
    Plan {
        finalizer: if finished { Finalizer::Remove } else { Finalizer::Leave },
        first: remover.into_iter().collect(),
        labels: changes,
        delete,
        status: status::status(world, &outlook, removing.now),
        again: (!finished).then_some(LOOK_AGAIN),
        ..Plan::default()
    }
}

/// What the end waits for.
fn why(world: &World, nodes_done: bool) -> (Reason, String) {
    if !nodes_done {
        if let Some(message) = failed(world) {
            return (Reason::Failed, message);
        }
        let usual = || "files are removed from nodes, and their container runtimes restarted".to_owned();
        return (Reason::Uninstalling, not_ready(world).unwrap_or_else(usual));
    }
    match world.going.is_empty() {
        true => (Reason::Idle, String::new()),
        false => (Reason::WaitingForObjects, format!("waiting for the end of {}", world.going.join(", "))),
    }
}

fn when_nodes_are_done(world: &World, settings: &Settings) -> Vec<Removal> {
    let namespace = &settings.namespace;
    let constraints = world.apis.security_constraints;
    let mut all = vec![
        daemon_set(settings, Files::Installed),
        ObjectRef::namespaced(Kind::DAEMON_SET, namespace, names::MONITOR),
        ObjectRef::namespaced(Kind::SERVICE_ACCOUNT, namespace, names::INSTALLER_ACCOUNT),
    ];
    all.extend(constraints.then(|| ObjectRef::cluster(Kind::SECURITY_CONTEXT_CONSTRAINTS, names::SCC)));
    all.into_iter().map(ObjectRef::if_ours).collect()
}

#[cfg(test)]
mod tests;
