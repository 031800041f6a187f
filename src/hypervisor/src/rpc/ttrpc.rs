//! `hypervisor.Hypervisor` over ttrpc, as both Kata shims speak it.
//!
//! The ttrpc server drops a handler when its caller's deadline passes or its connection closes. That is safe: a handler only waits.

use std::sync::Arc;

use async_trait::async_trait;
use peerpods_proto::ttrpc::hypervisor::{
    CreateVMRequest, CreateVMResponse, StartVMRequest, StartVMResponse, StopVMRequest, StopVMResponse,
    VersionRequest, VersionResponse,
};
use peerpods_proto::ttrpc::hypervisor_ttrpc::{Hypervisor, create_hypervisor};
use tokio::net::UnixStream;
use tokio_stream::Stream;
use ttrpc::asynchronous::transport::Listener;
use ttrpc::asynchronous::{Server, TtrpcContext};

use super::{VERSION, ask, sandbox_id};
use crate::failure::Failure;
use crate::service::Service;

struct Adapter(Service);

/// A server for connections that `mux` found to speak ttrpc.
pub(super) fn server(
    service: Service,
    connections: impl Stream<Item = std::io::Result<UnixStream>> + Send + 'static,
) -> Server {
    Server::new()
        .add_listener(Listener::new(connections))
        .register_service(create_hypervisor(Arc::new(Adapter(service))))
}

#[async_trait]
impl Hypervisor for Adapter {
    async fn create_vm(&self, _: &TtrpcContext, request: CreateVMRequest) -> ttrpc::Result<CreateVMResponse> {
        let ask =
            ask(&request.id, &request.annotations, &request.networkNamespacePath).map_err(|f| status(&f))?;
        let path = self.0.create(ask).await.map_err(|f| status(&f))?;
        let mut response = CreateVMResponse::new();
        response.agentSocketPath = path.display().to_string();
        Ok(response)
    }

    async fn start_vm(&self, _: &TtrpcContext, request: StartVMRequest) -> ttrpc::Result<StartVMResponse> {
        let id = sandbox_id(&request.id).map_err(|f| status(&f))?;
        self.0.start(&id).await.map_err(|f| status(&f))?;
        Ok(StartVMResponse::new())
    }

    async fn stop_vm(&self, _: &TtrpcContext, request: StopVMRequest) -> ttrpc::Result<StopVMResponse> {
        let id = sandbox_id(&request.id).map_err(|f| status(&f))?;
        self.0.stop(&id).await.map_err(|f| status(&f))?;
        Ok(StopVMResponse::new())
    }

    async fn version(&self, _: &TtrpcContext, _: VersionRequest) -> ttrpc::Result<VersionResponse> {
        let mut response = VersionResponse::new();
        VERSION.clone_into(&mut response.version);
        Ok(response)
    }
}

fn status(failure: &Failure) -> ttrpc::Error {
    use crate::failure::StatusCode;
    let code = match failure.code() {
        StatusCode::Cancelled => ttrpc::Code::CANCELLED,
        StatusCode::InvalidArgument => ttrpc::Code::INVALID_ARGUMENT,
        StatusCode::DeadlineExceeded => ttrpc::Code::DEADLINE_EXCEEDED,
        StatusCode::NotFound => ttrpc::Code::NOT_FOUND,
        StatusCode::AlreadyExists => ttrpc::Code::ALREADY_EXISTS,
        StatusCode::PermissionDenied => ttrpc::Code::PERMISSION_DENIED,
        StatusCode::ResourceExhausted => ttrpc::Code::RESOURCE_EXHAUSTED,
        StatusCode::FailedPrecondition => ttrpc::Code::FAILED_PRECONDITION,
        StatusCode::Internal => ttrpc::Code::INTERNAL,
        StatusCode::Unavailable => ttrpc::Code::UNAVAILABLE,
    };
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, failure.chain()))
}
