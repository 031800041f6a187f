//! Creating, reading, changing and deleting.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, Secret};
use k8s_openapi::api::events::v1::Event as NewEvent;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::place::{Place, create, parse, refusal, until};

#[tokio::test]
async fn an_object_is_made_once_and_changed_only_from_its_newest_version() {
    let place = Place::new().await;
    let maps = place.maps();
    let first = place.map("c", json!({"data": {"a": "1"}})).await;
    assert!(first.uid().is_some() && first.creation_timestamp().is_some());
    let again = maps.create(&PostParams::default(), &parse(json!({"metadata": {"name": "c"}}))).await;
    assert_eq!(refusal(again), (409, "AlreadyExists".into()));
    let mut changed = first.clone();
    changed.data = Some([("a".to_owned(), "2".to_owned())].into());
    let second = maps.replace("c", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(first.resource_version(), second.resource_version());
    assert_eq!(refusal(maps.replace("c", &PostParams::default(), &changed).await), (409, "Conflict".into()));
    let same = maps.replace("c", &PostParams::default(), &second).await.unwrap();
    assert_eq!(same.resource_version(), second.resource_version(), "what changes nothing is no change");
    assert!(maps.get_opt("other").await.unwrap().is_none());
    place.leave().await;
}

#[tokio::test]
async fn a_missing_namespace_is_not_found() {
    let place = Place::new().await;
    let elsewhere: Api<ConfigMap> = Api::namespaced(place.client.clone(), "there-is-no-such-namespace");
    let made = elsewhere.create(&PostParams::default(), &parse(json!({"metadata": {"name": "c"}}))).await;
    assert_eq!(refusal(made), (404, "NotFound".into()));
    place.leave().await;
}

#[tokio::test]
async fn patches_of_three_kinds() {
    let place = Place::new().await;
    let maps = place.maps();
    place.map("c", json!({"data": {"a": "1", "b": "1"}})).await;
    let params = PatchParams::default();
    let merged =
        maps.patch("c", &params, &Patch::Merge(json!({"data": {"a": null, "c": "1"}}))).await.unwrap();
    assert_eq!(merged.data.unwrap().into_keys().collect::<Vec<_>>(), ["b", "c"]);
    let test = |value: &str| {
        let operations = json!([
            {"op": "test", "path": "/data/b", "value": value}, {"op": "replace", "path": "/data/b", "value": "2"},
        ]);
        Patch::<()>::Json(parse(operations))
    };
    assert_eq!(refusal(maps.patch("c", &params, &test("x")).await).0, 422);
    let patched = maps.patch("c", &params, &test("1")).await.unwrap();
    assert_eq!(patched.data.unwrap()["b"], "2");
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"a": "1"}});
    assert_eq!(refusal(maps.patch("c", &params, &Patch::Merge(stale)).await), (409, "Conflict".into()));
    assert_eq!(refusal(maps.patch("none", &params, &Patch::Merge(json!({}))).await).0, 404);
    place.leave().await;
}

#[tokio::test]
async fn a_node_gets_an_extended_resource_through_its_status_only() {
    let place = Place::new().await;
    let nodes: Api<Node> = Api::all(place.client.clone());
    let name = place.unique("node");
    create(&nodes, &name, json!({"metadata": {"labels": {"a": "b"}}})).await;
    let capacity = json!({"status": {"capacity": {"kata.peerpods.io/vm": "10"}}});
    let through_main = nodes.patch(&name, &PatchParams::default(), &Patch::Merge(&capacity)).await.unwrap();
    let shown = |node: &Node| {
        node.status.clone().and_then(|s| s.capacity).and_then(|c| c.get("kata.peerpods.io/vm").cloned())
    };
    assert_eq!(shown(&through_main), None);
    let operations =
        json!([{"op": "add", "path": "/status/capacity", "value": {"kata.peerpods.io/vm": "10"}}]);
    let patch = Patch::<()>::Json(parse(operations));
    let through_status = nodes.patch_status(&name, &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(shown(&through_status).unwrap().0, "10");
    let mut cordoned = nodes.get(&name).await.unwrap();
    cordoned.spec.get_or_insert_default().unschedulable = Some(true);
    cordoned.status = None;
    // Whichever is the latest: controllers of a real cluster write to nodes as well.
    cordoned.metadata.resource_version = None;
    let replaced = nodes.replace(&name, &PostParams::default(), &cordoned).await.unwrap();
    assert_eq!(shown(&replaced).unwrap().0, "10");
    for (sent, stored) in [("1000", "1k"), ("2000000", "2M"), ("1500", "1500"), ("0", "0")] {
        let capacity = json!({"status": {"capacity": {"kata.peerpods.io/vm": sent}}});
        let patched = nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(&capacity)).await;
        assert_eq!(shown(&patched.unwrap()).unwrap().0, stored, "{sent}");
    }
    nodes.delete(&name, &DeleteParams::default()).await.unwrap();
    place.leave().await;
}

#[tokio::test]
async fn what_is_desired_is_counted_and_what_must_not_change_does_not() {
    let place = Place::new().await;
    let sets: Api<DaemonSet> = place.api();
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let first = create(&sets, "d", spec).await;
    assert_eq!(first.metadata.generation, Some(1));
    let params = PatchParams::default();
    let labelled =
        sets.patch("d", &params, &Patch::Merge(json!({"metadata": {"labels": {"x": "y"}}}))).await.unwrap();
    assert_eq!(labelled.metadata.generation, Some(1));
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "j"}]}}}});
    let rolled = sets.patch("d", &params, &Patch::Strategic(image)).await.unwrap();
    assert_eq!(rolled.metadata.generation, Some(2));
    let selector = json!({"spec": {"selector": {"matchLabels": {"a": "c"}}, "template": {"metadata": {"labels": {"a": "c"}}}}});
    assert_eq!(refusal(sets.patch("d", &params, &Patch::Merge(selector)).await).0, 422);
    let classes: Api<RuntimeClass> = Api::all(place.client.clone());
    let name = place.unique("class");
    create(&classes, &name, json!({"handler": "a"})).await;
    assert_eq!(refusal(classes.patch(&name, &params, &Patch::Merge(json!({"handler": "b"}))).await).0, 422);
    classes.delete(&name, &DeleteParams::default()).await.unwrap();
    place.leave().await;
}

#[tokio::test]
async fn selectors_and_pages() {
    let place = Place::new().await;
    let pods: Api<Pod> = place.api();
    for (name, label) in [("a", "1"), ("b", "1"), ("c", "2")] {
        let spec = json!({"nodeName": place.unique(name), "containers": [{"name": "c", "image": "i"}]});
        let pod = json!({"metadata": {"labels": {"l": label}}, "spec": spec});
        create(&pods, name, pod).await;
    }
    let names = |params: ListParams| {
        let pods = pods.clone();
        async move {
            pods.list(&params).await.unwrap().items.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
        }
    };
    assert_eq!(names(ListParams::default().labels("l in (1)")).await, ["a", "b"]);
    assert_eq!(
        names(ListParams::default().fields(&format!("spec.nodeName={}", place.unique("c")))).await,
        ["c"]
    );
    let unknown = pods.list(&ListParams::default().fields("spec.runtimeClassName=kata")).await;
    assert_eq!(refusal(unknown), (400, "BadRequest".into()));
    let page = pods.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(page.items.len(), 2);
    let rest = ListParams::default().limit(2).continue_token(page.metadata.continue_.as_deref().unwrap());
    assert_eq!(names(rest).await, ["c"]);
    for name in ["a", "b", "c"] {
        pods.delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }
    place.leave().await;
}

#[tokio::test]
async fn deletions_wait_for_finalizers_and_heed_preconditions() {
    let place = Place::new().await;
    let maps = place.maps();
    place.map("c", json!({"metadata": {"finalizers": ["test.example.com/hold"]}})).await;
    let wrong = Preconditions { uid: Some("another".into()), resource_version: None };
    let params = DeleteParams { preconditions: Some(wrong), ..DeleteParams::default() };
    assert_eq!(refusal(maps.delete("c", &params).await), (409, "Conflict".into()));
    let pending = maps.delete("c", &DeleteParams::default()).await.unwrap();
    assert!(pending.left().is_some_and(|object| object.metadata.deletion_timestamp.is_some()));
    let added = json!({"metadata": {"finalizers": ["test.example.com/hold", "test.example.com/late"]}});
    assert_eq!(refusal(maps.patch("c", &PatchParams::default(), &Patch::Merge(added)).await).0, 422);
    let released = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("c", &PatchParams::default(), &released).await.unwrap();
    until("the map is gone", || async { maps.get_opt("c").await.unwrap().is_none() }).await;
    assert_eq!(refusal(maps.delete("c", &DeleteParams::default()).await).0, 404);
    place.leave().await;
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let place = Place::new().await;
    let secrets: Api<Secret> = place.api();
    for (name, label) in [("a", "1"), ("b", "2")] {
        create(&secrets, name, json!({"metadata": {"labels": {"l": label}}, "stringData": {"k": "v"}})).await;
    }
    secrets.delete_collection(&DeleteParams::default(), &ListParams::default().labels("l=1")).await.unwrap();
    until("only b is left", || async {
        let left = secrets.list(&ListParams::default().labels("l")).await.unwrap();
        left.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>() == ["b"]
    })
    .await;
    assert_eq!(secrets.get("b").await.unwrap().data.unwrap()["k"].0, b"v");
    place.leave().await;
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let place = Place::new().await;
    let params = PostParams { dry_run: true, ..PostParams::default() };
    place.maps().create(&params, &parse(json!({"metadata": {"name": "c"}}))).await.unwrap();
    assert!(place.maps().get_opt("c").await.unwrap().is_none());
    place.leave().await;
}

#[tokio::test]
async fn a_pod_is_evicted() {
    let place = Place::new().await;
    let pods: Api<Pod> = place.api();
    create(&pods, "p", json!({"spec": {"containers": [{"name": "c", "image": "i"}]}})).await;
    pods.evict("p", &kube::api::EvictParams::default()).await.unwrap();
    until("the pod is gone", || async { pods.get_opt("p").await.unwrap().is_none() }).await;
    place.leave().await;
}

#[tokio::test]
async fn an_event_is_the_same_in_both_groups() {
    let place = Place::new().await;
    let new: Api<NewEvent> = place.api();
    let event = json!({
        "regarding": {"kind": "Pod", "name": "p", "namespace": place.namespace}, "reason": "Because", "note": "so it is",
        "type": "Normal", "action": "Acting", "reportingController": "example.com/test", "reportingInstance": "one",
        "eventTime": "2026-11-27T00:00:00.000000Z",
    });
    create(&new, "e", event).await;
    let old: Api<Event> = place.api();
    let seen = old.list(&ListParams::default().fields("involvedObject.name=p,reason=Because")).await.unwrap();
    assert_eq!(seen.items[0].message.as_deref(), Some("so it is"));
    place.leave().await;
}
