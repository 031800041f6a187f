//! Link processes: each holds a sandbox's agent socket and its connection to the VM, and outlives the daemon.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use peerpods_agentlink::{
    Connected, GuestTrust, Link, LinkError, LinkSpec, LinkTarget, Opened, ShimProcess, Shims,
};
use peerpods_podvm::token::GuestKey;

use super::invariants;
use super::plan::Sabotage;
use super::world::{Incarnation, Seam, Slot, World};

/// The link processes by sandbox.
#[derive(Default)]
pub struct Links {
    /// Those that run, each with the VM's address it is connected to.
    pub processes: BTreeMap<String, Option<IpAddr>>,
    /// The keys by which those that are connected know their guests.
    pub keys: BTreeMap<String, GuestKey>,
}

impl Links {
    fn end(&mut self, sandbox: &str) {
        self.processes.remove(sandbox);
        self.keys.remove(sandbox);
    }

    /// False when the link is gone meanwhile.
    fn connect(&mut self, sandbox: &str, address: IpAddr, key: Option<GuestKey>) -> bool {
        let Some(connection) = self.processes.get_mut(sandbox) else { return false };
        *connection = Some(address);
        self.keys.extend(key.map(|key| (sandbox.to_owned(), key)));
        true
    }

    /// How a link knows the guest it is told to connect to: one that was admitted, by its key.
    fn trust(&self, sandbox: &str, target: &LinkTarget) -> GuestTrust {
        match (self.keys.get(sandbox), &target.guest) {
            (Some(key), GuestTrust::Authority | GuestTrust::Token(_)) => GuestTrust::Key(*key),
            (_, asked) => asked.clone(),
        }
    }
}

/// How often a link dials a guest that does not answer, in milliseconds.
const REDIAL: u64 = 1_000;

impl World {
    /// A link process ends, as by a crash: the shim sees EOF.
    pub fn link_dies(&self, sandbox: &str) {
        self.note(&format!("the link of {sandbox} dies"));
        self.state().links.end(sandbox);
    }

    /// The address a link is connected to.
    fn connection(&self, sandbox: &str) -> Option<Option<IpAddr>> {
        self.state().links.processes.get(sandbox).copied()
    }
}

impl Incarnation {
    fn link_slot(&self, spec: &LinkSpec) -> (Slot, String) {
        let sandbox = spec.sandbox.as_str().to_owned();
        (self.world.slot(Some(&sandbox), Seam::Link), sandbox)
    }

    /// Dials until the agent answers; `None` at the deadline.
    async fn dial(&self, slot: Slot, sandbox: &str, target: &LinkTarget) -> Option<Option<GuestKey>> {
        let (began, allowed) = (self.world.now(), target.deadline.as_millis());
        loop {
            let now = self.world.now();
            let answered = {
                let mut state = self.world.state();
                let trust = state.links.trust(sandbox, target);
                state.cloud.agent_answers(sandbox, target, &trust, now)
            };
            if answered.is_some() {
                return answered;
            }
            if u128::from(now - began) >= allowed {
                return None;
            }
            self.world.wait(slot, REDIAL).await;
        }
    }

    fn link_fault(&self, spec: &LinkSpec) -> Result<(), LinkError> {
        if self.world.luck(spec.sandbox.as_str(), "link").chance(self.world.plan.link_faults) {
            return Err(unreachable(spec));
        }
        Ok(())
    }
}

fn unreachable(spec: &LinkSpec) -> LinkError {
    let source = io::Error::from(io::ErrorKind::ConnectionRefused);
    LinkError::Unreachable { sandbox: spec.sandbox.clone(), source }
}

#[async_trait]
impl Link for Incarnation {
    async fn open(&self, spec: &LinkSpec) -> Result<Opened, LinkError> {
        let (slot, sandbox) = self.link_slot(spec);
        self.point(slot, "link open asked", &sandbox).await;
        self.link_fault(spec)?;
        let dir = spec.agent_socket.parent().unwrap_or(&self.world.dir);
        fs::create_dir_all(dir).and_then(|()| fs::write(&spec.agent_socket, "")).map_err(|source| {
            let program = spec.agent_socket.clone();
            LinkError::Start { sandbox: spec.sandbox.clone(), program, source }
        })?;
        self.world.state().links.processes.entry(sandbox.clone()).or_default();
        self.point(slot, "link opened", &sandbox).await;
        Ok(Opened { admits_by_token: true })
    }

    async fn connect(&self, spec: &LinkSpec, target: &LinkTarget) -> Result<Connected, LinkError> {
        let (slot, sandbox) = self.link_slot(spec);
        self.point(slot, "link connect asked", &sandbox).await;
        self.link_fault(spec)?;
        let connected = |attempts| Connected {
            guest_key: self.world.state().links.keys.get(&sandbox).copied(),
            port_open_after: Duration::from_millis(1),
            agent_after: Duration::from_millis(2),
            attempts,
        };
        match self.world.connection(&sandbox) {
            None => return Err(unreachable(spec)),
            Some(Some(address)) if address == target.address.ip() => return Ok(connected(0)),
            Some(_) => {}
        }
        let Some(key) = self.dial(slot, &sandbox, target).await else {
            let (address, last) = (target.address, "refused".to_owned());
            let after = target.deadline;
            return Err(LinkError::Deadline { sandbox: spec.sandbox.clone(), address, after, last });
        };
        if !self.world.state().links.connect(&sandbox, target.address.ip(), key) {
            return Err(unreachable(spec));
        }
        self.point(slot, "link connected", &sandbox).await;
        Ok(connected(1))
    }

    async fn shims(&self, spec: &LinkSpec) -> Result<Option<Shims>, LinkError> {
        let (slot, sandbox) = self.link_slot(spec);
        self.point(slot, "shims asked", &sandbox).await;
        self.link_fault(spec)?;
        if self.world.connection(&sandbox).is_none() {
            return Ok(None);
        }
        let alive = self.world.state().pods.shim_lives(&sandbox);
        let last = if alive { ShimProcess::Lives } else { ShimProcess::Gone };
        Ok(Some(Shims { connections: usize::from(alive), last }))
    }

    async fn close(&self, spec: &LinkSpec) -> Result<(), LinkError> {
        let (slot, sandbox) = self.link_slot(spec);
        self.point(slot, "link close asked", &sandbox).await;
        self.link_fault(spec)?;
        invariants::before_a_cut(&self.world, &sandbox, "its link was closed");
        if self.world.plan.sabotage != Some(Sabotage::LinkStays) {
            self.world.state().links.end(&sandbox);
        }
        self.point(slot, "link closed", &sandbox).await;
        Ok(())
    }
}
