//! Plays the kubelets of the nodes that tests make: pods that are bound to them run, and end when they are deleted.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(300);

/// Plays until it is aborted. `is_ours` picks nodes.
pub(crate) async fn play(client: Client, is_ours: impl Fn(&str) -> bool) {
    loop {
        let pods: Api<Pod> = Api::all(client.clone());
        // An API server that is away is asked again.
        let list = pods.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        for pod in &list {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            if node.is_some_and(|node| is_ours(&node)) {
                tend(&client, pod).await;
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn tend(client: &Client, pod: &Pod) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    // Whatever is refused has moved, and is looked at again.
    if pod.metadata.deletion_timestamp.is_some() {
        let _ = pods.delete(&name, &DeleteParams::default().grace_period(0)).await;
    } else if phase == Some("Pending") {
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
