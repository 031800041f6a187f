//! How everything a KataConfig brought goes again: not while a pod uses it, nodes first, and the object itself last.

use jiff::Timestamp;

use super::{Finalizer, LOOK_AGAIN, Plan, Role, has_finalizer, named, plain, webhook};
use crate::kataconfig::pools::{self, Target};
use crate::kataconfig::status::{self, Outlook, Reason};
use crate::kataconfig::world::{PodUse, World};
use crate::names;
use crate::objects::{Kind, ObjectRef, Removal};
use crate::settings::Settings;

/// What is to be done about a KataConfig that somebody deleted. Its spec is not looked at: what makes no sense can be deleted, too.
#[must_use]
pub fn remove(world: &World, settings: &Settings, now: Timestamp) -> Plan {
    if !has_finalizer(world) {
        return Plan { status: world.config.status.clone().unwrap_or_default(), ..Plan::default() };
    }
    // One that never counted has brought nothing.
    if !world.older.is_empty() {
        return Plan {
            finalizer: Finalizer::Remove,
            status: world.config.status.clone().unwrap_or_default(),
            ..Plan::default()
        };
    }
    let removing = Removing { world, settings, target: Target::of(world), now };
    match removing.users() {
        users if !users.is_empty() => removing.blocked(&users),
        _ if removing.target == Target::Plain => plain::unwind(&removing),
        _ => removing.unwind(),
    }
}

/// A removal.
pub(super) struct Removing<'a> {
    pub(super) world: &'a World,
    pub(super) settings: &'a Settings,
    target: Target,
    pub(super) now: Timestamp,
}

impl Removing<'_> {
    /// B3: pods of every class we made.
    fn users(&self) -> Vec<&PodUse> {
        let ours = |pod: &&PodUse| is_ours(&pod.class, self.world, self.settings);
        self.world.pods.iter().filter(ours).collect()
    }

    fn blocked(&self, users: &[&PodUse]) -> Plan {
        let message = named("these pods use a runtime class of this KataConfig, delete them first", users);
        let outlook = self.outlook(Reason::BlockedByExistingKataPods, message);
        let labels = match self.target {
            Target::Plain => plain::kept(self.world, self.settings),
            Target::Workers | Target::ControlPlane => Vec::new(),
        };
        Plan {
            labels,
            status: status::status(self.world, &outlook, self.now),
            again: Some(LOOK_AGAIN),
            ..Plan::default()
        }
    }

    fn unwind(&self) -> Plan {
        let before = self.world.config.status.clone().unwrap_or_default();
        let roles = self.roles();
        let updating = self.updating();
        let changed = match self.target {
            Target::Workers | Target::Plain => !roles.is_empty(),
            Target::ControlPlane => !self.world.machine_configs.is_empty(),
        };
        // What waited for the install to begin waits for nothing now.
        let began = before.un_installation_status.in_progress.status == peerpods_crds::WORD_TRUE;
        let still = began && before.waiting_for_mco_to_start && !self.settled();
        let waiting = !updating && (changed || still);
        let going = self.world.going.clone();
        let nodes_done = !updating && !waiting;
        let mut delete = self.at_once();
        if nodes_done {
            delete.extend(self.when_nodes_are_done());
        }
        let finished =
            nodes_done && going.is_empty() && self.world.machine_configs.is_empty() && roles.is_empty();
        let (reason, message) = match (nodes_done, going.is_empty()) {
            (true, false) => {
                (Reason::WaitingForObjects, format!("waiting for the end of {}", going.join(", ")))
            }
            (true, true) => (Reason::Idle, String::new()),
            _ => (Reason::Uninstalling, String::new()),
        };
        let outlook = Outlook { waiting, unwinding: !finished, ..self.outlook(reason, message) };
        Plan {
            finalizer: if finished { Finalizer::Remove } else { Finalizer::Leave },
            roles,
            delete,
            status: status::status(self.world, &outlook, self.now),
            again: (!finished).then_some(LOOK_AGAIN),
            ..Plan::default()
        }
    }

    /// Nothing is waited for, and nothing is under way.
    pub(super) fn outlook(&self, reason: Reason, message: String) -> Outlook {
        let classes = self
            .world
            .config
            .status
            .as_ref()
            .map(|status| status.runtime_classes.clone())
            .unwrap_or_default();
        let target = self.target;
        Outlook { target, waiting: false, removing: true, unwinding: false, classes, reason, message }
    }

    /// B17: of every node that has it, whatever the selector says now.
    fn roles(&self) -> Vec<Role> {
        let ours = self.world.nodes.iter().filter(|node| node.has_role());
        ours.map(|node| Role { node: node.name.clone(), has: false }).collect()
    }

    /// Nodes go back to the workers' pool, or the control plane's loses our configuration.
    fn updating(&self) -> bool {
        pools::updating(self.world, self.target)
    }

    /// Whether nodes show that they are back: also when nobody watched.
    fn settled(&self) -> bool {
        let Some(pool) = self.world.pools.get(match self.target {
            Target::Workers | Target::Plain => "worker",
            Target::ControlPlane => "master",
        }) else {
            return false;
        };
        let member = |node: &&crate::kataconfig::world::Node| match self.target {
            Target::Workers | Target::Plain => pools::is_a_workers(self.world, node),
            Target::ControlPlane => node.is_master(),
        };
        let nodes: Vec<_> = self.world.nodes.iter().filter(member).collect();
        let clean =
            !pool.sources.is_empty() && pools::ALL.iter().all(|config| !pool.sources.contains(*config));
        let counted = usize::try_from(pool.machines).is_ok_and(|machines| machines == nodes.len());
        let done = |node: &&crate::kataconfig::world::Node| {
            node.state.as_deref() == Some("Done") && node.current.is_some() && node.current == pool.target
        };
        clean && counted && pool.updated && !pool.updating && nodes.iter().all(done)
    }

    /// What no node needs once its role is gone.
    fn at_once(&self) -> Vec<Removal> {
        let configs = pools::ALL.iter().map(|name| ObjectRef::cluster(Kind::MACHINE_CONFIG, name));
        let configs = configs.map(|config| by_rule(self.world, config));
        peer_pod_objects(self.world, self.settings).into_iter().chain(configs).collect()
    }

    fn when_nodes_are_done(&self) -> Vec<Removal> {
        let namespace = &self.settings.namespace;
        let mut all = vec![
            ObjectRef::cluster(Kind::CONTAINER_RUNTIME_CONFIG, names::LOG_LEVEL_CONFIG),
            ObjectRef::namespaced(Kind::DAEMON_SET, namespace, names::MONITOR),
            ObjectRef::cluster(Kind::RUNTIME_CLASS, names::KATA_CLASS),
            ObjectRef::cluster(Kind::SECURITY_CONTEXT_CONSTRAINTS, names::SCC),
            ObjectRef::namespaced(Kind::CONFIG_MAP, names::DASHBOARD_NAMESPACE, names::DASHBOARD),
        ];
        if self.target == Target::Workers {
            all.push(ObjectRef::cluster(Kind::MACHINE_CONFIG_POOL, names::POOL));
        }
        all.into_iter().map(|object| by_rule(self.world, object)).collect()
    }
}

/// Whether pods of a runtime class use what a KataConfig made or may have made.
pub(super) fn is_ours(class: &str, world: &World, settings: &Settings) -> bool {
    let status = world.config.status.as_ref();
    let made = status.is_some_and(|status| status.runtime_classes.iter().any(|made| made == class));
    let name_of_ours = class == names::KATA_CLASS || settings.peer_pod_classes.iter().any(|one| one == class);
    made || (name_of_ours && world.taken(class).is_none())
}

/// Whose an object may be that goes. Without a machine config operator our names may be another installer's; a Secret or a runtime class may
/// be anybody's anywhere. All else there is on OpenShift is ours or upstream's, which left no mark on most of it.
pub(super) fn by_rule(world: &World, object: ObjectRef) -> Removal {
    let shared = [Kind::SECRET, Kind::RUNTIME_CLASS].contains(&object.kind);
    match world.apis.machine_configs && !shared {
        true => object.in_any_case(),
        false => object.if_ours(),
    }
}

/// What peer pods brought, but for what makes nodes reboot. The classes first: no new pod finds one while the service goes.
pub(super) fn peer_pod_objects(world: &World, settings: &Settings) -> Vec<Removal> {
    let rest = [
        ObjectRef::namespaced(Kind::PEER_POD_CONFIG, &settings.namespace, names::PEER_POD_CONFIG),
        ObjectRef::namespaced(Kind::SECRET, &settings.namespace, names::AUTH_SECRET),
    ];
    let rest = rest.map(|object| by_rule(world, object));
    peer_pod_classes(world, settings).chain(webhook::superfluous(world, settings)).chain(rest).collect()
}

/// Their runtime classes.
pub(super) fn peer_pod_classes(world: &World, settings: &Settings) -> impl Iterator<Item = Removal> {
    let classes = settings.peer_pod_classes.iter();
    classes.map(|class| by_rule(world, ObjectRef::cluster(Kind::RUNTIME_CLASS, class)))
}
