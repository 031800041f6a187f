//! Where a test runs: a server of its own, or a namespace of its own in a real cluster.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, Resource};
use peerpods_test_apiserver::Server;
use peerpods_test_require::skip;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// How long anything may take. Generous: it is only waited for when the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Place {
    pub(crate) client: Client,
    /// A namespace that nobody else uses.
    pub(crate) namespace: String,
    /// None in a real cluster.
    pub(crate) server: Option<Server>,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let real = std::env::var("PEERPODS_TEST_CLUSTER").is_ok_and(|value| value == "1");
        let (client, server) = if real {
            (Client::try_default().await.unwrap(), None)
        } else {
            let server = Server::start().await.unwrap();
            (server.client("contract").unwrap(), Some(server))
        };
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let new = parse(json!({"metadata": {"generateName": "contract-"}}));
        let namespace = namespaces.create(&PostParams::default(), &new).await.unwrap().metadata.name.unwrap();
        Self { client, namespace, server }
    }

    /// For what only the test API server has: none in a real cluster, and then the test says so.
    pub(crate) async fn with_server(test: &str) -> Option<(Self, Server)> {
        let place = Self::new().await;
        let server = place.server.clone();
        if server.is_none() {
            skip(test, "only the test API server can do this");
        }
        server.map(|server| (place, server))
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn maps(&self) -> Api<ConfigMap> {
        self.api()
    }

    pub(crate) async fn map(&self, name: &str, extra: Value) -> ConfigMap {
        create(&self.maps(), name, extra).await
    }

    /// Removes what a test made outside its namespace. In a real cluster the namespace goes as well.
    pub(crate) async fn leave(self) {
        if self.server.is_none() {
            let namespaces: Api<Namespace> = Api::all(self.client);
            namespaces.delete(&self.namespace, &DeleteParams::default()).await.unwrap();
        }
    }

    /// A name for an object of the whole cluster.
    pub(crate) fn unique(&self, name: &str) -> String {
        format!("{name}-{}", self.namespace)
    }
}

pub(crate) fn parse<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

pub(crate) async fn create<K>(api: &Api<K>, name: &str, extra: Value) -> K
where
    K: Resource + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let mut body = json!({"metadata": {"name": name}});
    json_patch::merge(&mut body, &extra);
    api.create(&PostParams::default(), &parse(body)).await.unwrap()
}

/// Waits until something is so, looking again and again.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let tried = tokio::time::timeout(PATIENCE, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(tried.await.is_ok(), "{what}: not so after {PATIENCE:?}");
}

/// The next item, within patience.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: nothing within {PATIENCE:?}"))
}

/// Code and reason of a refusal.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> (u16, String) {
    match result.unwrap_err() {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("not a refusal: {other:?}"),
    }
}
