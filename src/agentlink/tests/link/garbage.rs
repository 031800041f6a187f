//! Bytes that make no sense, at every stage: their own connection is closed with an error in the log, and no other notices.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use peerpods_agentlink::Link;
use peerpods_agentlink::frame::{Header, Kind};
use peerpods_agentlink::tls::near_client;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use ttrpc::r#async::Client;

use super::scripted::next_frame;
use super::support::{Guest, Sandbox, VM, eventually, healthy};
use super::wire::{answer, connected, health_frame};

const LONG: Duration = Duration::from_secs(30);

/// What the guest's end, which is in this process, has logged.
fn log() -> &'static Arc<Mutex<Vec<u8>>> {
    static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Arc::new(Mutex::new(Vec::new()));
        let written = log.clone();
        let _ = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || Copy(written.clone()))
            .try_init();
        log
    })
}

struct Copy(Arc<Mutex<Vec<u8>>>);

impl Write for Copy {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How many lines have all these words.
fn lines(words: &[&str]) -> usize {
    let text = String::from_utf8_lossy(&log().lock().unwrap()).into_owned();
    text.lines().filter(|line| words.iter().all(|words| line.contains(words))).count()
}

/// Waits for a line about the peer with that port.
async fn logged(port: u16, words: &str) {
    let what = format!("port {port}: {words:?} in the log");
    eventually(&what, || lines(&[&format!(":{port} "), words]) > 0).await;
}

/// A guest with an agent, and a shim that uses it meanwhile.
async fn good() -> (Guest, super::support::Agent, Sandbox, Client) {
    log();
    let guest = Guest::on().await;
    let agent = guest.agent().await;
    let sandbox = connected(&guest).await;
    let shim = sandbox.shim().await;
    healthy(&shim).await.unwrap();
    (guest, agent, sandbox, shim)
}

async fn is_closed(stream: &mut (impl AsyncRead + Unpin), what: &str) {
    let end = timeout(LONG, stream.read_to_end(&mut Vec::new())).await;
    assert!(end.is_ok(), "{what} kept its connection");
}

async fn tls(guest: &Guest, session: bool) -> (TlsStream<TcpStream>, u16) {
    let mut config = (*near_client(&guest.target().identity).unwrap()).clone();
    if session {
        config.alpn_protocols = vec![b"peerpods-session/1".to_vec()];
    }
    let tcp = TcpStream::connect(guest.address).await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(VM.try_into().unwrap(), tcp).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol().is_some(), session);
    (stream, port)
}

const BYTES: [&[u8]; 5] = [
    b"GET / HTTP/1.1\r\n\r\n",
    &[0; 300],
    &[0xff; 300],
    b"\x16\x03\x01\x40\x01garbage of a hello",
    b"\x17\x03\x03\x00\x10sixteen bytes ...",
];

#[tokio::test(flavor = "multi_thread")]
async fn before_tls() {
    let (guest, _agent, _sandbox, shim) = good().await;
    for bytes in BYTES {
        let mut bad = TcpStream::connect(guest.address).await.unwrap();
        let port = bad.local_addr().unwrap().port();
        bad.write_all(bytes).await.unwrap();
        bad.shutdown().await.unwrap();
        is_closed(&mut bad, "garbage instead of TLS").await;
        logged(port, "TLS handshake failed").await;
    }
    healthy(&shim).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn within_tls() {
    let (guest, _agent, _sandbox, shim) = good().await;
    for session in [false, true] {
        for bytes in BYTES {
            let (mut bad, port) = tls(&guest, session).await;
            // Something good first: the handshake is over for both sides by then.
            let (good, answer) = if session { (hello(), 27) } else { (health_frame(), 14) };
            bad.write_all(&good).await.unwrap();
            bad.flush().await.unwrap();
            let mut answer = vec![0; answer];
            timeout(LONG, bad.read_exact(&mut answer)).await.unwrap().unwrap();
            bad.get_mut().0.write_all(&[bytes, &[0; 400]].concat()).await.unwrap();
            // One that begins as a record might, is one when more comes.
            let _ = bad.get_mut().0.shutdown().await;
            is_closed(&mut bad.get_mut().0, "garbage instead of records").await;
            if session {
                // Another connection may go on with the session, whose id is in the WELCOME.
                let session = format!("session={:02x}{:02x}..", answer[3], answer[4]);
                let told = || lines(&["the connection to the worker broke", &session]) > 0;
                eventually("it is in the log", told).await;
            } else {
                logged(port, "connection closed").await;
            }
        }
    }
    healthy(&shim).await.unwrap();
}

/// A HELLO for a new session.
fn hello() -> Vec<u8> {
    [&[1, 0, 28][..], &[0; 16], &[0, 0, 0, 1], &[0; 8]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn within_a_session() {
    let (guest, _agent, _sandbox, shim) = good().await;
    for (bytes, words) in [
        (b"GET / HTTP/1.1".to_vec(), "no session was asked for"),
        (health_frame(), "no session was asked for"),
        ([hello(), vec![0xff; 100]].concat(), "broke the session's protocol"),
        ([hello(), hello()].concat(), "a greeting in the midst"),
        // DATA out of place, too long a DATA, a confirmation of what was never sent.
        ([&hello()[..], &[4, 0, 9], &[0, 0, 0, 0, 0, 0, 0, 9], b"x"].concat(), "position 9"),
        ([&hello()[..], &[4, 0xff, 0xff]].concat(), "with 65535 bytes"),
        ([&hello()[..], &[5, 0, 8], &[0, 0, 0, 0, 0, 0, 1, 0]].concat(), "position 256 is claimed"),
        ([&hello()[..], &[9, 0, 3], b"why"].concat(), "ended the session"),
    ] {
        let (mut bad, port) = tls(&guest, true).await;
        bad.write_all(&bytes).await.unwrap();
        bad.flush().await.unwrap();
        is_closed(&mut bad, words).await;
        logged(port, words).await;
    }
    healthy(&shim).await.unwrap();
}

fn header(length: u32, stream: u32, kind: u8) -> Vec<u8> {
    let mut bytes = Header { length, stream, kind: Kind::Request, flags: 0 }.emit().to_vec();
    bytes[8] = kind;
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn as_ttrpc() {
    let (guest, _agent, sandbox, shim) = good().await;
    let cases = [
        (header(u32::MAX, 1, 1), "announces 4294967295 bytes"),
        (header((16 << 20) + 1, 1, 3), "announces 16777217 bytes"),
        (header(5, 1, 0), "type 0"),
        (header(5, 1, 4), "type 4"),
        (b"GET / HTTP/1.1\r\n".to_vec(), "no ttrpc frame"),
        (health_frame()[..7].to_vec(), "inside a frame"),
        (health_frame()[..15].to_vec(), "inside a frame"),
    ];
    for (bytes, words) in &cases {
        // Behind a good call and its answer: one that is still awaited ends with the connection.
        let (mut bad, port) = tls(&guest, false).await;
        bad.write_all(&health_frame()).await.unwrap();
        bad.flush().await.unwrap();
        assert!(timeout(LONG, next_frame(&mut bad)).await.unwrap().is_some(), "{words}: no answer");
        bad.write_all(bytes).await.unwrap();
        bad.flush().await.unwrap();
        let _ = bad.get_mut().0.shutdown().await;
        is_closed(&mut bad, words).await;
        logged(port, if words.contains("inside") { "connection closed" } else { words }).await;

        let before = lines(&["session closed", words]);
        let mut bad = sandbox.raw_shim().await;
        bad.write_all(&health_frame()).await.unwrap();
        assert_eq!(answer(&mut bad).await.status.code, 0);
        bad.write_all(bytes).await.unwrap();
        bad.shutdown().await.unwrap();
        is_closed(&mut bad, words).await;
        let what = format!("a session is closed because of {words:?}");
        eventually(&what, || lines(&["session closed", words]) > before).await;
    }
    healthy(&shim).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streams_even_number_is_the_agents_to_refuse() {
    let (_guest, _agent, sandbox, shim) = good().await;
    let mut odd = sandbox.raw_shim().await;
    let mut frame = health_frame();
    frame[7] = 2;
    odd.write_all(&frame).await.unwrap();
    let refused = answer(&mut odd).await.status;
    assert!(refused.code != 0, "{refused:?}");
    healthy(&shim).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_guest() {
    let guest = Guest::off().await;
    let config = guest.far_config().tls;
    let acceptor = TlsAcceptor::from(config);
    let listener = TcpListener::bind(guest.address).await.unwrap();
    let welcome = [&[2, 0, 24][..], &[7; 16], &[0; 8]].concat();
    let garbage = [
        ([6, 0, 0].to_vec(), "its greeting is none"),
        ([&welcome[..], &[0xee; 50]].concat(), "broke the session's protocol"),
        ([&welcome[..], &[5, 0, 8], &[1; 8]].concat(), "is claimed"),
    ];
    let serving = async {
        let mut check = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        check.read_exact(&mut vec![0; health_frame().len()]).await.unwrap();
        check.write_all(&[0, 0, 0, 4, 0, 0, 0, 1, 2, 0, 0x12, 2, 8, 1]).await.unwrap();
        check.flush().await.unwrap();
        check
    };
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let target = guest.target();
    let (check, connected) = tokio::join!(serving, sandbox.links.connect(&sandbox.spec, &target));
    connected.unwrap();
    for (bytes, words) in garbage {
        let mut shim = sandbox.raw_shim().await;
        shim.write_all(&health_frame()).await.unwrap();
        let guest_says = async {
            loop {
                let mut tls = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
                let _ = tls.read(&mut [0; 64]).await;
                let _ = tls.write_all(&bytes).await;
                let _ = tls.flush().await;
                let _ = tls.read_to_end(&mut Vec::new()).await;
            }
        };
        let closed = async {
            let log = || std::fs::read_to_string(sandbox.dir.join("link.log")).unwrap();
            is_closed(&mut shim, words).await;
            eventually(words, || log().contains(words)).await;
        };
        tokio::select! {
            () = closed => {}
            () = guest_says => {}
        }
    }
    drop(check);
    assert!(sandbox.links.status(&sandbox.spec).await.unwrap().is_some(), "the link did not survive");
}
