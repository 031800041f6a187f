//! Objects that are to be there, where others write into them too.

use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use peerpods_operator::names;
use peerpods_operator::objects::{Applied, Desired, Kind, ObjectRef, apply};
use serde_json::json;

use crate::cluster::Cluster;

/// A sidecar that somebody's tool puts into our DaemonSet is theirs, and no drift that is repaired at every look.
#[tokio::test]
async fn an_entry_that_another_manager_added_to_a_list_is_not_repaired_for_ever() {
    let cluster = Cluster::new(0).await;
    let object = ObjectRef::namespaced(Kind::SERVICE, names::NAMESPACE, "lent");
    let body =
        json!({ "spec": { "ports": [{ "name": "a", "port": 80, "protocol": "TCP", "targetPort": 8080 }] } });
    let desired = Desired { object: object.clone(), body };
    assert_eq!(apply(&cluster.client, &desired).await.unwrap(), Applied::Created);

    let more = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "lent" },
        "spec": { "ports": [{ "name": "b", "port": 81, "protocol": "TCP" }] },
    });
    let api = object.api(&cluster.client);
    let theirs = api.patch("lent", &PatchParams::apply("theirs"), &Patch::Apply(more)).await.unwrap();
    assert_eq!(theirs.data["spec"]["ports"].as_array().map(Vec::len), Some(2), "{theirs:?}");
    assert_eq!(apply(&cluster.client, &desired).await.unwrap(), Applied::Unchanged);
    assert_eq!(api.get("lent").await.unwrap().resource_version(), theirs.resource_version());

    let drift =
        json!({ "spec": { "ports": [{ "name": "a", "port": 80, "protocol": "TCP", "targetPort": 81 }] } });
    api.patch("lent", &PatchParams::default(), &Patch::Merge(drift)).await.unwrap();
    assert_eq!(apply(&cluster.client, &desired).await.unwrap(), Applied::Repaired);
}
