//! One history from its seed: pods come and go, the daemon dies at its points, and in the end nothing may be left.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::invariants::{self, Violation};
use super::node::Node;
use super::plan::{Plan, Sabotage, Seed};
use super::shim::Kubelet;
use super::world::{Seam, World};

/// What came of a history.
#[derive(Debug, Clone)]
pub struct History {
    /// Its seed.
    pub seed: Seed,
    /// How many points it passed.
    pub points: u64,
    /// A digest of everything that happened.
    pub digest: u64,
    /// Points by seam.
    pub passed: BTreeMap<Seam, u64>,
    /// The deaths that happened.
    pub deaths: Vec<(u64, Seam, &'static str)>,
    /// What was broken.
    pub violations: Vec<Violation>,
    /// What happened, one line an event.
    pub trace: Vec<String>,
}

/// Plays the history of `seed`, in a world that has this defect.
///
/// # Errors
/// When the runtime or its directory cannot be made.
pub fn play(seed: &Seed, sabotage: Option<Sabotage>, authority: &Path) -> std::io::Result<History> {
    let dir = tempfile::Builder::new().prefix("ppc").tempdir()?;
    for place in ["pods", "netns"] {
        fs::create_dir(dir.path().join(place))?;
    }
    let mut plan = Plan::of(seed);
    plan.sabotage = sabotage;
    match sabotage {
        Some(Sabotage::NoLimit) => plan.limit = 1,
        Some(Sabotage::CloudNotIdempotent) => (plan.cloud_faults, plan.blindness) = (200, 1_000),
        _ => {}
    }
    // The service's jitter is drawn on this thread.
    fastrand::seed(seed.workload);
    // One blocking thread: what is done outside the runtime is done in order.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).max_blocking_threads(1).build()?;
    let world = runtime.block_on(async {
        let world = World::new(dir.path().to_owned(), plan);
        live(&world, authority).await;
        world
    });
    runtime.shutdown_background();
    let (points, digest) = world.outcome();
    let mut state = world.state();
    Ok(History {
        seed: seed.clone(),
        points,
        digest,
        passed: std::mem::take(&mut state.passed),
        deaths: std::mem::take(&mut state.deaths),
        violations: std::mem::take(&mut state.violations),
        trace: std::mem::take(&mut state.trace),
    })
}

/// The longest the pods are waited for in each half of the history.
const HALF: Duration = Duration::from_secs(3_600);
/// How often is looked whether something is left, and how many times.
const LOOK: Duration = Duration::from_secs(30);
const LOOKS: usize = 120;

async fn live(world: &Arc<World>, authority: &Path) {
    let node = Node::new(world.clone(), authority.to_owned());
    let daemon = node.clone();
    let supervisor = tokio::spawn(async move { daemon.supervise().await });
    let (end, ending) = watch::channel(false);
    let parked = watch::Sender::new(0);
    let mut pods = JoinSet::new();
    for pod in 0..world.plan.pods {
        let kubelet = Kubelet { node: node.clone(), pod, parked: parked.clone(), end: ending.clone() };
        pods.spawn(kubelet.run());
    }
    let all = (1 << world.plan.pods) - 1;
    drop(timeout(HALF, parked.subscribe().wait_for(|parked| *parked == all)).await);
    settle(&node).await;
    world.note("everything is stopped");
    end.send_replace(true);
    drop(timeout(HALF, async { while pods.join_next().await.is_some() {} }).await);
    for _ in 0..LOOKS {
        sleep(LOOK).await;
        let service = node.service().map(|(_, service)| service);
        if service.is_some() && invariants::leftovers(world, service.as_ref()).is_empty() {
            break;
        }
    }
    let service = node.service().map(|(_, service)| service);
    invariants::when_over(world, service.as_ref());
    supervisor.abort();
}

/// Waits until one daemon has lived for some minutes, and looks at the pods that run.
async fn settle(node: &Node) {
    for _ in 0..20 {
        let Some((before, _)) = node.service() else {
            sleep(LOOK).await;
            continue;
        };
        sleep(10 * LOOK).await;
        if let Some((after, service)) = node.service()
            && before == after
        {
            return invariants::when_settled(&node.world, &service);
        }
    }
}
