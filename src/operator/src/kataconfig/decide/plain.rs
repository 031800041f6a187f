//! A cluster without a machine config operator. Our own pods place files on nodes and remove them; two labels of a node say how far it is.
//!
//! ```text
//!                  peerpods.io/kata   node-role.kubernetes.io/kata-oc
//!   meant          installed          -      the installer places files and restarts the container runtime
//!   installed      installed          there  pods of our classes may come, the node service runs
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
use crate::objects::{Desired, Kind, ObjectRef};
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
        (Wish::Files | Wish::NoneWhenUnused, _) => {}
        (Wish::None, files) => {
            if node.has_role() {
                change.insert(names::ROLE_LABEL, None);
            }
            match files {
                Some(Files::Installed) => {
                    change.insert(names::FILES_LABEL, Some(Files::Removed.word()));
                }
                Some(Files::Removed) if is_clean(node) => {
                    change.insert(names::FILES_LABEL, None);
                }
                _ => {}
            }
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
    let rollout = build::template_of(&installer.body) != world.installer.as_deref();
    let at_rest = !rollout && !changes_files(&changes) && !nodes::under_way(world);
    let usable = nodes::meant(&world.nodes, selector).is_empty() || has_installed(world);
    let classes = installing.classes(keep_peer_pods, at_rest && usable);
    let blocked = !still_used.is_empty() || !leaving.is_empty();
    let (reason, message) = match failed(world) {
        Some(message) => (Reason::Failed, message),
        None if !at_rest => in_progress(installing),
        None => settled(world, &still_used, &leaving),
    };
    let outlook = Outlook { classes: classes.clone(), ..outlook(installing, reason, message) };
    let (remover, mut delete) = remover(world, settings, &changes);
    delete.extend(installing.superfluous(keep_peer_pods, &[]));
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
        again: blocked.then_some(LOOK_AGAIN),
        ..Plan::default()
    }
}

fn outlook(installing: &Installing<'_>, reason: Reason, message: String) -> Outlook {
    let target = installing.target;
    Outlook {
        target,
        waiting: false,
        removing: false,
        unwinding: false,
        classes: Vec::new(),
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
    let ours = |pod: &&PodUse| removal::is_ours(&pod.class, &world.config, settings) && pod.node == node.name;
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
fn remover(world: &World, settings: &Settings, changes: &[Labels]) -> (Option<Desired>, Vec<ObjectRef>) {
    match world.nodes.iter().any(|node| needs_remover(node, changes)) {
        true => (Some(build::remover(settings)), Vec::new()),
        false => (None, vec![daemon_set(settings, Files::Removed)]),
    }
}

fn daemon_set(settings: &Settings, files: Files) -> ObjectRef {
    ObjectRef::namespaced(Kind::DAEMON_SET, &settings.namespace, build::name_for(files))
}

fn changes_files(changes: &[Labels]) -> bool {
    changes.iter().any(|one| one.change.contains_key(names::FILES_LABEL))
}

fn has_installed(world: &World) -> bool {
    world.nodes.iter().any(|node| nodes::plain_place(node) == Some(Place::Installed))
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

fn settled(world: &World, still_used: &[&PodUse], leaving: &[&PodUse]) -> (Reason, String) {
    if !leaving.is_empty() {
        let what =
            "nodes that are not meant any more keep what they have until these pods are gone (kubectl drain)";
        return (Reason::BlockedByExistingKataPods, named(what, leaving));
    }
    if !still_used.is_empty() {
        let what = "peer pods stay until these pods are gone";
        return (Reason::BlockedByExistingKataPods, named(what, still_used));
    }
    (Reason::Idle, not_ready(world).unwrap_or_default())
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

/// The end: files first, then everything else, and the object itself last.
pub(super) fn unwind(removing: &Removing<'_>) -> Plan {
    let Removing { world, settings, .. } = *removing;
    let changes: Vec<Labels> = world.nodes.iter().filter_map(|node| labels(node, Wish::None)).collect();
    let (remover, mut delete) = remover(world, settings, &changes);
    let nodes_done = remover.is_none();
    let finished = nodes_done && world.going.is_empty();
    delete.extend(removal::peer_pod_objects(world, settings));
    // No new pod finds a class while files go.
    delete.push(ObjectRef::cluster(Kind::RUNTIME_CLASS, names::KATA_CLASS));
    if nodes_done {
        delete.extend(when_nodes_are_done(world, settings));
    }
    let (reason, message) = match failed(world) {
        Some(message) if !nodes_done => (Reason::Failed, message),
        _ if !nodes_done => (
            Reason::Uninstalling,
            not_ready(world).unwrap_or_else(|| {
                "files are removed from nodes, and their container runtimes restarted".to_owned()
            }),
        ),
        _ if !finished => {
            (Reason::WaitingForObjects, format!("waiting for the end of {}", world.going.join(", ")))
        }
        _ => (Reason::Idle, String::new()),
    };
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

fn when_nodes_are_done(world: &World, settings: &Settings) -> Vec<ObjectRef> {
    let namespace = &settings.namespace;
    let constraints = world.apis.security_constraints;
    let mut all = vec![
        daemon_set(settings, Files::Installed),
        ObjectRef::namespaced(Kind::DAEMON_SET, namespace, names::MONITOR),
        ObjectRef::namespaced(Kind::SERVICE_ACCOUNT, namespace, names::INSTALLER_ACCOUNT),
    ];
    all.extend(constraints.then(|| ObjectRef::cluster(Kind::SECURITY_CONTEXT_CONSTRAINTS, names::SCC)));
    all
}

#[cfg(test)]
mod tests;
