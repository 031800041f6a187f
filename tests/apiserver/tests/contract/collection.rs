//! What goes with its owner or its namespace.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{DeleteParams, Patch, PatchParams, PropagationPolicy};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::place::{Place, create, until};

fn owned_by<K: Resource<DynamicType = ()>>(owner: &K) -> Value {
    json!({"metadata": {"ownerReferences": [owner.owner_ref(&()).unwrap()]}})
}

#[tokio::test]
async fn dependents_go_with_an_owner_of_the_whole_cluster() {
    let place = Place::new().await;
    let classes: Api<RuntimeClass> = Api::all(place.client.clone());
    let owner = create(&classes, &place.unique("owner"), json!({"handler": "h"})).await;
    place.map("c", owned_by(&owner)).await;
    place.map("free", json!({})).await;
    classes.delete(&owner.name_any(), &DeleteParams::default()).await.unwrap();
    until("the dependent is gone", || async { place.maps().get_opt("c").await.unwrap().is_none() }).await;
    assert!(place.maps().get_opt("free").await.unwrap().is_some());
    place.leave().await;
}

#[tokio::test]
async fn an_owner_with_another_uid_is_no_owner() {
    let place = Place::new().await;
    let owner = place.map("owner", json!({})).await;
    let mut extra = owned_by(&owner);
    extra["metadata"]["ownerReferences"][0]["uid"] = "00000000-0000-0000-0000-000000000000".into();
    let secrets: Api<Secret> = place.api();
    create(&secrets, "s", extra).await;
    until("the dependent is gone", || async { secrets.get_opt("s").await.unwrap().is_none() }).await;
    place.leave().await;
}

#[tokio::test]
async fn orphans_stay() {
    let place = Place::new().await;
    let owner = place.map("owner", json!({})).await;
    let maps = place.maps();
    place.map("c", owned_by(&owner)).await;
    let orphan =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    maps.delete("owner", &orphan).await.unwrap();
    until("the owner is gone", || async { maps.get_opt("owner").await.unwrap().is_none() }).await;
    assert!(maps.get("c").await.unwrap().owner_references().is_empty());
    place.leave().await;
}

#[tokio::test]
async fn in_the_foreground_the_owner_goes_last() {
    let place = Place::new().await;
    let maps = place.maps();
    let owner = place.map("owner", json!({})).await;
    let mut extra = owned_by(&owner);
    extra["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = true.into();
    extra["metadata"]["finalizers"] = json!(["test.example.com/hold"]);
    place.map("c", extra).await;
    maps.delete("owner", &DeleteParams::foreground()).await.unwrap();
    until("the dependent is being deleted", || async {
        maps.get("c").await.unwrap().metadata.deletion_timestamp.is_some()
    })
    .await;
    assert!(maps.get_opt("owner").await.unwrap().is_some());
    let released = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("c", &PatchParams::default(), &released).await.unwrap();
    until("the owner is gone", || async { maps.get_opt("owner").await.unwrap().is_none() }).await;
    place.leave().await;
}

#[tokio::test]
async fn a_namespace_is_emptied_and_waits_for_finalizers() {
    let place = Place::new().await;
    let namespaces: Api<Namespace> = Api::all(place.client.clone());
    let name = place.unique("ending");
    create(&namespaces, &name, json!({})).await;
    let maps: Api<ConfigMap> = Api::namespaced(place.client.clone(), &name);
    create(&maps, "plain", json!({})).await;
    create(&maps, "held", json!({"metadata": {"finalizers": ["test.example.com/hold"]}})).await;
    namespaces.delete(&name, &DeleteParams::default()).await.unwrap();
    until("what is not held is gone", || async { maps.get_opt("plain").await.unwrap().is_none() }).await;
    assert!(maps.get_opt("held").await.unwrap().is_some());
    let phase = namespaces.get(&name).await.unwrap().status.and_then(|status| status.phase);
    assert_eq!(phase.as_deref(), Some("Terminating"));
    let released = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("held", &PatchParams::default(), &released).await.unwrap();
    until("the namespace is gone", || async { namespaces.get_opt(&name).await.unwrap().is_none() }).await;
    place.leave().await;
}
