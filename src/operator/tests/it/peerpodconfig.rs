//! PeerPodConfig: the node service and the VMs that nodes advertise.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use peerpods_crds::{PeerPodConfig, VM_RESOURCE};
use peerpods_operator::names;
use serde_json::{Value, json};

use crate::cluster::{Cluster, create, until};

impl Cluster {
    pub(crate) async fn configure(&self, limit: &str) {
        let spec = json!({ "limit": limit, "nodeSelector": { names::WORKER_LABEL: "" } });
        create(
            &self.operators::<PeerPodConfig>(),
            json!({
                "apiVersion": "confidentialcontainers.org/v1alpha1", "kind": "PeerPodConfig",
                "metadata": { "name": names::PEER_POD_CONFIG }, "spec": spec,
            }),
        )
        .await;
    }

    pub(crate) async fn keys(&self) {
        let data = json!({ "AWS_ACCESS_KEY_ID": "aWQ=", "PODVM_AMI_ID": "YW1pLTE=" });
        create(
            &self.operators::<Secret>(),
            json!({ "metadata": { "name": names::CLOUD_SECRET }, "data": data }),
        )
        .await;
        let data = json!({ "CLOUD_PROVIDER": "aws", "PODVM_AMI_ID": "ami-2" });
        create(
            &self.operators::<ConfigMap>(),
            json!({ "metadata": { "name": names::CLOUD_CONFIG }, "data": data }),
        )
        .await;
    }

    pub(crate) async fn advertised(&self, node: &str) -> Option<String> {
        let node = self.all::<Node>().get(node).await.unwrap();
        node.status?.capacity?.get(VM_RESOURCE).map(|limit| limit.0.clone())
    }

    pub(crate) async fn advertises(&self, node: &str, limit: Option<&str>) {
        until(&format!("{node} advertises {limit:?}"), || async {
            self.advertised(node).await.as_deref() == limit
        })
        .await;
    }

    pub(crate) async fn change(&self, patch: Value) {
        let configs = self.operators::<PeerPodConfig>();
        configs.patch(names::PEER_POD_CONFIG, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub(crate) async fn reason(&self) -> Option<(String, String)> {
        let config = self.operators::<PeerPodConfig>().get(names::PEER_POD_CONFIG).await.unwrap();
        let condition = config.status?.conditions.into_iter().next()?;
        Some((condition.reason, condition.message))
    }

    pub(crate) async fn operating() -> Self {
        let mut cluster = Self::new(2).await;
        cluster.operate().await;
        cluster
    }
}

#[tokio::test]
async fn nodes_advertise_the_limit_as_they_come_and_as_it_changes_and_nothing_at_the_end() {
    let cluster = Cluster::operating().await;
    cluster.keys().await;
    cluster.configure("10").await;
    cluster.advertises("worker0", Some("10")).await;
    cluster.advertises("worker1", Some("10")).await;
    assert_eq!(cluster.advertised("master0").await, None);
    cluster.add_node("worker2", names::WORKER_LABEL, "rendered-worker-0").await;
    cluster.advertises("worker2", Some("10")).await;
    cluster.change(json!({ "spec": { "limit": "3" } })).await;
    cluster.advertises("worker1", Some("3")).await;
    cluster
        .patch::<Node>("worker1", json!({ "metadata": { "labels": { names::WORKER_LABEL: null } } }))
        .await;
    cluster.advertises("worker1", None).await;
    let configs = cluster.operators::<PeerPodConfig>();
    configs.delete(names::PEER_POD_CONFIG, &DeleteParams::default()).await.unwrap();
    cluster.advertises("worker0", None).await;
    until("it is gone", || async { configs.get_opt(names::PEER_POD_CONFIG).await.unwrap().is_none() }).await;
    let sets = cluster.operators::<DaemonSet>();
    until("its service is gone", || async { sets.get_opt(names::NODE_SERVICE).await.unwrap().is_none() })
        .await;
}

#[tokio::test]
async fn the_service_waits_for_its_configuration_and_follows_it() {
    let cluster = Cluster::operating().await;
    cluster.configure("10").await;
    until("told what is missing", || async {
        cluster
            .reason()
            .await
            .is_some_and(|(reason, text)| reason == "MissingSecret" && text.contains("peer-pods-cm"))
    })
    .await;
    let sets = cluster.operators::<DaemonSet>();
    assert!(sets.get_opt(names::NODE_SERVICE).await.unwrap().is_none());
    cluster.keys().await;
    until("the service", || async { sets.get_opt(names::NODE_SERVICE).await.unwrap().is_some() }).await;
    let digest = || async {
        let set = sets.get(names::NODE_SERVICE).await.unwrap();
        let annotations = set.spec.unwrap().template.metadata.unwrap().annotations.unwrap();
        annotations["peerpods.io/configuration"].clone()
    };
    let before = digest().await;
    let maps = cluster.operators::<ConfigMap>();
    let patch = json!({ "data": { "VXLAN_PORT": "9001" } });
    maps.patch(names::CLOUD_CONFIG, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    until("the service is rolled out anew", || async { digest().await != before }).await;
}

#[tokio::test]
async fn a_limit_that_is_none_is_refused_by_the_schema() {
    let cluster = Cluster::operating().await;
    cluster.configure("10").await;
    let configs = cluster.operators::<PeerPodConfig>();
    for bad in ["-1", "ten", ""] {
        let patch = Patch::Merge(json!({ "spec": { "limit": bad } }));
        let refused =
            configs.patch(names::PEER_POD_CONFIG, &PatchParams::default(), &patch).await.unwrap_err();
        assert!(refused.to_string().contains("spec.limit"), "{bad:?}: {refused}");
    }
    assert_eq!(configs.get(names::PEER_POD_CONFIG).await.unwrap().name_any(), names::PEER_POD_CONFIG);
}
