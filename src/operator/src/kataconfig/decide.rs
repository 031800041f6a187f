//! What is to be done about a KataConfig: one look at the world, one plan. Pure.
//!
//! All that makes nodes reboot is asked for at once, before the pool, so that each node reboots once. Then the machine config operator has its turn;
//! what needs its work (runtime classes, the node service) comes when it is done. Between our change and its beginning nothing shows that
//! there is work: that is remembered in the status (`waitingForMcoToStart`), and forgotten when it begins, or when pools show
//! that all has been done already.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use peerpods_crds::{KATACONFIG_FINALIZER, KataConfigStatus, LOG_LEVELS};
use serde_json::json;

use super::build::{self, MonitoredHost};
use super::nodes::{self, Place};
use super::pools::{self, Target};
use super::selector::{self, FieldFault, Selector};
use super::status::{self, Outlook, Reason};
use super::world::{PodUse, World};
use crate::names;
use crate::objects::{Desired, Kind, ObjectRef, Removal};
use crate::settings::Settings;

mod plain;
mod plan;
mod removal;
mod webhook;

pub use plan::{Finalizer, Labels, Plan, Role};
pub use removal::remove;

/// How long until the next look at something that no event announces.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// Pods named in a message.
const PODS_NAMED: usize = 10;

/// What is to be done about a KataConfig.
#[must_use]
pub fn decide(world: &World, settings: &Settings, now: Timestamp) -> Plan {
    let before = world.config.status.clone().unwrap_or_default();
    let refused = |reason, message: String| refusal(world, &before, reason, message, now);
    if world.config.metadata.deletion_timestamp.is_some() {
        return remove(world, settings, now);
    }
    if let Some(older) = world.older.first() {
        let message = format!("KataConfig {older} is older, and a cluster has one: delete this one");
        // Nothing tells this one that the other went.
        return Plan { again: Some(LOOK_AGAIN), ..refused(Reason::AnotherKataConfig, message) };
    }
    let selector = match wish(world) {
        Ok(selector) => selector,
        Err(faults) => {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            return refused(Reason::InvalidSpec, faults.join("; "));
        }
    };
    if lacks_eligible_nodes(world) {
        let message = format!(
            "no node has the label {}=true: install Node Feature Discovery, label a node, or set spec.checkNodeEligibility to false",
            names::ELIGIBLE_LABEL
        );
        return Plan { again: Some(LOOK_AGAIN), ..refused(Reason::NoEligibleNodes, message) };
    }
    let installing = Installing { world, settings, before, target: Target::of(world), now };
    match installing.target {
        Target::Plain => plain::install(&installing, &selector),
        Target::Workers | Target::ControlPlane => installing.plan(&selector),
    }
}

/// What the spec asks for, if it makes sense.
fn wish(world: &World) -> Result<Selector, Vec<FieldFault>> {
    let spec = &world.config.spec;
    let mut faults = Vec::new();
    let level = spec.effective_log_level();
    if !LOG_LEVELS.contains(&level) {
        let reason = format!("{level:?} is not one of {}", LOG_LEVELS.join(", "));
        faults.push(FieldFault { path: "spec.logLevel".to_owned(), reason });
    }
    match selector::of_user(spec) {
        Ok(selector) if faults.is_empty() => Ok(selector),
        Ok(_) => Err(faults),
        Err(more) => {
            faults.extend(more);
            Err(faults)
        }
    }
}

/// With peer pods nodes need no virtualisation of their own.
fn lacks_eligible_nodes(world: &World) -> bool {
    let spec = &world.config.spec;
    let eligible = |node: &super::world::Node| {
        node.labels.get(names::ELIGIBLE_LABEL).is_some_and(|value| value == "true")
    };
    spec.check_node_eligibility && !spec.enable_peer_pods && !world.nodes.iter().any(eligible)
}

/// Nothing is changed, and the status says why.
fn refusal(
    world: &World,
    before: &KataConfigStatus,
    reason: Reason,
    message: String,
    now: Timestamp,
) -> Plan {
    let outlook = Outlook {
        target: Target::of(world),
        waiting: before.waiting_for_mco_to_start,
        removing: false,
        unwinding: false,
        classes: before.runtime_classes.clone(),
        reason,
        message,
    };
    Plan { status: status::status(world, &outlook, now), ..Plan::default() }
}

/// An install, or a change, or a look whether all is as it should be.
struct Installing<'a> {
    world: &'a World,
    settings: &'a Settings,
    before: KataConfigStatus,
    target: Target,
    now: Timestamp,
}

impl Installing<'_> {
    fn plan(self, selector: &Selector) -> Plan {
        let peer_pods = self.world.config.spec.enable_peer_pods;
        let still_used = if peer_pods { Vec::new() } else { self.users_of_peer_pods() };
        // What pods still use is not taken from under them.
        let keep_peer_pods = peer_pods || !still_used.is_empty();
        let configs = self.machine_configs(keep_peer_pods);
        let roles = self.roles(selector);
        let updating = pools::updating(self.world, self.target);
        let changed = self.makes_nodes_reboot(&configs, &roles);
        let waiting =
            !updating && (changed || (self.before.waiting_for_mco_to_start && !self.settled(&configs)));
        let at_rest = !updating && !waiting;
        let classes = self.classes(keep_peer_pods, at_rest);
        let (reason, message) = self.reason(updating, waiting, &still_used);
        let outlook = Outlook {
            target: self.target,
            waiting,
            removing: false,
            unwinding: false,
            classes: classes.clone(),
            reason,
            message,
        };
        Plan {
            finalizer: Finalizer::Add,
            roles,
            apply: self.objects(&classes),
            delete: self.superfluous(keep_peer_pods, &configs),
            status: status::status(self.world, &outlook, self.now),
            again: (!still_used.is_empty()).then_some(LOOK_AGAIN),
            labels: Vec::new(),
            first: self.first(configs),
        }
    }

    fn users_of_peer_pods(&self) -> Vec<&PodUse> {
        let class = |pod: &&PodUse| self.settings.peer_pod_classes.contains(&pod.class);
        self.world.pods.iter().filter(class).collect()
    }

    fn machine_configs(&self, peer_pods: bool) -> Vec<Desired> {
        let extension = build::extension(self.target, self.config_name(), self.settings);
        let more = peer_pods.then(|| build::peer_pod_machine_configs(self.target, self.settings));
        std::iter::once(extension).chain(more.into_iter().flatten()).collect()
    }

    fn config_name(&self) -> &str {
        self.world.config.metadata.name.as_deref().unwrap_or_default()
    }

    /// The pool comes after its configurations: all are in the first one that is rendered.
    fn first(&self, configs: Vec<Desired>) -> Vec<Desired> {
        let pool = (self.target == Target::Workers).then(build::pool);
        configs.into_iter().chain(pool).collect()
    }

    /// B17: also of nodes that are no workers any more, or were labelled by somebody else.
    fn roles(&self, selector: &Selector) -> Vec<Role> {
        if self.target == Target::ControlPlane {
            return Vec::new();
        }
        let wanted = |node: &super::world::Node| {
            pools::is_a_workers(self.world, node) && selector.matches(&node.labels)
        };
        let changes = self.world.nodes.iter().filter(|node| node.has_role() != wanted(node));
        changes.map(|node| Role { node: node.name.clone(), has: wanted(node) }).collect()
    }

    /// Whether this plan makes the machine config operator change nodes.
    fn makes_nodes_reboot(&self, configs: &[Desired], roles: &[Role]) -> bool {
        let wanted: BTreeSet<&str> = configs.iter().map(|config| config.object.name.as_str()).collect();
        let there: BTreeSet<&str> = self.world.machine_configs.iter().map(String::as_str).collect();
        let configured = self.world.nodes.iter().any(|node| self.target.has(node));
        !roles.is_empty() || (wanted != there && configured)
    }

    fn settled(&self, configs: &[Desired]) -> bool {
        let names = configs.iter().map(|config| config.object.name.clone()).collect();
        pools::settled(self.world, self.target, &names)
    }

    /// The runtime classes there are after this plan: new ones when nodes are ready for them, old ones in any case.
    fn classes(&self, peer_pods: bool, at_rest: bool) -> Vec<String> {
        let may = |class: &String| at_rest || self.before.runtime_classes.contains(class);
        let peer_pods = peer_pods.then_some(&self.settings.peer_pod_classes).into_iter().flatten().cloned();
        std::iter::once(names::KATA_CLASS.to_owned()).chain(peer_pods).filter(may).collect()
    }

    fn reason(&self, updating: bool, waiting: bool, still_used: &[&PodUse]) -> (Reason, String) {
        let failed = nodes::places(self.world, self.target, false)
            .into_iter()
            .find(|(_, place)| matches!(place, Place::FailedToInstall | Place::FailedToUninstall));
        if let Some((node, _)) = failed {
            let why = node.reason.as_deref().unwrap_or("the machine config operator gives no reason");
            return (Reason::Failed, format!("node {}: {why}", node.name));
        }
        if updating || waiting {
            let first = self.before.runtime_classes.is_empty();
            return (if first { Reason::Installing } else { Reason::Updating }, String::new());
        }
        match still_used.is_empty() {
            true => (Reason::Idle, String::new()),
            false => (
                Reason::BlockedByExistingKataPods,
                named("peer pods stay until these pods are gone", still_used),
            ),
        }
    }

    /// All but what makes nodes reboot.
    fn objects(&self, classes: &[String]) -> Vec<Desired> {
        let (world, settings, target) = (self.world, self.settings, self.target);
        let owner = owner(world);
        let mut objects = Vec::new();
        if classes.iter().any(|class| class == names::KATA_CLASS) {
            let constraints = world.apis.security_constraints;
            let constraints = constraints.then(|| build::security_context_constraints(&settings.namespace));
            objects.extend(constraints.map(|made| made.owned_by(&owner)));
            let image = world.config.spec.kata_monitor_image.as_deref().unwrap_or(&settings.monitor_image);
            let host = MonitoredHost::of(world, target);
            objects.push(build::monitor(target, &settings.namespace, image, host).owned_by(&owner));
        }
        if classes.iter().any(|class| settings.peer_pod_classes.contains(class)) {
            objects.push(build::peer_pod_config(
                target,
                &settings.namespace,
                world.peer_pod_limit.as_deref(),
            ));
            let credentials = world.pull_secret.as_ref();
            objects.extend(credentials.map(|secret| build::auth_secret(&settings.namespace, secret)));
            objects.extend(webhook::objects(world, settings, &owner));
        }
        // Last: a pod that uses a class finds the service.
        let class = |name: &String| {
            let overhead = world.classes.get(name).map(|there| &there.overhead);
            build::runtime_class(name, target, settings, overhead).owned_by(&owner)
        };
        objects.extend(classes.iter().filter(|name| world.foreign(name).is_none()).map(class));
        // What follows is for OpenShift's console and for its machine config operator.
        if target == Target::Plain {
            return objects;
        }
        objects.extend(world.dashboard.as_ref().map(build::dashboard));
        let level = world.config.spec.effective_log_level();
        if level != peerpods_crds::DEFAULT_LOG_LEVEL || world.log_level_config {
            objects.push(build::container_runtime_config(target, level));
        }
        objects
    }

    /// B4: what peer pods brought goes when they are turned off.
    fn superfluous(&self, peer_pods: bool, configs: &[Desired]) -> Vec<Removal> {
        if peer_pods {
            return webhook::replaced(self.world);
        }
        let kept = |name: &str| {
            self.target == Target::Plain || configs.iter().any(|config| config.object.name == name)
        };
        removal::peer_pod_objects(self.world, self.settings)
            .into_iter()
            .chain(
                pools::ALL
                    .iter()
                    .filter(|name| !kept(name))
                    .map(|name| ObjectRef::cluster(Kind::MACHINE_CONFIG, name))
                    .map(|config| removal::by_rule(self.world, config)),
            )
            .collect()
    }
}

/// The KataConfig as the controlling owner of an object.
fn owner(world: &World) -> serde_json::Value {
    json!({
        "apiVersion": format!("{}/v1", peerpods_crds::KATACONFIG_GROUP),
        "kind": "KataConfig",
        "name": world.config.metadata.name,
        "uid": world.config.metadata.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// Pods in a message: the first few by name, the rest by number.
fn named(what: &str, pods: &[&PodUse]) -> String {
    let mut sorted: Vec<_> = pods.to_vec();
    sorted.sort();
    let some: Vec<String> = sorted.iter().take(PODS_NAMED).map(ToString::to_string).collect();
    let rest = sorted.len().saturating_sub(PODS_NAMED);
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    format!("{what}: {}{more}", some.join(", "))
}

/// Whether our finalizer is there.
fn has_finalizer(world: &World) -> bool {
    let finalizers = world.config.metadata.finalizers.as_deref().unwrap_or_default();
    finalizers.iter().any(|name| name == KATACONFIG_FINALIZER)
}

#[cfg(test)]
mod tests;
