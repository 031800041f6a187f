//! Plays the kubelets of the nodes that tests make: pods that are bound to them run, and end when they are deleted.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::tidy::MADE;

/// How often it looks.
const EVERY: Duration = Duration::from_millis(300);

/// Of a node whose pods the test itself speaks for: they only end.
pub(crate) const SILENT: &str = "silent";

/// Plays until it is aborted.
pub(crate) async fn play(client: Client) {
    loop {
        // An API server that is away is asked again.
        let _ = turn(&client).await;
        tokio::time::sleep(EVERY).await;
    }
}

async fn turn(client: &Client) -> kube::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let made: BTreeMap<String, bool> = nodes
        .list(&ListParams::default().labels(MADE))
        .await?
        .iter()
        .map(|node| (node.name_any(), node.labels()[MADE] != SILENT))
        .collect();
    let pods: Api<Pod> = Api::all(client.clone());
    for pod in &pods.list(&ListParams::default()).await? {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        if let Some(runs) = node.and_then(|node| made.get(node)) {
            tend(client, pod, *runs).await;
        }
    }
    Ok(())
}

async fn tend(client: &Client, pod: &Pod, runs: bool) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    // Whatever is refused has moved, and is looked at again.
    if pod.metadata.deletion_timestamp.is_some() {
        let _ = pods.delete(&name, &DeleteParams::default().grace_period(0)).await;
    } else if runs && phase == Some("Pending") {
        let _ = pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(running(pod))).await;
    }
}

fn running(pod: &Pod) -> Value {
    let now = "2026-01-01T00:00:00Z";
    let conditions: Vec<Value> = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
        .map(|kind| json!({ "type": kind, "status": "True", "lastTransitionTime": now }))
        .into();
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| {
        json!({
            "name": container.name, "image": container.image, "imageID": "none", "ready": true, "restartCount": 0,
            "state": { "running": { "startedAt": now } },
        })
    });
    let containers: Vec<Value> = containers.collect();
    json!({ "status": { "phase": "Running", "conditions": conditions, "containerStatuses": containers } })
}
