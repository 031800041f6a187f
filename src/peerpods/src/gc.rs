//! The VMs of the cluster as the node service judges them, and what can be done about those nobody owns. Decides nothing: who owns a
//! VM is the service's answer.

use std::time::Duration;

pub use peerpods_hypervisor::orphans::{Earnest, Purpose};
use peerpods_podvm::{IdError, SandboxId};
use peerpods_proto::grpc::admin::adopt_vm_request::Purpose as Asked;
use peerpods_proto::grpc::admin::vms_client::VmsClient;
use peerpods_proto::grpc::admin::{
    AdoptVmRequest, DeleteVmRequest, ListVmsRequest, ListVmsResponse, Remove, Run, Sandbox, Verdict,
};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use crate::sandbox::SandboxError;
use crate::sandbox::service::Service;

/// How often the service is asked whether a VM is gone.
const POLL: Duration = Duration::from_millis(250);

/// Why a `gc` command failed.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// The node service could not be asked.
    #[error(transparent)]
    Service(#[from] SandboxError),
    /// The node service refused.
    #[error("{0}")]
    Refused(String),
    /// The node service answered nonsense.
    #[error("the node service answered a sandbox id that is none")]
    Answer(#[from] IdError),
    /// Nobody could be asked whether it is meant.
    #[error(
        "stdin is no terminal, so nobody can be asked; --yes deletes without asking, --dry-run shows what would go"
    )]
    NobodyToAsk,
    /// Stdin or stderr failed.
    #[error("cannot ask on this terminal")]
    Terminal(#[from] std::io::Error),
    /// It takes longer than was waited for.
    #[error(
        "sandbox {sandbox} is still {state} after {after:?}{trouble}; the node service goes on, `peerpods sandbox list` shows how"
    )]
    StillThere {
        /// The sandbox.
        sandbox: SandboxId,
        /// Where it is in its life.
        state: String,
        /// How long it was waited for.
        after: Duration,
        /// What fails, or nothing.
        trouble: String,
    },
}

/// What went, or goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The provider's ids of its VMs.
    pub vms: Vec<String>,
}

/// The node service's VMs.
#[derive(Debug, Clone)]
pub struct Vms {
    service: Service,
}

impl Vms {
    /// Behind a service; nothing is connected yet.
    #[must_use]
    pub fn new(service: Service) -> Self {
        Self { service }
    }

    async fn client(&self) -> Result<VmsClient<Channel>, GcError> {
        Ok(VmsClient::new(self.service.channel().await?))
    }

    /// Every VM with its verdict, and what the sweep did.
    ///
    /// # Errors
    /// When service or provider cannot be asked.
    pub async fn list(&self) -> Result<ListVmsResponse, GcError> {
        let answer = self.client().await?.list(ListVmsRequest {}).await;
        Ok(answer.map_err(|status| refused(&status))?.into_inner())
    }

    /// The sandboxes of all orphans, each once.
    ///
    /// # Errors
    /// When service or provider cannot be asked.
    pub async fn orphans(&self) -> Result<Vec<String>, GcError> {
        let orphans = self.list().await?.vms.into_iter().filter(|vm| vm.verdict() == Verdict::Orphan);
        let mut sandboxes: Vec<String> = orphans.map(|vm| vm.sandbox).collect();
        sandboxes.sort();
        sandboxes.dedup();
        Ok(sandboxes)
    }

    /// Has the VMs of `id` removed; returns when that is under way.
    ///
    /// # Errors
    /// When somebody owns one of them.
    pub async fn delete(&self, id: &str, earnest: Earnest) -> Result<Taken, GcError> {
        let request = DeleteVmRequest { id: id.to_owned(), dry_run: earnest == Earnest::DryRun };
        let answer = self.client().await?.delete(request).await.map_err(|status| refused(&status))?;
        let answer = answer.into_inner();
        Ok(Taken { sandbox: answer.sandbox.parse()?, vms: answer.vms })
    }

    /// Has a VM adopted; returns when that is recorded.
    ///
    /// # Errors
    /// When it has an owner, or something is missing.
    pub async fn adopt(&self, sandbox: &SandboxId, purpose: Purpose) -> Result<Taken, GcError> {
        let purpose = match purpose {
            Purpose::Run { netns, vni } => Asked::Run(Run { netns: netns.display().to_string(), vni }),
            Purpose::Remove => Asked::Remove(Remove {}),
        };
        let request = AdoptVmRequest { sandbox: sandbox.to_string(), purpose: Some(purpose) };
        let answer = self.client().await?.adopt(request).await.map_err(|status| refused(&status))?;
        let answer = answer.into_inner();
        Ok(Taken { sandbox: answer.sandbox.parse()?, vms: answer.vms })
    }

    /// Waits until the service no longer knows the sandbox: its provider confirmed that the VM is gone. What fails meanwhile is told.
    ///
    /// # Errors
    /// [`GcError::StillThere`] after `timeout`.
    pub async fn wait_gone(
        &self,
        sandbox: &SandboxId,
        timeout: Duration,
        progress: impl Fn(&str),
    ) -> Result<(), GcError> {
        let until = Instant::now() + timeout;
        let mut told = String::new();
        loop {
            let Some(seen) = self.service.get(sandbox).await? else { return Ok(()) };
            let trouble = trouble(&seen);
            if trouble != told {
                progress(&format!("{sandbox} is {}{trouble}", seen.state));
                told.clone_from(&trouble);
            }
            if Instant::now() >= until {
                let (sandbox, state) = (sandbox.clone(), seen.state);
                return Err(GcError::StillThere { sandbox, state, after: timeout, trouble });
            }
            sleep(POLL).await;
        }
    }
}

/// What fails now, as the end of a sentence.
fn trouble(seen: &Sandbox) -> String {
    let one = |t: &peerpods_proto::grpc::admin::Trouble| {
        format!(" (cannot {}, tried {} times, last: {})", t.step, t.tries, t.error)
    };
    seen.troubles.iter().map(one).collect()
}

fn refused(status: &tonic::Status) -> GcError {
    GcError::Refused(status.message().to_owned())
}
