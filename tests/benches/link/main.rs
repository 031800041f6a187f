//! What the agent link costs: the same calls to the same agent directly, through a plain TLS proxy pair, and through our link.
//!
//! ```text
//! direct    client ─ unix ─ agent
//! bare      client ─ unix ─ proxy ─ TCP ─ proxy ─ unix ─ agent               (what two more processes cost, whatever they do)
//! tls       client ─ unix ─ proxy ═ mutual TLS ═ proxy ─ unix ─ agent     (the least there can be: bytes, 64 KiB buffers, same ciphers)
//! session   client ─ unix ─ peerpods-link ═ resumable session ═ far end ─ unix ─ agent
//! plain     client ─ unix ─ peerpods-link ═ mutual TLS, stock ═ far end ─ unix ─ agent
//! ```
//!
//! Every box is a process of its own. Rounds go through all paths in turn, so that what the machine does meanwhile hits all of them
//! alike; the figures are medians over rounds, and ratios are medians of each round's ratio. `BENCH_ROUNDS` sets how many (5). Read
//! relations, not absolutes. Asserts nothing. `ONLY=link make bench` runs it alone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::cast_precision_loss,
    reason = "a benchmark fails by panicking"
)]

mod calls;
mod paths;
mod report;
mod roles;

use paths::{Path, Paths};
use peerpods_test_require::{Need, require};
use peerpods_tests::bench::{self, Report};

fn main() {
    if let Ok(role) = std::env::var(roles::VARIABLE) {
        return roles::play(&role);
    }
    if !bench::is_asked_for() || !require("link", &[Need::Root]) {
        return;
    }
    let rounds = bench::number("BENCH_ROUNDS", 5);
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(compare(rounds));
}

async fn compare(rounds: usize) {
    let mut report = Report::new("link");
    report.note(
        "Client, both ends and agent are processes of their own, all on this machine; rounds go through the five paths in turn. \
         An aim's ratio is the median of each round's.",
    );
    let paths = Paths::start().await;
    let idle = paths.memory();
    let mut taken: Vec<Vec<calls::Taken>> = Vec::new();
    for round in 0..rounds {
        let mut of_all: [Option<calls::Taken>; 5] = Default::default();
        for turn in 0..Path::ALL.len() {
            // Another one begins each time.
            let path = Path::ALL[(round + turn) % Path::ALL.len()];
            of_all[path as usize] = Some(calls::measure(&paths, path).await);
        }
        taken.push(of_all.into_iter().flatten().collect());
        eprintln!("round {} of {rounds} done", round + 1);
    }
    report::fill(&mut report, &taken);
    report::memory(&mut report, "connected, no shim", &idle);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    report::memory(&mut report, "after load", &paths.memory());
    paths.close().await;
    report.finish();
}
