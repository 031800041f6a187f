//! Watches that are late. What the operator remembers of a KataConfig is in its status, and it writes that itself.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use peerpods_operator::names;
use serde_json::json;

use crate::cluster::{Cluster, until};
use crate::place;

#[tokio::test]
async fn a_look_before_the_watch_told_of_our_own_write_decides_by_what_was_written() {
    let test = "a_look_before_the_watch_told_of_our_own_write_decides_by_what_was_written";
    if !place::has_own_server(test, "a real API server holds no watch back") {
        return;
    }
    let cluster = Cluster::installed(json!({})).await;
    cluster.rests().await;
    let server = cluster.place.server().unwrap();
    server.hold_watches("kataconfigs");
    cluster.add_node("worker1", names::WORKER_LABEL, "rendered-worker-0").await;
    cluster.status_is("a node is to be changed", |status| status.waiting_for_mco_to_start).await;
    assert!(cluster.has_role("worker1").await);
    cluster.rests().await;

    // The machine config operator has not begun, and something else wakes the controller.
    server.forget_requests();
    cluster.patch::<Node>("worker0", json!({ "metadata": { "labels": { "look": "again" } } })).await;
    until("the controller has looked", || async {
        server.requests().iter().any(|asked| asked.path.contains("kata-crio-config"))
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let status = cluster.status().await;
    assert!(status.waiting_for_mco_to_start, "{:?}", status.conditions);
    server.release_watches();
}
