//! PeerPods: VMs whose node no longer deletes them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use peerpods_crds::{PEERPOD_FINALIZER, PeerPod, PeerPodConfig};
use peerpods_operator::deploy::OPERATOR;
use peerpods_operator::names;
use peerpods_operator::peerpod::clouds::{Cloud, Clouds, MakeCloud};
use peerpods_operator::peerpod::controller;
use peerpods_operator::peerpod::decide::FORGET;
use peerpods_operator::peerpod::metrics::Metrics;
use peerpods_operator::peerpod::world::Pace;
use peerpods_provider::fake::{Calls, FakeCloud, Fault, Operation};
use peerpods_provider::{ErrorKind, NODE_TAG, Provider, UserData, VmKey, VmSize, VmSpec};
use serde_json::{Value, json};

use crate::cluster::{Cluster, create, until};

const SHOP: &str = "shop";
/// What the cloud is set up by.
const REGION: &str = "AWS_REGION";

/// Faster than in life.
pub(crate) const PACE: Pace = Pace {
    nodes_turn: Duration::from_secs(2),
    sweep_every: Duration::from_millis(250),
    sweep_grace: Duration::from_secs(1),
};

/// A cluster with a cloud.
pub(crate) struct Bench {
    pub(crate) cluster: Cluster,
    pub(crate) cloud: Arc<FakeCloud>,
    id: String,
}

impl Bench {
    async fn new() -> Self {
        Self::at(Cluster::new(1).await, PACE).await
    }

    /// The controller runs in a cluster. It takes a region for good settings, and none for bad ones.
    pub(crate) async fn at(cluster: Cluster, pace: Pace) -> Self {
        create(
            &cluster.operators::<ConfigMap>(),
            json!({ "metadata": { "name": names::CLOUD_CONFIG }, "data": { "CLOUD_PROVIDER": "fake", REGION: "x" } }),
        )
        .await;
        let cloud = FakeCloud::bare();
        let provider = cloud.provider();
        let make: MakeCloud = Arc::new(move |variables| match variables.0.get(REGION).map(String::as_str) {
            Some("") | None => Err(format!("{REGION} is not set")),
            Some(_) => Ok(Cloud { provider: Some(Arc::new(provider.clone())), cluster: None }),
        });
        let client = cluster.place.client_as(OPERATOR).await;
        let clouds = Clouds::new(client.clone(), names::NAMESPACE, make);
        tokio::spawn(controller::run(
            client.clone(),
            names::NAMESPACE,
            clouds,
            Metrics::default(),
            pace,
            std::future::pending(),
        ));
        let id = peerpods_operator::cluster::id(&client).await.unwrap().to_string();
        Self { cluster, cloud, id }
    }

    fn key(&self, sandbox: &str) -> VmKey {
        VmKey { cluster: self.id.parse().unwrap(), sandbox: sandbox.parse().unwrap() }
    }

    /// A VM that a node made; answers its id.
    pub(crate) async fn vm(&self, sandbox: &str, node: &str) -> String {
        let spec = VmSpec {
            name: format!("podvm-{sandbox}"),
            image: None,
            machine_type: None,
            size: VmSize::default(),
            user_data: UserData::new("#cloud-config"),
            tags: BTreeMap::from([(NODE_TAG.to_owned(), node.to_owned())]),
        };
        self.cloud.provider().create(&self.key(sandbox), &spec).await.unwrap().id
    }

    pub(crate) async fn pod(&self, name: &str) -> Pod {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), SHOP);
        let spec = json!({ "containers": [{ "name": "c", "image": "i" }] });
        create(&pods, json!({ "metadata": { "name": name }, "spec": spec })).await;
        pods.get(name).await.unwrap()
    }

    pub(crate) fn peer_pods(&self) -> Api<PeerPod> {
        Api::namespaced(self.cluster.client.clone(), SHOP)
    }

    /// What the node service writes for a pod's VM.
    pub(crate) async fn peer_pod(&self, sandbox: &str, pod: &Pod, node: &str, spec: Value) {
        let mut whole = json!({
            "apiVersion": "confidentialcontainers.org/v1alpha1", "kind": "PeerPod",
            "metadata": {
                "name": format!("{}-{sandbox}", pod.name_any()),
                "finalizers": [PEERPOD_FINALIZER],
                "ownerReferences": [pod.controller_owner_ref(&()).unwrap()],
            },
            "spec": { "cloudProvider": "fake", "instanceID": "", "sandboxID": sandbox, "clusterID": self.id, "nodeName": node },
        });
        for (key, value) in spec.as_object().unwrap() {
            whole["spec"][key] = value.clone();
        }
        create(&self.peer_pods(), whole).await;
    }

    pub(crate) async fn delete_pod(&self, name: &str) {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), SHOP);
        pods.delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }

    pub(crate) async fn nothing_is_left(&self) {
        until("VMs and PeerPods are gone", || async {
            self.cloud.machines().is_empty()
                && self.peer_pods().list(&ListParams::default()).await.unwrap().items.is_empty()
        })
        .await;
    }

    pub(crate) async fn status_says(&self, name: &str, text: &str) {
        until(&format!("{name} says {text}"), || async {
            let status = self.peer_pods().get(name).await.unwrap().status.unwrap_or_default();
            status.last_error.is_some_and(|error| error.contains(text))
        })
        .await;
    }

    pub(crate) async fn told(&self, reason: &str) -> Option<String> {
        let events: Api<Event> = Api::namespaced(self.cluster.client.clone(), SHOP);
        let all = events.list(&ListParams::default()).await.unwrap();
        all.into_iter().find(|event| event.reason.as_deref() == Some(reason)).and_then(|event| event.note)
    }

    async fn annotate(&self, name: &str, annotation: &str, value: &str) {
        let patch = json!({ "metadata": { "annotations": { annotation: value } } });
        self.peer_pods().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Its node does its work.
    pub(crate) async fn is_at_work(&self, node: &str) {
        let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
        let nodes = self.cluster.all::<Node>();
        nodes.patch_status(node, &PatchParams::default(), &Patch::Merge(ready)).await.unwrap();
    }

    /// Whether a PeerPod is asked to go.
    pub(crate) async fn is_leaving(&self, name: &str) -> bool {
        let found = self.peer_pods().get_opt(name).await.unwrap();
        found.is_some_and(|one| one.metadata.deletion_timestamp.is_some())
    }

    async fn region_is(&self, region: &str) {
        self.setting_is(REGION, region).await;
    }

    async fn setting_is(&self, key: &str, value: &str) {
        let maps = self.cluster.operators::<ConfigMap>();
        let patch = json!({ "data": { key: value } });
        maps.patch(names::CLOUD_CONFIG, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }
}

#[tokio::test]
async fn a_vm_goes_with_its_pod_when_the_node_is_gone() {
    let bench = Bench::new().await;
    let pod = bench.pod("web").await;
    let id = bench.vm("s1", "lost").await;
    bench.peer_pod("s1", &pod, "lost", json!({ "instanceID": id })).await;
    bench.delete_pod("web").await;
    bench.nothing_is_left().await;
    until("it is told", || async { bench.told("VMDeleted").await.is_some() }).await;
    assert!(bench.told("VMDeleted").await.unwrap().contains(&id));
}

#[tokio::test]
async fn a_vm_that_was_asked_for_and_not_seen_goes_too() {
    let bench = Bench::new().await;
    let pod = bench.pod("web").await;
    bench.vm("s1", "lost").await;
    bench.peer_pod("s1", &pod, "lost", json!({})).await;
    bench.delete_pod("web").await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn a_node_that_works_has_its_turn_first() {
    let bench = Bench::new().await;
    bench.is_at_work("worker0").await;
    let pod = bench.pod("web").await;
    let id = bench.vm("s1", "worker0").await;
    bench.peer_pod("s1", &pod, "worker0", json!({ "instanceID": id })).await;
    bench.delete_pod("web").await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(bench.cloud.calls(Operation::Delete), 0, "not yet");
    bench.nothing_is_left().await;
}

/// The end of a namespace asks everything in it to go, in no order.
#[tokio::test]
async fn a_peerpod_that_goes_before_its_pod_keeps_the_vm_until_the_pods_end() {
    let bench = Bench::new().await;
    bench.is_at_work("worker0").await;
    let pod = bench.pod("web").await;
    let id = bench.vm("s1", "worker0").await;
    bench.peer_pod("s1", &pod, "worker0", json!({ "instanceID": id })).await;
    bench.peer_pods().delete("web-s1", &DeleteParams::default()).await.unwrap();
    // Its node's turn passes twice.
    tokio::time::sleep(PACE.nodes_turn * 2 + Duration::from_millis(500)).await;
    assert_eq!(bench.cloud.calls(Operation::Delete), 0, "the pod is at work in it");
    assert!(bench.is_leaving("web-s1").await);
    bench.delete_pod("web").await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn what_keeps_a_vm_is_told_and_tried_again_and_a_person_can_end_it() {
    let bench = Bench::new().await;
    bench.cloud.script(Operation::Delete, Calls::All, Fault::Fail(ErrorKind::Denied));
    let pod = bench.pod("web").await;
    let id = bench.vm("s1", "lost").await;
    bench.peer_pod("s1", &pod, "lost", json!({ "instanceID": id })).await;
    bench.delete_pod("web").await;
    bench.status_says("web-s1", "denied").await;
    until("a warning", || async { bench.told("VMNotDeleted").await.is_some() }).await;
    let text = bench.told("VMNotDeleted").await.unwrap();
    assert!(text.contains(&id) && text.contains("costing money"), "{text}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let tries = bench.peer_pods().get("web-s1").await.unwrap().status.unwrap().tries;
    assert_eq!(tries, Some(1), "what is told of a failure is no reason to try again");
    bench.annotate("web-s1", FORGET, "true").await;
    until("the PeerPod goes", || async { bench.peer_pods().get_opt("web-s1").await.unwrap().is_none() })
        .await;
    assert_eq!(bench.cloud.machines().len(), 1, "nobody asked for the VM any more");
}

#[tokio::test]
async fn b20_wrong_settings_name_what_is_wrong_and_right_ones_are_used_at_once() {
    let bench = Bench::new().await;
    bench.region_is("").await;
    let pod = bench.pod("web").await;
    let id = bench.vm("s1", "lost").await;
    bench.peer_pod("s1", &pod, "lost", json!({ "instanceID": id })).await;
    bench.delete_pod("web").await;
    bench.status_says("web-s1", "AWS_REGION is not set").await;
    bench.region_is("here").await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn without_a_cloud_in_the_settings_nothing_is_taken_for_gone() {
    let bench = Bench::new().await;
    bench.setting_is("CLOUD_PROVIDER", "").await;
    let pod = bench.pod("web").await;
    let id = bench.vm("s1", "lost").await;
    bench.peer_pod("s1", &pod, "lost", json!({ "instanceID": id })).await;
    bench.delete_pod("web").await;
    bench.status_says("web-s1", "CLOUD_PROVIDER").await;
    bench.setting_is("CLOUD_PROVIDER", "fake").await;
    bench.nothing_is_left().await;
}

/// The settings' names are those of the last PeerPodConfig, also when that went before the VMs.
#[tokio::test]
async fn settings_under_other_names_are_used_after_their_peerpodconfig_is_gone() {
    let bench = Bench::new().await;
    let names = json!({ "cloudSecretName": "mine", "configMapName": "mine" });
    create(
        &bench.cluster.operators::<PeerPodConfig>(),
        json!({ "metadata": { "name": "p" }, "spec": names }),
    )
    .await;
    let data = json!({ "CLOUD_PROVIDER": "fake", REGION: "x" });
    create(&bench.cluster.operators::<ConfigMap>(), json!({ "metadata": { "name": "mine" }, "data": data }))
        .await;
    bench.setting_is("CLOUD_PROVIDER", "").await;
    let pod = bench.pod("web").await;
    for sandbox in ["s1", "s2"] {
        let id = bench.vm(sandbox, "lost").await;
        bench.peer_pod(sandbox, &pod, "lost", json!({ "instanceID": id })).await;
    }
    bench.peer_pods().delete("web-s1", &DeleteParams::default()).await.unwrap();
    until("a PeerPod goes", || async { bench.peer_pods().get_opt("web-s1").await.unwrap().is_none() }).await;
    bench.cluster.operators::<PeerPodConfig>().delete("p", &DeleteParams::default()).await.unwrap();
    bench.delete_pod("web").await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn a_vm_that_only_its_node_can_delete_says_so_once_and_goes_with_the_node() {
    let bench = Bench::new().await;
    let pod = bench.pod("web").await;
    bench.peer_pod("s1", &pod, "worker0", json!({ "instanceID": "vm-1", "cloudProvider": "qemu" })).await;
    bench.delete_pod("web").await;
    bench.status_says("web-s1", "node worker0").await;
    until("a warning", || async { bench.told("VMNotDeleted").await.is_some() }).await;
    let version = bench.peer_pods().get("web-s1").await.unwrap().resource_version();
    bench.annotate("web-s1", "example.com/look", "again").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let looked = bench.peer_pods().get("web-s1").await.unwrap();
    assert_ne!(looked.resource_version(), version, "that was the annotation");
    assert_eq!(looked.status.unwrap().tries, None, "nobody tried");
    bench.cluster.all::<Node>().delete("worker0", &DeleteParams::default()).await.unwrap();
    bench.annotate("web-s1", "example.com/look", "again, please").await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn a_vm_at_another_cloud_is_not_taken_for_gone() {
    let bench = Bench::new().await;
    let pod = bench.pod("web").await;
    bench.peer_pod("s1", &pod, "lost", json!({ "instanceID": "vm-1", "cloudProvider": "azure" })).await;
    bench.delete_pod("web").await;
    bench.status_says("web-s1", "CLOUD_PROVIDER").await;
}

#[tokio::test]
async fn a_vm_in_another_region_is_not_taken_for_gone() {
    let bench = Bench::new().await;
    bench.cloud.set_location("there");
    let pod = bench.pod("web").await;
    bench.peer_pod("s1", &pod, "lost", json!({ "instanceID": "vm-1", "location": "here" })).await;
    bench.delete_pod("web").await;
    bench.status_says("web-s1", "fake in here").await;
    assert_eq!(bench.cloud.calls(Operation::Delete), 0);
    bench.cloud.set_location("here");
    // As if the settings had changed.
    bench.region_is("y").await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn upstreams_peerpods_are_found_by_the_vms_id_or_left_to_a_person() {
    let bench = Bench::new().await;
    let pod = bench.pod("web").await;
    let id = bench.vm("s1", "lost").await;
    let upstreams =
        |id: &str| json!({ "instanceID": id, "sandboxID": null, "clusterID": null, "nodeName": null });
    bench.peer_pod("a", &pod, "", upstreams(&id)).await;
    bench.peer_pod("b", &pod, "", upstreams("i-unknown")).await;
    bench.delete_pod("web").await;
    bench.status_says("web-b", "i-unknown").await;
    until("the VM is gone", || async { bench.cloud.machines().is_empty() }).await;
}

#[tokio::test]
async fn the_older_of_two_vms_of_a_pod_goes() {
    let bench = Bench::new().await;
    let pod = bench.pod("web").await;
    for (sandbox, pause) in [("s1", 1100), ("s2", 0)] {
        let id = bench.vm(sandbox, "lost").await;
        bench.peer_pod(sandbox, &pod, "lost", json!({ "instanceID": id })).await;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    until("the older is gone", || async { bench.peer_pods().get_opt("web-s1").await.unwrap().is_none() })
        .await;
    let left: Vec<_> = bench.cloud.machines().into_iter().map(|made| made.key).collect();
    assert_eq!(left, [bench.key("s2")]);
}

#[tokio::test]
async fn a_lost_nodes_vm_without_a_peerpod_is_swept_and_nobody_elses_is() {
    let bench = Bench::new().await;
    let pod = bench.pod("web").await;
    bench.peer_pod("owned", &pod, "lost", json!({})).await;
    for (sandbox, node) in [("orphan", "lost"), ("owned", "lost"), ("at-work", "worker0")] {
        bench.vm(sandbox, node).await;
    }
    until("the orphan is gone", || async { bench.cloud.machines().len() == 2 }).await;
    let left: Vec<_> = bench.cloud.machines().into_iter().map(|made| made.key.sandbox.to_string()).collect();
    assert!(!left.contains(&"orphan".to_owned()), "{left:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.cloud.machines().len(), 2);
}

#[tokio::test]
async fn at_rest_nothing_is_written() {
    let bench = Bench::new().await;
    let pod = bench.pod("web").await;
    let id = bench.vm("s1", "worker0").await;
    bench.peer_pod("s1", &pod, "worker0", json!({ "instanceID": id })).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = bench.cluster.mark().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.cluster.mark().await, before);
}
