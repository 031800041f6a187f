//! `hypervisor.Hypervisor` over gRPC, on the socket the shim uses, together with our admin API.

use peerpods_proto::grpc::admin::sandboxes_server::SandboxesServer;
use peerpods_proto::grpc::admin::vms_server::VmsServer;
use peerpods_proto::grpc::hypervisor::hypervisor_server::{Hypervisor, HypervisorServer};
use peerpods_proto::grpc::hypervisor::{
    CreateVmRequest, CreateVmResponse, StartVmRequest, StartVmResponse, StopVmRequest, StopVmResponse,
    VersionRequest, VersionResponse,
};
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Code, Request, Response, Status};

use super::admin::Admin;
use super::{VERSION, ask, sandbox_id};
use crate::failure::Failure;
use crate::service::Service;

struct Adapter(Service);

/// The gRPC services, ready to be given connections.
pub(super) fn router(service: Service) -> Router {
    Server::builder()
        .add_service(HypervisorServer::new(Adapter(service.clone())))
        .add_service(SandboxesServer::new(Admin(service.clone())))
        .add_service(VmsServer::new(super::vms::Admin(service)))
}

#[tonic::async_trait]
impl Hypervisor for Adapter {
    async fn create_vm(
        &self,
        request: Request<CreateVmRequest>,
    ) -> Result<Response<CreateVmResponse>, Status> {
        let request = request.into_inner();
        let ask = ask(&request.id, &request.annotations, &request.network_namespace_path)
            .map_err(|f| status(&f))?;
        let path = self.0.create(ask).await.map_err(|f| status(&f))?;
        Ok(Response::new(CreateVmResponse { agent_socket_path: path.display().to_string() }))
    }

    async fn start_vm(&self, request: Request<StartVmRequest>) -> Result<Response<StartVmResponse>, Status> {
        let id = sandbox_id(&request.into_inner().id).map_err(|f| status(&f))?;
        self.0.start(&id).await.map_err(|f| status(&f))?;
        Ok(Response::new(StartVmResponse {}))
    }

    async fn stop_vm(&self, request: Request<StopVmRequest>) -> Result<Response<StopVmResponse>, Status> {
        let id = sandbox_id(&request.into_inner().id).map_err(|f| status(&f))?;
        self.0.stop(&id).await.map_err(|f| status(&f))?;
        Ok(Response::new(StopVmResponse {}))
    }

    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse { version: VERSION.to_owned() }))
    }
}

/// gRPC's numbers are the shared ones.
pub(super) fn status(failure: &Failure) -> Status {
    Status::new(Code::from(failure.code() as i32), failure.chain())
}
