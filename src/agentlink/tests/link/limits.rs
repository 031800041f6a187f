//! Large, slow and hostile.

use std::fs;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use peerpods_agentlink::frame::{HEADER_LEN, Header, Kind, MAX_PAYLOAD};
use peerpods_agentlink::tls::near_client;
use peerpods_agentlink::{Link, LinkError};
use peerpods_proto::ttrpc::agent::{CopyFileRequest, CreateContainerRequest, ReadStreamRequest};
use peerpods_proto::ttrpc::agent_ttrpc::AgentServiceClient;
use protobuf::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::support::{
    Guest, NETNS, Sandbox, VM, connections_held_by, connections_to, eventually, healthy, within,
};
use super::wire::{answer, bare_agent, connected, frame};

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_frame_the_protocol_allows_goes_through() {
    let guest = Guest::on().await;
    let agent = guest.agent().await;
    let sandbox = connected(&guest).await;
    let sized = |data: usize| {
        let copy = CopyFileRequest { data: vec![7; data], ..Default::default() };
        frame("grpc.AgentService", "CopyFile", copy.write_to_bytes().unwrap())
    };
    let overhead = sized(4_000_000).len() - HEADER_LEN - 4_000_000;
    let longest = sized(MAX_PAYLOAD - overhead);
    assert_eq!(longest.len(), HEADER_LEN + MAX_PAYLOAD);
    let mut shim = sandbox.raw_shim().await;
    shim.write_all(&longest).await.unwrap();
    assert_eq!(answer(&mut shim).await.status.code, 0);
    assert_eq!(*agent.asked.copied.lock().unwrap(), [MAX_PAYLOAD - overhead]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_container_request_is_rewritten_too() {
    let guest = Guest::on().await;
    let agent = guest.agent().await;
    let sandbox = connected(&guest).await;
    let request = CreateContainerRequest { container_id: "c".repeat(3 << 20), ..Default::default() };
    let client = AgentServiceClient::new(sandbox.shim().await);
    client.create_container(within(20), &request).await.unwrap();
    client.create_container(within(20), &CreateContainerRequest::new()).await.unwrap();
    let seen = agent.asked.containers.lock().unwrap();
    assert_eq!(seen[0].container_id.len(), 3 << 20);
    assert!(seen.iter().all(|one| one.OCI.Linux.Namespaces[0].Path == NETNS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_comes_back_whole() {
    let guest = Guest::on().await;
    let _agent = guest.agent().await;
    let sandbox = connected(&guest).await;
    let request = ReadStreamRequest { container_id: "z".to_owned(), len: 4_000_000, ..Default::default() };
    let client = AgentServiceClient::new(sandbox.shim().await);
    let read = client.read_stdout(within(20), &request).await.unwrap().data;
    assert!(read.len() == 4_000_000 && read.iter().all(|byte| *byte == b'z'));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_streams_and_is_never_held_whole() {
    let guest = Guest::on().await;
    let sandbox = Sandbox::new();
    let (mut shim, mut agent) = bare_agent(&guest, &sandbox).await;
    let copy = CopyFileRequest { data: vec![9; 2 << 20], ..Default::default() };
    let bytes = frame("grpc.AgentService", "CopyFile", copy.write_to_bytes().unwrap());
    let (first, rest) = bytes.split_at(100_000);
    shim.write_all(first).await.unwrap();
    let mut seen = vec![0; first.len()];
    let early = timeout(Duration::from_secs(10), agent.read_exact(&mut seen)).await;
    early.expect("the beginning was held back").unwrap();
    assert_eq!(seen, first);
    let mut end = vec![0; rest.len()];
    let (sent, read) = tokio::join!(shim.write_all(rest), agent.read_exact(&mut end));
    sent.unwrap();
    read.unwrap();
    assert_eq!(end, rest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_agent_slows_the_shim_instead_of_filling_memory() {
    let guest = Guest::on().await;
    let sandbox = Sandbox::new();
    let (mut shim, _agent_that_reads_nothing) = bare_agent(&guest, &sandbox).await;
    let bytes = Header { length: 4 << 20, stream: 1, kind: Kind::Data, flags: 0 }.emit().to_vec();
    let bytes = [bytes, vec![0; 4 << 20]].concat();
    let mut sent = 0;
    let flood = async {
        loop {
            shim.write_all(&bytes).await.unwrap();
            sent += bytes.len();
        }
    };
    let _: Result<(), _> = timeout(Duration::from_secs(2), flood).await;
    assert!(sent < 64 << 20, "{sent} bytes went nowhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_closes_its_own_connection_and_no_other() {
    let guest = Guest::on().await;
    let _agent = guest.agent().await;
    let sandbox = connected(&guest).await;
    let good = sandbox.shim().await;
    healthy(&good).await.unwrap();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[0; 64]] {
        let mut bad = sandbox.raw_shim().await;
        bad.write_all(garbage).await.unwrap();
        let end = timeout(Duration::from_secs(10), bad.read_to_end(&mut Vec::new())).await;
        assert!(end.is_ok(), "{garbage:?} kept its connection");
    }
    healthy(&good).await.unwrap();
    assert!(!guest.served.as_ref().unwrap().is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_never_finish_their_handshake_do_not_keep_others_out() {
    let mut guest = Guest::off().await;
    guest
        .serve(|config| {
            config.max_handshakes = 2;
            config.handshake_timeout = Duration::from_millis(300);
        })
        .await;
    let _agent = guest.agent().await;
    let mut idlers = Vec::new();
    for _ in 0..6 {
        idlers.push(TcpStream::connect(guest.address).await.unwrap());
    }
    let sandbox = connected(&guest).await;
    let shim = sandbox.shim().await;
    healthy(&shim).await.unwrap();
    for mut idler in idlers {
        let end = timeout(Duration::from_secs(5), idler.read(&mut [0; 8])).await;
        assert_eq!(end.expect("an idler is kept").unwrap_or(0), 0);
    }
    eventually("the good connections stay", || connections_to(guest.address) >= 2).await;
    drop(shim);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_said_much_and_hung_up_before_its_guest_is_known_is_let_go() {
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let shims = async || sandbox.links.status(&sandbox.spec).await.unwrap().unwrap().shims;
    let mut shim = sandbox.raw_shim().await;
    shim.write_all(&[7; 64 << 10]).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(shims().await, 1, "a shim that only waits was let go");
    drop(shim);
    let let_go = async {
        while shims().await > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), let_go).await.expect("its connection is still held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_said_much_and_hung_up_before_the_agent_is_up_is_let_go() {
    let guest = Guest::on().await;
    let target = guest.target();
    let connector = TlsConnector::from(near_client(&target.identity).unwrap());
    let tcp = TcpStream::connect(guest.address).await.unwrap();
    let mut caller = connector.connect(VM.try_into().unwrap(), tcp).await.unwrap();
    caller.write_all(&[7; 96 << 10]).await.unwrap();
    caller.flush().await.unwrap();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(connections_held_by(guest.address), 1, "a caller that only waits was let go");
    drop(caller);
    eventually("its connection is let go", || connections_held_by(guest.address) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_cannot_be_connected_to_is_not_taken_for_gone() {
    let sandbox = Sandbox::new();
    fs::create_dir(&sandbox.dir).unwrap();
    let control = sandbox.dir.join("link.sock");
    let somebody = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(somebody.as_raw_fd(), &UnixAddr::new(&control).unwrap()).unwrap();
    listen(&somebody, Backlog::new(0).unwrap()).unwrap();
    // The queue holds one.
    let _queued = UnixStream::connect(&control).await.unwrap();
    let error = sandbox.links.close(&sandbox.spec).await.unwrap_err();
    assert!(matches!(error, LinkError::Unreachable { .. }), "{error}");
    assert!(control.exists(), "the socket of somebody who listens was removed");
    drop(somebody);
    sandbox.links.close(&sandbox.spec).await.unwrap();
    assert!(!sandbox.dir.exists());
}
