//! A cluster of one control plane node and some workers, with the operator's controllers at work in it. They act as the operator's account
//! with the rights of `deploy/`, and nothing more.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, Resource, ResourceExt};
use peerpods_operator::deploy::{OPERATOR, files};
use peerpods_operator::objects::Kind;
use peerpods_operator::settings::Settings;
use peerpods_operator::{kataconfig, names, peerpodconfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::place::Place;
use crate::tidy::{MADE, NAMESPACES};
use crate::{kubelet, objects, openshift, tidy};

/// How long anything may take. Only a test that fails waits so long; real clusters collect what is owned in tens of seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct Cluster {
    pub(crate) place: Place,
    pub(crate) client: Client,
    working: Vec<JoinHandle<()>>,
}

/// How much was written so far: the same later means that the operator wrote nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// What our own server was asked.
    Writes(Vec<String>),
    /// The versions of all objects.
    Versions(BTreeMap<String, String>),
}

impl Cluster {
    /// One that has our kinds, and these of others; no nodes, and no controllers yet.
    pub(crate) async fn bare(others: Vec<Value>) -> Self {
        let place = Place::open().await;
        let client = place.client().await;
        let mut cluster = Self { place, client, working: Vec::new() };
        cluster.define(others).await;
        cluster.install().await;
        if cluster.place.server().is_none() {
            cluster.working.push(tokio::spawn(kubelet::play(cluster.client.clone())));
        }
        cluster
    }

    /// With so many workers, and no controllers yet.
    pub(crate) async fn new(workers: usize) -> Self {
        let cluster = Self::bare(openshift::definitions()).await;
        for (pool, machines) in [("master", 1), ("worker", workers)] {
            create(
                &cluster.pools(),
                json!({
                    "apiVersion": "machineconfiguration.openshift.io/v1",
                    "kind": "MachineConfigPool",
                    "metadata": { "name": pool, "labels": { MADE: "" } },
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

    /// These kinds where they are not there, no others of a test, and ours.
    async fn define(&self, others: Vec<Value>) {
        let definitions: Api<CustomResourceDefinition> = self.all();
        let ours = peerpods_crds::all().into_iter().map(|definition| json!(definition.object));
        if others.is_empty() {
            tidy::undefine(&definitions).await;
        }
        for definition in others {
            let name = definition["metadata"]["name"].as_str().unwrap_or_default();
            // A cluster's own are better.
            let there = definitions.get_opt(name).await.unwrap();
            if there.is_none_or(|there| there.labels().contains_key(MADE)) {
                self.apply(definition).await;
            }
        }
        for definition in ours {
            self.apply(definition).await;
        }
        until("all kinds are served", || async {
            let all = definitions.list(&Default::default()).await.unwrap();
            all.iter().all(|one| {
                let conditions = one.status.iter().flat_map(|status| status.conditions.iter().flatten());
                conditions.into_iter().any(|one| one.type_ == "Established" && one.status == "True")
            })
        })
        .await;
    }

    /// The namespaces, and who may do what, as `deploy/` has it.
    async fn install(&self) {
        let namespaces: Api<Namespace> = self.all();
        for file in files::all() {
            if file.path.contains("namespace") || file.path.contains("access") {
                self.need_namespaces(&file).await;
                for object in file.objects {
                    self.apply(object).await;
                }
            }
        }
        for name in NAMESPACES {
            if namespaces.get_opt(name).await.unwrap().is_none() {
                create(&namespaces, json!({ "metadata": { "name": name, "labels": { MADE: "" } } })).await;
            }
        }
        if self.place.server().is_none() {
            until("Kubernetes has put its own into each namespace", || self.is_furnished()).await;
        }
    }

    async fn need_namespaces(&self, file: &files::File) {
        let namespaces: Api<Namespace> = self.all();
        for object in &file.objects {
            let Some(name) = object["metadata"]["namespace"].as_str() else { continue };
            if namespaces.get_opt(name).await.unwrap().is_none() {
                create(&namespaces, json!({ "metadata": { "name": name, "labels": { MADE: "" } } })).await;
            }
        }
    }

    async fn is_furnished(&self) -> bool {
        for name in NAMESPACES {
            let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), name);
            let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), name);
            let account = accounts.get_opt("default").await.unwrap();
            if account.is_none() || maps.get_opt("kube-root-ca.crt").await.unwrap().is_none() {
                return false;
            }
        }
        true
    }

    /// What `kubectl apply --server-side` does with an object. One that was not there is marked as a test's.
    pub(crate) async fn apply(&self, mut object: Value) {
        let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let (group, version) = match text("apiVersion").split_once('/') {
            Some((group, version)) => (group.to_owned(), version.to_owned()),
            None => (String::new(), text("apiVersion")),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind { group, version, kind: text("kind") });
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let there = api.get_opt(&name).await.unwrap();
        if there.is_none_or(|there| there.labels().contains_key(MADE)) {
            object["metadata"]["labels"][MADE] = "".into();
        }
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await.unwrap();
    }

    /// Both controllers begin.
    pub(crate) async fn operate(&mut self) {
        let client = self.place.client_as(OPERATOR).await;
        let settings = || Settings { image: "image:1".to_owned(), ..Settings::default() };
        let first = kataconfig::controller::run(client.clone(), settings(), std::future::pending());
        let second = peerpodconfig::controller::run(client, settings(), std::future::pending());
        self.working.extend([tokio::spawn(first), tokio::spawn(second)]);
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
        let size = json!({ "cpu": "16", "memory": "64Gi", "pods": "250" });
        let ready = json!({ "type": "Ready", "status": "True", "reason": "KubeletReady" });
        let status = json!({ "capacity": size, "allocatable": size, "conditions": [ready] });
        let metadata = json!({ "name": name, "labels": { label: "", MADE: "" } });
        create(&nodes, json!({ "metadata": metadata, "status": status })).await;
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

    /// Everything there is.
    pub(crate) async fn everything(&self) -> Vec<String> {
        objects::everything(&self.client).await
    }

    /// Waits until everything is as it was. What is owned goes a moment later than its owner.
    pub(crate) async fn is_as_before(&self, before: &[String]) {
        let tried = tokio::time::timeout(PATIENCE, async {
            while self.everything().await != before {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        if tried.await.is_err() {
            assert_eq!(self.everything().await, before);
        }
    }

    /// Waits until nothing is written any more.
    pub(crate) async fn rests(&self) {
        let seconds = if self.place.server().is_some() { 1 } else { 3 };
        until("rest", || async {
            let before = self.mark().await;
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            self.mark().await == before
        })
        .await;
    }

    /// How much was written so far.
    pub(crate) async fn mark(&self) -> Mark {
        let Some(server) = self.place.server() else {
            return Mark::Versions(objects::versions(&self.client).await);
        };
        let asked = server.requests().into_iter().filter(|one| one.is_write() && one.agent != "test");
        Mark::Writes(asked.map(|one| format!("{} {}", one.verb, one.path)).collect())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.working.iter().for_each(JoinHandle::abort);
        if self.place.server().is_none() {
            // The clients of this runtime stand still while it drops.
            let tidied = std::thread::spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async { tidy::tidy(&Client::try_default().await.unwrap()).await });
            });
            if tidied.join().is_err() {
                println!("the cluster was not left as it was found");
            }
        }
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
