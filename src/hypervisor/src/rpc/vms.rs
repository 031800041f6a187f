//! `peerpods.v1.Vms`: every VM of the cluster with what it is to this node, and what a person may have done about it.

use std::time::Duration;

use peerpods_podvm::SandboxId;
use peerpods_podvm::causes::chain;
use peerpods_proto::grpc::admin::adopt_vm_request::Purpose as Asked;
use peerpods_proto::grpc::admin::vms_server::Vms;
use peerpods_proto::grpc::admin::{
    AdoptVmRequest, AdoptVmResponse, DeleteVmRequest, DeleteVmResponse, ListVmsRequest, ListVmsResponse,
    Sweep, Verdict as Word, Vm,
};
use peerpods_provider::{NODE_TAG, VmState};
use tonic::{Code, Request, Response, Status};

use super::grpc::status;
use super::sandbox_id;
use crate::config::Collection;
use crate::failure::Failure;
use crate::orphans::{Earnest, Judged, OrphanError, Purpose, Verdict};
use crate::service::Service;

pub(super) struct Admin(pub(super) Service);

#[tonic::async_trait]
impl Vms for Admin {
    async fn list(&self, _: Request<ListVmsRequest>) -> Result<Response<ListVmsResponse>, Status> {
        let vms = self.0.vms().await.map_err(|e| refused(&e))?;
        let vms = vms.into_iter().map(describe).collect();
        Ok(Response::new(ListVmsResponse { vms, sweep: Some(sweep(&self.0)) }))
    }

    async fn delete(&self, request: Request<DeleteVmRequest>) -> Result<Response<DeleteVmResponse>, Status> {
        let DeleteVmRequest { id, dry_run } = request.into_inner();
        let earnest = if dry_run { Earnest::DryRun } else { Earnest::Real };
        let (sandbox, vms) = self.0.delete_vm(&id, earnest).await.map_err(|e| refused(&e))?;
        Ok(Response::new(DeleteVmResponse { sandbox: sandbox.into(), vms }))
    }

    async fn adopt(&self, request: Request<AdoptVmRequest>) -> Result<Response<AdoptVmResponse>, Status> {
        let AdoptVmRequest { sandbox, purpose } = request.into_inner();
        let (sandbox, purpose) = asked(&sandbox, purpose).map_err(|f| status(&f))?;
        let (sandbox, vms) = self.0.adopt_vm(&sandbox, purpose).await.map_err(|e| refused(&e))?;
        Ok(Response::new(AdoptVmResponse { sandbox: sandbox.into(), vms }))
    }
}

fn asked(sandbox: &str, purpose: Option<Asked>) -> Result<(SandboxId, Purpose), Failure> {
    let sandbox = sandbox_id(sandbox)?;
    match purpose {
        Some(Asked::Run(run)) => Ok((sandbox, Purpose::Run { netns: run.netns.into(), vni: run.vni })),
        Some(Asked::Remove(_)) => Ok((sandbox, Purpose::Remove)),
        None => Err(Failure::Invalid(format!("adopting sandbox {sandbox} needs a purpose: run or remove"))),
    }
}

fn refused(error: &OrphanError) -> Status {
    Status::new(Code::from(error.code() as i32), chain(error))
}

fn describe(judged: Judged) -> Vm {
    let Judged { found, verdict, suspicion, due_in } = judged;
    let reason = verdict.advice(&found.key.sandbox);
    let seen_for = suspicion.map_or(Duration::ZERO, |seen| seen.since.elapsed());
    Vm {
        id: found.instance.id,
        name: found.instance.name,
        sandbox: found.key.sandbox.into(),
        node: found.instance.tags.get(NODE_TAG).cloned().unwrap_or_default(),
        state: state(found.instance.state).to_owned(),
        addresses: found.instance.addresses.iter().map(ToString::to_string).collect(),
        verdict: word(&verdict).into(),
        reason,
        seen_for_ms: millis(seen_for),
        passes: suspicion.map_or(0, |seen| seen.passes),
        due_in_ms: due_in.map(millis),
    }
}

fn word(verdict: &Verdict) -> Word {
    match verdict {
        Verdict::Live(_) => Word::Live,
        Verdict::HeldByShim(_) => Word::HeldByShim,
        Verdict::OtherNode(_) => Word::OtherNode,
        Verdict::NoNode => Word::NoNode,
        Verdict::Orphan => Word::Orphan,
    }
}

fn state(state: VmState) -> &'static str {
    match state {
        VmState::Pending => "pending",
        VmState::Running => "running",
        VmState::Stopped => "stopped",
    }
}

fn sweep(service: &Service) -> Sweep {
    let counters = service.orphans.counters();
    let mode = match service.context.config.gc {
        Collection::Off => "off",
        Collection::DryRun => "dry-run",
        Collection::On => "on",
    };
    Sweep {
        mode: mode.to_owned(),
        passes: counters.passes,
        failed_passes: counters.failed_passes,
        collected: counters.collected,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
