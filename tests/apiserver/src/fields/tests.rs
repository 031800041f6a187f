use serde_json::json;

use super::*;
use crate::kinds::by_path;
use crate::store::Store;

fn maps() -> Kind {
    by_path(&Store::default(), "", "v1", "configmaps").unwrap()
}

fn by(name: &str) -> Manager<'_> {
    Manager { name, subresource: "" }
}

fn wanted(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data})
}

fn first(name: &str, data: Value) -> Value {
    first_applied(&maps(), by(name), &wanted(data.clone()), wanted(data)).unwrap()
}

fn owned(object: &Value, name: &str) -> Vec<String> {
    entries(object)
        .iter()
        .find(|entry| entry.manager == name)
        .map(|entry| entry.set.paths())
        .unwrap_or_default()
}

#[test]
fn a_manager_that_changes_anothers_field_is_refused_with_the_field() {
    let live = first("a", json!({"x": "1", "y": "1"}));
    let refusal = applied(&maps(), by("b"), false, &live, &wanted(json!({"x": "2"}))).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (409, "Conflict"));
    assert_eq!(
        refusal.details["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"a\" using v1", "field": ".data.x"}])
    );
    assert_eq!(refusal.message, "Apply failed with 1 conflict: conflict with \"a\" using v1: .data.x");
}

#[test]
fn a_forced_apply_takes_the_field_and_leaves_the_rest() {
    let live = first("a", json!({"x": "1", "y": "1"}));
    let object = applied(&maps(), by("b"), true, &live, &wanted(json!({"x": "2"}))).unwrap();
    assert_eq!(object["data"], json!({"x": "2", "y": "1"}));
    assert_eq!(
        (owned(&object, "a"), owned(&object, "b")),
        (vec![".data.y".to_owned()], vec![".data.x".to_owned()])
    );
}

#[test]
fn two_managers_may_share_a_field_while_they_agree() {
    let live = first("a", json!({"x": "1"}));
    let shared = applied(&maps(), by("b"), false, &live, &wanted(json!({"x": "1"}))).unwrap();
    let left = applied(&maps(), by("a"), false, &shared, &wanted(json!({}))).unwrap();
    assert_eq!(left["data"]["x"], "1", "b still wants it");
    let gone = applied(&maps(), by("b"), false, &left, &wanted(json!({}))).unwrap();
    assert!(gone["data"].get("x").is_none());
}

#[test]
fn what_is_no_longer_applied_is_removed_and_foreign_fields_stay() {
    let mut live = first("a", json!({"x": "1", "y": "1"}));
    let mut changed = live.clone();
    changed["data"]["foreign"] = "1".into();
    live = updated(&maps(), by("editor"), Some(&live), changed);
    let object = applied(&maps(), by("a"), false, &live, &wanted(json!({"y": "1"}))).unwrap();
    assert_eq!(object["data"], json!({"y": "1", "foreign": "1"}));
}

#[test]
fn an_apply_that_changes_nothing_changes_nothing() {
    let live = first("a", json!({"x": "1"}));
    assert_eq!(applied(&maps(), by("a"), false, &live, &wanted(json!({"x": "1"}))).unwrap(), live);
}

#[test]
fn an_update_takes_what_it_changes_from_the_applier() {
    let live = first("a", json!({"x": "1", "y": "1"}));
    let mut changed = live.clone();
    changed["data"]["x"] = "2".into();
    let live = updated(&maps(), by("editor"), Some(&live), changed);
    assert_eq!(owned(&live, "a"), [".data.y"]);
    assert_eq!(owned(&live, "editor"), [".data.x"]);
    let refusal = applied(&maps(), by("a"), false, &live, &wanted(json!({"x": "1", "y": "1"}))).unwrap_err();
    assert!(refusal.message.contains("\"editor\""), "{}", refusal.message);
}

#[test]
fn an_object_that_nobody_applied_yet_belongs_to_who_was_before() {
    let mut live = wanted(json!({"x": "1"}));
    object::metadata(&mut live).remove("managedFields");
    let refusal = applied(&maps(), by("a"), false, &live, &wanted(json!({"x": "2"}))).unwrap_err();
    assert!(refusal.message.contains("before-first-apply"));
}

#[test]
fn the_same_name_at_the_status_is_another_manager() {
    let pods = by_path(&Store::default(), "", "v1", "pods").unwrap();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}}});
    let live = first_applied(&pods, by("a"), &pod, pod.clone()).unwrap();
    let status = json!({"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Running"}});
    let manager = Manager { name: "a", subresource: "status" };
    let object = applied(&pods, manager, false, &live, &status).unwrap();
    assert_eq!(object["metadata"]["labels"]["a"], "b", "the label is of the other entry");
    assert_eq!(entries(&object).len(), 2);
}

#[test]
fn conditions_of_two_managers_live_side_by_side() {
    let nodes = by_path(&Store::default(), "", "v1", "nodes").unwrap();
    let status = |kind: &str| json!({"apiVersion": "v1", "kind": "Node", "status": {"conditions": [{"type": kind, "status": "True"}]}});
    let live = first_applied(&nodes, by("a"), &status("A"), status("A")).unwrap();
    let both = applied(&nodes, by("b"), false, &live, &status("B")).unwrap();
    assert_eq!(both["status"]["conditions"].as_array().unwrap().len(), 2);
    let one = applied(&nodes, by("a"), false, &both, &json!({"apiVersion": "v1", "kind": "Node"})).unwrap();
    assert_eq!(one["status"]["conditions"], json!([{"type": "B", "status": "True"}]));
}
