//! What machine config pools tell: which one is ours, whether nodes are being changed, and whether all that was asked for is done. Pure.

use std::collections::BTreeSet;

use super::nodes;
use super::world::{Node, Pool, World};
use crate::names;

/// Where Kata Containers is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// On workers with our role, which are a pool of their own.
    Workers,
    /// On the control plane, where a cluster has no other nodes.
    ControlPlane,
    /// On nodes that our own pods place files on: there are no pools.
    Plain,
}

impl Target {
    /// A cluster without workers has exactly the pools `master` and `worker`, and nothing in the second.
    #[must_use]
    pub fn of(world: &World) -> Self {
        if !world.apis.machine_configs {
            return Self::Plain;
        }
        let empty = world.pools.get("worker").is_some_and(|pool| pool.machines == 0);
        match world.pools.len() == 2 && world.pools.contains_key("master") && empty {
            true => Self::ControlPlane,
            false => Self::Workers,
        }
    }

    /// The pool of the nodes.
    #[must_use]
    pub fn pool(self) -> &'static str {
        match self {
            Self::Workers | Self::Plain => names::POOL,
            Self::ControlPlane => "master",
        }
    }

    /// The label that everything of ours selects nodes by; its value is empty.
    #[must_use]
    pub fn role_label(self) -> &'static str {
        match self {
            Self::Workers | Self::Plain => names::ROLE_LABEL,
            Self::ControlPlane => names::MASTER_LABEL,
        }
    }

    /// Whether a node is one that is to have Kata Containers.
    #[must_use]
    pub fn has(self, node: &Node) -> bool {
        match self {
            Self::Workers => node.has_role() && node.is_worker(),
            Self::ControlPlane => node.is_master(),
            Self::Plain => node.is_to_have_files(),
        }
    }
}

/// Whether the machine config operator, or our own pods, change nodes: ours, or those that go back to the workers.
#[must_use]
pub fn updating(world: &World, target: Target) -> bool {
    let updating = |name: &str| world.pools.get(name).is_some_and(|pool| pool.updating);
    match target {
        Target::Workers => updating(names::POOL) || updating("worker"),
        Target::ControlPlane => updating("master"),
        Target::Plain => nodes::under_way(world),
    }
}

/// Whether the pools show that everything asked for has been done: also when nobody watched it being done.
///
/// `configs` are the MachineConfigs that are to be in the pool. Where pools do not tell what they are made of, this is never so.
#[must_use]
pub fn settled(world: &World, target: Target, configs: &BTreeSet<String>) -> bool {
    let Some(pool) = world.pools.get(target.pool()) else { return false };
    let ours: Vec<&Node> = world.nodes.iter().filter(|node| target.has(node)).collect();
    let made_of_them = !pool.sources.is_empty()
        && configs.iter().all(|config| pool.sources.contains(config))
        && ALL.iter().all(|config| configs.contains(*config) || !pool.sources.contains(*config));
    let counted = usize::try_from(pool.machines).is_ok_and(|machines| machines == ours.len());
    made_of_them && counted && at_rest(pool) && ours.iter().all(|node| is_done(node, pool)) && {
        let workers = world.pools.get("worker");
        target == Target::ControlPlane || workers.is_none_or(at_rest)
    }
}

/// Whether the machine config operator has a node among the workers, or in our pool that comes from them. It leaves a node of the control
/// plane where it is, whatever else it is labelled, and one of another pool of the cluster (`infra`) cannot be in ours as well: such a node
/// is never given our role, nor waited for.
#[must_use]
pub fn is_a_workers(world: &World, node: &Node) -> bool {
    node.is_worker()
        && !node.is_master()
        && pool_of(world, node).is_none_or(|pool| pool == "worker" || pool == names::POOL)
}

/// The pool that a node has its configuration from, by that one's name: `rendered-<pool>-<hash>`.
fn pool_of<'w>(world: &'w World, node: &Node) -> Option<&'w str> {
    let rendered = node.current.as_deref()?.strip_prefix("rendered-")?;
    let names = world.pools.keys().map(String::as_str);
    let fits = |name: &&str| rendered.strip_prefix(*name).is_some_and(|rest| rest.starts_with('-'));
    // One pool's name may begin with another's.
    names.filter(fits).max_by_key(|name| name.len())
}

/// The MachineConfigs that may be ours.
pub const ALL: [&str; 3] = [names::EXTENSION_CONFIG, names::SHIM_CONFIG, names::CRIO_CONFIG];

fn at_rest(pool: &Pool) -> bool {
    pool.updated && !pool.updating
}

fn is_done(node: &Node, pool: &Pool) -> bool {
    node.state.as_deref() == Some("Done") && node.current.is_some() && node.current == pool.target
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(pools: &[(&str, i32)]) -> World {
        let pool = |machines| Pool { machines, updated: true, ..Pool::default() };
        let pools = pools.iter().map(|(name, machines)| ((*name).to_owned(), pool(*machines))).collect();
        World { pools, ..World::default() }
    }

    #[test]
    fn a_cluster_without_workers_has_two_pools_and_an_empty_one() {
        for (pools, target) in [
            (vec![("master", 3), ("worker", 0)], Target::ControlPlane),
            (vec![("master", 3), ("worker", 2)], Target::Workers),
            (vec![("master", 3), ("worker", 0), ("infra", 0)], Target::Workers),
            (vec![("master", 3), ("worker", 0), ("kata-oc", 0)], Target::Workers),
            (vec![], Target::Workers),
        ] {
            assert_eq!(Target::of(&world(&pools)), target, "{pools:?}");
        }
    }

    /// What is not done, and how it shows.
    type Break = (&'static str, fn(&mut World));

    fn settled_world() -> (World, BTreeSet<String>) {
        let configs: BTreeSet<String> = [names::EXTENSION_CONFIG.to_owned()].into();
        let mut world = world(&[("master", 3), ("worker", 0), ("kata-oc", 1)]);
        let pool = world.pools.get_mut("kata-oc").unwrap();
        pool.target = Some("rendered-2".to_owned());
        pool.sources = ["00-worker", names::EXTENSION_CONFIG].map(str::to_owned).into();
        let labels =
            [names::WORKER_LABEL, names::ROLE_LABEL].map(|label| (label.to_owned(), String::new())).into();
        world.nodes.push(Node {
            name: "w0".to_owned(),
            labels,
            state: Some("Done".to_owned()),
            current: Some("rendered-2".to_owned()),
            ..Node::default()
        });
        (world, configs)
    }

    #[test]
    fn what_was_asked_for_is_done_when_pool_and_nodes_say_so() {
        let (good, configs) = settled_world();
        assert!(settled(&good, Target::Workers, &configs));
        let breaks: [Break; 7] = [
            ("the pool is of old configurations", |w| {
                w.pools.get_mut("kata-oc").unwrap().sources.remove(names::EXTENSION_CONFIG);
            }),
            ("the pool still has one that is gone", |w| {
                w.pools.get_mut("kata-oc").unwrap().sources.insert(names::CRIO_CONFIG.to_owned());
            }),
            ("the pool does not say", |w| w.pools.get_mut("kata-oc").unwrap().sources.clear()),
            ("the node has another configuration", |w| w.nodes[0].current = Some("rendered-1".to_owned())),
            ("the node is being changed", |w| w.nodes[0].state = Some("Working".to_owned())),
            ("the pool counts another number of nodes", |w| w.pools.get_mut("kata-oc").unwrap().machines = 2),
            ("workers are being changed", |w| w.pools.get_mut("worker").unwrap().updating = true),
        ];
        for (what, change) in breaks {
            let mut world = good.clone();
            change(&mut world);
            assert!(!settled(&world, Target::Workers, &configs), "{what}");
        }
    }
}
