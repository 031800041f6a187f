use serde_json::{Value, json};

use super::*;
use crate::object;

fn store() -> Store {
    let mut store = Store::default();
    for name in ["a", "b"] {
        write::found_namespace(&mut store, name);
    }
    store
}

fn put(store: &mut Store, namespace: &str, name: &str, extra: Value) -> Key {
    let key = Key::new("configmaps", namespace, name);
    let mut body = json!({"metadata": {"name": name, "namespace": namespace, "uid": format!("uid-{name}")}});
    json_patch::merge(&mut body, &json!({"metadata": extra}));
    store.put(key.clone(), body);
    key
}

fn owned_by(names: &[&str]) -> Value {
    let reference = |name: &&str| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": format!("uid-{name}"), "blockOwnerDeletion": true});
    json!({"ownerReferences": names.iter().map(reference).collect::<Vec<_>>()})
}

fn remove(store: &mut Store, key: &Key, policy: &'static str) {
    act(store, &Step::Delete(key.clone(), policy)).unwrap();
}

/// Collects until there is nothing left to do.
fn settle(store: &mut Store) {
    for _ in 0..20 {
        for step in [owners::steps(store), ends::steps(store)].concat() {
            let _ = act(store, &step);
        }
    }
}

#[test]
fn dependents_of_dependents_go_with_their_owner() {
    let mut store = store();
    let owner = put(&mut store, "a", "owner", json!({}));
    let middle = put(&mut store, "a", "middle", owned_by(&["owner"]));
    let leaf = put(&mut store, "a", "leaf", owned_by(&["middle"]));
    settle(&mut store);
    assert!(store.get(&leaf).is_some(), "nothing goes while the owner lives");
    remove(&mut store, &owner, "Background");
    settle(&mut store);
    assert!(store.get(&middle).is_none() && store.get(&leaf).is_none());
}

#[test]
fn a_dependent_with_another_owner_stays_and_forgets_the_one_that_went() {
    let mut store = store();
    let owner = put(&mut store, "a", "one", json!({}));
    put(&mut store, "a", "two", json!({}));
    let both = put(&mut store, "a", "both", owned_by(&["one", "two"]));
    remove(&mut store, &owner, "Background");
    settle(&mut store);
    let references = object::items(store.get(&both).unwrap(), "/metadata/ownerReferences").to_vec();
    assert_eq!(references.len(), 1);
    assert_eq!(references[0]["name"], "two");
}

#[test]
fn an_owner_of_the_same_name_but_another_uid_or_namespace_is_not_the_owner() {
    let mut store = store();
    put(&mut store, "a", "owner", json!({"uid": "another"}));
    put(&mut store, "b", "elsewhere", json!({}));
    let first = put(&mut store, "a", "first", owned_by(&["owner"]));
    let second = put(&mut store, "a", "second", owned_by(&["elsewhere"]));
    settle(&mut store);
    assert!(store.get(&first).is_none() && store.get(&second).is_none());
}

#[test]
fn an_owner_of_a_kind_that_nobody_serves_is_not_taken_for_gone() {
    let mut store = store();
    let mut owners = owned_by(&["x"]);
    owners["ownerReferences"][0]["kind"] = "Unknown".into();
    let key = put(&mut store, "a", "kept", owners);
    settle(&mut store);
    assert!(store.get(&key).is_some());
}

#[test]
fn in_the_foreground_the_owner_waits_for_dependents_that_block_it() {
    let mut store = store();
    let owner = put(&mut store, "a", "owner", json!({}));
    let mut extra = owned_by(&["owner"]);
    extra["finalizers"] = json!(["x/y"]);
    let held = put(&mut store, "a", "held", extra);
    remove(&mut store, &owner, "Foreground");
    settle(&mut store);
    assert!(object::is_being_deleted(store.get(&held).unwrap()));
    assert!(store.get(&owner).is_some(), "its dependent is still there");
    act(&mut store, &Step::Change(held.clone(), json!({"metadata": {"finalizers": null}}))).unwrap();
    settle(&mut store);
    assert!(store.get(&held).is_none() && store.get(&owner).is_none());
}

#[test]
fn orphans_stay_without_their_reference() {
    let mut store = store();
    let owner = put(&mut store, "a", "owner", json!({}));
    let orphan = put(&mut store, "a", "orphan", owned_by(&["owner"]));
    remove(&mut store, &owner, "Orphan");
    settle(&mut store);
    assert!(store.get(&owner).is_none());
    assert!(object::items(store.get(&orphan).unwrap(), "/metadata/ownerReferences").is_empty());
}

#[test]
fn a_namespace_goes_when_everything_in_it_has_gone() {
    let mut store = store();
    let namespace = Key::new("namespaces", "", "a");
    put(&mut store, "a", "plain", json!({}));
    let held = put(&mut store, "a", "held", json!({"finalizers": ["x/y"]}));
    let other = put(&mut store, "b", "other", json!({}));
    remove(&mut store, &namespace, "Background");
    settle(&mut store);
    assert_eq!(store.list("configmaps", "a").count(), 1);
    assert_eq!(store.get(&namespace).unwrap()["status"]["phase"], "Terminating");
    act(&mut store, &Step::Release(held, "x/y")).unwrap();
    settle(&mut store);
    assert!(store.get(&namespace).is_none());
    assert!(store.get(&other).is_some());
}
