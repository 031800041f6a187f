//! The operator's own webhook as the API server sees it, and one process that is both.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use peerpods_crds::{KataConfig, PeerPodConfig};
use peerpods_operator::names;
use peerpods_operator::webhook::configuration::CONFIGURATION;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::place;
use crate::tidy::MADE;
use crate::webhook::{gets_a_vm, peer_pod};

fn kataconfig(name: &str, spec: Value) -> KataConfig {
    let whole = json!({
        "apiVersion": "kataconfiguration.openshift.io/v1", "kind": "KataConfig", "metadata": { "name": name, "labels": { MADE: "" } }, "spec": spec,
    });
    serde_json::from_value(whole).unwrap()
}

#[tokio::test]
async fn the_operators_own_webhook_answers_before_there_is_a_kataconfig() {
    if !place::reaches_us("the_operators_own_webhook_answers_before_there_is_a_kataconfig") {
        return;
    }
    let cluster = Cluster::new(1).await;
    let webhook = cluster.operators_webhook().await;
    let configs = cluster.all::<KataConfig>();
    let refused = async |name: &str, spec: Value| {
        let created = configs.create(&PostParams::default(), &kataconfig(name, spec)).await;
        created.unwrap_err().to_string()
    };
    // What the schema takes, and no label can be.
    let labels = json!({ "kataConfigPoolSelector": { "matchLabels": { "a b": "c" } } });
    let told = refused("bad", labels).await;
    assert!(
        told.contains("vkataconfig.kb.io") && told.contains("spec.kataConfigPoolSelector.matchLabels"),
        "{told}"
    );
    let operator =
        json!({ "kataConfigPoolSelector": { "matchExpressions": [{ "key": "a", "operator": "In" }] } });
    let told = refused("bad", operator).await;
    assert!(told.contains("spec.kataConfigPoolSelector.matchExpressions[0]"), "{told}");
    configs.create(&PostParams::default(), &kataconfig("first", json!({}))).await.unwrap();
    let told = refused("second", json!({})).await;
    assert!(told.contains("a cluster has one KataConfig") && told.contains("first"), "{told}");

    let limits = cluster.operators::<PeerPodConfig>();
    let config = |limit: &str, label: &str| -> PeerPodConfig {
        serde_json::from_value(json!({
            "apiVersion": "confidentialcontainers.org/v1alpha1", "kind": "PeerPodConfig", "metadata": { "name": "c" },
            "spec": { "limit": limit, "nodeSelector": { label: "" } },
        }))
        .unwrap()
    };
    for (bad, field) in [(config("ten", "a"), "spec.limit"), (config("1", "a b"), "spec.nodeSelector")] {
        let told = limits.create(&PostParams::default(), &bad).await.unwrap_err().to_string();
        assert!(told.contains(field), "{told}");
    }

    let elsewhere: Api<PeerPodConfig> = Api::namespaced(cluster.client.clone(), "shop");
    let told = elsewhere.create(&PostParams::default(), &config("1", "a")).await.unwrap_err().to_string();
    assert!(told.contains("metadata.namespace") && told.contains(names::NAMESPACE), "{told}");
    limits.create(&PostParams::default(), &config("1", "a")).await.unwrap();
    let mut second = config("1", "a");
    second.metadata.name = Some("d".to_owned());
    let told = limits.create(&PostParams::default(), &second).await.unwrap_err().to_string();
    assert!(told.contains("a cluster has one PeerPodConfig") && told.contains("\"c\""), "{told}");

    // Nobody can say whether there is one: there will be no second. The first can go all the same.
    webhook.end().await;
    let told = refused("second", json!({})).await;
    assert!(told.contains("failed calling webhook \"vkataconfig.kb.io\""), "{told}");
    configs.delete("first", &DeleteParams::default()).await.unwrap();
    limits.create(&PostParams::default(), &second).await.unwrap();
}

#[tokio::test]
async fn one_process_answers_at_both_services_with_a_certificate_each() {
    if !place::reaches_us("one_process_answers_at_both_services_with_a_certificate_each") {
        return;
    }
    let cluster = Cluster::with_peer_pods().await;
    let _webhooks = cluster.both_webhooks(&cluster.client).await;
    assert!(gets_a_vm(&cluster.pod("shop", peer_pod("web", json!({}))).await.unwrap()));
    let configs = cluster.all::<KataConfig>();
    let told = configs.create(&PostParams::default(), &kataconfig("second", json!({}))).await.unwrap_err();
    assert!(told.to_string().contains("a cluster has one KataConfig"), "{told}");
    let mutating = cluster.all::<MutatingWebhookConfiguration>().get(CONFIGURATION).await.unwrap();
    let validating = cluster.all::<ValidatingWebhookConfiguration>().get(CONFIGURATION).await.unwrap();
    let trusted = |client: &WebhookClientConfig| client.ca_bundle.clone();
    assert_ne!(
        trusted(&mutating.webhooks.unwrap()[0].client_config),
        trusted(&validating.webhooks.unwrap()[0].client_config)
    );
    let secrets = cluster.operators::<Secret>().list(&ListParams::default()).await.unwrap();
    assert_eq!(secrets.iter().filter(|one| one.type_.as_deref() == Some("kubernetes.io/tls")).count(), 2);
}
