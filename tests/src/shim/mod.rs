//! The two Kata shims as clients of the hypervisor socket, for every suite: [`GoShim`] and [`RsShim`]; and the admin API beside them.
//!
//! A pod's whole life, with all that a shim says to the agent, is played by [`crate::conformance`] on top of these.

pub mod go;
pub mod rs;
pub mod wire;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use peerpods_proto::grpc;
use peerpods_proto::ttrpc::health::{CheckRequest, HealthCheckResponse};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

pub use go::GoShim;
pub use rs::RsShim;

use wire::{Connection, Method};

/// `grpc.Health/Check`.
pub const CHECK: Method = ("grpc.Health", "Check");

/// The annotations the Go shim always sends, for a pod of this name.
#[must_use]
pub fn annotations(pod: &str) -> HashMap<String, String> {
    let hypervisor = "io.katacontainers.config.hypervisor";
    let mut all = HashMap::from([
        ("io.kubernetes.cri.sandbox-name".to_owned(), pod.to_owned()),
        ("io.kubernetes.cri.sandbox-namespace".to_owned(), "default".to_owned()),
    ]);
    for (key, unset) in [
        ("machine_type", ""),
        ("image", ""),
        ("default_vcpus", "0"),
        ("default_memory", "0"),
        ("cc_init_data", ""),
        ("default_gpus", "0"),
        ("default_gpu_model", ""),
    ] {
        all.insert(format!("{hypervisor}.{key}"), unset.to_owned());
    }
    all
}

/// Health.Check on an agent socket with the Go shim's 30 seconds; answers the status number (1 = serving).
///
/// # Errors
/// When the agent does not answer.
pub async fn check_agent(socket: &Path) -> ttrpc::Result<i32> {
    let agent = Connection::dial(socket).await?;
    let answer: HealthCheckResponse =
        agent.call(CHECK, &CheckRequest::new(), Some(Duration::from_secs(30))).await?;
    Ok(answer.status.value())
}

/// A gRPC channel to a unix socket.
///
/// # Errors
/// When nobody listens there.
pub async fn grpc_channel(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    // The URI is required by the API and never resolved: the connector decides.
    Endpoint::from_static("http://hypervisor.sock").connect_with_connector(connector).await
}

/// The admin API's view of a sandbox, or the status it answered.
///
/// # Errors
/// NOT_FOUND once the sandbox is gone.
pub async fn admin_get(socket: &Path, id: &str) -> Result<grpc::admin::Sandbox, tonic::Status> {
    let channel = grpc_channel(socket).await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
    let mut client = grpc::admin::sandboxes_client::SandboxesClient::new(channel);
    Ok(client.get(grpc::admin::GetRequest { id: id.to_owned() }).await?.into_inner())
}
