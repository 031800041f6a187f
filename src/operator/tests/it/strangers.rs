//! Whether a real cluster is free for the suite: what the suite uses by a fixed name is not there, or the suite made it. Changes nothing.
//!
//! What tests make has the label [`MADE`]. What the operator makes for them has not; it counts as the suite's while the namespace [`CLAIM`]
//! has the label, which is made before any controller runs, and only where nothing of all that was there.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use peerpods_crds::KataConfig;
use peerpods_operator::deploy::{OPERATOR, files};
use peerpods_operator::names;
use peerpods_operator::objects::Kind;

use crate::tidy::{CLAIM, MADE, NAMESPACES, OURS};

/// Fails where the suite would change or delete what somebody else has.
pub(crate) async fn refuse(client: &Client) {
    let found = strangers(client).await;
    assert!(
        found.is_empty(),
        "this cluster has what the suite uses and did not make, and would change or delete: {found:?}. Nothing was changed. Take a cluster \
         to throw away, or remove these first"
    );
}

/// What is there of others.
pub(crate) async fn strangers(client: &Client) -> Vec<String> {
    let namespaces = api::<Namespace>(client);
    let mut found = Vec::new();
    for name in NAMESPACES {
        found.extend(unmarked(&namespaces, name).await);
    }
    let claimed = namespaces.get_opt(CLAIM).await.unwrap().is_some_and(|claim| is_marked(&claim));
    found.extend(definitions(client).await);
    found.extend(configs(client).await);
    found.extend(deployed(client).await);
    found.extend(operator(client).await);
    found.extend(pools(client).await);
    if !claimed {
        found.extend(made_by_an_operator(client).await);
    }
    found.sort();
    found.dedup();
    found
}

fn api<K: kube::Resource<DynamicType = ()>>(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<K>(&()))
}

fn is_marked(object: &DynamicObject) -> bool {
    object.labels().contains_key(MADE)
}

fn tell(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map_or_else(String::new, |types| types.kind.clone());
    format!("{kind} {}", object.name_any())
}

/// What was found; none where the kind is not served, which is a 404 without a reason. Any other refusal could hide somebody's.
fn found<T>(answer: kube::Result<T>) -> Option<T> {
    match answer {
        Ok(found) => Some(found),
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        Err(error) => panic!("nobody can say whether this cluster is free: {error}"),
    }
}

/// An object of this name that is not the suite's.
async fn unmarked(api: &Api<DynamicObject>, name: &str) -> Option<String> {
    let object = found(api.get(name).await)?;
    (!is_marked(&object)).then(|| tell(&object))
}

async fn all(api: &Api<DynamicObject>) -> Vec<DynamicObject> {
    found(api.list(&ListParams::default()).await).map_or_else(Vec::new, |list| list.items)
}

async fn definitions(client: &Client) -> Vec<String> {
    let mut found = Vec::new();
    for ours in peerpods_crds::all() {
        found.extend(unmarked(&api::<CustomResourceDefinition>(client), ours.name()).await);
    }
    found
}

async fn configs(client: &Client) -> Vec<String> {
    let all = all(&api::<KataConfig>(client)).await;
    all.iter().filter(|one| !is_marked(one)).map(|one| format!("KataConfig {}", one.name_any())).collect()
}

/// What `deploy/` has of the whole cluster. What it has in namespaces goes with them.
async fn deployed(client: &Client) -> Vec<String> {
    let objects = files::all().into_iter().flat_map(|file| file.objects);
    let mut found = Vec::new();
    for object in objects.filter(|object| object["metadata"]["namespace"].is_null()) {
        let version = object["apiVersion"].as_str().unwrap();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = GroupVersionKind::gvk(group, version, object["kind"].as_str().unwrap());
        let api = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
        found.extend(unmarked(&api, object["metadata"]["name"].as_str().unwrap()).await);
    }
    found
}

/// The suite runs the controllers itself.
async fn operator(client: &Client) -> Option<String> {
    let deployments: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), names::NAMESPACE, &Kind::DEPLOYMENT.resource());
    deployments.get_opt(OPERATOR).await.unwrap().map(|found| tell(&found))
}

/// Pools are a machine config operator's: these tests would change its nodes.
async fn pools(client: &Client) -> Vec<String> {
    let all = all(&Api::all_with(client.clone(), &Kind::MACHINE_CONFIG_POOL.resource())).await;
    let theirs = all.iter().filter(|pool| !is_marked(pool) && pool.name_any() != names::POOL);
    theirs.map(|pool| format!("MachineConfigPool {}", pool.name_any())).collect()
}

async fn made_by_an_operator(client: &Client) -> Vec<String> {
    let mut found = Vec::new();
    for (kind, names) in OURS {
        let api = Api::all_with(client.clone(), &kind.resource());
        for name in names {
            found.extend(unmarked(&api, name).await);
        }
    }
    found
}

mod tests {
    //! But for the first on a server of their own, wherever the suite runs.

    use k8s_openapi::api::core::v1::ConfigMap;
    use peerpods_test_apiserver::Server;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::create;
    use crate::kataconfig::NAME;
    use crate::{place, tidy};

    #[tokio::test]
    #[ignore = "asks a real cluster: the first step of make test-cluster"]
    async fn the_cluster_is_free_for_the_suite() {
        assert!(place::is_real(), "there is no cluster");
        refuse(&place::real_client().await).await;
    }

    async fn made(client: &Client, kind: Kind, object: Value) {
        create::<DynamicObject>(&Api::all_with(client.clone(), &kind.resource()), object).await;
    }

    fn class(name: &str) -> Value {
        json!({ "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": name }, "handler": "x" })
    }

    async fn namespace(client: &Client, name: &str, labels: Value) {
        let metadata = json!({ "name": name, "labels": labels });
        create(&Api::<Namespace>::all(client.clone()), json!({ "metadata": metadata })).await;
    }

    async fn define(client: &Client, labels: Value) {
        for definition in peerpods_crds::all() {
            let mut object = json!(definition.object);
            object["metadata"]["labels"] = labels.clone();
            create(&Api::<CustomResourceDefinition>::all(client.clone()), object).await;
        }
    }

    async fn config(client: &Client, name: &str, labels: Value) {
        let metadata = json!({ "name": name, "labels": labels });
        create(&Api::<KataConfig>::all(client.clone()), json!({
            "apiVersion": "kataconfiguration.openshift.io/v1", "kind": "KataConfig", "metadata": metadata, "spec": {},
        }))
        .await;
    }

    #[tokio::test]
    async fn a_cluster_where_others_have_what_the_suite_uses_is_refused() {
        let server = Server::start().await.unwrap();
        let client = server.client("test").unwrap();
        assert_eq!(strangers(&client).await, [""; 0]);
        namespace(&client, "shop", json!({})).await;
        made(&client, Kind::RUNTIME_CLASS, class(names::KATA_CLASS)).await;
        define(&client, json!({})).await;
        config(&client, "theirs", json!({})).await;
        let writes = server.writes();
        let found = strangers(&client).await;
        for one in ["Namespace shop", "RuntimeClass kata", "KataConfig theirs"] {
            assert!(found.contains(&one.to_owned()), "{one}: {found:?}");
        }
        assert_eq!(
            found.iter().filter(|one| one.starts_with("CustomResourceDefinition")).count(),
            3,
            "{found:?}"
        );
        assert_eq!(server.writes(), writes);
    }

    #[tokio::test]
    async fn what_the_suite_made_is_no_reason_to_refuse_and_alone_goes() {
        let server = Server::start().await.unwrap();
        let client = server.client("test").unwrap();
        let label = json!({ MADE: "" });
        namespace(&client, CLAIM, label.clone()).await;
        namespace(&client, "openshift-config", json!({})).await;
        define(&client, label.clone()).await;
        config(&client, NAME, label).await;
        config(&client, "theirs", json!({})).await;
        // The one is the operator's, the other nobody's that the suite knows.
        made(&client, Kind::RUNTIME_CLASS, class(names::KATA_CLASS)).await;
        made(&client, Kind::RUNTIME_CLASS, class("theirs")).await;
        let maps = |namespace: &str| Api::<ConfigMap>::namespaced(client.clone(), namespace);
        for namespace in [CLAIM, "openshift-config", "default"] {
            create(&maps(namespace), json!({ "metadata": { "name": "map" } })).await;
        }
        assert_eq!(strangers(&client).await, ["KataConfig theirs", "Namespace openshift-config"]);

        tidy::tidy(&client).await;
        let left = all(&api::<KataConfig>(&client)).await;
        assert_eq!(left.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["theirs"]);
        let classes = all(&Api::all_with(client.clone(), &Kind::RUNTIME_CLASS.resource())).await;
        assert_eq!(classes.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["theirs"]);
        assert!(maps(CLAIM).get_opt("map").await.unwrap().is_none());
        for namespace in ["openshift-config", "default"] {
            assert!(maps(namespace).get_opt("map").await.unwrap().is_some(), "{namespace}");
        }
    }
}
