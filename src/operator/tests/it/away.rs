//! All controllers at once through a time without an API server.

use std::time::{Duration, Instant};

use peerpods_operator::names;
use peerpods_operator::peerpod::world::Pace;
use peerpods_provider::fake::Operation;
use serde_json::json;

use crate::cluster::{Cluster, until};
use crate::peerpod::{Bench, PACE};
use crate::place;

/// As long as it takes until the API server is away, and shorter than it is.
const NODES_TURN: Duration = Duration::from_secs(5);

/// Waits until something holds, and says how long after the return that was.
async fn caught_up<F: Future<Output = bool>>(what: &str, back: Instant, holds: impl FnMut() -> F) {
    until(what, holds).await;
    println!("{what}: {:.1} s after the API server was back", back.elapsed().as_secs_f32());
}

#[tokio::test]
async fn an_api_server_that_was_away_is_caught_up_with() {
    let test = "an_api_server_that_was_away_is_caught_up_with";
    if !place::can_be_away(test) {
        return;
    }
    assert!(place::away() > NODES_TURN, "nothing falls due while it is away");
    let cluster = Cluster::installed(json!({ "enablePeerPods": true })).await;
    cluster.advertises("worker0", Some("10")).await;
    let bench = Bench::at(cluster, Pace { nodes_turn: NODES_TURN, ..PACE }).await;
    bench.is_at_work("worker0").await;
    let pod = bench.pod("web").await;
    let id = bench.vm("s1", "worker0").await;
    bench.peer_pod("s1", &pod, "worker0", json!({ "instanceID": id })).await;
    bench.delete_pod("web").await;
    until("the PeerPod goes", || bench.is_leaving("web-s1")).await;

    let place = &bench.cluster.place;
    place.stop().await;
    tokio::time::sleep(place::away()).await;
    let meanwhile = bench.cloud.calls(Operation::Delete);
    place.start().await;
    place.compact().await;
    let back = Instant::now();
    println!("the API server was away for {:?}", place::away());
    assert_eq!(meanwhile, 0, "due while nobody could say whether the pod has ended, and not before");

    bench.cluster.add_node("worker9", names::WORKER_LABEL, "rendered-worker-0").await;
    let role = || bench.cluster.has_role("worker9");
    let limit = || async { bench.cluster.advertised("worker9").await.is_some() };
    let end = || async { bench.cloud.machines().is_empty() && !bench.is_leaving("web-s1").await };
    tokio::join!(
        caught_up("the new worker has the role", back, role),
        caught_up("the new worker advertises its VMs", back, limit),
        caught_up("the VM is gone, and its PeerPod", back, end),
    );
}
