//! A real cluster as a test finds it: without what earlier ones made. Removed is what has the label [`MADE`], what is in those of the
//! suite's namespaces that have it, and the operator's own objects of the whole cluster by their fixed names; these are the suite's, because it
//! begins nowhere where they are anybody else's ([`crate::strangers`]). Namespaces, definitions, accounts and roles stay for the next
//! test, and go at the end of `make test-cluster`. Events in `default` expire by themselves.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use peerpods_crds::{KataConfig, PeerPod, PeerPodConfig};
use peerpods_operator::names;
use peerpods_operator::objects::Kind;
use peerpods_operator::webhook::configuration as webhook;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::cluster::PATIENCE;

/// The label of what tests make. The kubelets that are played run pods on nodes that have it, but for those where its value is
/// [`crate::kubelet::SILENT`].
pub(crate) const MADE: &str = "test.peerpods.io/made";
/// Where tests put things.
pub(crate) const NAMESPACES: [&str; 4] =
    [names::NAMESPACE, names::DASHBOARD_NAMESPACE, "openshift-config", "shop"];

/// The one of them that no test deletes. While it has the label, the operator's objects are the suite's.
pub(crate) const CLAIM: &str = "shop";

/// A definition that one test makes.
const SERVICE_CA: &str = "servicecas.operator.openshift.io";
/// What controller managers put into every namespace, OpenShift's build of Kubernetes both.
const FURNITURE: [&str; 2] = ["kube-root-ca.crt", "openshift-service-ca.crt"];

/// Kinds of the whole cluster, and the names of theirs that are the operator's.
pub(crate) const OURS: [(Kind, &[&str]); 9] = [
    // First what could be in the way of the rest.
    (Kind::MUTATING_WEBHOOKS, &[webhook::CONFIGURATION, webhook::UPSTREAMS, "wrong"]),
    (Kind::VALIDATING_WEBHOOKS, &[webhook::CONFIGURATION]),
    (Kind::CLUSTER_ROLE_BINDING, &[webhook::DEPLOYMENT]),
    (Kind::CLUSTER_ROLE, &[webhook::DEPLOYMENT]),
    (Kind::MACHINE_CONFIG, &[names::EXTENSION_CONFIG, names::SHIM_CONFIG, names::CRIO_CONFIG]),
    (Kind::MACHINE_CONFIG_POOL, &[names::POOL]),
    (Kind::CONTAINER_RUNTIME_CONFIG, &[names::LOG_LEVEL_CONFIG]),
    (Kind::SECURITY_CONTEXT_CONSTRAINTS, &[names::SCC]),
    (Kind::RUNTIME_CLASS, &[names::KATA_CLASS, names::PEER_PODS_CLASS, "kata-remote"]),
];

/// Kinds of namespaces, whose objects in [`NAMESPACES`] go. Sets before their pods.
const CONTENTS: [Kind; 13] = [
    Kind::DAEMON_SET,
    Kind::DEPLOYMENT,
    Kind::DISRUPTION_BUDGET,
    Kind::SERVICE,
    Kind::ROLE_BINDING,
    Kind::ROLE,
    Kind::SERVICE_ACCOUNT,
    Kind::SECRET,
    Kind::CONFIG_MAP,
    // What Kubernetes makes of those, and takes away a while later.
    made("apps", "StatefulSet", "statefulsets"),
    made("apps", "ReplicaSet", "replicasets"),
    made("apps", "ControllerRevision", "controllerrevisions"),
    made("discovery.k8s.io", "EndpointSlice", "endpointslices"),
];

const fn made(group: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind { group, version: "v1", kind, plural }
}

/// Removes what tests and the operator made, and waits until it is gone. Events go with the rest of their namespaces: one test is not to
/// read what another was told.
pub(crate) async fn tidy(client: &Client) {
    for namespace in made_namespaces(client).await {
        forget(&Api::namespaced(client.clone(), &namespace)).await;
    }
    let tried = tokio::time::timeout(PATIENCE, async {
        while !is_tidy(client).await {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    assert!(tried.await.is_ok(), "the cluster is not clean after {PATIENCE:?}");
}

/// Takes away the kinds of OpenShift's that tests made. Those of a real OpenShift stay.
pub(crate) async fn undefine(definitions: &Api<CustomResourceDefinition>) {
    let made = ListParams::default().labels(MADE);
    let tried = tokio::time::timeout(PATIENCE, async {
        loop {
            let list = definitions.list(&made).await.unwrap();
            let theirs = list.iter().map(ResourceExt::name_any).filter(|name| !is_our_kind(name));
            let theirs: Vec<String> = theirs.collect();
            if theirs.is_empty() {
                return;
            }
            for name in theirs {
                let _ = definitions.delete(&name, &DeleteParams::default()).await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    assert!(tried.await.is_ok(), "definitions of OpenShift's kinds are still there after {PATIENCE:?}");
}

fn is_our_kind(definition: &str) -> bool {
    peerpods_crds::all().iter().any(|ours| ours.name() == definition)
}

/// Asks everything to go. Whether there was nothing.
async fn is_tidy(client: &Client) -> bool {
    let mut left = 0;
    left += release::<KataConfig>(&Api::all(client.clone()), |one| one.labels().contains_key(MADE)).await;
    for (kind, theirs) in OURS {
        let api = Api::all_with(client.clone(), &kind.resource());
        left += remove(&api, |object| theirs.contains(&object.name_any().as_str())).await;
    }
    let pools = Api::all_with(client.clone(), &Kind::MACHINE_CONFIG_POOL.resource());
    left += remove(&pools, |pool| pool.labels().contains_key(MADE)).await;
    for namespace in made_namespaces(client).await {
        left += empty(client, &namespace).await;
    }
    let system: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    left += end_pods(&system, ListParams::default().labels(MADE)).await;
    let definitions: ApiResource = ApiResource::erase::<CustomResourceDefinition>(&());
    let definitions: Api<DynamicObject> = Api::all_with(client.clone(), &definitions);
    // With it the cluster is one whose certificates OpenShift makes.
    let of_one_test = |one: &DynamicObject| one.name_any() == SERVICE_CA && one.labels().contains_key(MADE);
    left += remove(&definitions, of_one_test).await;
    let nodes: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<Node>(&()));
    left += remove(&nodes, |node| node.labels().contains_key(MADE)).await;
    left == 0
}

/// Those of the suite's namespaces that it made.
async fn made_namespaces(client: &Client) -> Vec<String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let made = namespaces.list(&ListParams::default().labels(MADE)).await.unwrap();
    made.iter().map(ResourceExt::name_any).filter(|name| NAMESPACES.contains(&name.as_str())).collect()
}

/// Asks everything in a namespace to go, but what every one has. How much there was.
async fn empty(client: &Client, namespace: &str) -> usize {
    let mut left = release::<PeerPodConfig>(&Api::namespaced(client.clone(), namespace), |_| true).await;
    left += release::<PeerPod>(&Api::namespaced(client.clone(), namespace), |_| true).await;
    for kind in CONTENTS {
        let api = Api::namespaced_with(client.clone(), namespace, &kind.resource());
        left += remove(&api, |object| !stays(kind, object)).await;
    }
    left + end_pods(&Api::namespaced(client.clone(), namespace), ListParams::default()).await
}

/// What every namespace has, and accounts and roles of `deploy/`.
fn stays(kind: Kind, object: &DynamicObject) -> bool {
    let name = object.name_any();
    match kind {
        Kind::SERVICE_ACCOUNT | Kind::ROLE | Kind::ROLE_BINDING => {
            ![webhook::DEPLOYMENT, names::INSTALLER_ACCOUNT].contains(&name.as_str())
        }
        _ => {
            FURNITURE.contains(&name.as_str()) || object.data["type"] == "kubernetes.io/service-account-token"
        }
    }
}

/// Deletes objects with whatever holds them: nobody of ours is there to let them go. How many there were.
async fn release<K>(api: &Api<K>, is_ours: impl Fn(&K) -> bool) -> usize
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    // A kind that is not there has no objects.
    let Ok(list) = api.list(&ListParams::default()).await else { return 0 };
    let mut found = 0;
    for object in list.iter().filter(|object| is_ours(object)) {
        let _ = api.delete(&object.name_any(), &DeleteParams::default()).await;
        let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        let _ = api.patch(&object.name_any(), &PatchParams::default(), &free).await;
        found += 1;
    }
    found
}

async fn remove(api: &Api<DynamicObject>, is_ours: impl Fn(&DynamicObject) -> bool) -> usize {
    let Ok(list) = api.list(&ListParams::default()).await else { return 0 };
    let ours: Vec<_> = list.iter().filter(|object| is_ours(object)).collect();
    for object in &ours {
        let _ = api.delete(&object.name_any(), &DeleteParams::background()).await;
    }
    ours.len()
}

/// Deletes what the operator told.
async fn forget(events: &Api<Event>) {
    let list = events.list(&ListParams::default()).await.unwrap();
    let ours = |event: &&Event| event.reporting_controller.as_deref() == Some(names::FIELD_MANAGER);
    for event in list.iter().filter(ours) {
        let _ = events.delete(&event.name_any(), &DeleteParams::default()).await;
    }
}

/// No kubelet of a node that is not there says that a pod has ended.
async fn end_pods(pods: &Api<Pod>, which: ListParams) -> usize {
    let list = pods.list(&which).await.unwrap();
    for pod in &list {
        let _ = pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
    }
    list.items.len()
}
