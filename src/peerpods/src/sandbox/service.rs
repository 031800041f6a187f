//! The node service as the shim sees it (ttrpc, a new connection per call, like the Go shim) and as its operator does (gRPC).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use peerpods_podvm::SandboxId;
use peerpods_proto::grpc::admin::sandboxes_client::SandboxesClient;
use peerpods_proto::grpc::admin::{GetRequest, ListRequest, Sandbox};
use peerpods_proto::ttrpc::hypervisor::{CreateVMRequest, StartVMRequest, StopVMRequest, VersionRequest};
use peerpods_proto::ttrpc::hypervisor_ttrpc::HypervisorClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context::{self, Context};

use super::error::SandboxError;

/// The node service behind one socket.
#[derive(Debug, Clone)]
pub struct Service {
    socket: PathBuf,
}

/// Calls that are answered at once; generous, because the machine may be busy.
const QUICK: Duration = Duration::from_secs(60);

impl Service {
    /// The service on `socket`; nothing is connected yet.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `CreateVM`; answers the agent socket's path.
    ///
    /// # Errors
    /// When the service is not there or refuses.
    pub async fn create_vm(
        &self,
        id: &SandboxId,
        netns: &Path,
        annotations: HashMap<String, String>,
    ) -> Result<PathBuf, SandboxError> {
        let request = CreateVMRequest {
            id: id.to_string(),
            annotations,
            networkNamespacePath: netns.display().to_string(),
            ..CreateVMRequest::default()
        };
        let answer = self.shim().await?.create_vm(quick(), &request).await;
        let path = answer.map_err(|error| refused("CreateVM", id, &error))?.agentSocketPath;
        if path.is_empty() {
            let reason = "the answer has no agent socket".to_owned();
            return Err(SandboxError::Refused { call: "CreateVM", id: id.clone(), reason });
        }
        Ok(path.into())
    }

    /// `StartVM`; returns when the agent answers. Dropping the future withdraws the request.
    ///
    /// # Errors
    /// When the service is not there, refuses, or `deadline` passes.
    pub async fn start_vm(&self, id: &SandboxId, deadline: Duration) -> Result<(), SandboxError> {
        let request = StartVMRequest { id: id.to_string(), ..StartVMRequest::default() };
        let answer = self.shim().await?.start_vm(context::with_duration(deadline), &request).await;
        answer.map(|_| ()).map_err(|error| refused("StartVM", id, &error))
    }

    /// `StopVM`; returns as soon as the wish is recorded. Ok for a sandbox nobody knows.
    ///
    /// # Errors
    /// When the service is not there or refuses.
    pub async fn stop_vm(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let request = StopVMRequest { id: id.to_string(), ..StopVMRequest::default() };
        let answer = self.shim().await?.stop_vm(quick(), &request).await;
        answer.map(|_| ()).map_err(|error| refused("StopVM", id, &error))
    }

    /// `Version`.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn version(&self) -> Result<String, SandboxError> {
        let request = VersionRequest { version: "0.0.0".to_owned(), ..VersionRequest::default() };
        let short = context::with_duration(Duration::from_secs(5));
        let answer = self.shim().await?.version(short, &request).await;
        answer.map(|answer| answer.version).map_err(|error| self.unreachable(error))
    }

    /// Every sandbox the service knows.
    ///
    /// # Errors
    /// When the service is not there or refuses.
    pub async fn list(&self) -> Result<Vec<Sandbox>, SandboxError> {
        let answer = self.operator().await?.list(ListRequest {}).await;
        let failed = |status: tonic::Status| SandboxError::List {
            socket: self.socket.clone(),
            reason: status.message().to_owned(),
        };
        Ok(answer.map_err(failed)?.into_inner().sandboxes)
    }

    /// One sandbox; `None` when the service does not know it.
    ///
    /// # Errors
    /// When the service is not there or refuses.
    pub async fn get(&self, id: &SandboxId) -> Result<Option<Sandbox>, SandboxError> {
        match self.operator().await?.get(GetRequest { id: id.to_string() }).await {
            Ok(answer) => Ok(Some(answer.into_inner())),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
            Err(status) => {
                let reason = status.message().to_owned();
                Err(SandboxError::Refused { call: "Get", id: id.clone(), reason })
            }
        }
    }

    async fn shim(&self) -> Result<HypervisorClient, SandboxError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(error))?;
        Ok(HypervisorClient::new(ttrpc::asynchronous::Client::new(Socket::new(stream))))
    }

    async fn operator(&self) -> Result<SandboxesClient<Channel>, SandboxError> {
        Ok(SandboxesClient::new(self.channel().await?))
    }

    /// A gRPC connection, for the admin API.
    ///
    /// # Errors
    /// When the service is not there.
    pub async fn channel(&self) -> Result<Channel, SandboxError> {
        let socket = self.socket.clone();
        let connector = service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The name only fills the request's authority; the connector decides where it goes.
        let endpoint = Endpoint::from_static("http://peerpods").timeout(QUICK);
        let channel = endpoint.connect_with_connector(connector).await;
        channel.map_err(|error| self.unreachable(error))
    }

    fn unreachable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SandboxError {
        SandboxError::Unreachable { socket: self.socket.clone(), source: source.into() }
    }
}

fn quick() -> Context {
    context::with_duration(QUICK)
}

fn refused(call: &'static str, id: &SandboxId, error: &ttrpc::Error) -> SandboxError {
    SandboxError::Refused { call, id: id.clone(), reason: reason(error) }
}

/// What an error of ttrpc says, without the library's own frame around the peer's sentence.
#[must_use]
pub fn reason(error: &ttrpc::Error) -> String {
    match error {
        ttrpc::Error::RpcStatus(status) => {
            format!("{} ({:?})", without_stack(status.message()), status.code())
        }
        ttrpc::Error::RemoteClosed | ttrpc::Error::Eof => {
            "the connection was closed before the answer".to_owned()
        }
        other => other.to_string(),
    }
}

/// A peer's sentence without the stack it was said on, which the kata-agent appends to its errors and which helps nobody here.
fn without_stack(message: &str) -> &str {
    message.split_once("Stack backtrace:").map_or(message, |(sentence, _)| sentence).trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_no_part_of_a_reason() {
        let told = "cannot mount\n\nCaused by:\n    EINVAL\n\nStack backtrace:\n   0: <unknown>\n   1: eof";
        assert_eq!(without_stack(told), "cannot mount\n\nCaused by:\n    EINVAL");
        assert_eq!(without_stack("no such program"), "no such program");
        let error = ttrpc::Error::RpcStatus(ttrpc::get_status(ttrpc::Code::INTERNAL, told));
        assert_eq!(reason(&error), "cannot mount\n\nCaused by:\n    EINVAL (INTERNAL)");
    }
}
