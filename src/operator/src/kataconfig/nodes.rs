//! Where each node is on its way. Pure; the table is that of OpenShift sandboxed containers 1.5 and later.

use super::pools::Target;
use super::selector::Selector;
use super::world::{Files, Node, World};

/// Where a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// It has Kata Containers.
    Installed,
    /// It gets it.
    Installing,
    /// It will get it.
    WaitingToInstall,
    /// It could not get it.
    FailedToInstall,
    /// It loses it.
    Uninstalling,
    /// It will lose it.
    WaitingToUninstall,
    /// It could not lose it.
    FailedToUninstall,
}

/// Where a node is; nowhere when it has nothing to do with us, or its state is one we do not know: newer machine config operators have more.
#[must_use]
pub fn place(node: &Node, world: &World, target: Target, removing: bool) -> Option<Place> {
    let wanted = target.has(node) && !(removing && target == Target::ControlPlane);
    let pool = if target.has(node) { target.pool() } else { "worker" };
    let aim = world.pools.get(pool).and_then(|pool| pool.target.as_ref());
    let there = node.current.is_some() && node.current.as_ref() == aim;
    match (node.state.as_deref()?, wanted) {
        ("Done", true) if there => Some(Place::Installed),
        ("Done", true) => Some(Place::WaitingToInstall),
        ("Working", true) => Some(Place::Installing),
        ("Degraded", true) => Some(Place::FailedToInstall),
        (_, false) if !was_ours(node, world) => None,
        ("Done", false) if !there => Some(Place::WaitingToUninstall),
        ("Working", false) => Some(Place::Uninstalling),
        ("Degraded", false) => Some(Place::FailedToUninstall),
        _ => None,
    }
}

/// Where a node is whose files are our own pods' business; nowhere when nothing is to become of them.
#[must_use]
pub fn plain_place(node: &Node) -> Option<Place> {
    let files = node.files()?;
    let worker = node.worker_for(files);
    let failed = worker.is_some_and(|worker| worker.failure.is_some());
    match files {
        // Somebody else's value: no pod of ours comes by it.
        Files::Installed if !node.is_to_have_files() => None,
        Files::Installed if failed => Some(Place::FailedToInstall),
        Files::Installed if worker.is_some_and(|worker| worker.done) => Some(Place::Installed),
        // What was placed stays there while nobody hears of the node.
        Files::Installed if node.has_role() && !node.ready => Some(Place::Installed),
        Files::Installed => Some(worker.map_or(Place::WaitingToInstall, |_| Place::Installing)),
        Files::Removed if failed => Some(Place::FailedToUninstall),
        Files::Removed => Some(worker.map_or(Place::WaitingToUninstall, |_| Place::Uninstalling)),
    }
}

/// Whether our own pods are at work. A node that is not ready is not waited for: it may never be.
#[must_use]
pub fn under_way(world: &World) -> bool {
    let working =
        [Place::Installing, Place::WaitingToInstall, Place::Uninstalling, Place::WaitingToUninstall];
    world
        .nodes
        .iter()
        .any(|node| node.ready && plain_place(node).is_some_and(|place| working.contains(&place)))
}

/// The nodes that are meant where there is no machine config operator: of those that are no control plane, or of all where there is
/// nothing else. Workers have no label of their own there.
#[must_use]
pub fn meant<'a>(nodes: &'a [Node], selector: &Selector) -> Vec<&'a Node> {
    let machines = || nodes.iter().filter(|node| is_linux_machine(node));
    let only_control_plane = machines().all(Node::is_control_plane);
    let may = |node: &&Node| only_control_plane || !node.is_control_plane();
    machines().filter(may).filter(|node| selector.matches(&node.labels)).collect()
}

/// What says that a node is another thing than a machine whose container runtime can be told something.
const NO_MACHINE: [(&str, &str); 3] = [
    ("kubernetes.io/os", "windows"),
    ("type", "virtual-kubelet"),
    ("eks.amazonaws.com/compute-type", "fargate"),
];

fn is_linux_machine(node: &Node) -> bool {
    NO_MACHINE.iter().all(|(label, value)| node.labels.get(*label).is_none_or(|has| has != value))
}

/// Nodes that had Kata Containers and have lost them, since it is being removed: seen without any place, in peace.
#[must_use]
pub fn back(world: &World, places: &[(&Node, Place)]) -> Vec<String> {
    let status = world.config.status.clone().unwrap_or_default();
    let before = &status.un_installation_status.completed.completed_nodes_list;
    let in_peace = |node: &Node| node.state.as_deref().is_none_or(|state| state == "Done");
    let has_place = |node: &Node| places.iter().any(|(placed, _)| placed.name == node.name);
    let is_back = |node: &&Node| {
        (was_ours(node, world) || before.contains(&node.name)) && in_peace(node) && !has_place(node)
    };
    let mut names: Vec<String> = world.nodes.iter().filter(is_back).map(|node| node.name.clone()).collect();
    names.sort();
    names
}

/// Whether a node had Kata Containers by what the status says: else what the machine config operator does with it is none of our business.
fn was_ours(node: &Node, world: &World) -> bool {
    let Some(status) = &world.config.status else { return false };
    let lists = &status.kata_nodes;
    let ours = [
        &lists.installed,
        &lists.installing,
        &lists.waiting_to_install,
        &lists.failed_to_install,
        &lists.uninstalling,
        &lists.waiting_to_uninstall,
        &lists.failed_to_uninstall,
        // Where the status is one of 1.4.
        &status.installation_status.completed.completed_nodes_list,
        &status.installation_status.inprogress.binaries_install_nodes_list,
        &status.un_installation_status.in_progress.binaries_uninstall_nodes_list,
    ];
    ours.iter().any(|list| list.contains(&node.name))
}

/// The nodes a KataConfig speaks of, with their places.
#[must_use]
pub fn places(world: &World, target: Target, removing: bool) -> Vec<(&Node, Place)> {
    let looked_at = |node: &&Node| match target {
        Target::Workers => node.is_worker(),
        Target::ControlPlane => node.is_master(),
        Target::Plain => true,
    };
    let of_node = |node| match target {
        Target::Plain => plain_place(node),
        _ => place(node, world, target, removing),
    };
    let placed = |node| of_node(node).map(|place| (node, place));
    world.nodes.iter().filter(looked_at).filter_map(placed).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use peerpods_crds::{KataConfigStatus, KataNodes};

    use super::super::world::Pool;
    use super::*;
    use crate::names;

    fn node(state: &str, current: &str, role: bool) -> Node {
        let mut labels: BTreeMap<String, String> = [(names::WORKER_LABEL.to_owned(), String::new())].into();
        if role {
            labels.insert(names::ROLE_LABEL.to_owned(), String::new());
        }
        let (state, current) = (Some(state.to_owned()), Some(current.to_owned()));
        Node { name: "w0".to_owned(), labels, state, current, ..Node::default() }
    }

    fn world(ours_before: bool) -> World {
        let pool = |target: &str| Pool { target: Some(target.to_owned()), ..Pool::default() };
        let pools = [("kata-oc".to_owned(), pool("kata-2")), ("worker".to_owned(), pool("worker-1"))].into();
        let mut world = World { pools, ..World::default() };
        if ours_before {
            let kata_nodes = KataNodes { installed: vec!["w0".to_owned()], ..KataNodes::default() };
            world.config.status = Some(KataConfigStatus { kata_nodes, ..KataConfigStatus::default() });
        }
        world
    }

    #[test]
    fn a_node_is_where_its_state_its_configuration_and_its_role_say() {
        for (state, current, role, before, expected) in [
            ("Done", "kata-2", true, false, Some(Place::Installed)),
            ("Done", "worker-1", true, false, Some(Place::WaitingToInstall)),
            ("Working", "worker-1", true, false, Some(Place::Installing)),
            ("Degraded", "worker-1", true, false, Some(Place::FailedToInstall)),
            ("Done", "kata-2", false, true, Some(Place::WaitingToUninstall)),
            ("Working", "kata-2", false, true, Some(Place::Uninstalling)),
            ("Degraded", "kata-2", false, true, Some(Place::FailedToUninstall)),
            ("Done", "worker-1", false, true, None),
            // Workers that never were ours: an upgrade of the cluster is none of our business.
            ("Working", "worker-0", false, false, None),
            ("Done", "worker-0", false, false, None),
            ("Degraded", "worker-0", false, false, None),
        ] {
            let place = place(&node(state, current, role), &world(before), Target::Workers, false);
            assert_eq!(place, expected, "{state} {current} role={role} before={before}");
        }
    }

    /// Newer operators have more states.
    #[test]
    fn b7_a_state_that_nobody_knows_yet_is_none_of_ours_and_no_error() {
        for state in ["Rebooting", "Unreconcilable", ""] {
            for before in [false, true] {
                let unknown = node(state, "worker-1", true);
                assert_eq!(place(&unknown, &world(before), Target::Workers, false), None, "{state}");
            }
        }
    }

    #[test]
    fn without_a_machine_config_operator_nodes_are_nowhere() {
        let bare = Node { state: None, ..node("Done", "kata-2", true) };
        assert_eq!(place(&bare, &world(true), Target::Workers, false), None);
    }
}
