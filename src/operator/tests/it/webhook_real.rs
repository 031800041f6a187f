//! The webhooks at a real API server: that it takes the objects and leaves them as they are, that the rights suffice, that it asks.
//!
//! Runs with `PEERPODS_TEST_CLUSTER=1` and a `KUBECONFIG` whose cluster has no webhook of ours. Nothing runs pods here, so the API server
//! has to be told where the Service is: `PEERPODS_TEST_ROUTES` names a file in which it finds lines `NAMESPACE/SERVICE ADDRESS:PORT`.

use std::io::Write as _;

use futures::{StreamExt, stream};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role as RbacRole, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Config, ResourceExt};
use peerpods_crds::KataConfig;
use peerpods_operator::kataconfig::build;
use peerpods_operator::objects::{self, Applied};
use peerpods_operator::webhook::certificates::Source;
use peerpods_operator::webhook::certificates::keeper::Place;
use peerpods_operator::webhook::configuration::{
    CERTIFICATE_SECRET, CONFIGURATION, DEPLOYMENT, MatchConditions, OPERATOR_SERVICE, SERVICE, Setup, USER,
    operator, validating,
};
use peerpods_operator::webhook::pods::Settings;
use peerpods_operator::webhook::role::Role;
use peerpods_operator::webhook::server::Question;
use serde_json::{Value, json};

use crate::cluster::{create, until};
use crate::webhook::{gets_a_vm, peer_pod};
use crate::webhook_operator::kataconfig;
use crate::webhook_process::{Process, limits};

/// A client of a service account, with the rights that it has and no others.
async fn account(namespace: &str, name: &str) -> Client {
    let mut config = Config::infer().await.unwrap();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:{name}"));
    Client::try_from(config).unwrap()
}

async fn applied(client: &Client, setup: &Setup) -> Vec<Applied> {
    let mut applied = Vec::new();
    for desired in build::webhook(setup) {
        applied.push(objects::apply(client, &desired).await.unwrap());
    }
    applied
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// A real API server and a namespace of our own in it.
async fn real(test: &str) -> Option<(Client, String)> {
    if variable("PEERPODS_TEST_CLUSTER") != "1" {
        eprintln!("SKIP {test}: set PEERPODS_TEST_CLUSTER=1 and KUBECONFIG");
        return None;
    }
    // Another test may have chosen already.
    let _either = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = Client::try_default().await.unwrap();
    let new = serde_json::from_value(json!({ "metadata": { "generateName": "webhook-" } })).unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = namespaces.create(&PostParams::default(), &new).await.unwrap().name_any();
    Some((client, namespace))
}

async fn leave(client: Client, namespace: &str) {
    let namespaces: Api<Namespace> = Api::all(client);
    namespaces.delete(namespace, &DeleteParams::default()).await.unwrap();
}

/// Tells the API server where a Service is.
fn route(routes: &str, namespace: &str, service: &str, process: &Process) {
    let mut file = std::fs::OpenOptions::new().append(true).open(routes).unwrap();
    writeln!(file, "{namespace}/{service} {}", process.address).unwrap();
}

#[tokio::test]
async fn a_real_api_server_takes_the_objects_leaves_them_as_they_are_and_asks() {
    let Some((client, namespace)) = real("the pods' webhook at a real API server").await else { return };
    let setup = Setup {
        namespace: namespace.clone(),
        image: "image:1".to_owned(),
        pods: Settings::default(),
        source: Source::Own,
        match_conditions: MatchConditions::Supported,
        user: Some(USER),
    };
    assert!(applied(&client, &setup).await.iter().all(|one| *one == Applied::Created));
    assert!(applied(&client, &setup).await.iter().all(|one| *one == Applied::Unchanged));

    let routes = variable("PEERPODS_TEST_ROUTES");
    if routes.is_empty() {
        eprintln!("SKIP asking: set PEERPODS_TEST_ROUTES");
    } else {
        asks(&client, &namespace, &routes).await;
        // The caBundle is in nobody's way.
        assert!(applied(&client, &setup).await.iter().all(|one| *one == Applied::Unchanged));
    }
    for object in
        build::webhook_objects(&namespace).into_iter().chain([build::webhook_certificate(&namespace)])
    {
        objects::remove(&client, &object).await.unwrap();
    }
    leave(client, &namespace).await;
}

async fn asks(client: &Client, namespace: &str, routes: &str) {
    let of_pods = account(namespace, DEPLOYMENT).await;
    let place = Place::of_pods(namespace, Source::Own);
    let role = Role::new(&of_pods, place, Settings::default(), limits()).unwrap();
    let webhooks = role.webhooks();
    let process = Process::start(role).await;
    route(routes, namespace, SERVICE, &process);
    let classes: Api<RuntimeClass> = Api::all(client.clone());
    if classes.get_opt("kata-remote-cc").await.unwrap().is_none() {
        create(&classes, json!({ "metadata": { "name": "kata-remote-cc" }, "handler": "kata-remote-cc" }))
            .await;
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let asked = async |more: Value| {
        let pod = serde_json::from_value(peer_pod("web", more)).unwrap();
        pods.create(&dry, &pod).await
    };
    until("pods are changed", || async { asked(json!({})).await.is_ok_and(|pod| gets_a_vm(&pod)) }).await;
    let host = json!({ "spec": { "hostNetwork": true } });
    let refused = asked(host).await.unwrap_err().to_string();
    assert!(refused.contains("spec.hostNetwork"), "{refused}");
    let other = asked(json!({ "spec": { "runtimeClassName": null } })).await.unwrap();
    assert!(!gets_a_vm(&other));
    // As many at once as it keeps connections for.
    let many = stream::iter(0..1000).map(|_| asked(json!({}))).buffer_unordered(20);
    let before = webhooks.counts().took(Question::Pod).counted();
    let made: Vec<_> = many.collect().await;
    assert!(made.into_iter().all(|pod| gets_a_vm(&pod.unwrap())));
    let took = webhooks.counts().took(Question::Pod).counted().since(&before);
    assert_eq!(took.count(), 1000);
    let within = |part| took.bound_of(part);
    eprintln!("1,000 pods, 20 at once: answers within {:?} at p50, {:?} at p99", within(0.5), within(0.99));
    // It hears of its Secret's end, and makes another.
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    secrets.delete(CERTIFICATE_SECRET, &DeleteParams::default()).await.unwrap();
    until("there is one again", || async { secrets.get_opt(CERTIFICATE_SECRET).await.unwrap().is_some() })
        .await;
    until("pods are changed", || async { asked(json!({})).await.is_ok_and(|pod| gets_a_vm(&pod)) }).await;
    process.end().await;
}

/// An account with the rules that the operator's webhook is installed with.
async fn operators_account(client: &Client, namespace: &str) -> Client {
    let operator::Rules { namespace: here, cluster } = operator::rules();
    let name = json!({ "name": namespace });
    let subjects = json!([{ "kind": "ServiceAccount", "namespace": namespace, "name": "operator" }]);
    let bound = |kind: &str| {
        let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": namespace });
        json!({ "metadata": name, "roleRef": role, "subjects": subjects })
    };
    create(&Api::<ClusterRole>::all(client.clone()), json!({ "metadata": name, "rules": cluster })).await;
    create(&Api::<ClusterRoleBinding>::all(client.clone()), bound("ClusterRole")).await;
    create(
        &Api::<RbacRole>::namespaced(client.clone(), namespace),
        json!({ "metadata": name, "rules": here }),
    )
    .await;
    create(&Api::<RoleBinding>::namespaced(client.clone(), namespace), bound("Role")).await;
    account(namespace, "operator").await
}

#[tokio::test]
async fn a_real_api_server_asks_the_operator_about_its_own_objects() {
    let routes = variable("PEERPODS_TEST_ROUTES");
    let Some((client, namespace)) = real("the operator's webhook at a real API server").await else { return };
    if routes.is_empty() {
        eprintln!("SKIP asking: set PEERPODS_TEST_ROUTES");
        return leave(client, &namespace).await;
    }
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in peerpods_crds::all() {
        let params = PatchParams::apply("webhook-test").force();
        definitions
            .patch(&definition.object.name_any(), &params, &Patch::Apply(&definition.object))
            .await
            .unwrap();
    }
    let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
    let pods = [("app".to_owned(), "operator".to_owned())].into();
    services
        .create(&PostParams::default(), &operator::service(&namespace, pods, &Source::Own))
        .await
        .unwrap();
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let address = operator::address(&namespace);
    let configuration = validating(&address, &Source::Own, MatchConditions::Supported);
    configurations.create(&PostParams::default(), &configuration).await.unwrap();
    let place = Place::of_operator(&namespace, Source::Own);
    let account = operators_account(&client, &namespace).await;
    let role = Role::new(&account, place, Settings::default(), limits()).unwrap();
    let process = Process::start(role).await;
    route(&routes, &namespace, OPERATOR_SERVICE, &process);

    let configs: Api<KataConfig> = Api::all(client.clone());
    let made =
        async |name: &str, spec: Value| configs.create(&PostParams::default(), &kataconfig(name, spec)).await;
    until("the first is let in", || async { made(&namespace, json!({})).await.is_ok() }).await;
    let refused = made("second", json!({})).await.unwrap_err().to_string();
    assert!(refused.contains("a cluster has one KataConfig") && refused.contains(&namespace), "{refused}");
    let labels = json!({ "spec": { "kataConfigPoolSelector": { "matchLabels": { "a b": "c" } } } });
    let patched = configs.patch(&namespace, &PatchParams::default(), &Patch::Merge(labels)).await;
    let refused = patched.unwrap_err().to_string();
    assert!(refused.contains("spec.kataConfigPoolSelector.matchLabels"), "{refused}");
    process.end().await;
    configs.delete(&namespace, &DeleteParams::default()).await.unwrap();
    configurations.delete(CONFIGURATION, &DeleteParams::default()).await.unwrap();
    Api::<ClusterRoleBinding>::all(client.clone())
        .delete(&namespace, &DeleteParams::default())
        .await
        .unwrap();
    Api::<ClusterRole>::all(client.clone()).delete(&namespace, &DeleteParams::default()).await.unwrap();
    leave(client, &namespace).await;
}
