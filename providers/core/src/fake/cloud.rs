//! The far side: the VMs there are, the script, and the counters.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use peerpods_podvm::ClusterId;
use peerpods_podvm::image::GuestAdmission;
use tokio::sync::OwnedMutexGuard;

use super::FakeProvider;
use super::launcher::{Bare, Launcher};
use super::machine::{Machine, Made};
use super::script::{Birth, Calls, Effects, Fault, Operation, Script};
use crate::{ErrorKind, Facts, Instance, ProviderError, VmKey, VmSpec};

/// Largest user data the fake takes, in bytes (as AWS before base64).
const USER_DATA_LIMIT: usize = 16 * 1024;
/// Most virtual processors the fake has.
const MAX_VCPUS: u32 = 448;

/// The cloud itself. Keep its `Arc` outside the service under test.
pub struct FakeCloud {
    launcher: Arc<dyn Launcher>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    script: Script,
    /// What is said of VMs that ended.
    why_gone: Option<String>,
    location: Option<String>,
    born: u64,
    machines: BTreeMap<u64, Arc<Machine>>,
    /// One create or delete of a key at a time.
    turns: HashMap<VmKey, Arc<tokio::sync::Mutex<()>>>,
}

impl FakeCloud {
    /// A cloud whose VMs are brought up by `launcher`.
    #[must_use]
    pub fn new(launcher: impl Launcher + 'static) -> Arc<Self> {
        Arc::new(Self { launcher: Arc::new(launcher), state: Mutex::default() })
    }

    /// A cloud of [`Bare`] VMs.
    #[must_use]
    pub fn bare() -> Arc<Self> {
        Self::new(Bare::new())
    }

    /// A client of this cloud.
    #[must_use]
    pub fn provider(self: &Arc<Self>) -> FakeProvider {
        FakeProvider::new(self.clone())
    }

    /// From now on `fault` meets these calls of `operation`.
    pub fn script(&self, operation: Operation, calls: Calls, fault: Fault) {
        self.state().script.add(operation, calls, fault);
    }

    /// Forgets all faults; what they did stays done.
    pub fn heal(&self) {
        self.state().script.clear();
    }

    /// From now on this is said of every VM that ended.
    pub fn explain(&self, why_gone: &str) {
        self.state().why_gone = Some(why_gone.to_owned());
    }

    /// From now on its clients say that they are set to this region.
    pub fn set_location(&self, location: &str) {
        self.state().location = Some(location.to_owned());
    }

    /// The region that its clients are set to.
    pub(super) fn location(&self) -> Option<String> {
        self.state().location.clone()
    }

    /// How often an operation was called.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.state().script.calls(operation)
    }

    /// The VMs there are, oldest first.
    pub fn machines(&self) -> Vec<Made> {
        self.state().machines.values().map(|m| m.made()).collect()
    }

    /// How many VMs were ever made.
    pub fn born(&self) -> u64 {
        self.state().born
    }

    /// Pulls the plug of the VM of `key`: it stops and stays there.
    ///
    /// # Errors
    /// When it could not be stopped. A key without a VM is `Ok`.
    pub async fn power_off(&self, key: &VmKey) -> std::io::Result<()> {
        for machine in self.of(key) {
            machine.power_off().await?;
        }
        Ok(())
    }

    /// What is there that would cost money, and what VMs left on this host; empty after every VM was deleted.
    pub fn leftovers(&self) -> Vec<String> {
        let machines: Vec<String> =
            self.state().machines.values().map(|m| format!("VM fake-{} of {}", m.number, m.key)).collect();
        // A VM that is there has its things on this host rightly; they are left over only when no VM is.
        if machines.is_empty() { self.launcher.leftovers() } else { machines }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, key: &VmKey) -> Vec<Arc<Machine>> {
        self.state().machines.values().filter(|m| m.key == *key).cloned().collect()
    }

    pub(super) fn next(&self, operation: Operation) -> Effects {
        self.state().script.next(operation)
    }

    pub(super) fn why_gone(&self) -> Option<String> {
        self.state().why_gone.clone()
    }

    pub(super) fn guest_admission(&self) -> GuestAdmission {
        self.launcher.guest_admission()
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            user_data_limit: USER_DATA_LIMIT,
            worker_address: self.launcher.worker_address(),
            underlay_mtu: 1500,
            remarks: vec!["fake VMs: for tests only".to_owned()],
        }
    }

    /// Goes on to its end even when the caller is dropped, as a cloud does.
    pub(super) async fn create(
        self: &Arc<Self>,
        key: &VmKey,
        spec: &VmSpec,
        birth: Birth,
    ) -> Result<Instance, ProviderError> {
        let (cloud, owner, wanted) = (self.clone(), key.clone(), spec.clone());
        let turn = ask(self.turn(key));
        let work = tokio::spawn(async move {
            let _held = turn.await;
            cloud.create_in_turn(&owner, &wanted, birth).await
        });
        match work.await {
            Ok(answer) => answer,
            Err(error) => Err(failed("create VM", key, &error)),
        }
    }

    /// The caller holds the key's turn.
    async fn create_in_turn(
        &self,
        key: &VmKey,
        spec: &VmSpec,
        birth: Birth,
    ) -> Result<Instance, ProviderError> {
        if let Some(there) = self.of(key).first() {
            return Ok(there.instance());
        }
        if let Some(text) = refusal(spec) {
            return Err(ProviderError::new(ErrorKind::Invalid, format!("create VM of {key}"), text));
        }
        for _ in 0..birth.copies {
            let machine = self.register(key, spec, birth);
            if let Err(text) = machine.launch(self.launcher.as_ref()).await {
                self.state().machines.remove(&machine.number);
                return Err(failed("create VM", key, &text));
            }
        }
        let first = self.of(key).first().map(|m| m.instance());
        first.ok_or_else(|| failed("create VM", key, &"it vanished"))
    }

    fn register(&self, key: &VmKey, spec: &VmSpec, birth: Birth) -> Arc<Machine> {
        let mut state = self.state();
        state.born += 1;
        let machine = Arc::new(Machine::new(state.born, key, spec, birth));
        state.machines.insert(machine.number, machine.clone());
        machine
    }

    pub(super) fn get(&self, key: &VmKey) -> Option<Instance> {
        self.of(key).first().map(|m| m.instance())
    }

    pub(super) fn list(&self, cluster: &ClusterId) -> Vec<(VmKey, Instance)> {
        let state = self.state();
        let ours = state.machines.values().filter(|m| m.key.cluster == *cluster);
        ours.map(|m| (m.key.clone(), m.instance())).collect()
    }

    /// Goes on to its end even when the caller is dropped.
    pub(super) async fn delete(self: &Arc<Self>, key: &VmKey) -> Result<(), ProviderError> {
        let (cloud, owner) = (self.clone(), key.clone());
        let turn = ask(self.turn(key));
        let work = tokio::spawn(async move {
            let _held = turn.await;
            cloud.delete_in_turn(&owner).await
        });
        match work.await {
            Ok(answer) => answer,
            Err(error) => Err(failed("delete VM", key, &error)),
        }
    }

    /// The caller holds the key's turn.
    async fn delete_in_turn(&self, key: &VmKey) -> Result<(), ProviderError> {
        for machine in self.of(key) {
            machine.remove().await.map_err(|e| failed("delete VM", key, &e))?;
            self.state().machines.remove(&machine.number);
        }
        Ok(())
    }

    fn turn(&self, key: &VmKey) -> Arc<tokio::sync::Mutex<()>> {
        self.state().turns.entry(key.clone()).or_default().clone()
    }
}

/// Asks for a key's turn now, in the caller's own order: the task that does the work may begin only after a later request's, and a
/// request that was sent earlier is carried out earlier.
fn ask(turn: Arc<tokio::sync::Mutex<()>>) -> impl Future<Output = OwnedMutexGuard<()>> + Send {
    let mut asked = Box::pin(turn.lock_owned());
    let held = asked.as_mut().now_or_never();
    async move {
        match held {
            Some(held) => held,
            None => asked.await,
        }
    }
}

/// Why the fake does not make this VM; one sentence.
fn refusal(spec: &VmSpec) -> Option<String> {
    let (vcpus, len) = (spec.size.vcpus, spec.user_data.expose().len());
    if vcpus > MAX_VCPUS {
        return Some(format!("{vcpus} vCPUs were asked for; at most {MAX_VCPUS} exist"));
    }
    (len > USER_DATA_LIMIT).then(|| format!("user data has {len} bytes; at most {USER_DATA_LIMIT} are taken"))
}

fn failed(what: &str, key: &VmKey, why: &dyn std::fmt::Display) -> ProviderError {
    ProviderError::new(ErrorKind::Transient, format!("{what} of {key}"), why.to_string())
}
