//! The limit as the scheduler keeps it. Only a real cluster has one.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, Patch, PatchParams};
use peerpods_crds::VM_RESOURCE;
use serde_json::json;

use crate::cluster::{Cluster, create, until};
use crate::place;

/// Why the scheduler does not place a pod.
async fn held_back(pods: &Api<Pod>, name: &str) -> Option<String> {
    let status = pods.get(name).await.unwrap().status?;
    let conditions = status.conditions.unwrap_or_default();
    let scheduled = conditions.into_iter().find(|one| one.type_ == "PodScheduled")?;
    (scheduled.status == "False").then_some(scheduled.message?)
}

async fn is_placed(pods: &Api<Pod>, name: &str) -> bool {
    pods.get(name).await.unwrap().spec.unwrap().node_name.is_some()
}

#[tokio::test]
#[ignore = "needs a cluster with a scheduler: make test-cluster"]
async fn a_pod_over_the_limit_stays_pending_with_the_schedulers_reason() {
    assert!(place::is_real(), "there is no scheduler here");
    let mut cluster = Cluster::new(1).await;
    cluster.keys().await;
    cluster.operate().await;
    cluster.configure("1").await;
    cluster.advertises("worker0", Some("1")).await;
    // The kubelet's part.
    let allocatable = json!({ "status": { "allocatable": { VM_RESOURCE: "1" } } });
    let nodes = cluster.all::<Node>();
    nodes.patch_status("worker0", &PatchParams::default(), &Patch::Merge(allocatable)).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    // As the webhook leaves pods.
    let one = json!({ VM_RESOURCE: "1" });
    let ask = async |name: &str| {
        let container =
            json!({ "name": "c", "image": "none", "resources": { "requests": one, "limits": one } });
        // Nobody takes the taint off that nodes begin with.
        let spec = json!({ "containers": [container], "tolerations": [{ "operator": "Exists" }] });
        create(&pods, json!({ "metadata": { "name": name }, "spec": spec })).await;
    };
    ask("first").await;
    until("the first is placed", || is_placed(&pods, "first")).await;
    ask("second").await;
    until("the second is held back", || async { held_back(&pods, "second").await.is_some() }).await;
    let reason = held_back(&pods, "second").await.unwrap();
    assert!(reason.contains(&format!("Insufficient {VM_RESOURCE}")), "{reason}");
}
