//! The shim as a client: what the Go shim calls and how (a new connection for every call).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use peerpods_proto::grpc;
use peerpods_proto::ttrpc::health::CheckRequest;
use peerpods_proto::ttrpc::health_ttrpc::HealthClient;
use peerpods_proto::ttrpc::hypervisor::{CreateVMRequest, StartVMRequest, StopVMRequest, VersionRequest};
use peerpods_proto::ttrpc::hypervisor_ttrpc::HypervisorClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use ttrpc::asynchronous::Client;
use ttrpc::context::{self, Context};

/// A client that dials anew for every call, like the Go shim.
#[derive(Debug, Clone)]
pub struct GoShim {
    socket: PathBuf,
}

/// The annotations a shim always sends, for a pod of this name.
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

/// A context with the shim's own deadline, in seconds.
fn within(seconds: i64) -> Context {
    context::with_timeout(seconds * 1_000_000_000)
}

impl GoShim {
    /// A shim that will call `socket`.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    async fn dial(&self) -> ttrpc::Result<HypervisorClient> {
        let address = format!("unix://{}", self.socket.display());
        Ok(HypervisorClient::new(
            Client::connect(&address).await.map_err(|e| ttrpc::Error::Others(e.to_string()))?,
        ))
    }

    /// A connection that is kept for several calls, like runtime-rs keeps its one.
    pub async fn hold(&self) -> ttrpc::Result<HeldShim> {
        Ok(HeldShim(self.dial().await?))
    }

    /// CreateVM for a pod named after the sandbox; answers the agent socket.
    pub async fn create(&self, id: &str, netns: &Path) -> ttrpc::Result<PathBuf> {
        self.create_with(id, netns, annotations("web")).await
    }

    /// CreateVM with these annotations.
    pub async fn create_with(
        &self,
        id: &str,
        netns: &Path,
        annotations: HashMap<String, String>,
    ) -> ttrpc::Result<PathBuf> {
        let mut request = CreateVMRequest::new();
        id.clone_into(&mut request.id);
        request.networkNamespacePath = netns.display().to_string();
        request.annotations = annotations;
        let answer = self.dial().await?.create_vm(Context::default(), &request).await?;
        Ok(answer.agentSocketPath.into())
    }

    /// StartVM with the Go shim's ten minutes.
    pub async fn start(&self, id: &str) -> ttrpc::Result<()> {
        let mut request = StartVMRequest::new();
        id.clone_into(&mut request.id);
        self.dial().await?.start_vm(within(600), &request).await.map(drop)
    }

    /// StopVM without a deadline.
    pub async fn stop(&self, id: &str) -> ttrpc::Result<()> {
        let mut request = StopVMRequest::new();
        id.clone_into(&mut request.id);
        self.dial().await?.stop_vm(Context::default(), &request).await.map(drop)
    }

    /// Version.
    pub async fn version(&self) -> ttrpc::Result<String> {
        Ok(self.dial().await?.version(within(5), &VersionRequest::new()).await?.version)
    }
}

/// A shim with one connection.
pub struct HeldShim(HypervisorClient);

impl HeldShim {
    /// StopVM without a deadline.
    ///
    /// # Errors
    /// The service's own.
    pub async fn stop(&self, id: &str) -> ttrpc::Result<()> {
        let mut request = StopVMRequest::new();
        id.clone_into(&mut request.id);
        self.0.stop_vm(Context::default(), &request).await.map(drop)
    }

    /// Version.
    ///
    /// # Errors
    /// The service's own.
    pub async fn version(&self) -> ttrpc::Result<String> {
        Ok(self.0.version(within(5), &VersionRequest::new()).await?.version)
    }
}

/// Health.Check on an agent socket with the shim's 30 seconds; answers the status number (1 = serving).
///
/// # Errors
/// When the agent does not answer.
pub async fn check_agent(socket: &Path) -> ttrpc::Result<i32> {
    let address = format!("unix://{}", socket.display());
    let client = Client::connect(&address).await.map_err(|e| ttrpc::Error::Others(e.to_string()))?;
    let answer = HealthClient::new(client).check(within(30), &CheckRequest::new()).await?;
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
