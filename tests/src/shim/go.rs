//! The Go shim's hypervisor client (`virtcontainers/remote.go`): a new connection for every call, closed without ceremony; CreateVM and
//! StopVM without a deadline, StartVM with ten minutes and from inside the pod's network namespace.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use peerpods_proto::ttrpc::hypervisor::{
    CreateVMRequest, CreateVMResponse, StartVMRequest, StartVMResponse, StopVMRequest, StopVMResponse,
    VersionRequest, VersionResponse,
};

use super::annotations;
use super::wire::{CallError, Connection, Method};

/// `hypervisor.Hypervisor/CreateVM`.
pub const CREATE_VM: Method = ("hypervisor.Hypervisor", "CreateVM");
/// `hypervisor.Hypervisor/StartVM`.
pub const START_VM: Method = ("hypervisor.Hypervisor", "StartVM");
/// `hypervisor.Hypervisor/StopVM`.
pub const STOP_VM: Method = ("hypervisor.Hypervisor", "StopVM");
/// `hypervisor.Hypervisor/Version`.
pub const VERSION: Method = ("hypervisor.Hypervisor", "Version");

/// `remote_hypervisor_timeout`, which bounds StartVM alone.
pub const START_DEADLINE: Duration = Duration::from_secs(600);

/// The pair of metadata that containerd's namespace puts into every request of the shim, to us and to the agent; the one StartVM has a
/// context of its own, and goes without.
pub const NAMESPACE: (&str, &str) = ("containerd-namespace-ttrpc", "k8s.io");

/// A CreateVM request.
#[must_use]
pub fn create_request(id: &str, netns: &Path, annotations: HashMap<String, String>) -> CreateVMRequest {
    CreateVMRequest {
        id: id.to_owned(),
        annotations,
        networkNamespacePath: netns.display().to_string(),
        ..CreateVMRequest::default()
    }
}

/// A StartVM request.
#[must_use]
pub fn start_request(id: &str) -> StartVMRequest {
    StartVMRequest { id: id.to_owned(), ..StartVMRequest::default() }
}

/// A StopVM request.
#[must_use]
pub fn stop_request(id: &str) -> StopVMRequest {
    StopVMRequest { id: id.to_owned(), ..StopVMRequest::default() }
}

/// A client that dials anew for every call.
#[derive(Debug, Clone)]
pub struct GoShim {
    socket: PathBuf,
}

impl GoShim {
    /// A shim that will call `socket`.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The connection of one call.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn dial(&self) -> Result<Connection, CallError> {
        Ok(Connection::dial(&self.socket).await?.marked(NAMESPACE.0, NAMESPACE.1))
    }

    /// CreateVM for a pod named after nothing in particular; answers the agent socket.
    ///
    /// # Errors
    /// The service's own.
    pub async fn create(&self, id: &str, netns: &Path) -> ttrpc::Result<PathBuf> {
        self.create_with(id, netns, annotations("web")).await
    }

    /// CreateVM with these annotations.
    ///
    /// # Errors
    /// The service's own.
    pub async fn create_with(
        &self,
        id: &str,
        netns: &Path,
        annotations: HashMap<String, String>,
    ) -> ttrpc::Result<PathBuf> {
        let request = create_request(id, netns, annotations);
        let answer: CreateVMResponse = self.dial().await?.call(CREATE_VM, &request, None).await?;
        Ok(answer.agentSocketPath.into())
    }

    /// StartVM from wherever the caller is, so that it can be called off by dropping it.
    ///
    /// # Errors
    /// The service's own.
    pub async fn start(&self, id: &str) -> ttrpc::Result<()> {
        let connection = self.dial().await?;
        let answer: Result<StartVMResponse, _> =
            connection.call(START_VM, &start_request(id), Some(START_DEADLINE)).await;
        Ok(answer.map(drop)?)
    }

    /// StopVM.
    ///
    /// # Errors
    /// The service's own.
    pub async fn stop(&self, id: &str) -> ttrpc::Result<()> {
        let answer: Result<StopVMResponse, _> =
            self.dial().await?.call(STOP_VM, &stop_request(id), None).await;
        Ok(answer.map(drop)?)
    }

    /// Version, which shims never ask for.
    ///
    /// # Errors
    /// The service's own.
    pub async fn version(&self) -> ttrpc::Result<String> {
        let within = Some(Duration::from_secs(5));
        let answer: VersionResponse =
            self.dial().await?.call(VERSION, &VersionRequest::new(), within).await?;
        Ok(answer.version)
    }
}

/// A connection to `socket` that was made from inside a network namespace, as the Go shim makes the one for StartVM.
///
/// # Errors
/// When the namespace cannot be entered, or nobody listens.
pub async fn dial_from(netns: &Path, socket: &Path) -> Result<Connection, CallError> {
    let (netns, socket) = (netns.to_owned(), socket.to_owned());
    let dialled = tokio::task::spawn_blocking(move || {
        // A thread of its own: its namespace is not given back.
        let inside = std::thread::spawn(move || {
            setns(std::fs::File::open(&netns)?, CloneFlags::CLONE_NEWNET)?;
            std::os::unix::net::UnixStream::connect(&socket)
        });
        inside.join().unwrap_or_else(|_| Err(std::io::Error::other("the thread ended")))
    });
    let failed = |e: std::io::Error| CallError::Dial(e.to_string());
    let stream = dialled.await.map_err(|e| CallError::Dial(e.to_string()))?.map_err(failed)?;
    stream.set_nonblocking(true).map_err(failed)?;
    Ok(Connection::over(tokio::net::UnixStream::from_std(stream).map_err(failed)?))
}
