//! One VM of the fake cloud, from the request for it to its removal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tokio::time::Instant;

use super::launcher::{FakeVm, Launch, Launcher};
use super::script::{Addressing, Birth};
use crate::{Console, Instance, VmKey, VmSpec, VmState};

/// A VM the cloud holds, for a test to look at.
#[derive(Debug, Clone)]
pub struct Made {
    /// Whose it is.
    pub key: VmKey,
    /// What was asked for, with the user data the guest got.
    pub spec: VmSpec,
    /// What the provider says of it now.
    pub instance: Instance,
}

/// What became of a launch.
#[derive(Clone)]
enum Body {
    Launching,
    Up(Arc<dyn FakeVm>),
    Failed,
}

pub(super) struct Machine {
    pub(super) number: u64,
    pub(super) key: VmKey,
    spec: VmSpec,
    birth: Birth,
    born: Instant,
    body: watch::Sender<Body>,
    /// Set when it died, so that it stays dead whatever its body says.
    dead: AtomicBool,
}

impl Machine {
    pub(super) fn new(number: u64, key: &VmKey, spec: &VmSpec, birth: Birth) -> Self {
        Self {
            number,
            key: key.clone(),
            spec: spec.clone(),
            birth,
            born: Instant::now(),
            body: watch::Sender::new(Body::Launching),
            dead: AtomicBool::new(false),
        }
    }

    /// Brings up what stands behind it. On failure the text says why.
    pub(super) async fn launch(self: &Arc<Self>, launcher: &dyn Launcher) -> Result<(), String> {
        let launch = Launch { number: self.number, name: &self.spec.name, user_data: &self.spec.user_data };
        match launcher.launch(launch).await {
            Ok(vm) => self.body.send_replace(Body::Up(vm.into())),
            Err(error) => {
                self.body.send_replace(Body::Failed);
                return Err(error.to_string());
            }
        };
        if let Some(after) = self.birth.dies_after {
            let machine = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep_until(machine.born + after).await;
                machine.power_off().await
            });
        }
        Ok(())
    }

    pub(super) async fn power_off(&self) -> std::io::Result<()> {
        self.dead.store(true, Ordering::SeqCst);
        match self.settled().await {
            Some(vm) => vm.power_off().await,
            None => Ok(()),
        }
    }

    pub(super) async fn remove(&self) -> std::io::Result<()> {
        self.dead.store(true, Ordering::SeqCst);
        match self.settled().await {
            Some(vm) => vm.remove().await,
            None => Ok(()),
        }
    }

    /// What stands behind it, once its launch is over.
    async fn settled(&self) -> Option<Arc<dyn FakeVm>> {
        let mut body = self.body.subscribe();
        let settled = body.wait_for(|b| !matches!(b, Body::Launching)).await.ok()?;
        match &*settled {
            Body::Up(vm) => Some(vm.clone()),
            Body::Launching | Body::Failed => None,
        }
    }

    pub(super) fn made(&self) -> Made {
        Made { key: self.key.clone(), spec: self.spec.clone(), instance: self.instance() }
    }

    pub(super) fn instance(&self) -> Instance {
        let vm = match &*self.body.borrow() {
            Body::Up(vm) => Some(vm.clone()),
            Body::Launching | Body::Failed => None,
        };
        let state = self.state(vm.as_deref());
        let addressed = state != VmState::Pending && self.birth.addressing == Addressing::Given;
        Instance {
            id: format!("fake-{}", self.number),
            name: self.spec.name.clone(),
            addresses: vm.as_ref().filter(|_| addressed).map(|v| v.addresses()).unwrap_or_default(),
            state,
            console: vm.and_then(|v| v.console()).map(Console::File),
            tags: self.spec.tags.clone(),
        }
    }

    fn state(&self, vm: Option<&dyn FakeVm>) -> VmState {
        if self.dead.load(Ordering::SeqCst) {
            return VmState::Stopped;
        }
        match vm {
            Some(vm) if !vm.running() => VmState::Stopped,
            Some(_) if self.born.elapsed() >= self.birth.pending_for => VmState::Running,
            Some(_) | None => VmState::Pending,
        }
    }
}
