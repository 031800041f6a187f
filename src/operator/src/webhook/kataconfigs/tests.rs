use serde_json::json;

use super::*;
use crate::webhook::review::{Kind, Request};

fn asked(operation: Operation, name: &str, spec: serde_json::Value) -> Asked<Stored> {
    let object = |spec| serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
    Asked {
        request: Request {
            uid: "1".to_owned(),
            kind: Kind::new("kataconfiguration.openshift.io", "v1", "KataConfig"),
            sub_resource: None,
            name: name.to_owned(),
            namespace: None,
            operation,
        },
        object: Some(object(spec)),
        old_object: None,
    }
}

fn create(spec: serde_json::Value) -> Verdict {
    decide(&asked(Operation::Create, "new", spec), &[])
}

fn existing(name: &str, being_deleted: bool) -> Existing {
    Existing { name: name.to_owned(), being_deleted }
}

fn fields(verdict: Verdict) -> Vec<String> {
    match verdict {
        Verdict::Invalid(faults) => faults.into_iter().map(|fault| fault.field).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_guides_objects_are_taken_as_they_are() {
    for spec in [
        json!({}),
        json!(null),
        json!({"checkNodeEligibility": true, "logLevel": "info"}),
        json!({"enablePeerPods": true, "kataConfigPoolSelector": {"matchLabels": {"custom-kata1": "test"}}}),
        json!({"kataConfigPoolSelector": {"matchExpressions": [{"key": "a.b/c", "operator": "In", "values": ["x", ""]}]}}),
        json!({"logLevel": "", "kataConfigPoolSelector": null}),
    ] {
        assert_eq!(create(spec.clone()), Verdict::Allowed, "{spec}");
    }
}

#[test]
fn b1_a_second_one_is_refused_however_many_there_are_and_the_first_is_named() {
    let asked = asked(Operation::Create, "new", json!({}));
    for existing in [vec![existing("a", false)], vec![existing("a", false), existing("b", true)]] {
        assert_eq!(decide(&asked, &existing), Verdict::SecondOne(existing.clone()));
    }
    let told = second_one("KataConfig", &[existing("a", false), existing("b", true)]);
    assert!(told.contains(r#"there is "a": change that one, or delete it first"#), "{told}");
    assert!(told.contains(r#"there is "b", which is being deleted"#), "{told}");
}

#[test]
fn one_of_the_same_name_is_no_second_one_unless_the_name_is_yet_to_be_made() {
    let mut asked = asked(Operation::Create, "same", json!({}));
    assert_eq!(decide(&asked, &[existing("same", false)]), Verdict::Allowed);
    asked.request.name = String::new();
    assert_eq!(decide(&asked, &[existing("same", false)]), Verdict::SecondOne(vec![existing("same", false)]));
}

#[test]
fn every_fault_is_named_with_its_field() {
    let spec = json!({
        "logLevel": "loud",
        "kataMonitorImage": "a b",
        "kataConfigPoolSelector": {
            "matchLabels": {"-bad": "ok", "ok": "bad value"},
            "matchExpressions": [
                {"key": "", "operator": "in", "values": ["x"]},
                {"key": "a", "operator": "In"},
                {"key": "a", "operator": "Exists", "values": ["-"]},
            ],
        },
    });
    let selector = "spec.kataConfigPoolSelector";
    assert_eq!(
        fields(create(spec)),
        [
            format!("{selector}.matchLabels"),
            format!("{selector}.matchLabels[ok]"),
            format!("{selector}.matchExpressions[0].key"),
            format!("{selector}.matchExpressions[0].operator"),
            format!("{selector}.matchExpressions[1].values"),
            format!("{selector}.matchExpressions[2].values"),
            format!("{selector}.matchExpressions[2].values[0]"),
            "spec.logLevel".to_owned(),
            "spec.kataMonitorImage".to_owned(),
        ]
    );
}

#[test]
fn a_field_of_the_wrong_type_is_named() {
    assert_eq!(fields(create(json!({"enablePeerPods": "yes"}))), ["spec.enablePeerPods"]);
    let spec = json!({"kataConfigPoolSelector": {"matchLabels": {"a": 1}}});
    assert_eq!(fields(create(spec)), ["spec.kataConfigPoolSelector.matchLabels.a"]);
}

#[test]
fn b16_what_is_being_deleted_passes_whatever_it_holds() {
    for spec in [json!({"logLevel": "loud"}), json!({"enablePeerPods": [1]}), json!("no object")] {
        let mut asked = asked(Operation::Update, "one", spec.clone());
        assert_ne!(decide(&asked, &[]), Verdict::Allowed, "{spec}");
        let object = asked.object.as_mut().unwrap();
        object.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        assert_eq!(decide(&asked, &[existing("other", false)]), Verdict::Allowed, "{spec}");
    }
}

#[test]
fn an_update_is_only_held_to_what_it_makes_worse() {
    let bad = json!({"logLevel": "loud"});
    let mut asked = asked(Operation::Update, "one", bad.clone());
    assert_eq!(fields(decide(&asked, &[existing("other", false)])), ["spec.logLevel"]);
    asked.old_object = asked.object.clone();
    assert_eq!(decide(&asked, &[]), Verdict::Allowed);
    asked.object.as_mut().unwrap().spec = json!({"logLevel": "loud", "kataMonitorImage": ""});
    assert_eq!(fields(decide(&asked, &[])), ["spec.kataMonitorImage"]);
}

#[test]
fn deletions_and_parts_of_the_object_are_not_judged() {
    let mut request = asked(Operation::Delete, "one", json!({"logLevel": "loud"}));
    assert_eq!(decide(&request, &[]), Verdict::Allowed);
    request.object = None;
    assert_eq!(decide(&request, &[]), Verdict::Allowed);
    let mut status = asked(Operation::Update, "one", json!({"logLevel": "loud"}));
    status.request.sub_resource = Some("status".to_owned());
    assert_eq!(decide(&status, &[]), Verdict::Allowed);
}
