//! A cluster with a namespace, a node and our definitions, and a ledger.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use peerpods_crds::PeerPod;
use peerpods_hypervisor::ledger::Claim;
use peerpods_ledger::{PeerPodLedger, Place};
use peerpods_operator::deploy::files;
use peerpods_operator::names;
use peerpods_operator::peerpodconfig::daemon_set::ACCOUNT;
use peerpods_provider::{Instance, VmKey, VmState};
use peerpods_test_apiserver::Server;
use serde_json::{Value, json};

pub(crate) const SHOP: &str = "shop";
pub(crate) const NODE: &str = "worker0";
pub(crate) const SINCE_UNIX_MS: u64 = 1_700_000_000_123;

pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) ledger: PeerPodLedger,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let server = Server::start().await.unwrap();
        let client = server.client("test").unwrap();
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in peerpods_crds::all() {
            definitions.create(&PostParams::default(), &definition.object).await.unwrap();
        }
        create(&Api::<Namespace>::all(client.clone()), json!({ "metadata": { "name": SHOP } })).await;
        create(&Api::<Node>::all(client.clone()), json!({ "metadata": { "name": NODE } })).await;
        rights(&client).await;
        let ledger = a_ledger(&server);
        Self { server, client, ledger }
    }

    /// The service comes back, and remembers nothing but its journal.
    pub(crate) fn restart(&mut self) {
        self.ledger = a_ledger(&self.server);
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), SHOP)
    }

    pub(crate) async fn pod(&self, name: &str, annotations: Value) -> String {
        let spec = json!({ "nodeName": NODE, "containers": [{ "name": "c", "image": "i" }] });
        let whole = json!({ "metadata": { "name": name, "annotations": annotations }, "spec": spec });
        create(&self.pods(), whole).await;
        self.pods().get(name).await.unwrap().uid().unwrap()
    }

    pub(crate) async fn delete_pod(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }

    pub(crate) fn peer_pods(&self) -> Api<PeerPod> {
        Api::namespaced(self.client.clone(), SHOP)
    }

    pub(crate) async fn all(&self) -> Vec<PeerPod> {
        self.peer_pods().list(&ListParams::default()).await.unwrap().items
    }

    pub(crate) async fn only(&self) -> PeerPod {
        let mut all = self.all().await;
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }
}

/// Accounts and roles as `deploy/` has them.
async fn rights(client: &Client) {
    create(&Api::<Namespace>::all(client.clone()), json!({ "metadata": { "name": names::NAMESPACE } })).await;
    let access = files::all().into_iter().filter(|file| file.path == "operator/10-access.yaml");
    for object in access.flat_map(|file| file.objects) {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let version = object["apiVersion"].as_str().unwrap().to_owned();
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
        let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        create(&api, object).await;
    }
}

/// Acts as the node service's account, with its rights and no others.
fn a_ledger(server: &Server) -> PeerPodLedger {
    let place = Place { node: NODE.to_owned(), provider: "fake".to_owned() };
    PeerPodLedger::new(server.client_as(names::NAMESPACE, ACCOUNT).unwrap(), place)
}

pub(crate) fn key(sandbox: &str) -> VmKey {
    VmKey { cluster: "c".parse().unwrap(), sandbox: sandbox.parse().unwrap() }
}

/// A pod's, whose sandbox was asked for at [`SINCE_UNIX_MS`].
pub(crate) fn claim<'a>(pod_namespace: &'a str, pod_name: &'a str) -> Claim<'a> {
    Claim { pod_namespace, pod_name, location: Some("here"), since_unix_ms: SINCE_UNIX_MS }
}

pub(crate) fn instance(id: &str) -> Instance {
    Instance {
        id: id.to_owned(),
        name: "podvm-web".to_owned(),
        addresses: Vec::new(),
        state: VmState::Running,
        console: None,
        tags: std::collections::BTreeMap::new(),
    }
}

pub(crate) async fn create<K>(api: &Api<K>, object: Value)
where
    K: Clone + serde::de::DeserializeOwned + serde::Serialize + Debug,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// Waits until something holds; only a test that fails waits so long.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let patience = Duration::from_secs(60);
    let waited = tokio::time::timeout(patience, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {patience:?}: {what}");
}
