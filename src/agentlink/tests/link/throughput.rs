//! What a session costs against a plain link, in time and in memory. Ignored: it measures, and a busy machine measures something else.
//!
//! `cargo test --release -p peerpods-agentlink --test link throughput -- --ignored --nocapture`

use std::time::{Duration, Instant};

use peerpods_agentlink::frame::{HEADER_LEN, Header, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::support::{Guest, Sandbox};
use super::wire::bare_agent;

const MUCH: usize = 64 << 20;

/// Private memory of the link's process in KiB: all, and what is not of a file.
async fn memory(sandbox: &Sandbox) -> (u64, u64) {
    let pid = sandbox.links.status(&sandbox.spec).await.unwrap().unwrap().pid;
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let sum = |names: &[&str]| {
        let lines = text.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
        lines.map(|line| line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
    };
    (sum(&["Private_Clean:", "Private_Dirty:"]), sum(&["Anonymous:"]))
}

async fn push(from: &mut UnixStream, to: &mut UnixStream) -> Duration {
    let header = Header { length: 1 << 20, stream: 3, kind: Kind::Data, flags: 0 };
    let frame = [&header.emit()[..], &vec![7; 1 << 20]].concat();
    let total = MUCH / (1 << 20) * (HEADER_LEN + (1 << 20));
    let began = Instant::now();
    let say = async {
        for _ in 0..MUCH / (1 << 20) {
            from.write_all(&frame).await.unwrap();
        }
    };
    let hear = async {
        let (mut heard, mut read) = (0, vec![0; 1 << 20]);
        while heard < total {
            heard += to.read(&mut read).await.unwrap();
        }
    };
    tokio::join!(say, hear);
    began.elapsed()
}

async fn ping_pong(shim: &mut UnixStream, agent: &mut UnixStream) -> Duration {
    let frame = [&Header { length: 1, stream: 1, kind: Kind::Data, flags: 0 }.emit()[..], b"x"].concat();
    let mut read = vec![0; frame.len()];
    let began = Instant::now();
    for _ in 0..1000 {
        shim.write_all(&frame).await.unwrap();
        agent.read_exact(&mut read).await.unwrap();
        agent.write_all(&frame).await.unwrap();
        shim.read_exact(&mut read).await.unwrap();
    }
    began.elapsed() / 1000
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn a_session_against_a_plain_link() {
    let mut best = Vec::new();
    for (what, guest) in [("plain", Guest::stock().await), ("session", Guest::on().await)] {
        let sandbox = Sandbox::new();
        let (mut shim, mut agent) = bare_agent(&guest, &sandbox).await;
        let before = memory(&sandbox).await;
        let (mut up, mut down) = (Duration::MAX, Duration::MAX);
        for _ in 0..5 {
            up = up.min(push(&mut shim, &mut agent).await);
            down = down.min(push(&mut agent, &mut shim).await);
        }
        let latency = ping_pong(&mut shim, &mut agent).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let after = memory(&sandbox).await;
        println!("{what}: 64 MiB up {up:?}, down {down:?}, round trip {latency:?}");
        println!("{what}: private, anonymous KiB before {before:?}, after {after:?}");
        best.push((up, down, latency));
    }
    let ratio = |a: Duration, b: Duration| b.as_secs_f64() / a.as_secs_f64();
    let (plain, session) = (best[0], best[1]);
    println!(
        "session / plain: up {:.2}, down {:.2}, round trip {:.2}",
        ratio(plain.0, session.0),
        ratio(plain.1, session.1),
        ratio(plain.2, session.2)
    );
}
