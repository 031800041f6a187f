//! A node service without VMs: both protocols on one socket, a sandbox per CreateVM with an agent of the tests' own behind it.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::socket::{MsgFlags, recv};
use peerpods_proto::grpc::admin::sandboxes_server::{Sandboxes, SandboxesServer};
use peerpods_proto::grpc::admin::{GetRequest, ListRequest, ListResponse, Phase, Sandbox};
use peerpods_proto::ttrpc::hypervisor::*;
use peerpods_proto::ttrpc::hypervisor_ttrpc::{Hypervisor, create_hypervisor};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use ttrpc::asynchronous::TtrpcContext;
use ttrpc::asynchronous::transport::Listener;

use crate::fake_agent::FakeAgent;

/// How StartVM behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Works,
    Never,
    Fails,
}

/// What was asked for, in order: `create ID`, `start ID`, `withdrawn ID`, `stop ID`.
type Calls = Arc<Mutex<Vec<String>>>;

struct State {
    directory: PathBuf,
    start: Start,
    sandboxes: BTreeMap<String, Sandbox>,
    agents: BTreeMap<String, FakeAgent>,
}

/// The service; its socket vanishes when it is dropped.
pub(crate) struct FakeNode {
    state: Arc<tokio::sync::Mutex<State>>,
    calls: Calls,
    pub(crate) socket: PathBuf,
    serving: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Clone)]
struct Service {
    state: Arc<tokio::sync::Mutex<State>>,
    calls: Calls,
}

impl FakeNode {
    pub(crate) async fn serve(directory: &Path, start: Start) -> Self {
        let socket = directory.join("h.sock");
        let state = State {
            directory: directory.to_owned(),
            start,
            sandboxes: BTreeMap::new(),
            agents: BTreeMap::new(),
        };
        let state = Arc::new(tokio::sync::Mutex::new(state));
        let calls = Calls::default();
        let service = Service { state: state.clone(), calls: calls.clone() };
        let (to_ttrpc, ttrpc_side) = mpsc::channel::<std::io::Result<UnixStream>>(4);
        let (to_grpc, grpc_side) = mpsc::channel::<std::io::Result<UnixStream>>(4);
        let mut server = ttrpc::asynchronous::Server::new()
            .add_listener(Listener::new(ReceiverStream::new(ttrpc_side)))
            .register_service(create_hypervisor(Arc::new(service.clone())));
        server.start().await.unwrap();
        let grpc = tonic::transport::Server::builder()
            .add_service(SandboxesServer::new(service))
            .serve_with_incoming(ReceiverStream::new(grpc_side));
        let listener = UnixListener::bind(&socket).unwrap();
        let accepting = async move {
            let _server = server;
            while let Ok((stream, _)) = listener.accept().await {
                let to = if first_byte(&stream).await == Some(b'P') { &to_grpc } else { &to_ttrpc };
                to.send(Ok(stream)).await.unwrap();
            }
        };
        let serving = vec![tokio::spawn(accepting), tokio::spawn(async move { grpc.await.unwrap() })];
        Self { state, calls, socket, serving }
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) async fn asked(&self, id: &str) -> crate::fake_agent::Asked {
        self.state.lock().await.agents[id].asked()
    }

    pub(crate) async fn states(&self) -> Vec<(String, String)> {
        let state = self.state.lock().await;
        state.sandboxes.values().map(|sandbox| (sandbox.id.clone(), sandbox.state.clone())).collect()
    }

    /// The service dies; its links, that is the agents, live on.
    pub(crate) fn die(&mut self) {
        self.serving.drain(..).for_each(|task| task.abort());
        drop(std::fs::remove_file(&self.socket));
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.die();
    }
}

async fn first_byte(stream: &UnixStream) -> Option<u8> {
    let mut byte = [0];
    let peek = || Ok(recv(stream.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK)?);
    (stream.async_io(Interest::READABLE, peek).await.ok()? == 1).then_some(byte[0])
}

/// Notes that a handler was dropped before its end.
struct Withdrawn(Option<(Calls, String)>);

impl Drop for Withdrawn {
    fn drop(&mut self) {
        if let Some((calls, id)) = self.0.take() {
            calls.lock().unwrap().push(format!("withdrawn {id}"));
        }
    }
}

impl Service {
    fn call(&self, what: &str, id: &str) {
        self.calls.lock().unwrap().push(format!("{what} {id}"));
    }
}

#[async_trait]
impl Hypervisor for Service {
    async fn create_vm(&self, _: &TtrpcContext, request: CreateVMRequest) -> ttrpc::Result<CreateVMResponse> {
        self.call("create", &request.id);
        let mut state = self.state.lock().await;
        let socket = state.directory.join(format!("{}.agent", request.id)).display().to_string();
        let sandbox = Sandbox {
            id: request.id.clone(),
            pod_name: request.annotations["io.kubernetes.cri.sandbox-name"].clone(),
            pod_namespace: request.annotations["io.kubernetes.cri.sandbox-namespace"].clone(),
            state: "created".to_owned(),
            netns: request.networkNamespacePath,
            agent_socket: socket.clone(),
            ..Sandbox::default()
        };
        state.sandboxes.insert(request.id, sandbox);
        Ok(CreateVMResponse { agentSocketPath: socket, ..Default::default() })
    }

    async fn start_vm(&self, _: &TtrpcContext, request: StartVMRequest) -> ttrpc::Result<StartVMResponse> {
        self.call("start", &request.id);
        let start = self.state.lock().await.start;
        match start {
            Start::Works => {}
            Start::Fails => {
                let status = ttrpc::get_status(ttrpc::Code::UNAVAILABLE, "the cloud is full");
                return Err(ttrpc::Error::RpcStatus(status));
            }
            Start::Never => {
                let mut withdrawn = Withdrawn(Some((self.calls.clone(), request.id)));
                tokio::time::sleep(Duration::from_secs(600)).await;
                withdrawn.0 = None;
                return Err(ttrpc::Error::Others("nobody gave up".to_owned()));
            }
        }
        let mut state = self.state.lock().await;
        let sandbox = state.sandboxes.get_mut(&request.id).unwrap();
        sandbox.state = "running".to_owned();
        sandbox.phases = vec![Phase {
            name: "make vm".to_owned(),
            start_us: 5_000,
            took_us: 7_000,
            detail: "fake".to_owned(),
        }];
        let socket = sandbox.agent_socket.clone();
        state.agents.insert(request.id, FakeAgent::serve(Path::new(&socket)).await);
        Ok(StartVMResponse::new())
    }

    async fn stop_vm(&self, _: &TtrpcContext, request: StopVMRequest) -> ttrpc::Result<StopVMResponse> {
        self.call("stop", &request.id);
        let mut state = self.state.lock().await;
        if let Some(sandbox) = state.sandboxes.get_mut(&request.id) {
            sandbox.state = "stopping".to_owned();
            let (service, id) = (self.clone(), request.id.clone());
            // Answered at once, done later, as the real one does.
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let mut state = service.state.lock().await;
                state.sandboxes.remove(&id);
                if let Some(mut agent) = state.agents.remove(&id) {
                    agent.stop().await;
                }
            });
        }
        Ok(StopVMResponse::new())
    }

    async fn version(&self, _: &TtrpcContext, _: VersionRequest) -> ttrpc::Result<VersionResponse> {
        Ok(VersionResponse { version: "fake".to_owned(), ..Default::default() })
    }
}

#[tonic::async_trait]
impl Sandboxes for Service {
    async fn list(
        &self,
        _: tonic::Request<ListRequest>,
    ) -> Result<tonic::Response<ListResponse>, tonic::Status> {
        let sandboxes = self.state.lock().await.sandboxes.values().cloned().collect();
        Ok(tonic::Response::new(ListResponse { sandboxes }))
    }

    async fn get(
        &self,
        request: tonic::Request<GetRequest>,
    ) -> Result<tonic::Response<Sandbox>, tonic::Status> {
        let found = self.state.lock().await.sandboxes.get(&request.get_ref().id).cloned();
        found.map(tonic::Response::new).ok_or_else(|| tonic::Status::not_found("no such sandbox"))
    }
}
