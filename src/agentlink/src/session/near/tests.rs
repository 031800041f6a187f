use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinHandle;

use super::*;
use crate::ca::ClusterCa;
use crate::dial;
use crate::far::{Far, FarConfig};
use crate::frame::{Header, Kind};
use crate::link::{GuestTrust, LinkIdentity, LinkTarget};
use crate::tls::{FarKeys, MinVersion, far_server};

const NAME: &str = "podvm-a";
const LONG: Duration = Duration::from_secs(30);

/// A far end behind a port that can be shut.
struct Bed {
    asked: LinkTarget,
    target: Arc<Target>,
    agent: UnixListener,
    gate: JoinHandle<()>,
    cut: watch::Sender<u32>,
    swallow: watch::Sender<bool>,
    _far: tokio_util::sync::DropGuard,
    _dir: tempfile::TempDir,
}

impl Bed {
    async fn new(adjust: impl FnOnce(&mut FarConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = ClusterCa::load_or_create(dir.path()).unwrap();
        let (server, client) = (ca.issue_server(NAME).unwrap(), ca.issue_client("link").unwrap());
        let authority = ca.certificate_pem().to_owned();
        let keys =
            FarKeys { certificate: &server.certificate, key: server.expose_key(), client_ca: &authority };
        let tls = far_server(keys, MinVersion::default()).unwrap();
        let socket = dir.path().join("agent.sock");
        let agent = UnixListener::bind(&socket).unwrap();
        let mut config = FarConfig::new(tls, socket, "/n".into());
        adjust(&mut config);
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = listener.local_addr().unwrap();
        let stopped = stop.clone();
        tokio::spawn(async move { Far::new(config).serve(listener, stopped).await });
        let gate = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = gate.local_addr().unwrap();
        let (cut, swallow) = (watch::Sender::new(0), watch::Sender::new(false));
        let gate = tokio::spawn(let_through(gate, far, cut.subscribe(), swallow.subscribe()));
        let (certificate, key) = (client.certificate.clone(), client.expose_key().to_owned());
        let identity = LinkIdentity { certificate, key, authority };
        let guest = GuestTrust::Authority;
        let asked = LinkTarget { address, server_name: NAME.to_owned(), identity, guest, deadline: LONG };
        let target = Arc::new(Target::new(&asked).unwrap());
        Self { asked, target, agent, gate, cut, swallow, _far: stop.drop_guard(), _dir: dir }
    }

    /// A shim and its agent, one byte exchanged; what becomes of the session.
    async fn session(
        &self,
        patience: Duration,
    ) -> (UnixStream, UnixStream, JoinHandle<Result<(), NearSessionError>>) {
        let (shim, ours) = UnixStream::pair().unwrap();
        let target = self.target.clone();
        let first = dial::until_trusted(&target, LONG).await.unwrap();
        let newest = watch::Sender::new(Some(target.clone())).subscribe();
        let task = tokio::spawn(async move {
            let early = frame(b'a')[..].into();
            let (carried, shims, closing) =
                (AtomicUsize::new(0), AtomicUsize::new(0), CancellationToken::new());
            let line = Line { target, newest, patience, carried: &carried, closing: &closing };
            forward(ours, early, first, line, Held::one_of(&shims)).await
        });
        let (mut agent, _) = timeout(LONG, self.agent.accept()).await.unwrap().unwrap();
        agent.read_exact(&mut [0; 11]).await.unwrap();
        (shim, agent, task)
    }

    /// Every connection breaks, and the port is shut.
    fn cut_for_good(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
        self.gate.abort();
    }
}

async fn let_through(
    gate: TcpListener,
    far: SocketAddr,
    cut: watch::Receiver<u32>,
    swallow: watch::Receiver<bool>,
) {
    let mut swallowed = Vec::new();
    loop {
        let (mut near, _) = gate.accept().await.unwrap();
        if *swallow.borrow() {
            swallowed.push(near);
            continue;
        }
        let mut far = TcpStream::connect(far).await.unwrap();
        let mut cut = cut.clone();
        cut.mark_unchanged();
        tokio::spawn(async move {
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

fn frame(byte: u8) -> [u8; 11] {
    let mut frame = [byte; 11];
    frame[..10].copy_from_slice(&Header { length: 1, stream: 1, kind: Kind::Data, flags: 0 }.emit());
    frame
}

#[tokio::test]
async fn a_cut_that_outlasts_the_patience_closes_the_shim_and_the_agent() {
    let bed = Bed::new(|config| config.session_patience = Duration::from_secs(2)).await;
    let (mut shim, mut agent, task) = bed.session(Duration::from_secs(1)).await;
    bed.cut_for_good();
    let ended = timeout(LONG, task).await.unwrap().unwrap().unwrap_err();
    let text = ended.to_string();
    assert!(matches!(ended, NearSessionError::NotResumed { .. }) && text.contains("within 1s"), "{text}");
    assert!(text.contains("refused"), "it does not say why: {text}");
    assert_eq!(shim.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(
        timeout(LONG, agent.read(&mut [0; 8])).await.unwrap().unwrap_or(0),
        0,
        "the agent's side stays"
    );
}

#[tokio::test]
async fn a_shim_that_breaks_off_ends_the_session_at_both_ends() {
    let bed = Bed::new(|_| {}).await;
    let (shim, mut agent, task) = bed.session(LONG).await;
    drop(shim);
    // It has said all; what it is told now reaches nobody.
    assert_eq!(timeout(LONG, agent.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    agent.write_all(b"x").await.unwrap();
    let ended = timeout(LONG, task).await.unwrap().unwrap();
    assert!(matches!(ended, Err(NearSessionError::Shim(_))), "{ended:?}");
    assert_eq!(timeout(LONG, agent.read(&mut [0; 8])).await.unwrap().unwrap_or(0), 0);
}

#[tokio::test]
async fn a_session_stays_with_its_guest_and_takes_its_newest_certificate() {
    let (first, second) = (Bed::new(|_| {}).await, Bed::new(|_| {}).await);
    let newest = watch::Sender::new(Some(first.target.clone()));
    let (carried, closing) = (AtomicUsize::new(0), CancellationToken::new());
    let newer = newest.subscribe();
    let line = Line {
        target: first.target.clone(),
        newest: newer,
        patience: LONG,
        carried: &carried,
        closing: &closing,
    };
    newest.send_replace(Some(second.target.clone()));
    assert!(Arc::ptr_eq(&line.target(), &first.target), "it went over to another guest");
    let renewed = Arc::new(Target::new(&first.asked).unwrap());
    newest.send_replace(Some(renewed.clone()));
    assert!(Arc::ptr_eq(&line.target(), &renewed), "it keeps an old certificate");
}

#[tokio::test]
async fn a_guest_where_nobody_listens_any_more_is_not_waited_for_to_the_end() {
    let bed = Bed::new(|_| {}).await;
    let (mut shim, _agent, task) = bed.session(Duration::from_secs(120)).await;
    tokio::time::pause();
    let began = Instant::now();
    bed.cut_for_good();
    let ended = timeout(LONG, task).await.expect("it is dialled on").unwrap();
    assert!(matches!(ended, Err(NearSessionError::Deserted(_))), "{ended:?}");
    assert!(began.elapsed() >= Duration::from_secs(15), "a guest's end that is started anew gets no time");
    assert_eq!(shim.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn handshakes_that_hang_keep_no_connection_waiting_that_works() {
    let bed = Bed::new(|_| {}).await;
    let (mut shim, mut agent, _task) = bed.session(Duration::from_secs(120)).await;
    tokio::time::pause();
    // The network takes connections, and swallows what they say, for a minute.
    bed.swallow.send_replace(true);
    bed.cut.send_modify(|cuts| *cuts += 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    bed.swallow.send_replace(false);
    let began = Instant::now();
    shim.write_all(&frame(b'b')).await.unwrap();
    agent.read_exact(&mut [0; 11]).await.unwrap();
    // A handshake that hangs would take five seconds. The designed most is two; the clock leaps when the kernel is late with a packet.
    assert!(began.elapsed() <= Duration::from_secs(4), "it took {:?}", began.elapsed());
}
