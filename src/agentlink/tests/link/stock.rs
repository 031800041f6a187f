//! A peer that knows nothing of sessions, at either end: bytes over TLS, and nothing else.

use std::time::Duration;

use peerpods_agentlink::frame::{HEADER_LEN, Header, Kind, MAX_PAYLOAD};
use peerpods_agentlink::tls::near_client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::network::Network;
use super::session::target;
use super::support::{Guest, Sandbox, VM, healthy, within};
use super::wire::{bare_agent, bare_agent_at, connected};

const LONG: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_guest_gets_the_shims_bytes_and_nothing_before_them() {
    let guest = Guest::off().await;
    let sandbox = Sandbox::new();
    let mut tls = (*guest.far_config().tls).clone();
    tls.alpn_protocols.clear();
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(tls));
    let listener = TcpListener::bind(guest.address).await.unwrap();
    let agent = async {
        let mut seen = Vec::new();
        for answer in [&[0, 0, 0, 4, 0, 0, 0, 1, 2, 0, 0x12, 2, 8, 1][..], b"answer"] {
            let tcp = listener.accept().await.unwrap().0;
            let mut tls = acceptor.accept(tcp).await.unwrap();
            let mut read = vec![0; 4096];
            let length = tls.read(&mut read).await.unwrap();
            tls.write_all(answer).await.unwrap();
            read.truncate(length);
            seen.push((tls, read));
        }
        seen
    };
    let shim = async {
        use peerpods_agentlink::Link;
        sandbox.links.open(&sandbox.spec).await.unwrap();
        sandbox.links.connect(&sandbox.spec, &guest.target()).await.unwrap();
        let mut shim = sandbox.raw_shim().await;
        shim.write_all(b"anything").await.unwrap();
        let mut read = [0; 6];
        shim.read_exact(&mut read).await.unwrap();
        read
    };
    let (seen, read) = timeout(LONG, async { tokio::join!(agent, shim) }).await.unwrap();
    assert_eq!((&read, seen[1].1.as_slice()), (b"answer", &b"anything"[..]));
    assert!(seen.iter().all(|(tls, _)| tls.get_ref().1.alpn_protocol().is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_link_carries_calls_large_frames_and_both_ends() {
    let guest = Guest::stock().await;
    let sandbox = Sandbox::new();
    let (mut shim, mut agent) = bare_agent(&guest, &sandbox).await;
    let header =
        Header { length: u32::try_from(MAX_PAYLOAD).unwrap(), stream: 5, kind: Kind::Data, flags: 0 };
    let frame = [&header.emit()[..], &vec![0x5a; MAX_PAYLOAD]].concat();
    let mut read = vec![0; HEADER_LEN + MAX_PAYLOAD];
    let (said, got) = tokio::join!(shim.write_all(&frame), agent.read_exact(&mut read));
    said.unwrap();
    got.unwrap();
    assert!(read == frame);
    shim.shutdown().await.unwrap();
    assert_eq!(agent.read(&mut [0; 8]).await.unwrap(), 0, "the agent did not see the end");
    agent.write_all(b"late answer").await.unwrap();
    drop(agent);
    let mut read = Vec::new();
    timeout(LONG, shim.read_to_end(&mut read)).await.unwrap().unwrap();
    assert_eq!(read, b"late answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_link_ends_with_its_connection() {
    let guest = Guest::stock().await;
    let sandbox = Sandbox::new();
    let network = Network::to(guest.address).await;
    let (mut shim, mut agent) = bare_agent_at(&guest, &sandbox, &target(&guest, &network)).await;
    network.reset();
    let end = timeout(LONG, shim.read(&mut [0; 8])).await.expect("there is nothing to wait for");
    assert_eq!(end.unwrap_or(0), 0);
    let end = timeout(LONG, agent.read(&mut [0; 8])).await.expect("the agent's side is kept");
    assert_eq!(end.unwrap_or(0), 0);
    network.back();
}

#[tokio::test(flavor = "multi_thread")]
async fn real_calls_go_over_a_plain_link() {
    use peerpods_proto::ttrpc::agent::ReadStreamRequest;
    use peerpods_proto::ttrpc::agent_ttrpc::AgentServiceClient;
    let guest = Guest::stock().await;
    let _agent = guest.agent().await;
    let sandbox = connected(&guest).await;
    healthy(&sandbox.shim().await).await.unwrap();
    let request = ReadStreamRequest { container_id: "z".to_owned(), len: 1_000_000, ..Default::default() };
    let client = AgentServiceClient::new(sandbox.shim().await);
    let read = client.read_stdout(within(20), &request).await.unwrap().data;
    assert!(read.len() == 1_000_000 && read.iter().all(|byte| *byte == b'z'));
}

/// A stock worker's connection to our guest, and the agent's end of it.
async fn stock_worker(guest: &Guest) -> (TlsStream<TcpStream>, UnixStream) {
    let listener = UnixListener::bind(&guest.agent_socket).unwrap();
    let connector = TlsConnector::from(near_client(&guest.target().identity).unwrap());
    let tcp = TcpStream::connect(guest.address).await.unwrap();
    let mut worker = connector.connect(VM.try_into().unwrap(), tcp).await.unwrap();
    assert!(worker.get_ref().1.alpn_protocol().is_none(), "a session was agreed on with a stock worker");
    worker.write_all(&Header { length: 1, stream: 1, kind: Kind::Data, flags: 0 }.emit()).await.unwrap();
    worker.write_all(b"!").await.unwrap();
    let (mut agent, _) = timeout(LONG, listener.accept()).await.unwrap().unwrap();
    let mut read = [0; HEADER_LEN + 1];
    agent.read_exact(&mut read).await.unwrap();
    assert_eq!(read[HEADER_LEN], b'!');
    (worker, agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_worker_gets_the_agents_bytes_and_both_ends_pass() {
    let guest = Guest::on().await;
    let (mut worker, mut agent) = stock_worker(&guest).await;
    worker.shutdown().await.unwrap();
    assert_eq!(timeout(LONG, agent.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    agent.write_all(b"late answer").await.unwrap();
    drop(agent);
    let mut read = Vec::new();
    timeout(LONG, worker.read_to_end(&mut read)).await.unwrap().unwrap();
    assert_eq!(read, b"late answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_worker_that_is_gone_is_gone_for_the_agent_too() {
    let guest = Guest::on().await;
    let (worker, mut agent) = stock_worker(&guest).await;
    worker.get_ref().0.set_zero_linger().unwrap();
    drop(worker);
    let end = timeout(LONG, agent.read(&mut [0; 8])).await.expect("a session is kept for a stock worker");
    assert_eq!(end.unwrap_or(0), 0);
}
