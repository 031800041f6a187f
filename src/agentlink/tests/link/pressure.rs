//! Peers that do not read: others are not stalled, memory stays bounded, and a call waits for no more than a stated number of bytes.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use peerpods_agentlink::Link;
use peerpods_agentlink::far::Far;
use peerpods_test_require::{Need, require};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::detach::pid_of;
use super::scripted::{Scripted, answer_call, data, next_call, next_frame};
use super::support::{Guest, eventually, healthy};
use super::wire::health_frame;

const LONG: Duration = Duration::from_secs(60);
/// What lies between a shim's socket and its agent at most, in bytes, of one direction of a session: the session's window, and what the
/// kernel holds for the agent (64 KiB, doubled by the kernel; one write of up to 64 KiB more is taken while there is any room).
const SESSION_HOLDS: usize = (512 + 128 + 64) << 10;
/// The same with a stock peer: TCP's buffers at both ends (each bounded to 256 KiB, doubled by the kernel), a piece in each process and in
/// its TLS, and the agent's socket.
const PLAIN_HOLDS: usize = (2 * 512 + 4 * 64 + 128 + 64) << 10;
/// What a shim's own socket holds: the kernel's default, which is not ours to set.
fn shims_socket() -> usize {
    std::fs::read_to_string("/proc/sys/net/core/wmem_default").unwrap().trim().parse().unwrap()
}

/// So long nobody takes a byte: it is no pause of a busy machine.
const STILL: Duration = Duration::from_secs(3);

/// Writes frames until nobody takes a byte any more; how many bytes were taken.
async fn flood(to: &mut UnixStream) -> usize {
    let frame = data(1 << 20);
    let mut taken = 0;
    loop {
        let rest = &frame[taken % frame.len()..];
        match timeout(STILL, to.write(rest)).await {
            Ok(written) => taken += written.unwrap(),
            Err(_) => return taken,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_waits_for_no_more_than_the_bounded_buffers_and_one_frame() {
    for (guest, holds) in [(Guest::on().await, SESSION_HOLDS), (Guest::stock().await, PLAIN_HOLDS)] {
        let scripted = Scripted::behind(&guest).await;
        let (mut shim, mut agent) = scripted.pair().await;
        // Bulk that nobody reads: every byte that was taken is ahead of what the shim says next.
        let ahead = flood(&mut shim).await;
        println!("ahead of a Check towards the agent: {ahead} bytes, of {} allowed", holds + shims_socket());
        assert!(ahead <= holds + shims_socket(), "{ahead} bytes are ahead of a Check");
        // The frame that was begun is ended, and the Check is next, whatever else the shim would like to copy.
        let frame = data(1 << 20);
        let rest = frame[ahead % frame.len()..].to_vec();
        let asking = async {
            shim.write_all(&rest).await.unwrap();
            shim.write_all(&health_frame()).await.unwrap();
        };
        let hearing = async {
            let mut before = 0;
            loop {
                let (stream, payload) = next_frame(&mut agent).await.unwrap();
                if stream == 1 {
                    break (before, payload);
                }
                before += 10 + payload.len();
            }
        };
        let ((), (before, check)) = timeout(LONG, async { tokio::join!(asking, hearing) }).await.unwrap();
        assert_eq!(check, health_frame()[10..]);
        assert_eq!(before, ahead + rest.len(), "bytes before the Check");
        // And the way back.
        let ahead = flood(&mut agent).await;
        println!("ahead of its answer: {ahead} bytes");
        assert!(ahead <= holds + 2 * shims_socket(), "{ahead} bytes are ahead of an answer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_stalls_nobody_else_and_loses_nothing() {
    for guest in [Guest::on().await, Guest::stock().await] {
        let scripted = Scripted::behind(&guest).await;
        let (mut slow_shim, mut its_agent) = scripted.pair().await;
        let (mut its_shim, mut slow_agent) = scripted.pair().await;
        let (down, up) = tokio::join!(flood(&mut its_agent), flood(&mut its_shim));
        let other = scripted.sandbox.shim().await;
        let answering = async {
            let mut agent = scripted.accept().await;
            for _ in 0..300 {
                let (stream, _) = next_call(&mut agent).await.unwrap();
                answer_call(&mut agent, stream, vec![0x08, 0x01]).await;
            }
        };
        let asking = async {
            for _ in 0..300 {
                healthy(&other).await.unwrap();
            }
        };
        timeout(LONG, async { tokio::join!(answering, asking) })
            .await
            .expect("somebody else's reader stalls this one");
        for (from, total) in [(&mut slow_shim, down), (&mut slow_agent, up)] {
            let frames = data(1 << 20);
            let (mut heard, mut piece) = (0, vec![0; 50_000]);
            while heard < total {
                let read = timeout(LONG, from.read(&mut piece)).await.expect("bytes were lost").unwrap();
                for (at, byte) in piece[..read].iter().enumerate() {
                    assert!(*byte == frames[(heard + at) % frames.len()], "byte {} differs", heard + at);
                }
                heard += read;
            }
        }
    }
}

/// Tells this program, started again, to be a guest's end: the directory with its authority.
const GUEST_END: &str = "PEERPODS_TEST_GUEST_END";
const NAME: &str = "pressure::memory_stays_bounded_at_both_ends_while_nobody_reads";

/// Anonymous memory in KiB.
fn anonymous(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A guest whose end is a process of its own.
struct Elsewhere(Child, Guest);

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn guest_elsewhere() -> Elsewhere {
    let guest = Guest::off().await;
    let dir = guest.agent_socket.parent().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env(GUEST_END, dir)
        .env("PEERPODS_TEST_ADDRESS", guest.address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("it listens", || std::net::TcpStream::connect(guest.address).is_ok()).await;
    Elsewhere(child, guest)
}

async fn be_a_guest_end(dir: &Path) {
    let mut guest = Guest::off().await;
    guest.ca = peerpods_agentlink::ca::ClusterCa::load_or_create(&dir.join("ca")).unwrap();
    guest.agent_socket = dir.join("agent.sock");
    let address = std::env::var("PEERPODS_TEST_ADDRESS").unwrap();
    let listener = TcpListener::bind(address).await.unwrap();
    let closing = CancellationToken::new();
    let orphaned = closing.clone();
    std::thread::spawn(move || {
        // The test holds the other end, however it ends itself.
        let _ = std::io::stdin().read(&mut [0]);
        orphaned.cancel();
    });
    Far::new(guest.far_config()).serve(listener, closing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_bounded_at_both_ends_while_nobody_reads() {
    const CONNECTIONS: u64 = 8;
    if let Some(dir) = std::env::var_os(GUEST_END).map(PathBuf::from) {
        return be_a_guest_end(&dir).await;
    }
    // The link lets nobody else look at its memory.
    if !require(NAME, &[Need::Root]) {
        return;
    }
    let guest = guest_elsewhere().await;
    let scripted = Scripted::behind(&guest.1).await;
    let pids = [u32::try_from(pid_of(&scripted.sandbox).await.as_raw()).unwrap(), guest.0.id()];
    let mut pairs = Vec::new();
    for _ in 0..CONNECTIONS {
        pairs.push(scripted.pair().await);
    }
    let idle = pids.map(anonymous);
    let floods = pairs.iter_mut().flat_map(|(shim, agent)| [flood(shim), flood(agent)]);
    let taken: usize = futures::future::join_all(floods).await.into_iter().sum();
    let full = pids.map(anonymous);
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(3) {
        for (shim, agent) in &pairs {
            let (_, _) = (shim.try_write(&[0x5a; 4096]), agent.try_write(&[0x5a; 4096]));
        }
        sleep(Duration::from_millis(20)).await;
    }
    let later = pids.map(anonymous);
    println!("link and guest end, KiB: idle {idle:?}, {taken} bytes under way {full:?}, later {later:?}");
    for end in 0..2 {
        // Two windows each, and what TLS and its records hold.
        let most = idle[end] + CONNECTIONS * (2 * 512 + 320) + 1024;
        assert!(full[end] <= most && later[end] <= most, "{idle:?} {full:?} {later:?}, at most {most}");
    }
    for (shim, _) in &pairs {
        assert!(shim.try_write(&[0; 4096]).is_err(), "it still takes bytes");
    }
    scripted.sandbox.links.close(&scripted.sandbox.spec).await.unwrap();
}
