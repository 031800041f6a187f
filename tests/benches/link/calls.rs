//! The calls that are measured, all on one connection as a shim has one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use peerpods_proto::ttrpc::agent::{CopyFileRequest, ReadStreamRequest};
use peerpods_proto::ttrpc::agent_ttrpc::AgentServiceClient;
use peerpods_proto::ttrpc::health::CheckRequest;
use peerpods_proto::ttrpc::health_ttrpc::HealthClient;
use ttrpc::r#async::Client;
use ttrpc::context;

use super::paths::{Path, Paths};

/// How many calls are made one at a time.
const ONE_BY_ONE: usize = 2000;
/// How long calls are kept in flight.
const IN_FLIGHT_FOR: Duration = Duration::from_millis(1500);
/// How much is copied each way.
const COPIED: usize = 256;

/// What one path did in one round.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    /// One at a time: median and 99th percentile.
    pub(crate) one: [Duration; 2],
    /// 32 and 256 in flight: calls a second, 99th percentile.
    pub(crate) in_flight: [(f64, Duration); 2],
    /// MiB a second and CPU seconds of both ends together for 256 MiB: towards the agent, and from it.
    pub(crate) copied: [(f64, f64); 2],
}

/// Measures a path once.
pub(crate) async fn measure(paths: &Paths, path: Path) -> Taken {
    let client = paths.client(path).await;
    check(&client).await;
    let one = one_by_one(&client).await;
    let in_flight = [in_flight(&client, 32).await, in_flight(&client, 256).await];
    let up = copied(paths, path, || up(&client)).await;
    let down = copied(paths, path, || down(&client)).await;
    Taken { one, in_flight, copied: [up, down] }
}

fn within() -> context::Context {
    context::with_duration(Duration::from_secs(60))
}

async fn check(client: &Client) {
    HealthClient::new(client.clone()).check(within(), &CheckRequest::new()).await.unwrap();
}

/// The value below which so much of all lie.
fn quantile(sorted: &[Duration], part: f64) -> Duration {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of a short list")]
    let at = (sorted.len() as f64 * part) as usize;
    sorted[at.min(sorted.len() - 1)]
}

async fn one_by_one(client: &Client) -> [Duration; 2] {
    let mut took = Vec::with_capacity(ONE_BY_ONE);
    for _ in 0..ONE_BY_ONE {
        let began = Instant::now();
        check(client).await;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    [quantile(&took, 0.5), quantile(&took, 0.99)]
}

async fn in_flight(client: &Client, number: usize) -> (f64, Duration) {
    let made = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let callers = (0..number).map(|_| {
        let (client, made) = (client.clone(), made.clone());
        tokio::spawn(async move {
            let mut took = Vec::new();
            while began.elapsed() < IN_FLIGHT_FOR {
                let began = Instant::now();
                check(&client).await;
                took.push(began.elapsed());
                made.fetch_add(1, Ordering::Relaxed);
            }
            took
        })
    });
    let mut took: Vec<Duration> =
        futures::future::join_all(callers).await.into_iter().flat_map(Result::unwrap).collect();
    let rate = made.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    took.sort_unstable();
    (rate, quantile(&took, 0.99))
}

async fn copied<F: Future<Output = ()>>(paths: &Paths, path: Path, copy: impl FnOnce() -> F) -> (f64, f64) {
    let (cpu, began) = (paths.cpu(path), Instant::now());
    copy().await;
    let rate = COPIED as f64 / began.elapsed().as_secs_f64();
    (rate, (paths.cpu(path) - cpu).as_secs_f64())
}

async fn up(client: &Client) {
    let agent = AgentServiceClient::new(client.clone());
    let request = CopyFileRequest { data: vec![7; 1 << 20], ..Default::default() };
    for _ in 0..COPIED {
        agent.copy_file(within(), &request).await.unwrap();
    }
}

async fn down(client: &Client) {
    let agent = AgentServiceClient::new(client.clone());
    let request = ReadStreamRequest { len: 1 << 20, ..Default::default() };
    for _ in 0..COPIED {
        assert_eq!(agent.read_stdout(within(), &request).await.unwrap().data.len(), 1 << 20);
    }
}
