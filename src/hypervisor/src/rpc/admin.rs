//! `peerpods.v1.Sandboxes`: what the service knows of its sandboxes, for people and tools. Reads only.

use std::time::Duration;

use peerpods_podvm::SandboxId;
use peerpods_proto::grpc::admin::sandboxes_server::Sandboxes;
use peerpods_proto::grpc::admin::{GetRequest, ListRequest, ListResponse, Phase, Sandbox, Trouble};
use tonic::{Request, Response, Status};

use super::grpc::status;
use super::sandbox_id;
use crate::failure::Failure;
use crate::record::GuestForm;
use crate::service::Service;
use crate::state::Published;

pub(super) struct Admin(pub(super) Service);

#[tonic::async_trait]
impl Sandboxes for Admin {
    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let provider = self.0.provider();
        let sandboxes = self.0.list().into_iter().map(|(id, published)| describe(id, published, provider));
        Ok(Response::new(ListResponse { sandboxes: sandboxes.collect() }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Sandbox>, Status> {
        let id = sandbox_id(&request.into_inner().id).map_err(|f| status(&f))?;
        match self.0.get(&id) {
            Some(published) => Ok(Response::new(describe(id, published, self.0.provider()))),
            None => Err(status(&Failure::Unknown(id))),
        }
    }
}

fn describe(id: SandboxId, published: Published, provider: &str) -> Sandbox {
    let mut sandbox = Sandbox {
        id: id.into(),
        state: published.state.to_string(),
        provider: provider.to_owned(),
        failure: published.failure.map(|failure| failure.chain()).unwrap_or_default(),
        phases: published.phases.into_iter().map(phase).collect(),
        console: published.console.unwrap_or_default(),
        troubles: published.troubles.into_iter().map(trouble).collect(),
        ..Sandbox::default()
    };
    if let Some(record) = published.record {
        sandbox.pod_name = record.request.pod_name;
        sandbox.pod_namespace = record.request.pod_namespace;
        sandbox.vm_name = record.vm_name;
        sandbox.netns = record.netns.display().to_string();
        sandbox.agent_socket = record.agent_socket.display().to_string();
        sandbox.created_unix_ms = record.created_unix_ms;
        sandbox.vni = record.vni;
        sandbox.guest_identity = record.guest.map_or("", GuestForm::name).to_owned();
        if let Some(instance) = record.instance {
            sandbox.vm_id = instance.id;
            sandbox.addresses = instance.addresses.iter().map(ToString::to_string).collect();
        }
    }
    sandbox
}

fn phase(phase: crate::state::Phase) -> Phase {
    Phase {
        name: phase.name.to_owned(),
        start_us: micros(phase.start),
        took_us: micros(phase.took),
        detail: phase.detail,
    }
}

fn trouble(trouble: crate::state::Trouble) -> Trouble {
    Trouble {
        step: trouble.step.to_owned(),
        tries: trouble.tries,
        error: trouble.error,
        for_ms: u64::try_from(trouble.since.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
