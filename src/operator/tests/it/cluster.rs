//! A cluster of one control plane node and some workers, with the operator's controllers at work in it.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use peerpods_operator::objects::Kind;
use peerpods_operator::settings::Settings;
use peerpods_operator::{kataconfig, names, peerpodconfig};
use peerpods_test_apiserver::Server;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::openshift;

/// How long anything may take. Only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// The operator's name at the server.
pub(crate) const OPERATOR: &str = "operator";

pub(crate) struct Cluster {
    pub(crate) server: Server,
    pub(crate) client: Client,
    controllers: Vec<JoinHandle<()>>,
}

impl Cluster {
    /// One that has our kinds, and these of others; no nodes, and no controllers yet.
    pub(crate) async fn bare(others: Vec<Value>, namespaces: &[&str]) -> Self {
        let server = Server::start().await.unwrap();
        let client = server.client("test").unwrap();
        let cluster = Self { server, client, controllers: Vec::new() };
        let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
        for definition in others {
            create(&definitions, definition).await;
        }
        for definition in peerpods_crds::all() {
            definitions.create(&PostParams::default(), &definition.object).await.unwrap();
        }
        for name in namespaces {
            create(&cluster.all::<Namespace>(), json!({ "metadata": { "name": name } })).await;
        }
        cluster
    }

    /// With so many workers, and no controllers yet.
    pub(crate) async fn new(workers: usize) -> Self {
        let namespaces = [names::NAMESPACE, names::DASHBOARD_NAMESPACE, "openshift-config", "shop"];
        let cluster = Self::bare(openshift::definitions(), &namespaces).await;
        for (pool, machines) in [("master", 1), ("worker", workers)] {
            create(
                &cluster.pools(),
                json!({
                    "apiVersion": "machineconfiguration.openshift.io/v1",
                    "kind": "MachineConfigPool",
                    "metadata": { "name": pool },
                    "spec": { "configuration": { "name": format!("rendered-{pool}-0") } },
                }),
            )
            .await;
            cluster.pool_is(pool, "Updated", &format!("rendered-{pool}-0"), machines).await;
        }
        cluster.add_node("master0", names::MASTER_LABEL, "rendered-master-0").await;
        for n in 0..workers {
            cluster.add_node(&format!("worker{n}"), names::WORKER_LABEL, "rendered-worker-0").await;
        }
        cluster
    }

    /// Both controllers begin.
    pub(crate) fn operate(&mut self) {
        let client = self.server.client(OPERATOR).unwrap();
        let settings = || Settings { image: "image:1".to_owned(), ..Settings::default() };
        let first = kataconfig::controller::run(client.clone(), settings(), std::future::pending());
        let second = peerpodconfig::controller::run(client, settings(), std::future::pending());
        self.controllers.extend([tokio::spawn(first), tokio::spawn(second)]);
    }

    pub(crate) fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    pub(crate) fn operators<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), names::NAMESPACE)
    }

    pub(crate) fn untyped(&self, kind: Kind) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &kind.resource())
    }

    fn pools(&self) -> Api<DynamicObject> {
        self.untyped(Kind::MACHINE_CONFIG_POOL)
    }

    /// The machine config operator says of a pool: Updating or Updated, which configuration it is to have, and how many nodes it has.
    pub(crate) async fn pool_is(&self, pool: &str, condition: &str, rendered: &str, machines: usize) {
        let spec = json!({ "spec": { "configuration": { "name": rendered } } });
        self.pools().patch(pool, &PatchParams::default(), &Patch::Merge(spec)).await.unwrap();
        let updated = if condition == "Updated" { machines } else { 0 };
        let status = json!({ "status": {
            "machineCount": machines,
            "updatedMachineCount": updated,
            "conditions": [{ "type": condition, "status": "True" }],
        } });
        self.pools().patch_status(pool, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    pub(crate) async fn add_node(&self, name: &str, label: &str, rendered: &str) {
        let nodes: Api<Node> = self.all();
        create(&nodes, json!({ "metadata": { "name": name, "labels": { label: "" } } })).await;
        self.node_is(name, "Done", rendered).await;
    }

    /// The machine config operator says of a node what it does with it, and which configuration it has.
    pub(crate) async fn node_is(&self, name: &str, state: &str, rendered: &str) {
        let annotations = json!({ names::NODE_STATE: state, names::NODE_CURRENT_CONFIG: rendered });
        self.patch::<Node>(name, json!({ "metadata": { "annotations": annotations } })).await;
    }

    pub(crate) async fn patch<K>(&self, name: &str, patch: Value)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        self.all::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Names of everything there may be of ours, and of what stands beside it; Events, which end by themselves, apart.
    pub(crate) async fn everything(&self) -> Vec<String> {
        let of_openshift = [
            Kind::MACHINE_CONFIG,
            Kind::MACHINE_CONFIG_POOL,
            Kind::CONTAINER_RUNTIME_CONFIG,
            Kind::SECURITY_CONTEXT_CONSTRAINTS,
        ];
        let mut found = self.of_kubernetes().await;
        found.extend(self.names(&of_openshift).await);
        found
    }

    /// The same of what every cluster has.
    pub(crate) async fn of_kubernetes(&self) -> Vec<String> {
        let kinds = [
            Kind::RUNTIME_CLASS,
            Kind::SERVICE_ACCOUNT,
            Kind::DAEMON_SET,
            Kind::DEPLOYMENT,
            Kind::SECRET,
            Kind::CONFIG_MAP,
            Kind::SERVICE,
            Kind::PEER_POD_CONFIG,
        ];
        let mut found = self.names(&kinds).await;
        for node in self.all::<Node>().list(&ListParams::default()).await.unwrap() {
            let capacity =
                node.status.as_ref().and_then(|status| status.capacity.clone()).unwrap_or_default();
            found.push(format!("node {} {:?} {capacity:?}", node.name_any(), node.labels()));
        }
        found
    }

    async fn names(&self, kinds: &[Kind]) -> Vec<String> {
        let mut found = Vec::new();
        for kind in kinds {
            let list = self.untyped(*kind).list(&ListParams::default()).await.unwrap();
            let name = |object: &DynamicObject| {
                format!("{} {}/{}", kind.kind, object.namespace().unwrap_or_default(), object.name_any())
            };
            found.extend(list.iter().map(name));
        }
        found
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.controllers.iter().for_each(JoinHandle::abort);
    }
}

/// Creates an object.
pub(crate) async fn create<K>(api: &Api<K>, object: Value)
where
    K: Clone + DeserializeOwned + Debug + Serialize,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// Waits until something holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {PATIENCE:?}: {what}");
}
