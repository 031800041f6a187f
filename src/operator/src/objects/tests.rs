use super::*;

#[test]
fn what_the_server_fills_in_is_no_difference_and_what_somebody_changed_is() {
    let wanted =
        json!({ "spec": { "replicas": 2, "containers": [{ "name": "a", "args": [] }], "labels": {} } });
    for (there, as_wanted) in [
        (
            json!({ "spec": { "replicas": 2, "containers": [{ "name": "a", "pull": "Always" }], "more": 1 } }),
            true,
        ),
        (json!({ "spec": { "replicas": 3, "containers": [{ "name": "a" }] } }), false),
        (json!({ "spec": { "replicas": 2, "containers": [{ "name": "b" }] } }), false),
        (json!({ "spec": { "replicas": 2, "containers": [{ "name": "a" }, { "name": "b" }] } }), false),
        (json!({ "spec": { "replicas": 2 } }), false),
        (json!({}), false),
    ] {
        assert_eq!(has(&there, &wanted), as_wanted, "{there}");
    }
}

#[test]
fn what_is_an_administrators_stays_however_old_the_decision_is() {
    let object = |overhead: Value| -> DynamicObject {
        serde_json::from_value(
            json!({ "metadata": { "name": "kata" }, "handler": "x", "overhead": overhead }),
        )
        .unwrap()
    };
    let wanted = json!({ "handler": "kata", "overhead": { "podFixed": { "memory": "350Mi" } } });
    for (kind, there, expected) in [
        (Kind::RUNTIME_CLASS, json!({ "podFixed": { "memory": "1Gi" } }), "1Gi"),
        (Kind::DAEMON_SET, json!({ "podFixed": { "memory": "1Gi" } }), "350Mi"),
    ] {
        let mut whole = wanted.clone();
        leave_theirs(kind, &object(there), &mut whole);
        assert_eq!(whole, json!({ "handler": "kata", "overhead": { "podFixed": { "memory": expected } } }));
    }
}

#[test]
fn a_field_we_no_longer_want_changes_the_hash() {
    let object = ObjectRef::cluster(Kind::RUNTIME_CLASS, "kata");
    let with = Desired {
        object: object.clone(),
        body: json!({ "handler": "kata", "overhead": { "podFixed": {} } }),
    };
    let without = Desired { object, body: json!({ "handler": "kata" }) };
    assert_ne!(with.hash(), without.hash());
    assert_eq!(with.hash(), with.clone().hash());
    assert_eq!(with.whole()["apiVersion"], "node.k8s.io/v1");
}

#[test]
fn ours_is_what_has_our_mark_or_a_kataconfig_for_an_owner() {
    let owner =
        |version: &str, kind: &str| json!([{ "apiVersion": version, "kind": kind, "name": "a", "uid": "u" }]);
    for (metadata, ours) in [
        (json!({ "annotations": { APPLIED: "x" } }), true),
        (json!({ "ownerReferences": owner("kataconfiguration.openshift.io/v1", "KataConfig") }), true),
        (json!({ "ownerReferences": owner("kataconfiguration.example.com/v1", "KataConfig") }), false),
        (json!({ "ownerReferences": owner("apps/v1", "DaemonSet") }), false),
        (json!({ "annotations": { "somebody": "x" } }), false),
    ] {
        let mut object = json!({ "metadata": metadata });
        object["metadata"]["name"] = "a".into();
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        assert_eq!(is_ours(&object), ours, "{metadata}");
    }
}
