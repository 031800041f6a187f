//! PeerPodConfig: the node service and the VMs that nodes advertise.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use peerpods_crds::{PeerPodConfig, VM_RESOURCE};
use peerpods_operator::names;
use peerpods_test_apiserver::Asked;
use serde_json::{Value, json};

use crate::cluster::{Cluster, create, until};
use crate::place;

impl Cluster {
    pub(crate) async fn configure(&self, limit: &str) {
        self.configure_as(names::PEER_POD_CONFIG, limit).await;
    }

    async fn configure_as(&self, name: &str, limit: &str) {
        let spec = json!({ "limit": limit, "nodeSelector": { names::WORKER_LABEL: "" } });
        create(
            &self.operators::<PeerPodConfig>(),
            json!({
                "apiVersion": "confidentialcontainers.org/v1alpha1", "kind": "PeerPodConfig",
                "metadata": { "name": name }, "spec": spec,
            }),
        )
        .await;
    }

    async fn service(&self) -> DaemonSet {
        let sets = self.operators::<DaemonSet>();
        until("the service", || async { sets.get_opt(names::NODE_SERVICE).await.unwrap().is_some() }).await;
        sets.get(names::NODE_SERVICE).await.unwrap()
    }

    /// What the controller of DaemonSets says before any pod is ready.
    async fn service_is_wanted(&self) {
        let counts = json!({ "desiredNumberScheduled": 2, "currentNumberScheduled": 2, "numberReady": 0, "numberMisscheduled": 0 });
        let status = Patch::Merge(json!({ "status": counts }));
        let sets = self.operators::<DaemonSet>();
        sets.patch_status(names::NODE_SERVICE, &PatchParams::default(), &status).await.unwrap();
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
        self.reason_of(names::PEER_POD_CONFIG).await
    }

    async fn reason_of(&self, name: &str) -> Option<(String, String)> {
        let config = self.operators::<PeerPodConfig>().get(name).await.unwrap();
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

    // Somebody makes it anew: no pod could start in between.
    cluster.service_is_wanted().await;
    let template = cluster.service().await.spec.unwrap().template;
    let secrets = cluster.operators::<Secret>();
    let secret = secrets.get(names::CLOUD_SECRET).await.unwrap();
    secrets.delete(names::CLOUD_SECRET, &DeleteParams::default()).await.unwrap();
    until("told that it is missing", || async {
        cluster.reason().await.is_some_and(|(reason, _)| reason == "MissingSecret")
    })
    .await;
    cluster.rests().await;
    assert_eq!(cluster.service().await.spec.unwrap().template, template);
    create(&secrets, json!({ "metadata": { "name": names::CLOUD_SECRET }, "data": secret.data })).await;
    until("nothing is missing", || async {
        cluster.reason().await.is_some_and(|(reason, _)| reason != "MissingSecret")
    })
    .await;
    cluster.rests().await;
    assert_eq!(cluster.service().await.spec.unwrap().template, template, "the same is no reason");

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

#[tokio::test]
async fn a_second_one_changes_nothing_goes_without_effect_and_follows_the_first() {
    let cluster = Cluster::operating().await;
    cluster.keys().await;
    cluster.configure("10").await;
    cluster.advertises("worker0", Some("10")).await;
    let first = cluster.service().await;
    let configs = cluster.operators::<PeerPodConfig>();
    let stands_by = async || {
        cluster.configure_as("zz-second", "3").await;
        until("the second is told of the first", || async {
            cluster.reason_of("zz-second").await.is_some_and(|(reason, text)| {
                reason == "AnotherPeerPodConfig" && text.contains(names::PEER_POD_CONFIG)
            })
        })
        .await;
        cluster.rests().await;
    };
    let is_untouched = async || {
        assert_eq!(cluster.advertised("worker0").await.as_deref(), Some("10"));
        // Of a real one there is a status, which its controllers write.
        let (now, before) = (cluster.service().await, &first);
        assert_eq!((&now.spec, now.owner_references()), (&before.spec, before.owner_references()));
    };
    stands_by().await;
    is_untouched().await;
    configs.delete("zz-second", &DeleteParams::default()).await.unwrap();
    until("it is gone", || async { configs.get_opt("zz-second").await.unwrap().is_none() }).await;
    cluster.rests().await;
    is_untouched().await;

    stands_by().await;
    configs.delete(names::PEER_POD_CONFIG, &DeleteParams::default()).await.unwrap();
    cluster.advertises("worker0", Some("3")).await;
    let owner = configs.get("zz-second").await.unwrap().uid();
    until("the service is the second's", || async {
        let set = cluster.operators::<DaemonSet>().get_opt(names::NODE_SERVICE).await.unwrap();
        let owners = set.map(|set| set.owner_references().to_vec()).unwrap_or_default();
        owners.iter().map(|one| Some(one.uid.clone())).eq([owner.clone()])
    })
    .await;
}

#[tokio::test]
async fn a_limit_of_thousands_comes_to_rest() {
    let cluster = Cluster::operating().await;
    cluster.keys().await;
    cluster.configure("2000").await;
    cluster.advertises("worker0", Some("2k")).await;
    until("both nodes count", || async {
        let config = cluster.operators::<PeerPodConfig>().get(names::PEER_POD_CONFIG).await.unwrap();
        config.status.is_some_and(|status| status.advertised_nodes_count == 2)
    })
    .await;
    cluster.rests().await;
}

#[tokio::test]
async fn a_step_that_is_refused_is_told_with_its_object() {
    let test = "a_step_that_is_refused_is_told_with_its_object";
    if !place::has_own_server(test, "only the test API server refuses what it is told to") {
        return;
    }
    let cluster = Cluster::operating().await;
    let refused = |asked: &Asked| asked.verb == "patch" && asked.path.ends_with(names::NODE_SERVICE);
    cluster.place.server().unwrap().fail_next(refused, 500);
    cluster.keys().await;
    cluster.configure("10").await;
    let events: Api<Event> = cluster.operators();
    let told = async |reason: &str| {
        let list = events.list(&ListParams::default()).await.unwrap();
        list.into_iter().find(|event| event.reason.as_deref() == Some(reason)).and_then(|event| event.note)
    };
    until("the refusal is told", || async {
        told("Failed").await.is_some_and(|note| note.contains(names::NODE_SERVICE))
    })
    .await;
    until("what came of the next try is told", || async {
        told("Ready").await.is_some() || told("ServiceStarting").await.is_some()
    })
    .await;
    cluster.service().await;
}

#[tokio::test]
async fn why_the_services_pods_fail_is_told() {
    let test = "why_the_services_pods_fail_is_told";
    if !place::has_own_server(test, "a real DaemonSet has pods of its own") {
        return;
    }
    let cluster = Cluster::operating().await;
    cluster.keys().await;
    cluster.configure("10").await;
    let set = cluster.service().await;
    cluster.service_is_wanted().await;
    let owner = json!({ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": names::NODE_SERVICE, "uid": set.uid() });
    let pods = cluster.operators::<Pod>();
    let spec = json!({ "nodeName": "worker1", "containers": [{ "name": "peerpods", "image": "image:1" }] });
    let labels = json!({ "name": names::NODE_SERVICE });
    create(&pods, json!({ "metadata": { "name": "caa-1", "labels": labels, "ownerReferences": [owner] }, "spec": spec })).await;
    let refused = "the node service failed: provider aws is not usable: the credentials were refused";
    let ended = json!({ "terminated": { "exitCode": 1, "message": refused } });
    let status = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }], "containerStatuses": [{
        "name": "peerpods", "image": "image:1", "imageID": "", "ready": false, "restartCount": 4,
        "state": { "waiting": { "reason": "CrashLoopBackOff" } }, "lastState": ended,
    }] } });
    pods.patch_status("caa-1", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    until("told why", || async {
        cluster.reason().await.is_some_and(|(reason, text)| {
            reason == "ServiceFailing" && text.contains("worker1") && text.contains(refused)
        })
    })
    .await;
    let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
    pods.patch_status("caa-1", &PatchParams::default(), &Patch::Merge(ready)).await.unwrap();
    until("told that it starts", || async {
        cluster.reason().await.is_some_and(|(reason, _)| reason == "ServiceStarting")
    })
    .await;
}
