//! What must hold, each with a name. Most are looked at in the very moment in which they could break.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use peerpods_hypervisor::Service;
use peerpods_hypervisor::record::Stage as RecordStage;
use peerpods_podvm::admission::State as Stage;

use super::plan::Sabotage;
use super::world::World;

/// The invariants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// I1: never two VMs of one sandbox at once.
    OneVm,
    /// I2: when all is over and the sweep has passed, there is no VM.
    NoOrphan,
    /// I3: nothing of a pod that runs is taken from it.
    NoFalseDeletion,
    /// I4: a pod that runs is Running, linked and tunnelled after every restart.
    NoLostSandbox,
    /// I5: no VXLAN network identifier is two sandboxes'.
    UniqueVni,
    /// I6: at most three creations of a sandbox in ten minutes.
    ThreeCreations,
    /// I7: never more VMs than the node's limit.
    Limit,
    /// I8: nothing is left when all is over.
    NothingLeft,
    /// I9: every caller is answered in time, and a Stop with success.
    Answered,
}

/// An invariant that was broken, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// What was seen.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.text)
    }
}

/// I6: so many creations.
const CREATIONS: usize = 3;
/// I6: in so many milliseconds.
const CREATIONS_WINDOW: u64 = 600_000;

/// I1, I6 and I7, after the cloud made or removed something.
pub fn after_a_cloud_event(world: &World) {
    let now = world.now();
    let (mut of, mut broken) = (BTreeMap::<String, usize>::new(), Vec::new());
    {
        let state = world.state();
        for machine in state.cloud.machines.values() {
            *of.entry(machine.key.sandbox.as_str().to_owned()).or_default() += 1;
        }
        for (sandbox, times) in &state.cloud.creations {
            let recent = times.iter().filter(|at| **at + CREATIONS_WINDOW > now).count();
            if recent > CREATIONS {
                broken.push((
                    Invariant::ThreeCreations,
                    format!("{sandbox} had {recent} creations in ten minutes"),
                ));
            }
        }
    }
    for (sandbox, count) in of.iter().filter(|(_, count)| **count > 1) {
        broken.push((Invariant::OneVm, format!("{sandbox} has {count} VMs")));
    }
    let (there, limit) = (world.state().cloud.machines.len(), world.plan.limit);
    if there > limit {
        broken.push((Invariant::Limit, format!("{there} VMs where {limit} are allowed")));
    }
    for (invariant, text) in broken {
        world.violated(invariant, &text);
    }
}

/// I2, before the cloud is asked for a VM: there is a record that says so.
pub fn before_a_creation(world: &World, sandbox: &str) {
    let stage = world.state().disk.records.get(sandbox).map(|record| record.stage);
    if stage != Some(RecordStage::Starting) {
        let text = format!("a VM of {sandbox} is asked for and its record says {stage:?}");
        world.violated(Invariant::NoOrphan, &text);
    }
}

/// I3, in the moment in which the cloud removes a VM.
pub fn before_a_deletion(world: &World, sandbox: &str) {
    before_a_cut(world, sandbox, "its VM was deleted");
}

/// I3, in the moment in which something is taken from a sandbox.
pub fn before_a_cut(world: &World, sandbox: &str, what: &str) {
    if world.state().lives(sandbox, world.now()) {
        world.violated(Invariant::NoFalseDeletion, &format!("{sandbox} runs and {what}"));
    }
}

/// I5, after the disk changed.
pub fn after_a_write(world: &World) {
    let mut owners = BTreeMap::<u32, Vec<String>>::new();
    // The record of an orphan's removal has none: 0 is never handed out.
    for (sandbox, record) in world.state().disk.records.iter().filter(|(_, record)| record.vni != 0) {
        for vni in record.vnis() {
            owners.entry(vni).or_default().push(sandbox.clone());
        }
    }
    for (vni, owners) in owners.iter().filter(|(_, owners)| owners.len() > 1) {
        world.violated(Invariant::UniqueVni, &format!("VNI {vni} is of {}", owners.join(" and ")));
    }
}

/// I2 and I8, in the moment in which a record goes: it is the last thing to go.
pub fn when_forgotten(world: &World, sandbox: &str) {
    let mut left = Vec::new();
    {
        let state = world.state();
        let vms = state.cloud.of(sandbox);
        left.extend(vms.map(|machine| (Invariant::NoOrphan, format!("VM {}", machine.id))));
        let netns = state.pods.sandboxes.get(sandbox).map(|sandbox| sandbox.netns.clone());
        let here = state.kernel.devices.values().filter(|device| device.lingers_until.is_none());
        let tunnels = here.filter(|device| Some(&device.netns) == netns.as_ref());
        left.extend(tunnels.map(|_| (Invariant::NothingLeft, "its tunnel".to_owned())));
        if state.links.processes.contains_key(sandbox) {
            left.push((Invariant::NothingLeft, "its link".to_owned()));
        }
        if world.dir.join("pods").join(sandbox).exists() {
            left.push((Invariant::NothingLeft, "its directory".to_owned()));
        }
    }
    for (invariant, what) in left {
        world.violated(invariant, &format!("the record of {sandbox} went before {what}"));
    }
}

/// I2, a moment after a start of the daemon: what was stopped before is not taken for a pod that goes on.
pub fn when_started(world: &World, service: &Service) {
    for (id, published) in service.list() {
        let stopped = world.state().pods.sandboxes.get(id.as_str()).is_some_and(|s| s.stop_answered);
        if stopped && matches!(published.state, Stage::Created | Stage::Starting | Stage::Running) {
            let text = format!("StopVM of {id} was answered and the service has it as {}", published.state);
            world.violated(Invariant::NoOrphan, &text);
        }
    }
}

/// I4, some minutes after a start of the daemon and before the end.
pub fn when_settled(world: &World, service: &Service) {
    let now = world.now();
    let published: BTreeMap<String, Stage> =
        service.list().into_iter().map(|(id, published)| (id.as_str().to_owned(), published.state)).collect();
    let mut lost = Vec::new();
    {
        let state = world.state();
        for id in state.pods.sandboxes.keys().filter(|id| state.lives(id, now)) {
            let machines: Vec<_> = state.cloud.of(id).map(|machine| machine.address).collect();
            let netns = &state.pods.sandboxes[id].netns;
            let tunnel =
                state.kernel.devices.values().find(|device| device.netns == *netns && device.complete);
            if published.get(id) != Some(&Stage::Running) {
                lost.push(format!("{id} runs and the service has it as {:?}", published.get(id)));
            }
            if machines.is_empty() {
                lost.push(format!("{id} runs and has no VM"));
            }
            if state.links.processes.get(id).copied().flatten() != machines.first().copied() {
                lost.push(format!("{id} runs and its link is not connected to its VM"));
            }
            if tunnel.map(|device| device.remote) != machines.first().copied() {
                lost.push(format!("{id} runs and its tunnel does not lead to its VM"));
            }
        }
    }
    for text in lost {
        world.violated(Invariant::NoLostSandbox, &text);
    }
}

/// What is left of sandboxes.
pub fn leftovers(world: &World, service: Option<&Service>) -> Vec<(Invariant, String)> {
    let now = world.now();
    let mut state = world.state();
    state.kernel.expire(now);
    let mut left = Vec::new();
    for machine in state.cloud.machines.values() {
        let sandbox = machine.key.sandbox.as_str();
        let stopped = state.pods.sandboxes.get(sandbox).is_some_and(|s| s.stop_answered);
        let how = if stopped { "StopVM was answered" } else { "it is over" };
        left.push((Invariant::NoOrphan, format!("VM {} of {sandbox}, although {how}", machine.id)));
    }
    let nodes = state.disk.records.keys().map(|id| format!("the record of {id}"));
    let links = state.links.processes.keys().map(|id| format!("the link of {id}"));
    let tunnels =
        state.kernel.devices.iter().map(|((vni, _), d)| format!("VNI {vni} in {}", d.netns.display()));
    let ledger = state.ledger.iter().map(|key| format!("{key} in the ledger"));
    let mut rest: Vec<String> = nodes.chain(links).chain(tunnels).chain(ledger).collect();
    let dirs = fs::read_dir(world.dir.join("pods")).into_iter().flatten().flatten();
    rest.extend(dirs.map(|entry| format!("the directory {}", entry.file_name().to_string_lossy())));
    let known = service.map(Service::list).unwrap_or_default();
    rest.extend(
        known.into_iter().map(|(id, published)| format!("{id} as {} in the service", published.state)),
    );
    left.extend(rest.into_iter().map(|text| (Invariant::NothingLeft, text)));
    left
}

/// I2 and I8, when everything is over.
pub fn when_over(world: &World, service: Option<&Service>) {
    for (invariant, text) in leftovers(world, service) {
        world.violated(invariant, &text);
    }
}

/// The daemon is dead: what a sabotaged world takes with it.
pub fn after_a_death(world: &World) {
    if world.plan.sabotage != Some(Sabotage::LinksDieWithTheDaemon) {
        return;
    }
    let sandboxes: Vec<String> = world.state().links.processes.keys().cloned().collect();
    for sandbox in sandboxes {
        before_a_cut(world, &sandbox, "its link ended with the daemon");
        world.link_dies(&sandbox);
    }
}
