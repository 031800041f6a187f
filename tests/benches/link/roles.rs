//! The processes of the benchmark but for `peerpods-link` and the client: this program again, told what to be by a variable.
//!
//! Each says `ready ADDRESS` on its standard output, and ends when its standard input does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream;
use peerpods_agentlink::ca::ClusterCa;
use peerpods_agentlink::far::{Far, FarConfig};
use peerpods_agentlink::tls::{FarKeys, MinVersion, far_server, near_client};
use peerpods_proto::ttrpc::agent::{CopyFileRequest, ReadStreamRequest, ReadStreamResponse};
use peerpods_proto::ttrpc::agent_ttrpc::{AgentService, create_agent_service};
use peerpods_proto::ttrpc::health::health_check_response::ServingStatus;
use peerpods_proto::ttrpc::health::{CheckRequest, HealthCheckResponse};
use peerpods_proto::ttrpc::health_ttrpc::{Health, create_health};
use protobuf::well_known_types::empty::Empty;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;
use ttrpc::r#async::transport::Listener;
use ttrpc::r#async::{Server, TtrpcContext};

/// Says what a process is: `agent`, `far`, `stock-far`, `tls-far`, `tls-near`, `bare-far` or `bare-near`.
pub(crate) const VARIABLE: &str = "PEERPODS_BENCH_ROLE";
/// Where all of them meet.
pub(crate) const DIR: &str = "PEERPODS_BENCH_DIR";
/// Whom a `tls-near` or `bare-near` dials.
pub(crate) const PEER: &str = "PEERPODS_BENCH_PEER";
pub(crate) const VM: &str = "podvm-bench-0123abcd";
/// The plain proxy's buffer, each way.
const BUFFER: usize = 64 * 1024;

/// Plays a role until the standard input ends.
pub(crate) fn play(role: &str) {
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    // As `peerpods-link` runs, and `peerpods-guest` in its own image.
    let runtime = match role {
        "agent" => tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap(),
        _ => tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
    };
    runtime.block_on(async {
        match role {
            "agent" => agent(&dir.join("agent.sock")).await,
            "far" => far(&dir, true).await,
            "stock-far" => far(&dir, false).await,
            "tls-far" => tls_far(&dir).await,
            "tls-near" => tls_near(&dir).await,
            "bare-far" => bare_far(dir.join("agent.sock")).await,
            "bare-near" => bare_near(&dir.join("bare.sock")).await,
            other => panic!("the role {other} is not known"),
        }
        let _ = tokio::io::stdin().read(&mut [0]).await;
    });
    runtime.shutdown_background();
}

struct Stub;

#[async_trait]
impl Health for Stub {
    async fn check(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<HealthCheckResponse> {
        Ok(HealthCheckResponse { status: ServingStatus::SERVING.into(), ..Default::default() })
    }
}

#[async_trait]
impl AgentService for Stub {
    async fn copy_file(&self, _: &TtrpcContext, _: CopyFileRequest) -> ttrpc::Result<Empty> {
        Ok(Empty::new())
    }
    async fn read_stdout(
        &self,
        _: &TtrpcContext,
        asked: ReadStreamRequest,
    ) -> ttrpc::Result<ReadStreamResponse> {
        Ok(ReadStreamResponse { data: vec![7; usize::try_from(asked.len).unwrap()], ..Default::default() })
    }
}

async fn agent(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    let accepted = stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let mut server = Server::new()
        .add_listener(Listener::new(accepted))
        .register_service(create_health(Arc::new(Stub)))
        .register_service(create_agent_service(Arc::new(Stub)));
    server.start().await.unwrap();
    println!("ready -");
    std::mem::forget(server);
}

fn server_side(dir: &Path, session: bool) -> Arc<ServerConfig> {
    let ca = ClusterCa::load_or_create(&dir.join("ca")).unwrap();
    let pair = ca.issue_server(VM).unwrap();
    let keys =
        FarKeys { certificate: &pair.certificate, key: pair.expose_key(), client_ca: ca.certificate_pem() };
    let mut tls = (*far_server(keys, MinVersion::default()).unwrap()).clone();
    if !session {
        tls.alpn_protocols.clear();
    }
    Arc::new(tls)
}

async fn far(dir: &Path, session: bool) {
    let tls = server_side(dir, session);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("ready {}", listener.local_addr().unwrap());
    let far = Far::new(FarConfig::new(tls, dir.join("agent.sock"), "/run/netns/podns".into()));
    tokio::spawn(async move { far.serve(listener, CancellationToken::new()).await });
}

async fn tls_far(dir: &Path) {
    let acceptor = TlsAcceptor::from(server_side(dir, false));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("ready {}", listener.local_addr().unwrap());
    let agent = dir.join("agent.sock");
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let (acceptor, agent) = (acceptor.clone(), agent.clone());
            tokio::spawn(async move {
                let mut tls = acceptor.accept(tcp).await.unwrap();
                let mut agent = UnixStream::connect(&agent).await.unwrap();
                let _ = copy_bidirectional_with_sizes(&mut tls, &mut agent, BUFFER, BUFFER).await;
            });
        }
    });
}

async fn tls_near(dir: &Path) {
    let ca = ClusterCa::load_or_create(&dir.join("ca")).unwrap();
    let connector = TlsConnector::from(near_client(&super::paths::identity(&ca)).unwrap());
    let peer = std::env::var(PEER).unwrap();
    let listener = UnixListener::bind(dir.join("tls.sock")).unwrap();
    println!("ready -");
    tokio::spawn(async move {
        loop {
            let (mut shim, _) = listener.accept().await.unwrap();
            let (connector, peer) = (connector.clone(), peer.clone());
            tokio::spawn(async move {
                let tcp = TcpStream::connect(peer).await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let mut tls = connector.connect(VM.try_into().unwrap(), tcp).await.unwrap();
                let _ = copy_bidirectional_with_sizes(&mut shim, &mut tls, BUFFER, BUFFER).await;
            });
        }
    });
}

async fn bare_far(agent: PathBuf) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("ready {}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let agent = agent.clone();
            tokio::spawn(async move {
                let mut agent = UnixStream::connect(&agent).await.unwrap();
                let _ = copy_bidirectional_with_sizes(&mut tcp, &mut agent, BUFFER, BUFFER).await;
            });
        }
    });
}

async fn bare_near(socket: &Path) {
    let peer = std::env::var(PEER).unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    println!("ready -");
    tokio::spawn(async move {
        loop {
            let (mut shim, _) = listener.accept().await.unwrap();
            let peer = peer.clone();
            tokio::spawn(async move {
                let mut tcp = TcpStream::connect(peer).await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let _ = copy_bidirectional_with_sizes(&mut shim, &mut tcp, BUFFER, BUFFER).await;
            });
        }
    });
}
