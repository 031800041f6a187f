use serde_json::json;

use super::*;
use crate::kinds;
use crate::store::Store;
use crate::target::Target;

fn store() -> Store {
    let mut store = Store::default();
    found_namespace(&mut store, "ns");
    store
}

fn call(store: &Store, group: &str, plural: &str, path: &str) -> Call {
    let kind = kinds::by_path(store, group, "v1", plural).unwrap();
    let mut parts = path.split('/');
    let name = parts.next().unwrap_or_default().to_owned();
    let namespace = if kind.is_namespaced() { "ns".to_owned() } else { String::new() };
    let subresource = parts.next().unwrap_or_default().to_owned();
    let target = Target { namespace, name, subresource, ..Target::default() };
    Call::new(kind, &target, &Query::default(), "tester/1").unwrap()
}

fn made(store: &mut Store, call: &Call, body: Value) -> Result<Arc<Value>, Refusal> {
    let draft = create(store, call, body)?;
    Ok(commit(store, call, draft)?.unwrap())
}

fn put(store: &mut Store, call: &Call, body: Value) -> Result<Arc<Value>, Refusal> {
    let draft = replace(store, call, body)?;
    Ok(commit(store, call, draft)?.unwrap())
}

fn removed(store: &mut Store, call: &Call, options: Value) -> Result<Arc<Value>, Refusal> {
    let how = Deletion::of(&options);
    let removal = delete(store, call, &how)?;
    carry_out(store, call, &how, removal)
}

fn generation(object: &Value) -> u64 {
    object.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or_default()
}

fn daemonset() -> Value {
    json!({"metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {}},
    }, "status": {"numberReady": 3}})
}

#[test]
fn what_the_server_alone_decides_is_set_at_creation() {
    let mut store = store();
    let call = call(&store, "apps", "daemonsets", "");
    let mut body = daemonset();
    body["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z".into();
    let object = made(&mut store, &call, body).unwrap();
    assert_eq!(object::namespace(&object), "ns");
    assert!(!object::uid(&object).is_empty());
    assert_eq!(generation(&object), 1);
    assert_eq!(object["status"], json!({}), "the status is the subresource's");
    assert!(!object::is_being_deleted(&object));
}

#[test]
fn a_second_creation_and_a_missing_or_ending_namespace_are_refused() {
    let mut store = store();
    let pods = call(&store, "", "pods", "");
    let body = json!({"metadata": {"name": "p"}});
    made(&mut store, &pods, body.clone()).unwrap();
    assert_eq!(made(&mut store, &pods, body.clone()).unwrap_err().reason, "AlreadyExists");
    let elsewhere = Call { namespace: "nowhere".into(), ..pods.clone() };
    assert_eq!(made(&mut store, &elsewhere, body).unwrap_err().message, "namespaces \"nowhere\" not found");
    let namespaces = call(&store, "", "namespaces", "ns");
    removed(&mut store, &namespaces, json!({})).unwrap();
    let refusal = made(&mut store, &pods, json!({"metadata": {"name": "q"}})).unwrap_err();
    assert_eq!(refusal.code, 403);
    assert_eq!(refusal.details["causes"][0]["reason"], "NamespaceTerminating");
}

#[test]
fn names_are_generated_and_checked() {
    let mut store = store();
    let pods = call(&store, "", "pods", "");
    let object = made(&mut store, &pods, json!({"metadata": {"generateName": "p-"}})).unwrap();
    assert!(object::name(&object).starts_with("p-") && object::name(&object).len() == 7);
    for bad in ["A", "a_b", "-a", "a..b", ""] {
        let refusal = made(&mut store, &pods, json!({"metadata": {"name": bad}})).unwrap_err();
        assert_eq!((refusal.code, refusal.reason), (422, "Invalid"), "{bad:?}");
    }
    let roles = call(&store, "rbac.authorization.k8s.io", "clusterroles", "");
    made(&mut store, &roles, json!({"metadata": {"name": "system:a_B"}})).unwrap();
}

#[test]
fn generation_counts_changes_of_what_is_desired_only() {
    let mut store = store();
    let sets = call(&store, "apps", "daemonsets", "d");
    made(&mut store, &Call { name: String::new(), ..sets.clone() }, daemonset()).unwrap();
    let mut body = daemonset();
    body["metadata"]["labels"] = json!({"x": "y"});
    assert_eq!(generation(&put(&mut store, &sets, body.clone()).unwrap()), 1);
    body["spec"]["minReadySeconds"] = 5.into();
    assert_eq!(generation(&put(&mut store, &sets, body).unwrap()), 2);
}

#[test]
fn status_and_the_rest_are_written_apart() {
    let mut store = store();
    let sets = call(&store, "apps", "daemonsets", "d");
    made(&mut store, &Call { name: String::new(), ..sets.clone() }, daemonset()).unwrap();
    let status = call(&store, "apps", "daemonsets", "d/status");
    let mut body = daemonset();
    body["spec"]["minReadySeconds"] = 5.into();
    let object = put(&mut store, &status, body.clone()).unwrap();
    assert_eq!(object["status"]["numberReady"], 3);
    assert!(object["spec"].get("minReadySeconds").is_none());
    body["status"]["numberReady"] = 0.into();
    let object = put(&mut store, &sets, body).unwrap();
    assert_eq!(object["status"]["numberReady"], 3);
    assert_eq!(object["spec"]["minReadySeconds"], 5);
}

#[test]
fn a_write_from_an_older_version_conflicts_and_an_equal_one_is_no_change() {
    let mut store = store();
    let maps = call(&store, "", "configmaps", "c");
    let body = json!({"metadata": {"name": "c"}, "data": {"a": "1"}});
    let first = made(&mut store, &Call { name: String::new(), ..maps.clone() }, body).unwrap();
    let mut newer = Value::clone(&first);
    newer["data"]["a"] = "2".into();
    let second = put(&mut store, &maps, newer).unwrap();
    let refusal = put(&mut store, &maps, Value::clone(&first)).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (409, "Conflict"));
    let third = put(&mut store, &maps, Value::clone(&second)).unwrap();
    assert_eq!(object::version(&third), object::version(&second));
}

#[test]
fn a_draft_of_an_object_that_moved_has_to_be_made_again() {
    let mut store = store();
    let maps = call(&store, "", "configmaps", "c");
    made(&mut store, &Call { name: String::new(), ..maps.clone() }, json!({"metadata": {"name": "c"}}))
        .unwrap();
    let draft = patch(&store, &maps, &crate::patch::Patch::Merge(json!({"data": {"a": "1"}}))).unwrap();
    put(&mut store, &maps, json!({"data": {"b": "1"}})).unwrap();
    assert!(commit(&mut store, &maps, draft).unwrap().is_none());
}

#[test]
fn leases_must_name_the_version_they_replace() {
    let mut store = store();
    let leases = call(&store, "coordination.k8s.io", "leases", "l");
    made(&mut store, &Call { name: String::new(), ..leases.clone() }, json!({"metadata": {"name": "l"}}))
        .unwrap();
    let refusal = put(&mut store, &leases, json!({"spec": {"holderIdentity": "x"}})).unwrap_err();
    assert_eq!(refusal.code, 422);
}

#[test]
fn finalizers_keep_a_deleted_object_until_they_are_gone() {
    let mut store = store();
    let maps = call(&store, "", "configmaps", "c");
    let body = json!({"metadata": {"name": "c", "finalizers": ["x/y"]}});
    made(&mut store, &Call { name: String::new(), ..maps.clone() }, body).unwrap();
    let marked = removed(&mut store, &maps, json!({})).unwrap();
    assert!(object::is_being_deleted(&marked));
    let again = removed(&mut store, &maps, json!({})).unwrap();
    assert_eq!(object::version(&again), object::version(&marked), "a second deletion changes nothing");
    let mut added = Value::clone(&again);
    added["metadata"]["finalizers"] = json!(["x/y", "late"]);
    assert_eq!(put(&mut store, &maps, added).unwrap_err().code, 422);
    let mut released = Value::clone(&again);
    released["metadata"]["finalizers"] = json!([]);
    put(&mut store, &maps, released).unwrap();
    assert!(store.get(&maps.key()).is_none());
}

#[test]
fn preconditions_of_a_deletion_must_hold() {
    let mut store = store();
    let maps = call(&store, "", "configmaps", "c");
    made(&mut store, &Call { name: String::new(), ..maps.clone() }, json!({"metadata": {"name": "c"}}))
        .unwrap();
    let refusal = removed(&mut store, &maps, json!({"preconditions": {"uid": "other"}})).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (409, "Conflict"));
}

#[test]
fn a_pod_on_a_node_is_given_its_grace_period_and_an_unscheduled_one_is_not() {
    let mut store = store();
    let pods = call(&store, "", "pods", "p");
    let new = Call { name: String::new(), ..pods.clone() };
    made(&mut store, &new, json!({"metadata": {"name": "p"}})).unwrap();
    removed(&mut store, &pods, json!({})).unwrap();
    assert!(store.get(&pods.key()).is_none());
    made(&mut store, &new, json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}})).unwrap();
    let marked = removed(&mut store, &pods, json!({})).unwrap();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    removed(&mut store, &pods, json!({"gracePeriodSeconds": 0})).unwrap();
    assert!(store.get(&pods.key()).is_none(), "as the kubelet does it in the end");
}

#[test]
fn a_budget_that_allows_no_disruption_refuses_evictions() {
    let mut store = store();
    let pods = call(&store, "", "pods", "p");
    let pod = json!({"metadata": {"name": "p", "labels": {"a": "b"}}});
    made(&mut store, &Call { name: String::new(), ..pods.clone() }, pod).unwrap();
    let budgets = call(&store, "policy", "poddisruptionbudgets", "");
    made(
        &mut store,
        &budgets,
        json!({"metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": {"a": "b"}}}}),
    )
    .unwrap();
    assert_eq!(evict(&store, &pods, &Deletion::default()).unwrap_err().code, 429);
}

#[test]
fn what_never_changes_is_refused_by_its_field() {
    let mut store = store();
    let classes = call(&store, "node.k8s.io", "runtimeclasses", "r");
    let new = Call { name: String::new(), ..classes.clone() };
    let refusal = made(&mut store, &new, json!({"metadata": {"name": "r"}})).unwrap_err();
    assert_eq!(refusal.details["causes"][0]["field"], "handler");
    let mut object =
        Value::clone(&made(&mut store, &new, json!({"metadata": {"name": "r"}, "handler": "a"})).unwrap());
    object["handler"] = "b".into();
    assert!(put(&mut store, &classes, object).unwrap_err().message.contains("field is immutable"));
}

#[test]
fn a_dry_run_answers_as_if_and_stores_nothing() {
    let mut store = store();
    let pods = Call { dry_run: true, ..call(&store, "", "pods", "") };
    let before = store.version();
    assert_eq!(object::name(&made(&mut store, &pods, json!({"metadata": {"name": "p"}})).unwrap()), "p");
    assert_eq!(store.version(), before);
}

#[test]
fn a_secret_is_written_as_text_and_kept_as_data() {
    let mut store = store();
    let secrets = call(&store, "", "secrets", "");
    let object =
        made(&mut store, &secrets, json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}})).unwrap();
    assert_eq!((&object["data"], &object["type"]), (&json!({"a": "Yg=="}), &json!("Opaque")));
}

#[test]
fn a_pod_takes_over_what_its_runtime_class_says() {
    let mut store = store();
    let classes = call(&store, "node.k8s.io", "runtimeclasses", "");
    let class = json!({
        "metadata": {"name": "kata"}, "handler": "kata", "overhead": {"podFixed": {"cpu": "250m"}},
        "scheduling": {"nodeSelector": {"role": "kata"}},
    });
    made(&mut store, &classes, class).unwrap();
    let pods = call(&store, "", "pods", "");
    let pod = |extra: Value| {
        let mut pod = json!({"metadata": {"generateName": "p-"}, "spec": {"runtimeClassName": "kata"}});
        json_patch::merge(&mut pod, &json!({"spec": extra}));
        pod
    };
    let object = made(&mut store, &pods, pod(json!({"nodeSelector": {"a": "b"}}))).unwrap();
    assert_eq!(object["spec"]["overhead"], json!({"cpu": "250m"}));
    assert_eq!(object["spec"]["nodeSelector"], json!({"a": "b", "role": "kata"}));
    for bad in [
        json!({"runtimeClassName": "other"}),
        json!({"overhead": {"cpu": "1"}}),
        json!({"nodeSelector": {"role": "x"}}),
    ] {
        assert_eq!(made(&mut store, &pods, pod(bad.clone())).unwrap_err().code, 403, "{bad}");
    }
}
