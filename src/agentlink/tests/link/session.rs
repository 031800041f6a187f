//! The connection to the guest breaks and comes back: what the shim and the agent see of it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use peerpods_agentlink::frame::{HEADER_LEN, Header, Kind};
use peerpods_agentlink::process::GuestState;
use peerpods_agentlink::{Link, LinkTarget};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::time::{sleep, timeout};

use super::network::Network;
use super::support::{Guest, Sandbox, eventually, healthy};
use super::wire::{answer, bare_agent_at, health_frame};

/// What a noisy machine may take on top.
const LONG: Duration = Duration::from_secs(60);
/// How much goes each way in a cut transfer.
const MUCH: usize = 64 << 20;

pub(crate) fn target(guest: &Guest, network: &Network) -> LinkTarget {
    LinkTarget { address: network.address, ..guest.target() }
}

/// A guest behind a network, a shim and its agent: ends of one session.
async fn session(guest: &Guest, sandbox: &Sandbox) -> (Network, UnixStream, UnixStream) {
    let network = Network::to(guest.address).await;
    let (shim, agent) = bare_agent_at(guest, sandbox, &target(guest, &network)).await;
    (network, shim, agent)
}

/// Bytes that are never the same twice in a row, and the same for both sides.
struct Pattern(u64);

impl Pattern {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Frames of all sizes, as ttrpc allows them, with a pattern inside.
async fn say_frames(to: &mut (impl AsyncWrite + Unpin), total: usize) {
    let mut pattern = Pattern(0x9e37_79b9);
    let mut said = 0;
    while said < total {
        let length = 1 + (said * 31 + 7) % (900 << 10);
        let mut frame = vec![0; HEADER_LEN + length];
        pattern.fill(&mut frame[HEADER_LEN..]);
        let header = Header { length: u32::try_from(length).unwrap(), stream: 3, kind: Kind::Data, flags: 0 };
        frame[..HEADER_LEN].copy_from_slice(&header.emit());
        to.write_all(&frame).await.unwrap();
        said += length;
    }
}

async fn check_frames(from: &mut (impl AsyncRead + Unpin), total: usize) {
    let mut pattern = Pattern(0x9e37_79b9);
    let mut heard = 0;
    while heard < total {
        let mut header = [0; HEADER_LEN];
        from.read_exact(&mut header).await.unwrap();
        let length = Header::parse(&header).unwrap().payload_len();
        let (mut got, mut expected) = (vec![0; length], vec![0; length]);
        from.read_exact(&mut got).await.unwrap();
        pattern.fill(&mut expected);
        assert!(got == expected, "the frame after {heard} bytes differs");
        heard += length;
    }
}

async fn echo(shim: &mut UnixStream, agent: &mut UnixStream, what: u8) {
    let frame = [&Header { length: 1, stream: 1, kind: Kind::Data, flags: 0 }.emit()[..], &[what]].concat();
    shim.write_all(&frame).await.unwrap();
    let mut read = vec![0; frame.len()];
    agent.read_exact(&mut read).await.unwrap();
    assert_eq!(read, frame);
    agent.write_all(&[what]).await.unwrap();
    let mut read = [0];
    shim.read_exact(&mut read).await.unwrap();
    assert_eq!(read, [what]);
}

/// Both ways at once, while `cuts` does its worst; everything arrives once and in order.
async fn much_goes_both_ways_during(cuts: impl AsyncFnOnce(&Network)) {
    let guest = Guest::on().await;
    let sandbox = Sandbox::new();
    let (network, shim, agent) = session(&guest, &sandbox).await;
    let (mut shim_read, mut shim_write) = shim.into_split();
    let (mut agent_read, mut agent_write) = agent.into_split();
    let all = async {
        tokio::join!(
            say_frames(&mut shim_write, MUCH),
            check_frames(&mut agent_read, MUCH),
            say_frames(&mut agent_write, MUCH),
            check_frames(&mut shim_read, MUCH),
            cuts(&network),
        )
    };
    assert!(timeout(2 * LONG, all).await.is_ok(), "the bytes do not arrive");
    assert!(network.made() >= 5, "the network was not cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_in_the_midst_of_much_lose_nothing() {
    much_goes_both_ways_during(async |network| {
        for _ in 0..4 {
            sleep(Duration::from_millis(250)).await;
            network.reset();
            sleep(Duration::from_millis(300)).await;
            network.back();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_losses_in_the_midst_of_much_lose_nothing() {
    much_goes_both_ways_during(async |network| {
        for _ in 0..3 {
            sleep(Duration::from_millis(250)).await;
            let made = network.made();
            network.forget();
            eventually("it is noticed", || network.made() > made).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_silent_loss_traffic_resumes_soon_and_the_old_connection_may_wake() {
    let guest = Guest::on().await;
    let sandbox = Sandbox::new();
    let (network, mut shim, mut agent) = session(&guest, &sandbox).await;
    echo(&mut shim, &mut agent, b'a').await;
    network.stall();
    shim.write_all(&Header { length: 1, stream: 1, kind: Kind::Data, flags: 0 }.emit()).await.unwrap();
    shim.write_all(b"b").await.unwrap();
    agent.write_all(b"c").await.unwrap();
    sleep(Duration::from_secs(8)).await;
    // The connection that was given up and those that hang in their handshake all go on now.
    network.back();
    let began = Instant::now();
    let mut read = [0; HEADER_LEN + 1];
    let (up, down) =
        (async { agent.read_exact(&mut read).await.unwrap() }, async { shim.read_u8().await.unwrap() });
    let (_, down) = timeout(LONG, async { tokio::join!(up, down) }).await.unwrap();
    println!("silent loss: traffic resumed {:?} after the network", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(10), "that is not soon: {:?}", began.elapsed());
    assert_eq!((read[HEADER_LEN], down), (b'b', b'c'));
    for what in 0..50 {
        echo(&mut shim, &mut agent, what).await;
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(agent.try_read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_refused_connections_traffic_resumes_soon() {
    let guest = Guest::on().await;
    let sandbox = Sandbox::new();
    let (network, mut shim, mut agent) = session(&guest, &sandbox).await;
    echo(&mut shim, &mut agent, b'a').await;
    network.reset();
    sleep(Duration::from_secs(3)).await;
    network.back();
    let began = Instant::now();
    timeout(LONG, echo(&mut shim, &mut agent, b'b')).await.unwrap();
    println!("reset: traffic resumed {:?} after the network", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(10), "that is not soon: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_is_lost_is_noticed_and_replaced() {
    let guest = Guest::on().await;
    let sandbox = Sandbox::new();
    let (network, mut shim, mut agent) = session(&guest, &sandbox).await;
    let made = network.made();
    network.forget();
    // Nobody says a word: five seconds, and three.
    let replaced = async {
        while network.made() == made {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, replaced).await.expect("nobody asks");
    echo(&mut shim, &mut agent, b'a').await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shims_end_crosses_a_cut_and_so_does_the_agents() {
    let guest = Guest::on().await;
    let sandbox = Sandbox::new();
    let (network, mut shim, mut agent) = session(&guest, &sandbox).await;
    network.reset();
    shim.shutdown().await.unwrap();
    sleep(Duration::from_millis(300)).await;
    network.back();
    assert_eq!(timeout(LONG, agent.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    network.reset();
    agent.write_all(b"late answer").await.unwrap();
    drop(agent);
    sleep(Duration::from_millis(300)).await;
    network.back();
    let mut read = Vec::new();
    timeout(LONG, shim.read_to_end(&mut read)).await.unwrap().unwrap();
    assert_eq!(read, b"late answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_end_that_was_restarted_has_no_session_and_the_shim_is_told() {
    let mut guest = Guest::on().await;
    let sandbox = Sandbox::new();
    let (network, mut shim, mut agent) = session(&guest, &sandbox).await;
    echo(&mut shim, &mut agent, b'a').await;
    let anew = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = anew.local_addr().unwrap();
    guest.serve_on(anew, |_| {});
    network.reset();
    network.lead_to(address);
    network.back();
    let end = timeout(LONG, shim.read(&mut [0; 8])).await.expect("the shim waits for a session that is gone");
    assert_eq!(end.unwrap_or(0), 0);
    // The line may come a moment after the end.
    let log = || std::fs::read_to_string(sandbox.dir.join("link.log")).unwrap();
    let told = timeout(LONG, async {
        while !log().contains("no longer has this session") {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(told.await.is_ok(), "{}", log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_renewed_meanwhile_does_not_disturb_a_redial() {
    let guest = Guest::on().await;
    let sandbox = Sandbox::new();
    let (network, mut shim, mut agent) = session(&guest, &sandbox).await;
    let newer = target(&guest, &network);
    sandbox.links.connect(&sandbox.spec, &newer).await.unwrap();
    network.reset();
    sleep(Duration::from_millis(300)).await;
    network.back();
    timeout(LONG, echo(&mut shim, &mut agent, b'a')).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_lost_while_nobody_reaches_it_and_known_again_by_a_session() {
    let guest = Guest::on().await;
    let agent = guest.agent().await;
    let sandbox = Sandbox::new();
    let network = Network::to(guest.address).await;
    sandbox.links.open(&sandbox.spec).await.unwrap();
    sandbox.links.connect(&sandbox.spec, &target(&guest, &network)).await.unwrap();
    let mut shim = sandbox.raw_shim().await;
    shim.write_all(&health_frame()).await.unwrap();
    answer(&mut shim).await;
    let state = async || sandbox.links.status(&sandbox.spec).await.unwrap().unwrap().guest;
    let becomes = async |expected: GuestState| {
        while state().await != expected {
            sleep(Duration::from_millis(50)).await;
        }
    };
    assert_eq!(state().await, GuestState::Connected);
    network.reset();
    timeout(LONG, becomes(GuestState::Lost)).await.expect("a guest nobody reaches is said to be connected");
    network.back();
    timeout(LONG, becomes(GuestState::Connected)).await.expect("a guest that answers is said to be lost");
    assert_eq!(agent.asked.connections.load(Ordering::SeqCst), 2, "the agent noticed the cut");
    healthy(&sandbox.shim().await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_closed_takes_leave_and_the_guest_waits_for_nobody() {
    let guest = Guest::on().await;
    let sandbox = Sandbox::new();
    let (_network, mut shim, mut agent) = session(&guest, &sandbox).await;
    echo(&mut shim, &mut agent, b'a').await;
    sandbox.links.close(&sandbox.spec).await.unwrap();
    let end =
        timeout(LONG, agent.read(&mut [0; 8])).await.expect("the guest waits for a link that is no more");
    assert_eq!(end.unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_is_gone_while_nobody_reaches_the_guest_counts_no_longer() {
    let guest = Guest::on().await;
    let sandbox = Sandbox::new();
    let (network, mut shim, mut agent) = session(&guest, &sandbox).await;
    echo(&mut shim, &mut agent, b'a').await;
    network.reset();
    let shims = async || sandbox.links.status(&sandbox.spec).await.unwrap().unwrap().shims;
    shim.shutdown().await.unwrap();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(shims().await, 1, "a shim that has only said all is still there");
    drop(shim);
    let gone = async {
        while shims().await > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, gone).await.expect("a shim that is gone counts as connected");
    network.back();
    assert_eq!(timeout(LONG, agent.read(&mut [0; 8])).await.expect("its end was forgotten").unwrap(), 0);
}
