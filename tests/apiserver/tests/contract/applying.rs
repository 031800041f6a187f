//! Server-side apply.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::place::{Place, refusal};

fn map(data: Value) -> Patch<Value> {
    Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}))
}

fn data(map: ConfigMap) -> Value {
    json!(map.data.unwrap_or_default())
}

#[tokio::test]
async fn an_apply_creates_and_the_same_again_is_no_change() {
    let place = Place::new().await;
    let params = PatchParams::apply("one");
    let first = place.maps().patch("c", &params, &map(json!({"a": "1"}))).await.unwrap();
    let again = place.maps().patch("c", &params, &map(json!({"a": "1"}))).await.unwrap();
    assert_eq!(first.resource_version(), again.resource_version());
    let managed = &first.managed_fields()[0];
    assert_eq!((managed.manager.as_deref(), managed.operation.as_deref()), (Some("one"), Some("Apply")));
    assert_eq!(managed.fields_v1.as_ref().unwrap().0, json!({"f:data": {"f:a": {}}}));
    place.leave().await;
}

#[tokio::test]
async fn another_managers_field_is_a_conflict_unless_forced() {
    let place = Place::new().await;
    let maps = place.maps();
    maps.patch("c", &PatchParams::apply("one"), &map(json!({"a": "1", "b": "1"}))).await.unwrap();
    let refused = maps.patch("c", &PatchParams::apply("two"), &map(json!({"a": "2"}))).await.unwrap_err();
    let kube::Error::Api(status) = refused else { panic!("{refused:?}") };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    let cause = &status.details.as_ref().unwrap().causes[0];
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldManagerConflict", ".data.a"));
    let forced = maps.patch("c", &PatchParams::apply("two").force(), &map(json!({"a": "2"}))).await.unwrap();
    assert_eq!(data(forced), json!({"a": "2", "b": "1"}));
    let without = maps.patch("c", &PatchParams::apply("one"), &map(json!({"b": "1"}))).await.unwrap();
    assert_eq!(data(without), json!({"a": "2", "b": "1"}), "it lost what it did not own any longer");
    place.leave().await;
}

#[tokio::test]
async fn what_is_no_longer_applied_goes_and_what_others_wrote_stays() {
    let place = Place::new().await;
    let maps = place.maps();
    maps.patch("c", &PatchParams::apply("one"), &map(json!({"a": "1", "b": "1"}))).await.unwrap();
    let foreign = Patch::Merge(json!({"data": {"c": "1"}}));
    maps.patch("c", &PatchParams::default(), &foreign).await.unwrap();
    let applied = maps.patch("c", &PatchParams::apply("one"), &map(json!({"b": "1"}))).await.unwrap();
    assert_eq!(data(applied), json!({"b": "1", "c": "1"}));
    let mut edited = maps.get("c").await.unwrap();
    edited.data.get_or_insert_default().insert("b".into(), "2".into());
    maps.replace("c", &PostParams::default(), &edited).await.unwrap();
    let conflict = maps.patch("c", &PatchParams::apply("one"), &map(json!({"b": "1"}))).await;
    assert_eq!(refusal(conflict), (409, "Conflict".into()));
    place.leave().await;
}

fn set(containers: Value) -> Patch<Value> {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}});
    Patch::Apply(json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    }))
}

#[tokio::test]
async fn containers_and_variables_are_owned_one_by_one() {
    let place = Place::new().await;
    let sets: Api<DaemonSet> = place.api();
    let mine = json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 80}]}]);
    sets.patch("d", &PatchParams::apply("one"), &set(mine.clone())).await.unwrap();
    let sidecar = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "side", "image": "2"}, {"name": "a", "env": [{"name": "Y", "value": "2"}]},
    ]}}}});
    sets.patch("d", &PatchParams::default(), &Patch::Strategic(sidecar)).await.unwrap();
    let before = sets.get("d").await.unwrap();
    let applied = sets.patch("d", &PatchParams::apply("one"), &set(mine)).await.unwrap();
    // A real cluster's controller writes the status meanwhile.
    let written = |set: &DaemonSet| (set.spec.clone(), set.metadata.generation);
    assert_eq!(written(&applied), written(&before));
    let other = json!([{"name": "a", "image": "1"}]);
    let applied = sets.patch("d", &PatchParams::apply("one"), &set(other)).await.unwrap();
    let spec = applied.spec.unwrap().template.spec.unwrap();
    let mut names: Vec<_> = spec.containers.iter().map(|container| container.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "side"]);
    let a = spec.containers.iter().find(|container| container.name == "a").unwrap();
    let variables: Vec<_> = a.env.iter().flatten().map(|variable| variable.name.as_str()).collect();
    assert_eq!(variables, ["Y"], "its own went, the other stayed");
    assert!(a.ports.as_deref().unwrap_or_default().is_empty());
    place.leave().await;
}

#[tokio::test]
async fn a_field_that_the_kind_does_not_have_and_a_missing_manager_are_refused() {
    let place = Place::new().await;
    let maps = place.maps();
    let body =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "date": {}, "x": "y"});
    let refused = maps.patch("c", &PatchParams::apply("one"), &Patch::Apply(body)).await.unwrap_err();
    assert!(refused.to_string().contains("field not declared in schema"), "{refused}");
    let nameless = maps.patch("c", &PatchParams::default(), &map(json!({"a": "1"}))).await;
    assert!((400..500).contains(&refusal(nameless).0));
    place.leave().await;
}
