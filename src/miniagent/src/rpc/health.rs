//! `grpc.Health`.

use async_trait::async_trait;
use peerpods_proto::ttrpc::health::{
    CheckRequest, HealthCheckResponse, VersionCheckResponse, health_check_response,
};
use peerpods_proto::ttrpc::health_ttrpc::Health;
use ttrpc::r#async::TtrpcContext;

/// The version of the agent's API; the kata-agent has told this one since it began.
const API_VERSION: &str = "0.0.1";

/// Always well: who can answer is.
pub(super) struct Answering;

#[async_trait]
impl Health for Answering {
    async fn check(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<HealthCheckResponse> {
        let status = health_check_response::ServingStatus::SERVING.into();
        Ok(HealthCheckResponse { status, ..Default::default() })
    }

    async fn version(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<VersionCheckResponse> {
        Ok(VersionCheckResponse {
            grpc_version: API_VERSION.into(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            ..Default::default()
        })
    }
}
