//! A cloud that fails, delays, loses answers, forgets for a moment and lets VMs die, all by the seed. What was asked of it is done
//! even when the asker is dead.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use async_trait::async_trait;
use peerpods_agentlink::{GuestTrust, LinkTarget};
use peerpods_podvm::ClusterId;
use peerpods_podvm::image::GuestAdmission;
use peerpods_podvm::token::GuestKey;
use peerpods_provider::{ErrorKind, Facts, Instance, Provider, ProviderError, VmKey, VmSpec, VmState};
use tokio::sync::oneshot;

use super::invariants;
use super::plan::Sabotage;
use super::rng::Rng;
use super::world::{Incarnation, Seam, Slot, World};

/// The VMs.
#[derive(Default)]
pub struct Cloud {
    /// Those there are, by number.
    pub machines: BTreeMap<u64, Machine>,
    /// When the creations of each sandbox were asked for.
    pub creations: BTreeMap<String, Vec<u64>>,
    born: u64,
    /// Creations and deletions of one key are carried out in the order they were asked for.
    busy_until: BTreeMap<VmKey, u64>,
}

/// One VM.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Whose it is.
    pub key: VmKey,
    /// The provider's id.
    pub id: String,
    /// Its address, from `running_at` on.
    pub address: IpAddr,
    spec: VmSpec,
    visible_at: u64,
    running_at: u64,
    agent_at: u64,
    dies_at: Option<u64>,
    /// Whether somebody used its token.
    admitted: bool,
}

/// The longest a VM is invisible after its birth.
const BLINDNESS_MS: u64 = 10_000;

const KINDS: [ErrorKind; 7] = [
    ErrorKind::Transient,
    ErrorKind::Transient,
    ErrorKind::Throttled,
    ErrorKind::Capacity,
    ErrorKind::Quota,
    ErrorKind::Denied,
    ErrorKind::Invalid,
];

impl Machine {
    /// Whether it stopped by itself.
    pub fn dead(&self, now: u64) -> bool {
        self.dies_at.is_some_and(|at| at <= now)
    }

    /// As the guest does with what is in its user data.
    fn proves_itself(&mut self, number: u64, trust: &GuestTrust) -> Option<Option<GuestKey>> {
        let told = String::from_utf8_lossy(self.spec.user_data.expose()).into_owned();
        let own = GuestKey([u8::try_from(number % 251).unwrap_or(0); 32]);
        match trust {
            GuestTrust::Authority => told.contains("tls-server-key").then_some(None),
            GuestTrust::Token(token) if !self.admitted => {
                self.admitted = told.contains(&serde_json::to_string(token).unwrap());
                self.admitted.then_some(Some(own))
            }
            GuestTrust::Token(_) => None,
            GuestTrust::Key(key) => (self.admitted && *key == own).then_some(Some(own)),
        }
    }

    fn instance(&self, now: u64) -> Instance {
        let running = self.running_at <= now;
        let state = match (self.dead(now), running) {
            (true, _) => VmState::Stopped,
            (false, true) => VmState::Running,
            (false, false) => VmState::Pending,
        };
        Instance {
            id: self.id.clone(),
            name: self.spec.name.clone(),
            addresses: if running { vec![self.address] } else { Vec::new() },
            state,
            console: None,
            tags: self.spec.tags.clone(),
        }
    }
}

impl Cloud {
    /// Whether the agent in the VM of `sandbox` answers who dials `target` and knows the guest so; if it does, by which key from now on.
    pub fn agent_answers(
        &mut self,
        sandbox: &str,
        target: &LinkTarget,
        trust: &GuestTrust,
        now: u64,
    ) -> Option<Option<GuestKey>> {
        self.machines.iter_mut().find_map(|(number, machine)| {
            let there = machine.key.sandbox.as_str() == sandbox
                && machine.address == target.address.ip()
                && machine.spec.name == target.server_name
                && machine.agent_at <= now
                && !machine.dead(now);
            if there { machine.proves_itself(*number, trust) } else { None }
        })
    }

    /// The VMs of a sandbox.
    pub fn of<'a>(&'a self, sandbox: &'a str) -> impl Iterator<Item = &'a Machine> {
        self.machines.values().filter(move |machine| machine.key.sandbox.as_str() == sandbox)
    }

    /// Pulls the plug of a sandbox's VM.
    pub fn power_off(&mut self, sandbox: &str, now: u64) {
        for machine in self.machines.values_mut().filter(|m| m.key.sandbox.as_str() == sandbox) {
            machine.dies_at = Some(machine.dies_at.unwrap_or(now).min(now));
        }
    }

    fn first(&self, key: &VmKey, now: u64) -> Option<Instance> {
        let mut ours = self.machines.values().filter(|m| m.key == *key && m.visible_at <= now);
        ours.next().map(|machine| machine.instance(now))
    }

    fn turn(&mut self, key: &VmKey, now: u64, takes: u64) -> u64 {
        let free = self.busy_until.get(key).copied().unwrap_or(0).max(now);
        self.busy_until.insert(key.clone(), free + takes + 300);
        free + takes - now
    }

    fn bear(&mut self, key: &VmKey, spec: &VmSpec, now: u64, luck: &mut Rng, blind: u64) -> Instance {
        self.born += 1;
        let number = self.born;
        let running_at = now + luck.between(0, 8_000);
        let machine = Machine {
            key: key.clone(),
            id: format!("i-{number}"),
            address: Ipv4Addr::from_bits(0x0a63_0000 | u32::try_from(number).unwrap_or_default()).into(),
            spec: spec.clone(),
            visible_at: now + blind,
            running_at,
            agent_at: running_at + luck.between(500, 20_000),
            dies_at: luck.chance(20).then(|| now + luck.between(0, 60_000)),
            admitted: false,
        };
        let instance = machine.instance(now);
        self.machines.insert(number, machine);
        instance
    }
}

/// What the seed says of one call.
struct Call {
    luck: Rng,
    takes: u64,
    fails: Option<ErrorKind>,
    loses_answer: bool,
}

fn error(kind: ErrorKind, operation: &str, text: &str) -> ProviderError {
    ProviderError::new(kind, operation.to_owned(), text).code("Simulated")
}

impl World {
    fn call(&self, subject: &str, operation: &'static str, slowest: u64) -> Call {
        let mut luck = self.luck(subject, operation);
        let rough = self.plan.cloud_faults;
        let fails = luck.chance(rough).then(|| *luck.pick(&KINDS));
        let loses_answer = luck.chance(rough / 2);
        let takes = luck.between(1, slowest);
        Call { luck, takes, fails, loses_answer }
    }

    /// A creation was asked for, whatever becomes of it.
    fn count_creation(&self, sandbox: &str) {
        let counted = if self.plan.sabotage == Some(Sabotage::CloudRecreates) { 4 } else { 1 };
        let times = [self.now()].repeat(counted);
        self.state().cloud.creations.entry(sandbox.to_owned()).or_default().extend(times);
        invariants::before_a_creation(self, sandbox);
    }

    /// A creation as the cloud carries it out.
    fn carry_out_creation(&self, key: &VmKey, spec: &VmSpec, luck: &mut Rng) -> Instance {
        let now = self.now();
        let blind = if luck.chance(self.plan.blindness) { luck.between(100, BLINDNESS_MS) } else { 0 };
        let copies = if self.plan.sabotage == Some(Sabotage::CloudMakesTwo) { 2 } else { 1 };
        let sandbox = key.sandbox.as_str().to_owned();
        let instance = {
            let mut state = self.state();
            let there = state.cloud.machines.values().find(|m| m.key == *key).map(|m| m.instance(now));
            if there.is_some() && self.plan.sabotage != Some(Sabotage::CloudNotIdempotent) {
                there
            } else {
                (0..copies).map(|_| state.cloud.bear(key, spec, now, luck, blind)).last()
            }
        };
        self.note(&format!("the cloud made {sandbox} {:?}", instance.as_ref().map(|i| &i.id)));
        invariants::after_a_cloud_event(self);
        instance.unwrap()
    }

    fn carry_out_deletion(&self, key: &VmKey) {
        let now = self.now();
        let gone: Vec<u64> = {
            let state = self.state();
            let ours = state.cloud.machines.iter().filter(|(_, m)| m.key == *key && m.visible_at <= now);
            ours.map(|(number, _)| *number).collect()
        };
        for number in gone {
            let lies = self.plan.sabotage == Some(Sabotage::DeletionLies);
            invariants::before_a_deletion(self, key.sandbox.as_str());
            let mut state = self.state();
            if state.cloud.of(key.sandbox.as_str()).any(|machine| machine.dead(now)) {
                state.pods.update(key.sandbox.as_str(), |sandbox| sandbox.doomed = Some("its VM died"));
            }
            if !lies {
                state.cloud.machines.remove(&number);
            }
            drop(state);
            self.note(&format!("the cloud deleted {} i-{number}", key.sandbox));
        }
        invariants::after_a_cloud_event(self);
    }
}

impl Incarnation {
    fn cloud_slot(&self, key: &VmKey) -> (Slot, String) {
        let sandbox = key.sandbox.as_str().to_owned();
        (self.world.slot(Some(&sandbox), Seam::Provider), sandbox)
    }

    /// Carries `work` out in the key's turn, even when nobody waits for it.
    async fn in_turn<T: Send + 'static>(
        &self,
        key: &VmKey,
        takes: u64,
        work: impl FnOnce(&World) -> T + Send + 'static,
    ) -> T {
        let (slot, _) = self.cloud_slot(key);
        let wait = self.world.state().cloud.turn(key, self.world.now(), takes);
        let (answer, answered) = oneshot::channel();
        let world = self.world.clone();
        tokio::spawn(async move {
            world.wait(slot, wait).await;
            drop(answer.send(work(&world)));
        });
        match answered.await {
            Ok(done) => done,
            Err(_) => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Provider for Incarnation {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn visible_within(&self) -> Duration {
        // Also after the end of the call: what was asked for is carried out some time later, in its turn.
        Duration::from_millis(
            BLINDNESS_MS + 2 * (self.world.plan.slowest_creation + self.world.plan.slowest_deletion),
        )
    }

    async fn verify(&self) -> Result<Facts, ProviderError> {
        let slot = self.world.slot(None, Seam::Provider);
        self.point(slot, "verify", "").await;
        Ok(Facts {
            user_data_limit: 16 * 1024,
            worker_address: Some(ipnet::IpNet::new_assert(Ipv4Addr::new(10, 99, 255, 254).into(), 16)),
            underlay_mtu: 1500,
            remarks: Vec::new(),
        })
    }

    async fn guest_admission(&self, _: Option<&str>) -> GuestAdmission {
        if self.world.plan.own_guest { GuestAdmission::Token } else { GuestAdmission::Unknown }
    }

    async fn create(&self, key: &VmKey, spec: &VmSpec) -> Result<Instance, ProviderError> {
        let (slot, sandbox) = self.cloud_slot(key);
        let mut call = self.world.call(&sandbox, "create", self.world.plan.slowest_creation);
        let in_line = match self.world.plan.longest_line {
            0 => 0,
            longest => call.luck.between(0, longest),
        };
        self.point_after(slot, in_line.max(1), "create asked", &sandbox).await;
        self.world.count_creation(&sandbox);
        if let Some(kind) = call.fails {
            self.point_after(slot, call.takes, "create refused", &sandbox).await;
            return Err(error(kind, "create", "the plan says so; nothing was made"));
        }
        let (owner, wanted) = (key.clone(), spec.clone());
        let made = self
            .in_turn(key, call.takes, move |world| world.carry_out_creation(&owner, &wanted, &mut call.luck));
        let made = made.await;
        self.point(slot, "create done", &sandbox).await;
        if call.loses_answer {
            return Err(error(ErrorKind::Transient, "create", "the answer was lost; the VM was made"));
        }
        Ok(made)
    }

    async fn get(&self, key: &VmKey) -> Result<Option<Instance>, ProviderError> {
        let (slot, sandbox) = self.cloud_slot(key);
        let call = self.world.call(&sandbox, "get", 200);
        self.point(slot, "get", &sandbox).await;
        if call.fails.is_some() {
            return Err(error(ErrorKind::Throttled, "get", "the plan says so"));
        }
        let now = self.world.now();
        let found = self.world.state().cloud.first(key, now);
        let old = self.world.state().cloud.of(&sandbox).any(|machine| machine.agent_at + 60_000 < now);
        let lies = old && self.world.plan.sabotage == Some(Sabotage::VmSaidToBeDead);
        Ok(found
            .map(|instance| if lies { Instance { state: VmState::Stopped, ..instance } } else { instance }))
    }

    async fn list(&self, cluster: &ClusterId) -> Result<Vec<(VmKey, Instance)>, ProviderError> {
        let slot = self.world.slot(None, Seam::Provider);
        let call = self.world.call("node", "list", 200);
        self.point(slot, "list", "").await;
        if let Some(kind) = call.fails {
            return Err(error(kind, "list", "the plan says so"));
        }
        let now = self.world.now();
        let state = self.world.state();
        let ours = state.cloud.machines.values().filter(|m| m.key.cluster == *cluster && m.visible_at <= now);
        Ok(ours.map(|m| (m.key.clone(), m.instance(now))).collect())
    }

    async fn delete(&self, key: &VmKey) -> Result<(), ProviderError> {
        let (slot, sandbox) = self.cloud_slot(key);
        let call = self.world.call(&sandbox, "delete", self.world.plan.slowest_deletion);
        self.point(slot, "delete asked", &sandbox).await;
        if let Some(kind) = call.fails {
            return Err(error(kind, "delete", "the plan says so; nothing was deleted"));
        }
        let owner = key.clone();
        self.in_turn(key, call.takes, move |world| world.carry_out_deletion(&owner)).await;
        self.point(slot, "delete done", &sandbox).await;
        if call.loses_answer {
            return Err(error(ErrorKind::Transient, "delete", "the answer was lost; the VM is gone"));
        }
        Ok(())
    }
}
