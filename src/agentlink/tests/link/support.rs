//! A guest, an agent and a link for one test; all of it goes with the test.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream;
use peerpods_agentlink::ca::ClusterCa;
use peerpods_agentlink::far::{Far, FarConfig};
use peerpods_agentlink::process::LinkProcesses;
use peerpods_agentlink::tls::{FarKeys, MinVersion, far_server};
use peerpods_agentlink::{GuestTrust, LinkIdentity, LinkSpec, LinkTarget};
use peerpods_proto::ttrpc::agent::{
    CopyFileRequest, CreateContainerRequest, CreateSandboxRequest, ReadStreamRequest, ReadStreamResponse,
};
use peerpods_proto::ttrpc::agent_ttrpc::{AgentService, create_agent_service};
use peerpods_proto::ttrpc::health::health_check_response::ServingStatus;
use peerpods_proto::ttrpc::health::{CheckRequest, HealthCheckResponse};
use peerpods_proto::ttrpc::health_ttrpc::{Health, HealthClient, create_health};
use protobuf::well_known_types::empty::Empty;
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use ttrpc::r#async::transport::Listener;
use ttrpc::r#async::{Client, Server, TtrpcContext};
use ttrpc::context;

pub(crate) const VM: &str = "podvm-web-0123abcd";
pub(crate) const NETNS: &str = "/run/netns/podns";

/// What the agent was asked.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) containers: Mutex<Vec<CreateContainerRequest>>,
    pub(crate) sandboxes: Mutex<Vec<CreateSandboxRequest>>,
    pub(crate) copied: Mutex<Vec<usize>>,
    /// How many connections it was given.
    pub(crate) connections: AtomicUsize,
}

struct Stub(Arc<Asked>);

#[async_trait]
impl Health for Stub {
    async fn check(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<HealthCheckResponse> {
        Ok(HealthCheckResponse { status: ServingStatus::SERVING.into(), ..Default::default() })
    }
}

#[async_trait]
impl AgentService for Stub {
    async fn create_container(
        &self,
        _: &TtrpcContext,
        asked: CreateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        self.0.containers.lock().unwrap().push(asked);
        Ok(Empty::new())
    }
    async fn create_sandbox(&self, _: &TtrpcContext, asked: CreateSandboxRequest) -> ttrpc::Result<Empty> {
        self.0.sandboxes.lock().unwrap().push(asked);
        Ok(Empty::new())
    }
    async fn copy_file(&self, _: &TtrpcContext, asked: CopyFileRequest) -> ttrpc::Result<Empty> {
        self.0.copied.lock().unwrap().push(asked.data.len());
        Ok(Empty::new())
    }
    async fn read_stdout(
        &self,
        _: &TtrpcContext,
        asked: ReadStreamRequest,
    ) -> ttrpc::Result<ReadStreamResponse> {
        let letter = asked.container_id.bytes().next().unwrap_or(b'?');
        tokio::time::sleep(Duration::from_millis(20)).await;
        let data = vec![letter; usize::try_from(asked.len).unwrap()];
        Ok(ReadStreamResponse { data, ..Default::default() })
    }
}

/// A running ttrpc server on a unix socket.
pub(crate) struct Agent {
    pub(crate) asked: Arc<Asked>,
    server: Server,
}

impl Agent {
    pub(crate) async fn start(socket: &Path) -> Self {
        let asked = Arc::new(Asked::default());
        let listener = UnixListener::bind(socket).unwrap();
        let accepted = stream::unfold((listener, asked.clone()), |(listener, asked)| async move {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            asked.connections.fetch_add(1, Ordering::SeqCst);
            Some((accepted, (listener, asked)))
        });
        let mut server = Server::new()
            .add_listener(Listener::new(accepted))
            .register_service(create_health(Arc::new(Stub(asked.clone()))))
            .register_service(create_agent_service(Arc::new(Stub(asked.clone()))));
        server.start().await.unwrap();
        Self { asked, server }
    }

    /// As when its process dies: every connection is closed.
    pub(crate) async fn die(mut self) {
        self.server.stop_listen().await;
        self.server.disconnect().await;
        self.server.shutdown().await.unwrap();
    }
}

/// An authority and the guest's end on a loopback port.
pub(crate) struct Guest {
    pub(crate) ca: ClusterCa,
    pub(crate) address: SocketAddr,
    pub(crate) agent_socket: PathBuf,
    pub(crate) shutdown: CancellationToken,
    pub(crate) served: Option<JoinHandle<()>>,
    _dir: TempDir,
    _shutdown_on_drop: DropGuard,
}

impl Guest {
    /// An address and keys; nothing listens there.
    pub(crate) async fn off() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = ClusterCa::load_or_create(&dir.path().join("ca")).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let shutdown = CancellationToken::new();
        Self {
            ca,
            address,
            agent_socket: dir.path().join("agent.sock"),
            _shutdown_on_drop: shutdown.clone().drop_guard(),
            shutdown,
            served: None,
            _dir: dir,
        }
    }

    pub(crate) async fn on() -> Self {
        let mut guest = Self::off().await;
        guest.serve(|_| {}).await;
        guest
    }

    /// A guest whose end knows nothing of sessions, as a stock one.
    pub(crate) async fn stock() -> Self {
        let mut guest = Self::off().await;
        guest
            .serve(|config| {
                let mut tls = (*config.tls).clone();
                tls.alpn_protocols.clear();
                config.tls = Arc::new(tls);
            })
            .await;
        guest
    }

    pub(crate) async fn serve(&mut self, adjust: impl FnOnce(&mut FarConfig)) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve_on(listener, adjust);
    }

    pub(crate) fn serve_on(&mut self, listener: TcpListener, adjust: impl FnOnce(&mut FarConfig)) {
        let mut config = self.far_config();
        adjust(&mut config);
        let shutdown = self.shutdown.clone();
        self.served = Some(tokio::spawn(async move { Far::new(config).serve(listener, shutdown).await }));
    }

    pub(crate) fn far_config(&self) -> FarConfig {
        let pair = self.ca.issue_server(VM).unwrap();
        let keys = FarKeys {
            certificate: &pair.certificate,
            key: pair.expose_key(),
            client_ca: self.ca.certificate_pem(),
        };
        let tls = far_server(keys, MinVersion::default()).unwrap();
        FarConfig::new(tls, self.agent_socket.clone(), NETNS.into())
    }

    pub(crate) fn target(&self) -> LinkTarget {
        LinkTarget {
            address: self.address,
            server_name: VM.to_owned(),
            identity: identity(&self.ca, &self.ca),
            guest: GuestTrust::Authority,
            deadline: Duration::from_secs(20),
        }
    }

    pub(crate) async fn agent(&self) -> Agent {
        Agent::start(&self.agent_socket).await
    }
}

pub(crate) fn identity(from: &ClusterCa, trusts: &ClusterCa) -> LinkIdentity {
    let pair = from.issue_client("link").unwrap();
    LinkIdentity {
        certificate: pair.certificate.clone(),
        key: pair.expose_key().to_owned(),
        authority: trusts.certificate_pem().to_owned(),
    }
}

/// A sandbox's place on the worker. Whatever link runs there ends with it.
pub(crate) struct Sandbox {
    pub(crate) links: LinkProcesses,
    pub(crate) spec: LinkSpec,
    pub(crate) dir: PathBuf,
    _root: TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("s1");
        let spec = LinkSpec { sandbox: "s1".parse().unwrap(), agent_socket: dir.join("agent.ttrpc") };
        Self { links: LinkProcesses::new(program()), spec, dir, _root: root }
    }

    pub(crate) async fn shim(&self) -> Client {
        let url = format!("unix://{}", self.spec.agent_socket.display());
        Client::connect(&url).await.unwrap()
    }

    pub(crate) async fn raw_shim(&self) -> tokio::net::UnixStream {
        tokio::net::UnixStream::connect(&self.spec.agent_socket).await.unwrap()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let Ok(mut control) = BlockingStream::connect(self.dir.join("link.sock")) else { return };
        let _ = control.set_read_timeout(Some(Duration::from_secs(2)));
        let _ = control.write_all(b"{\"v\":1,\"op\":\"close\"}\n");
        let _ = control.read_to_end(&mut Vec::new());
    }
}

pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_peerpods-link"))
}

/// The deadline a shim gives its calls.
pub(crate) fn within(seconds: i64) -> context::Context {
    context::with_duration(Duration::from_secs(seconds.unsigned_abs()))
}

pub(crate) async fn healthy(shim: &Client) -> ttrpc::Result<HealthCheckResponse> {
    HealthClient::new(shim.clone()).check(within(10), &CheckRequest::new()).await
}

/// Waits until `what` holds, for at most ten seconds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// How many TCP connections of this machine the listener at that loopback port has not closed yet, by the kernel's word.
pub(crate) fn connections_held_by(address: SocketAddr) -> usize {
    let local = format!("0100007F:{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_ascii_whitespace().collect::<Vec<_>>());
    // Established, or closed by the other side only.
    rows.filter(|row| row[1] == local && ["01", "08"].contains(&row[3])).count()
}

/// How many TCP connections of this machine to that loopback port stand, by the kernel's word.
pub(crate) fn connections_to(address: SocketAddr) -> usize {
    let remote = format!("0100007F:{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_ascii_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[2] == remote && row[3] == "01").count()
}
