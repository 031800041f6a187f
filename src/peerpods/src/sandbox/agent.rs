//! The agent behind a sandbox's agent socket: one connection, carrying any number of calls at once.

use std::path::Path;
use std::time::Duration;

use peerpods_podvm::SandboxId;
use peerpods_proto::ttrpc::agent::{
    CloseStdinRequest, ReadStreamRequest, SignalProcessRequest, StartContainerRequest, TtyWinResizeRequest,
    WaitProcessRequest, WriteStreamRequest,
};
use peerpods_proto::ttrpc::agent_ttrpc::AgentServiceClient;
use tokio::net::UnixStream;
use ttrpc::asynchronous::Client;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::context::{self, Context};

use super::error::SandboxError;
use super::service;
use super::spec::{self, CommandSpec, ContainerSpec, Size};

/// What shims give calls that do not wait for a process.
const CALL: Duration = Duration::from_secs(60);

/// Bytes asked for at once, as shims do.
const CHUNK: u32 = 32 * 1024;

/// A process in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessId {
    /// The container.
    pub container: String,
    /// The process within it; a container's first process has the container's id.
    pub exec: String,
}

/// One of a process's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, and everything when there is a terminal.
    Out,
    /// Standard error.
    Err,
}

/// A connection to a sandbox's agent.
#[derive(Clone)]
pub struct Agent {
    id: SandboxId,
    client: AgentServiceClient,
}

impl Agent {
    /// Connects to the agent socket of a sandbox.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(id: &SandboxId, socket: &Path) -> Result<Self, SandboxError> {
        let stream = UnixStream::connect(socket).await.map_err(|source| SandboxError::AgentSocket {
            id: id.clone(),
            socket: socket.to_owned(),
            source,
        })?;
        let client = AgentServiceClient::new(Client::new(Socket::new(stream)));
        Ok(Self { id: id.clone(), client })
    }

    /// Opens the sandbox in the agent. Only once: the agent wipes its directory.
    ///
    /// # Errors
    /// What the agent said.
    pub async fn create_sandbox(&self, hostname: &str) -> Result<(), SandboxError> {
        let request = spec::create_sandbox(&self.id, hostname);
        let answer = self.client.create_sandbox(call(), &request).await;
        answer.map(drop).map_err(|error| self.failed("CreateSandbox", &error))
    }

    /// Makes a container; its process waits for [`Agent::start_container`].
    ///
    /// # Errors
    /// What the agent said.
    pub async fn create_container(&self, container: &ContainerSpec) -> Result<ProcessId, SandboxError> {
        let request = spec::create_container(container);
        let answer = self.client.create_container(call(), &request).await;
        answer.map_err(|error| self.failed("CreateContainer", &error))?;
        Ok(ProcessId { container: container.id.to_string(), exec: container.id.to_string() })
    }

    /// Lets a container's process run.
    ///
    /// # Errors
    /// What the agent said.
    pub async fn start_container(&self, process: &ProcessId) -> Result<(), SandboxError> {
        let request = StartContainerRequest {
            container_id: process.container.clone(),
            ..StartContainerRequest::default()
        };
        let answer = self.client.start_container(call(), &request).await;
        answer.map(drop).map_err(|error| self.failed("StartContainer", &error))
    }

    /// Runs a further command in a container.
    ///
    /// # Errors
    /// What the agent said, such as that there is no such program.
    pub async fn exec(&self, process: &ProcessId, command: &CommandSpec) -> Result<(), SandboxError> {
        let request = spec::exec(&process.container, &process.exec, command);
        let answer = self.client.exec_process(call(), &request).await;
        answer.map(drop).map_err(|error| self.failed("ExecProcess", &error))
    }

    /// Waits for output; empty at its end.
    ///
    /// # Errors
    /// When the connection ends first.
    pub async fn read(&self, process: &ProcessId, stream: Stream) -> Result<Vec<u8>, SandboxError> {
        let request = ReadStreamRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            len: CHUNK,
            ..ReadStreamRequest::default()
        };
        let (name, answer) = match stream {
            Stream::Out => ("ReadStdout", self.client.read_stdout(Context::default(), &request).await),
            Stream::Err => ("ReadStderr", self.client.read_stderr(Context::default(), &request).await),
        };
        match answer {
            Ok(answer) => Ok(answer.data),
            // What the agent itself says is the end, as for shims: the kata-agent answers so when a terminal's last user is gone
            // (EIO), old ones at the end of any stream. What became of the process, WaitProcess knows.
            Err(error @ ttrpc::Error::RpcStatus(_)) => {
                tracing::debug!(call = name, error = %service::reason(&error), "end of output");
                Ok(Vec::new())
            }
            Err(error) => Err(self.failed(name, &error)),
        }
    }

    /// Passes all of `data` to a process's stdin.
    ///
    /// # Errors
    /// When the process does not take it (any more).
    pub async fn write(&self, process: &ProcessId, mut data: &[u8]) -> Result<(), SandboxError> {
        while !data.is_empty() {
            let request = WriteStreamRequest {
                container_id: process.container.clone(),
                exec_id: process.exec.clone(),
                data: data.to_vec(),
                ..WriteStreamRequest::default()
            };
            let answer = self.client.write_stdin(Context::default(), &request).await;
            let taken = answer.map_err(|error| self.failed("WriteStdin", &error))?.len;
            // An agent that takes nothing will take nothing the next time either.
            let taken = usize::try_from(taken).unwrap_or(0).max(1);
            data = data.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Ends the stdin of a process without terminal. With one, the kata-agent would end its output as well.
    ///
    /// # Errors
    /// What the agent said.
    pub async fn close_stdin(&self, process: &ProcessId) -> Result<(), SandboxError> {
        let request = CloseStdinRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            ..CloseStdinRequest::default()
        };
        let answer = self.client.close_stdin(call(), &request).await;
        answer.map(drop).map_err(|error| self.failed("CloseStdin", &error))
    }

    /// Sends a signal to a process.
    ///
    /// # Errors
    /// What the agent said.
    pub async fn signal(&self, process: &ProcessId, signal: i32) -> Result<(), SandboxError> {
        let request = SignalProcessRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            signal: u32::try_from(signal).unwrap_or_default(),
            ..SignalProcessRequest::default()
        };
        let answer = self.client.signal_process(call(), &request).await;
        answer.map(drop).map_err(|error| self.failed("SignalProcess", &error))
    }

    /// Tells a process's terminal its size.
    ///
    /// # Errors
    /// What the agent said.
    pub async fn resize(&self, process: &ProcessId, size: Size) -> Result<(), SandboxError> {
        let request = TtyWinResizeRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            row: size.rows.into(),
            column: size.columns.into(),
            ..TtyWinResizeRequest::default()
        };
        let answer = self.client.tty_win_resize(call(), &request).await;
        answer.map(drop).map_err(|error| self.failed("TtyWinResize", &error))
    }

    /// Waits for a process's end; answers its status, 128+N when signal N ended it.
    ///
    /// # Errors
    /// When the connection ends first.
    pub async fn wait(&self, process: &ProcessId) -> Result<i32, SandboxError> {
        let request = WaitProcessRequest {
            container_id: process.container.clone(),
            exec_id: process.exec.clone(),
            ..WaitProcessRequest::default()
        };
        let answer = self.client.wait_process(Context::default(), &request).await;
        answer.map(|answer| answer.status).map_err(|error| self.failed("WaitProcess", &error))
    }

    fn failed(&self, call: &'static str, error: &ttrpc::Error) -> SandboxError {
        SandboxError::Agent { id: self.id.clone(), call, reason: service::reason(error) }
    }
}

fn call() -> Context {
    context::with_duration(CALL)
}
