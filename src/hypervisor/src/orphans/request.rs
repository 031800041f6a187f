//! What a person may ask for: the list with verdicts, removing an orphan now, adopting a VM this node has no record of.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use peerpods_podvm::SandboxId;
use peerpods_podvm::annotations::PodRequest;
use peerpods_podvm::causes::chain;
use peerpods_provider::VmState;
use tokio::sync::oneshot;
use tracing::warn;

use super::decide::{Rules, Suspicion, Verdict, verdict};
use super::error::OrphanError;
use super::ids;
use super::look::Found;
use crate::config::Collection;
use crate::failure::Failure;
use crate::record::{GUEST_TAG, GuestForm, InstanceRecord, Record, Stage, TunnelRecord, Whereabouts};
use crate::service::Service;
use crate::state::Published;

/// A VM with what it is to this node.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The VM.
    pub found: Found,
    /// What it is.
    pub verdict: Verdict,
    /// What the sweep remembers of it.
    pub suspicion: Option<Suspicion>,
    /// When the sweep may delete it; `None` when it will not.
    pub due_in: Option<Duration>,
}

/// What a VM is adopted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Its pod lives: it is a running sandbox of this node from now on.
    Run {
        /// The pod's network namespace.
        netns: PathBuf,
        /// Its tunnel's VXLAN network identifier.
        vni: u32,
    },
    /// Whoever made it is gone for good: this node removes it.
    Remove,
}

/// Whether a deletion is only tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earnest {
    /// Nothing is done.
    DryRun,
    /// It is done.
    Real,
}

impl Service {
    /// Every VM of the cluster.
    ///
    /// # Errors
    /// When the provider could not be asked.
    pub async fn vms(&self) -> Result<Vec<Judged>, OrphanError> {
        let found = self.look_for_vms().await?;
        Ok(found.into_iter().map(|found| self.judge(found)).collect())
    }

    fn judge(&self, found: Found) -> Judged {
        let config = &self.context.config;
        let verdict = verdict(&found.observed, &Rules::of(config));
        let suspicion = self.orphans.suspicion(&found.observed);
        let waited = suspicion.map_or(Duration::ZERO, |seen| seen.since.elapsed());
        let collected = verdict == Verdict::Orphan && config.gc == Collection::On;
        let due_in = collected.then(|| config.gc_grace.saturating_sub(waited));
        Judged { found, verdict, suspicion, due_in }
    }

    /// Has the VMs of `id` (a VM's or a sandbox's) removed, if they are orphans; answers when that is under way.
    ///
    /// # Errors
    /// When somebody owns one of them, or may.
    pub async fn delete_vm(
        &self,
        id: &str,
        earnest: Earnest,
    ) -> Result<(SandboxId, Vec<String>), OrphanError> {
        let judged = self.of(id).await?;
        for one in &judged {
            refuse_unless(one, |verdict| *verdict == Verdict::Orphan)?;
        }
        self.remove_judged(&judged, earnest, "removed by `peerpods gc delete`")
    }

    /// Makes this node the owner of a sandbox's VM; answers when that is recorded.
    ///
    /// # Errors
    /// When it has an owner, or what is known does not make a record.
    pub async fn adopt_vm(
        &self,
        sandbox: &SandboxId,
        purpose: Purpose,
    ) -> Result<(SandboxId, Vec<String>), OrphanError> {
        let judged = self.of(sandbox.as_str()).await?;
        for one in &judged {
            refuse_unless(one, |verdict| match &purpose {
                Purpose::Run { .. } => !matches!(verdict, Verdict::Live(_)),
                Purpose::Remove => !matches!(verdict, Verdict::Live(_) | Verdict::HeldByShim(_)),
            })?;
        }
        match purpose {
            Purpose::Remove => {
                self.remove_judged(&judged, Earnest::Real, "adopted to be removed by `peerpods gc adopt`")
            }
            Purpose::Run { netns, vni } => self.adopt_running(sandbox, &judged, netns, vni).await,
        }
    }

    async fn of(&self, id: &str) -> Result<Vec<Judged>, OrphanError> {
        let mut all = self.vms().await?;
        let named =
            all.iter().find(|one| one.found.key.sandbox.as_str() == id || one.found.instance.id == id);
        let Some(sandbox) = named.map(|one| one.found.key.sandbox.clone()) else {
            return Err(OrphanError::NotFound { id: id.to_owned() });
        };
        all.retain(|one| one.found.key.sandbox == sandbox);
        Ok(all)
    }

    fn remove_judged(
        &self,
        judged: &[Judged],
        earnest: Earnest,
        why: &str,
    ) -> Result<(SandboxId, Vec<String>), OrphanError> {
        let vms: Vec<&Found> = judged.iter().map(|one| &one.found).collect();
        let Some(first) = vms.first() else { return Err(OrphanError::NotFound { id: String::new() }) };
        let sandbox = first.key.sandbox.clone();
        if earnest == Earnest::Real
            && !self.remove_unowned(&sandbox, &vms, format!("VM {}: {why}", ids(&vms)))
        {
            return Err(self.taken(&sandbox));
        }
        Ok((sandbox, vms.iter().map(|found| found.instance.id.clone()).collect()))
    }

    /// Gives the sandbox to a driver that removes it; false when it has an owner by now.
    pub(super) fn remove_unowned(&self, sandbox: &SandboxId, vms: &[&Found], why: String) -> bool {
        let Some(record) = vms.first().map(|found| self.record_of(found, Stage::Running)) else {
            return false;
        };
        let begun = self.claim(sandbox, |driver| Box::pin(driver.remove(record, why)));
        if begun {
            self.orphans.lock().counters.collected += 1;
        }
        begun
    }

    async fn adopt_running(
        &self,
        sandbox: &SandboxId,
        judged: &[Judged],
        netns: PathBuf,
        vni: u32,
    ) -> Result<(SandboxId, Vec<String>), OrphanError> {
        let missing = |missing: String| OrphanError::Missing { sandbox: sandbox.clone(), missing };
        let (one, remote) = reachable(judged).map_err(missing)?;
        let found = &one.found;
        self.provable(found).await.map_err(missing)?;
        let observed = self.context.parts.tunnel.observe(&netns).await;
        let pod = observed.map_err(|e| {
            missing(format!("its network namespace {} cannot be read ({})", netns.display(), chain(&e)))
        })?;
        if !pod.secondary.is_empty() {
            let names: Vec<&str> = pod.secondary.iter().map(|interface| interface.name.as_str()).collect();
            warn!(%sandbox, interfaces = names.join(", "), "their tunnels are left as they are, and their identifiers are not known");
        }
        let tunnel = TunnelRecord { pod_interface: pod.primary.name, remote, local: None };
        let mut record = Record { netns, vni, tunnel: Some(tunnel), ..self.record_of(found, Stage::Running) };
        // Nobody is at its socket now, and whoever adopts it wants it to live.
        record.request.unattended = !matches!(one.verdict, Verdict::HeldByShim(_));
        self.take_over(record).await?;
        Ok((sandbox.clone(), vec![found.instance.id.clone()]))
    }

    /// A VM that made its own key is known by it to its link process and to its record, and to nobody else: with both gone no link is
    /// ever accepted. One that was made by an older program does not say which form it has, and is tried.
    async fn provable(&self, found: &Found) -> Result<(), String> {
        let token = GuestForm::Token { key: None }.name();
        if found.instance.tags.get(GUEST_TAG).is_none_or(|form| form != token)
            || self.has_link(&found.key).await
        {
            return Ok(());
        }
        Err(format!(
            "VM {} made its own key, and who knew it is gone: its record, and its peerpods-link process; nothing can prove to be that \
             VM any more, so its pod is lost; remove it with `peerpods gc adopt {} --remove`",
            found.instance.id, found.key.sandbox
        ))
    }

    async fn take_over(&self, mut record: Record) -> Result<(), OrphanError> {
        record.whereabouts = Some(Whereabouts::of(self.context.parts.provider.as_ref()).await);
        let (sandbox, vni) = (record.sandbox.clone(), record.vni);
        let of_another = |(id, published): &(SandboxId, Published)| {
            *id != sandbox
                && published.record.as_ref().is_some_and(|record| record.vnis().any(|own| own == vni))
        };
        let kept_for_it =
            self.context.unreadable.get(&sandbox) == Some(&Some(vni)) && !self.list().iter().any(of_another);
        if !kept_for_it && !self.context.vnis.reserve(vni) {
            let missing =
                format!("VXLAN network identifier {vni} is none, or belongs to another sandbox of this node");
            return Err(OrphanError::Missing { sandbox, missing });
        }
        warn!(%sandbox, vni, "adopting a running VM");
        let (reply, answer) = oneshot::channel();
        if !self.claim(&sandbox, |driver| Box::pin(driver.adopt(record, reply))) {
            self.context.vnis.release([vni]);
            return Err(self.taken(&sandbox));
        }
        match answer.await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(self.taken(&sandbox)),
        }
    }

    fn taken(&self, sandbox: &SandboxId) -> OrphanError {
        let failure = if self.ending.begun() {
            Failure::ShuttingDown
        } else {
            Failure::Denied { sandbox: sandbox.clone(), reason: "it got an owner meanwhile".to_owned() }
        };
        OrphanError::Failure(failure.into())
    }

    /// What provider and configuration know of a sandbox without a record. Its network is not among that.
    fn record_of(&self, found: &Found, stage: Stage) -> Record {
        let (context, tag) = (&self.context, |name: &str| {
            found.instance.tags.get(name).cloned().unwrap_or_else(|| "unknown".to_owned())
        });
        Record {
            sandbox: found.key.sandbox.clone(),
            cluster: found.key.cluster.clone(),
            stage,
            request: PodRequest::named(tag("pod"), tag("namespace")),
            netns: PathBuf::new(),
            agent_socket: context.config.agent_socket(&found.key.sandbox),
            vm_name: found.instance.name.clone(),
            vni: 0,
            vxlan_port: context.config.vxlan_port,
            secondary: Vec::new(),
            tunnel: None,
            instance: Some(InstanceRecord {
                id: found.instance.id.clone(),
                addresses: found.instance.addresses.clone(),
            }),
            guest: None,
            whereabouts: None,
            creations_unix_ms: Vec::new(),
            created_unix_ms: context.config.clock.unix_ms(),
            boot_id: context.boot_id.clone(),
            why: None,
        }
    }
}

/// The one VM of a sandbox with the address its tunnel goes to; else what is missing.
fn reachable(judged: &[Judged]) -> Result<(&Judged, IpAddr), String> {
    let [one] = judged else {
        return Err(format!("it has {} VMs, and a sandbox has one; remove them with --remove", judged.len()));
    };
    let instance = &one.found.instance;
    match (instance.state, instance.addresses.first()) {
        (VmState::Running, Some(remote)) => Ok((one, *remote)),
        _ => Err(format!("VM {} does not run, or has no address; remove it with --remove", instance.id)),
    }
}

fn refuse_unless(one: &Judged, may: impl Fn(&Verdict) -> bool) -> Result<(), OrphanError> {
    if may(&one.verdict) {
        return Ok(());
    }
    let sandbox = one.found.key.sandbox.clone();
    Err(OrphanError::Refused {
        vm: one.found.instance.id.clone(),
        reason: one.verdict.advice(&sandbox),
        sandbox,
    })
}

impl Verdict {
    /// Who owns the VM, and what to do when it is to go all the same.
    #[must_use]
    pub fn advice(&self, sandbox: &SandboxId) -> String {
        match self {
            Self::Live(state) => format!(
                "it belongs to a sandbox of this node, which is {state}; end its pod, or run `peerpods sandbox stop {sandbox}`"
            ),
            Self::HeldByShim(why) => format!(
                "this node has no record of it, but {why}: end its pod (or its peerpods-link process, when the pod is gone), or take it back with `peerpods gc adopt {sandbox} --netns … --vni …`"
            ),
            Self::OtherNode(node) => format!(
                "node {node} made it; delete it there, or, if that node is gone for good, run `peerpods gc adopt {sandbox} --remove` here"
            ),
            Self::NoNode => format!(
                "it does not say which node made it; when you are sure that no node uses it, run `peerpods gc adopt {sandbox} --remove`"
            ),
            Self::Orphan => "nobody owns it".to_owned(),
        }
    }
}
