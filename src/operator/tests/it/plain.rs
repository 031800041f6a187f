//! KataConfig on a cluster that has none of OpenShift's kinds. The test plays kubelet and DaemonSet controller: it makes the pods that
//! labels of nodes ask for, and says how far they are.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use peerpods_crds::{KataConfig, PeerPodConfig};
use peerpods_operator::names;
use serde_json::{Value, json};

use crate::cluster::{Cluster, create, until};
use crate::kataconfig::NAME;
use crate::kubelet::SILENT;
use crate::tidy::MADE;

const SETS: [&str; 2] = [names::INSTALLER, names::REMOVER];

impl Cluster {
    /// Nodes without any role, and one control plane.
    pub(crate) async fn without_openshift(nodes: usize) -> Self {
        let cluster = Self::bare(Vec::new()).await;
        cluster.join("cp0", json!({ names::CONTROL_PLANE_LABEL: "" })).await;
        for n in 0..nodes {
            cluster.join(&format!("n{n}"), json!({ "zone": "a" })).await;
        }
        cluster
    }

    async fn join(&self, name: &str, labels: Value) {
        let mut labels = labels;
        // What its pods say is said by the test.
        labels[MADE] = SILENT.into();
        let size = json!({ "cpu": "16", "memory": "64Gi", "pods": "250" });
        let status = json!({ "capacity": size, "allocatable": size });
        create(
            &self.all::<Node>(),
            json!({ "metadata": { "name": name, "labels": labels }, "status": status }),
        )
        .await;
        self.node_readiness(name, "True").await;
    }

    async fn node_readiness(&self, name: &str, ready: &str) {
        let now = "2026-11-01T00:00:00Z";
        let condition = json!({ "type": "Ready", "status": ready, "reason": "", "message": "", "lastHeartbeatTime": now, "lastTransitionTime": now });
        let status = Patch::Merge(json!({ "status": { "conditions": [condition] } }));
        self.all::<Node>().patch_status(name, &PatchParams::default(), &status).await.unwrap();
    }

    async fn label(&self, node: &str) -> Option<String> {
        self.all::<Node>().get(node).await.unwrap().labels().get(names::FILES_LABEL).cloned()
    }

    pub(crate) async fn label_is(&self, node: &str, value: Option<&str>) {
        until(&format!("{node} has {value:?}"), || async { self.label(node).await.as_deref() == value })
            .await;
    }

    async fn has_kata_role(&self, node: &str) -> bool {
        self.all::<Node>().get(node).await.unwrap().labels().contains_key(names::ROLE_LABEL)
    }

    /// One turn of the DaemonSet controller: pods where their set and the node's label ask for them, of the set's form, and no others.
    async fn daemon_sets(&self) {
        if self.place.server().is_none() {
            // A real cluster has such a controller.
            return;
        }
        let (sets, pods) = (self.operators::<DaemonSet>(), self.operators::<Pod>());
        let nodes = self.all::<Node>().list(&ListParams::default()).await.unwrap();
        for name in SETS {
            let set = sets.get_opt(name).await.unwrap();
            for node in &nodes {
                let pod = format!("{name}-{}", node.name_any());
                let there = pods.get_opt(&pod).await.unwrap();
                let wanted = set.as_ref().filter(|set| selects(set, node));
                let form = |pod: &Pod| pod.annotations().get(names::TEMPLATE).cloned();
                match (there, wanted) {
                    (None, Some(set)) => create(&pods, pod_of(set, &pod, &node.name_any())).await,
                    (Some(there), Some(set)) if form(&there) == template(set) => {}
                    (Some(_), _) => {
                        drop(pods.delete(&pod, &DeleteParams::default().grace_period(0)).await.unwrap())
                    }
                    (None, None) => {}
                }
            }
        }
    }

    /// The pod of a set on a node, once it is there.
    async fn pod_on(&self, set: &str, node: &str) -> Option<String> {
        self.daemon_sets().await;
        let pods = self.operators::<Pod>().list(&ListParams::default().labels(&format!("name={set}"))).await;
        let pods = pods.unwrap();
        let on_it =
            |pod: &&Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(node));
        pods.iter()
            .filter(on_it)
            .find(|pod| pod.metadata.deletion_timestamp.is_none())
            .map(ResourceExt::name_any)
    }

    /// Pods come, and each says this of itself.
    async fn pods_say(&self, set: &str, node: &str, status: Value) {
        let pods: Api<Pod> = self.operators();
        let status = Patch::Merge(json!({ "status": status }));
        // It may be replaced in between.
        until(&format!("a pod of {set} on {node} says it"), || async {
            match self.pod_on(set, node).await {
                Some(pod) => pods.patch_status(&pod, &PatchParams::default(), &status).await.is_ok(),
                None => false,
            }
        })
        .await;
    }

    pub(crate) async fn pod_is_ready(&self, set: &str, node: &str) {
        self.pods_say(set, node, json!({ "conditions": [{ "type": "Ready", "status": "True" }] })).await;
    }

    pub(crate) async fn plainly_installed(spec: Value, nodes: usize) -> Self {
        let mut cluster = Self::without_openshift(nodes).await;
        cluster.operate().await;
        cluster.ask_for(spec).await;
        for n in 0..nodes {
            cluster.label_is(&format!("n{n}"), Some("installed")).await;
            cluster.pod_is_ready(names::INSTALLER, &format!("n{n}")).await;
        }
        cluster
            .status_is("done", |status| {
                status.kata_nodes.installed.len() == nodes
                    && status.installation_status.is_in_progress == "False"
            })
            .await;
        cluster
    }

    pub(crate) async fn is_gone(&self) {
        let configs = self.all::<KataConfig>();
        until("the KataConfig is gone", || async {
            self.daemon_sets().await;
            configs.get_opt(NAME).await.unwrap().is_none()
        })
        .await;
    }
}

fn selects(set: &DaemonSet, node: &Node) -> bool {
    let pod = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let wanted = pod.and_then(|pod| pod.node_selector.clone()).unwrap_or_default();
    wanted.iter().all(|(label, value)| node.labels().get(label) == Some(value))
}

fn template(set: &DaemonSet) -> Option<String> {
    set.spec.as_ref()?.template.metadata.as_ref()?.annotations.as_ref()?.get(names::TEMPLATE).cloned()
}

fn pod_of(set: &DaemonSet, name: &str, node: &str) -> Value {
    let owner = json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": set.name_any(), "uid": set.uid(), "controller": true });
    json!({
        "metadata": {
            "name": name,
            "labels": { "name": set.name_any() },
            "annotations": { names::TEMPLATE: template(set) },
            "ownerReferences": [owner],
        },
        "spec": { "nodeName": node, "containers": [{ "name": "peerpods", "image": "image:1" }] },
    })
}

#[tokio::test]
async fn install_and_uninstall_leave_a_cluster_without_openshift_as_it_was() {
    let mut cluster = Cluster::without_openshift(2).await;
    let others = cluster.others_make(&[("kata", "kata"), ("kata-remote", "kata-remote")]).await;
    let before = cluster.everything().await;
    cluster.operate().await;
    cluster.ask_for(json!({ "enablePeerPods": true, "logLevel": "debug" })).await;
    cluster.label_is("n0", Some("installed")).await;
    cluster.label_is("n1", Some("installed")).await;
    assert_eq!(cluster.label("cp0").await, None);
    cluster.pod_is_ready(names::INSTALLER, "n0").await;
    until("n0 has the role", || async { cluster.has_kata_role("n0").await }).await;
    assert!(!cluster.has_kata_role("n1").await);
    let classes = cluster.all::<RuntimeClass>();
    assert!(classes.get_opt("kata-remote-cc").await.unwrap().is_none(), "a node is still at work");
    cluster.pod_is_ready(names::INSTALLER, "n1").await;
    cluster.status_is("done", |status| status.installation_status.is_in_progress == "False").await;
    let status = cluster.status().await;
    assert!(!status.waiting_for_mco_to_start);
    assert_eq!(status.runtime_classes, ["kata", "kata-remote-cc"]);
    assert_eq!(status.installation_status.completed.completed_nodes_list, ["n0", "n1"]);
    let class = classes.get("kata-remote-cc").await.unwrap();
    assert_eq!(class.scheduling.unwrap().node_selector.unwrap()[names::ROLE_LABEL], "");
    let config = cluster.operators::<PeerPodConfig>().get(names::PEER_POD_CONFIG).await.unwrap();
    assert_eq!(config.spec.node_selector[names::ROLE_LABEL], "");
    until("nodes advertise their VMs", || async {
        let node = cluster.all::<Node>().get("n1").await.unwrap();
        let capacity = node.status.and_then(|status| status.capacity).unwrap_or_default();
        capacity.get("kata.peerpods.io/vm").is_some_and(|limit| limit.0 == "10")
    })
    .await;

    let configs = cluster.all::<KataConfig>();
    configs.delete(NAME, &DeleteParams::default()).await.unwrap();
    cluster.label_is("n0", Some("removed")).await;
    assert!(!cluster.has_kata_role("n0").await);
    cluster.pod_is_ready(names::REMOVER, "n0").await;
    cluster.label_is("n0", None).await;
    assert!(configs.get_opt(NAME).await.unwrap().is_some(), "n1 still has its files");
    assert_eq!(cluster.label("n1").await.as_deref(), Some("removed"));
    cluster.pod_is_ready(names::REMOVER, "n1").await;
    cluster.is_gone().await;
    cluster.daemon_sets().await;
    cluster.is_as_before(&before).await;
    cluster.others_are_untouched(&others).await;
}

#[tokio::test]
async fn a_node_that_joins_is_installed_and_one_that_is_not_meant_any_more_is_cleaned() {
    let cluster = Cluster::plainly_installed(json!({}), 1).await;
    cluster.join("n7", json!({ "zone": "a" })).await;
    cluster.label_is("n7", Some("installed")).await;
    cluster.pod_is_ready(names::INSTALLER, "n7").await;
    until("n7 has the role", || async { cluster.has_kata_role("n7").await }).await;

    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    let spec = json!({ "runtimeClassName": "kata", "nodeName": "n7", "containers": [{ "name": "a", "image": "a" }] });
    create(&pods, json!({ "metadata": { "name": "till" }, "spec": spec })).await;
    cluster.patch::<Node>("n7", json!({ "metadata": { "labels": { "zone": "b" } } })).await;
    let selector = json!({ "spec": { "kataConfigPoolSelector": { "matchLabels": { "zone": "a" } } } });
    cluster.patch::<KataConfig>(NAME, selector).await;
    cluster
        .status_is("blocked", |status| {
            status
                .conditions
                .iter()
                .any(|one| one.reason == "BlockedByExistingKataPods" && one.message.contains("shop/till"))
        })
        .await;
    assert!(cluster.has_kata_role("n7").await);
    pods.delete("till", &DeleteParams::default().grace_period(0)).await.unwrap();
    // Pods of others are not watched; any change makes the controller look.
    cluster.patch::<Node>("n0", json!({ "metadata": { "labels": { "look": "again" } } })).await;
    cluster.label_is("n7", Some("removed")).await;
    cluster.pod_is_ready(names::REMOVER, "n7").await;
    cluster.label_is("n7", None).await;
    assert!(!cluster.has_kata_role("n7").await && cluster.has_kata_role("n0").await);
    let sets = cluster.operators::<DaemonSet>();
    until("the remover is gone", || async { sets.get_opt(names::REMOVER).await.unwrap().is_none() }).await;
}

#[tokio::test]
async fn a_failure_is_told_with_its_reason_and_a_node_that_is_gone_is_not_waited_for() {
    let cluster = Cluster::plainly_installed(json!({}), 1).await;
    cluster.join("n8", json!({})).await;
    let ended = json!({ "terminated": { "exitCode": 1, "message": "there is no Kata shim on this host" } });
    let container = json!({
        "name": "peerpods", "image": "", "imageID": "", "ready": false, "restartCount": 3,
        "state": { "waiting": { "reason": "CrashLoopBackOff" } }, "lastState": ended,
    });
    let status =
        json!({ "conditions": [{ "type": "Ready", "status": "False" }], "containerStatuses": [container] });
    cluster.pods_say(names::INSTALLER, "n8", status).await;
    cluster
        .status_is("failed", |status| {
            let failed = &status.installation_status.failed.failed_nodes_list;
            failed.iter().any(|node| node.name == "n8" && node.error.contains("no Kata shim"))
                && status.conditions[0].reason == "Failed"
        })
        .await;
    cluster.node_readiness("n8", "Unknown").await;
    cluster.all::<KataConfig>().delete(NAME, &DeleteParams::default()).await.unwrap();
    cluster.pod_is_ready(names::REMOVER, "n0").await;
    cluster
        .status_is("it waits for n8, and says so", |status| {
            let condition = &status.conditions[0];
            condition.reason == "Uninstalling" && condition.message.contains("n8")
        })
        .await;
    cluster.all::<Node>().delete("n8", &DeleteParams::default()).await.unwrap();
    cluster.is_gone().await;
}

#[tokio::test]
async fn drift_is_put_right_on_a_cluster_without_openshift_and_rest_is_rest() {
    let cluster = Cluster::plainly_installed(json!({ "enablePeerPods": true }), 1).await;
    let sets = cluster.operators::<DaemonSet>();
    let bent =
        json!({ "spec": { "template": { "spec": { "nodeSelector": { names::FILES_LABEL: "bent" } } } } });
    sets.patch(names::INSTALLER, &PatchParams::default(), &Patch::Merge(bent)).await.unwrap();
    until("the installer is straight", || async {
        let set = sets.get(names::INSTALLER).await.unwrap();
        selects(&set, &cluster.all::<Node>().get("n0").await.unwrap())
    })
    .await;
    cluster.patch::<Node>("n0", json!({ "metadata": { "labels": { names::FILES_LABEL: null } } })).await;
    cluster.label_is("n0", Some("installed")).await;
    cluster.pod_is_ready(names::INSTALLER, "n0").await;
    cluster.rests().await;
}

/// An API server that has just started may not know all of its groups yet.
#[tokio::test]
async fn a_machine_config_operator_whose_api_is_away_is_not_taken_for_none() {
    let mut cluster = Cluster::without_openshift(1).await;
    cluster.node_is("n0", "Done", "rendered-worker-0").await;
    cluster.operate().await;
    cluster.ask_for(json!({})).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(cluster.label("n0").await, None);
    assert!(cluster.operators::<DaemonSet>().get_opt(names::INSTALLER).await.unwrap().is_none());
}
