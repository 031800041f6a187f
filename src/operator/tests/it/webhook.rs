//! The pods' webhook as the API server sees it: asked over TLS, by its Service's name, about pods that people create.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Error, ResourceExt};
use peerpods_crds::KataConfig;
use peerpods_operator::names;
use peerpods_operator::objects::Kind;
use peerpods_operator::webhook::certificates::make::make;
use peerpods_operator::webhook::certificates::{
    SERVICE_CA_INJECT, SERVICE_CA_MARK, SERVICE_CA_REQUEST, State, held, names_of,
};
use peerpods_operator::webhook::configuration::{
    CERTIFICATE_SECRET, CONFIGURATION, DEPLOYMENT, POD_WEBHOOK, SERVICE, UPSTREAMS,
};
use peerpods_operator::webhook::server::MUTATE_POD;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::cluster::{Cluster, create, until};
use crate::kataconfig::NAME;
use crate::openshift;
use crate::place;
use crate::tidy::MADE;

const VCPUS: &str = "io.katacontainers.config.hypervisor.default_vcpus";
const MEMORY: &str = "io.katacontainers.config.hypervisor.default_memory";
const VM: &str = "kata.peerpods.io/vm";

pub(crate) fn peer_pod(name: &str, more: Value) -> Value {
    let resources = json!({ "requests": { "cpu": "500m", "memory": "256Mi" }, "limits": { "cpu": "2", "memory": "1Gi" } });
    let mut pod = json!({
        "metadata": { "name": name },
        "spec": {
            "runtimeClassName": "kata-remote-cc",
            "containers": [
                { "name": "a", "image": "a", "resources": resources },
                { "name": "b", "image": "b", "resources": resources },
            ],
        },
    });
    json_patch::merge(&mut pod, &more);
    pod
}

impl Cluster {
    pub(crate) async fn with_peer_pods() -> Self {
        Self::installed(json!({ "enablePeerPods": true })).await
    }

    pub(crate) async fn pod(&self, namespace: &str, pod: Value) -> Result<Pod, Error> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await
    }

    async fn refused(&self, pod: Value) -> String {
        self.pod("shop", pod).await.unwrap_err().to_string()
    }

    async fn there(&self, kind: Kind, name: &str) -> bool {
        self.untyped(kind).get_opt(name).await.unwrap().is_some()
    }
}

/// A certificate's Secret when it is time for the next one, which a keeper has made a while ago.
pub(crate) async fn expiring(secrets: &Api<Secret>, name: &str, service: &str) -> Secret {
    let mut secret = secrets.get(name).await.unwrap();
    let State::Ours(held) = held::state_of(Some(&secret)) else { panic!("{secret:?}") };
    let earlier = SystemTime::now() - Duration::from_secs(11 * 60);
    secret.data = Some(held.staged(&make(&names_of(service, names::NAMESPACE), earlier).unwrap()));
    secret
}

/// A configuration of the name that upstream's has, with this webhook in it.
pub(crate) fn upstreams(webhook: &str) -> Value {
    json!({
        "metadata": { "name": UPSTREAMS },
        "webhooks": [{
            "name": webhook, "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": { "service": { "namespace": names::NAMESPACE, "name": SERVICE, "path": MUTATE_POD } },
        }],
    })
}

pub(crate) fn gets_a_vm(pod: &Pod) -> bool {
    let first = pod.spec.as_ref().unwrap().containers[0].resources.clone().unwrap_or_default();
    first.limits.is_some_and(|limits| limits.contains_key(VM))
}

#[tokio::test]
async fn a_pod_of_a_peer_pod_class_comes_out_as_one_that_gets_a_vm() {
    if !place::reaches_us("a_pod_of_a_peer_pod_class_comes_out_as_one_that_gets_a_vm") {
        return;
    }
    let cluster = Cluster::with_peer_pods().await;
    let _webhook = cluster.webhook().await;
    let pod = cluster.pod("shop", peer_pod("web", json!({}))).await.unwrap();
    assert_eq!((pod.annotations()[VCPUS].as_str(), pod.annotations()[MEMORY].as_str()), ("4", "2048"));
    let containers = pod.spec.unwrap().containers;
    let resources = serde_json::to_value(&containers[0].resources).unwrap();
    assert_eq!(resources, json!({ "limits": { VM: "1" }, "requests": { VM: "1" } }));
    assert_eq!(containers[1].resources.clone().unwrap_or_default(), Default::default());
    // Another class is none of our business, nor is a pod without one.
    for class in [json!("kata"), Value::Null] {
        let other = json!({ "metadata": { "name": format!("other-{class}").replace('"', "") }, "spec": { "runtimeClassName": class } });
        let pod = cluster.pod("shop", peer_pod("", other)).await.unwrap();
        let resources = pod.spec.unwrap().containers.remove(0).resources.unwrap();
        assert_eq!(resources.limits.unwrap()["cpu"].0, "2");
    }
}

#[tokio::test]
async fn what_cannot_work_in_a_vm_is_refused_by_its_field() {
    if !place::reaches_us("what_cannot_work_in_a_vm_is_refused_by_its_field") {
        return;
    }
    let cluster = Cluster::with_peer_pods().await;
    let _webhook = cluster.webhook().await;
    let host = json!({ "spec": { "hostNetwork": true, "hostPID": true } });
    let refused = cluster.refused(peer_pod("host", host)).await;
    for part in [POD_WEBHOOK, "kata-remote-cc", "spec.hostNetwork", "spec.hostPID"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    let socket = json!([{ "name": "run", "hostPath": { "path": "/run/crio/crio.sock", "type": "Socket" } }]);
    let refused = cluster.refused(peer_pod("socket", json!({ "spec": { "volumes": socket } }))).await;
    assert!(refused.contains("spec.volumes[0].hostPath.type"), "{refused}");
    // Whatever it is set up like, it may be what the kubelet says it is elsewhere.
    let other = json!({ "spec": { "runtimeClassName": "kata", "hostNetwork": true } });
    cluster.pod("shop", peer_pod("other", other)).await.unwrap();
}

#[tokio::test]
async fn three_mebibytes_are_answered_and_a_request_of_the_wrong_kind_is_told_so() {
    if !place::reaches_us("three_mebibytes_are_answered_and_a_request_of_the_wrong_kind_is_told_so") {
        return;
    }
    let cluster = Cluster::with_peer_pods().await;
    let _webhook = cluster.webhook().await;
    // A real server stores nothing so large: there it is as much as it takes.
    let size = if place::is_real() { 1 << 20 } else { 3 << 20 };
    let large = json!({ "spec": { "containers": [
        { "name": "a", "image": "a", "env": [{ "name": "A", "value": "x".repeat(size) }] },
    ] } });
    assert!(gets_a_vm(&cluster.pod("shop", peer_pod("large", large)).await.unwrap()));

    // Somebody sends ConfigMaps where pods are decided about.
    let ours = cluster.all::<MutatingWebhookConfiguration>().get(CONFIGURATION).await.unwrap();
    let client = &ours.webhooks.unwrap()[0].client_config;
    assert_eq!(client.service.as_ref().unwrap().path.as_deref(), Some(MUTATE_POD));
    let rule = json!({ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"] });
    let webhook = json!({
        "name": "wrong.example.com", "clientConfig": client, "rules": [rule], "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "shop" } },
    });
    let configurations = cluster.all::<MutatingWebhookConfiguration>();
    create(&configurations, json!({ "metadata": { "name": "wrong" }, "webhooks": [webhook] })).await;
    cluster.in_force().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "shop");
    let map = serde_json::from_value(json!({ "metadata": { "name": "map" } })).unwrap();
    let refused = maps.create(&PostParams::default(), &map).await.unwrap_err().to_string();
    assert!(refused.contains("request.kind") && refused.contains("core/v1 Pod"), "{refused}");
}

#[tokio::test]
async fn a_webhook_that_is_down_is_in_nobodys_way_but_that_of_peer_pods() {
    if !place::reaches_us("a_webhook_that_is_down_is_in_nobodys_way_but_that_of_peer_pods") {
        return;
    }
    let cluster = Cluster::with_peer_pods().await;
    let webhook = cluster.webhook().await;
    webhook.end().await;
    let other = json!({ "spec": { "runtimeClassName": "kata" } });
    cluster.pod("shop", peer_pod("other", other)).await.unwrap();
    let refused = cluster.refused(peer_pod("ours", json!({}))).await;
    assert!(refused.contains(&format!("failed calling webhook \"{POD_WEBHOOK}\"")), "{refused}");
    // The cluster's own namespaces are never asked about.
    for namespace in ["kube-system", names::NAMESPACE] {
        let marked = json!({ "metadata": { "labels": { MADE: "" } } });
        let pod = cluster.pod(namespace, peer_pod("own", marked)).await.unwrap();
        assert!(!gets_a_vm(&pod), "{namespace}");
    }
    let _again = cluster.webhook().await;
    assert!(gets_a_vm(&cluster.pod("shop", peer_pod("ours", json!({}))).await.unwrap()));
}

#[tokio::test]
async fn a_rotation_under_load_fails_no_pod() {
    if !place::reaches_us("a_rotation_under_load_fails_no_pod") {
        return;
    }
    let cluster = Cluster::with_peer_pods().await;
    let webhooks = [cluster.webhook().await, cluster.webhook().await];
    let secrets = cluster.operators::<Secret>();
    let shown = async || secrets.get(CERTIFICATE_SECRET).await.unwrap().data.unwrap()["tls.crt"].clone();
    let before = shown().await;
    let secret = expiring(&secrets, CERTIFICATE_SECRET, SERVICE).await;
    let (mut created, mut after) = (0, 0);
    for n in 0..400 {
        if n == 20 {
            secrets.replace(CERTIFICATE_SECRET, &PostParams::default(), &secret).await.unwrap();
        }
        // The one and the other replica.
        cluster.place.route(SERVICE, webhooks[n % 2].address).await;
        let pods = (0..4).map(|m| cluster.pod("shop", peer_pod(&format!("p{n}-{m}"), json!({}))));
        for pod in futures::future::join_all(pods).await {
            assert!(gets_a_vm(&pod.unwrap()));
            created += 1;
        }
        after += usize::from(shown().await != before);
        // Both have looked again by then.
        if after >= 60 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(created > 80 && after >= 60, "{created} pods, {after} turns after the rotation");
    // A replica that has not heard of it yet would show the old one.
    let configuration = cluster.all::<MutatingWebhookConfiguration>().get(CONFIGURATION).await.unwrap();
    let bundle = configuration.webhooks.unwrap().remove(0).client_config.ca_bundle.unwrap().0;
    assert_eq!(String::from_utf8(bundle).unwrap().matches("BEGIN CERTIFICATE").count(), 2);
}

#[tokio::test]
async fn what_somebody_takes_away_is_put_back_and_at_rest_nobody_writes() {
    if !place::reaches_us("what_somebody_takes_away_is_put_back_and_at_rest_nobody_writes") {
        return;
    }
    let cluster = Cluster::with_peer_pods().await;
    let _webhook = cluster.webhook().await;
    let configurations = cluster.all::<MutatingWebhookConfiguration>();
    configurations.delete(CONFIGURATION, &DeleteParams::default()).await.unwrap();
    until("the configuration is back", || cluster.trusts_pods_webhook()).await;
    let nobody = json!([{ "op": "remove", "path": "/webhooks/0/clientConfig/caBundle" }]);
    let patch: json_patch::Patch = serde_json::from_value(nobody).unwrap();
    configurations.patch(CONFIGURATION, &PatchParams::default(), &Patch::Json::<()>(patch)).await.unwrap();
    until("somebody is trusted", || cluster.trusts_pods_webhook()).await;
    let deployments = cluster.operators::<k8s_openapi::api::apps::v1::Deployment>();
    let scaled = json!({ "spec": { "replicas": 0 } });
    deployments.patch(DEPLOYMENT, &PatchParams::default(), &Patch::Merge(scaled)).await.unwrap();
    until("there are two again", || async {
        deployments.get(DEPLOYMENT).await.unwrap().spec.unwrap().replicas == Some(2)
    })
    .await;
    assert!(gets_a_vm(&cluster.pod("shop", peer_pod("web", json!({}))).await.unwrap()));

    cluster.rests().await;
    cluster.patch::<RuntimeClass>("kata", json!({ "metadata": { "labels": { "look": "again" } } })).await;
    let label = json!({ "metadata": { "labels": { "look": "again" } } });
    configurations.patch(CONFIGURATION, &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    let before = cluster.mark().await;
    // Operator and webhook have looked by then.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(cluster.mark().await, before);
}

#[tokio::test]
async fn it_comes_and_goes_with_peer_pods() {
    if !place::reaches_us("it_comes_and_goes_with_peer_pods") {
        return;
    }
    let cluster = Cluster::installed(json!({})).await;
    let without = cluster.everything().await;
    assert!(!cluster.there(Kind::MUTATING_WEBHOOKS, CONFIGURATION).await);
    for (turn, (on, off)) in [("R2", "R3"), ("R4", "R5")].into_iter().enumerate() {
        cluster.patch::<KataConfig>(NAME, json!({ "spec": { "enablePeerPods": true } })).await;
        cluster.worker_is_changed(on).await;
        let webhook = cluster.webhook().await;
        let pod = cluster.pod("shop", peer_pod("web", json!({}))).await.unwrap();
        assert!(gets_a_vm(&pod), "turn {turn}");
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
        pods.delete("web", &DeleteParams::default()).await.unwrap();
        cluster.patch::<KataConfig>(NAME, json!({ "spec": { "enablePeerPods": false } })).await;
        cluster.worker_is_changed(off).await;
        // Its process lives a little longer, as a pod does, and makes nothing anew.
        tokio::time::sleep(Duration::from_secs(1)).await;
        webhook.end().await;
        cluster.is_as_before(&without).await;
    }
}

#[tokio::test]
async fn upstreams_configuration_is_taken_over_from_and_nobody_elses() {
    if !place::reaches_us("upstreams_configuration_is_taken_over_from_and_nobody_elses") {
        return;
    }
    let mut cluster = Cluster::new(1).await;
    let configurations = cluster.all::<MutatingWebhookConfiguration>();
    create(&configurations, upstreams(POD_WEBHOOK)).await;
    cluster.operate().await;
    cluster.ask_for(json!({ "enablePeerPods": true })).await;
    cluster.worker_is_changed("R1").await;
    until("ours is there", || cluster.there(Kind::MUTATING_WEBHOOKS, CONFIGURATION)).await;
    assert!(cluster.there(Kind::MUTATING_WEBHOOKS, UPSTREAMS).await, "until ours does its work");
    let _webhook = cluster.webhook().await;
    until("upstream's is gone", || async { !cluster.there(Kind::MUTATING_WEBHOOKS, UPSTREAMS).await }).await;
    create(&configurations, upstreams("mthing.kb.io")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(cluster.there(Kind::MUTATING_WEBHOOKS, UPSTREAMS).await);
}

#[tokio::test]
async fn where_openshift_makes_certificates_theirs_is_shown_and_stays() {
    if !place::reaches_us("where_openshift_makes_certificates_theirs_is_shown_and_stays") {
        return;
    }
    let mut cluster = Cluster::new(1).await;
    let made = openshift::definition("operator.openshift.io", "ServiceCA", "servicecas", "ca");
    cluster.apply(made).await;
    cluster.operate().await;
    cluster.ask_for(json!({ "enablePeerPods": true })).await;
    cluster.worker_is_changed("R1").await;
    // service-ca's part: a Secret for the Service that asks for one, and its authority where that is asked for.
    let service = cluster.operators::<Service>().get(SERVICE).await.unwrap();
    assert_eq!(service.annotations()[SERVICE_CA_REQUEST], CERTIFICATE_SECRET);
    let made = make(&names_of(SERVICE, names::NAMESPACE), SystemTime::now()).unwrap();
    let data = json!({ "tls.crt": made.certificate, "tls.key": made.key.expose_secret() });
    let mark = format!("{SERVICE_CA_MARK}name");
    let metadata = json!({ "name": CERTIFICATE_SECRET, "annotations": { mark: SERVICE } });
    create(&cluster.operators::<Secret>(), json!({ "metadata": metadata, "stringData": data })).await;
    let configurations = cluster.all::<MutatingWebhookConfiguration>();
    let configuration = configurations.get(CONFIGURATION).await.unwrap();
    assert_eq!(configuration.annotations()[SERVICE_CA_INJECT], "true");
    let bundle = BASE64_STANDARD.encode(&made.authority);
    let patch = json!([{ "op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle }]);
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    configurations.patch(CONFIGURATION, &PatchParams::default(), &Patch::Json::<()>(patch)).await.unwrap();

    let _webhook = cluster.webhook().await;
    until("pods are changed", || async {
        cluster.pod("shop", peer_pod("web", json!({}))).await.is_ok_and(|pod| gets_a_vm(&pod))
    })
    .await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    pods.delete("web", &DeleteParams::default()).await.unwrap();
    cluster.patch::<KataConfig>(NAME, json!({ "spec": { "enablePeerPods": false } })).await;
    until("nobody is asked", || async { !cluster.there(Kind::MUTATING_WEBHOOKS, CONFIGURATION).await }).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(
        cluster.operators::<Secret>().get_opt(CERTIFICATE_SECRET).await.unwrap().is_some(),
        "it is theirs"
    );
}
