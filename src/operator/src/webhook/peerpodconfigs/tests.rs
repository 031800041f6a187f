use serde_json::{Value, json};

use super::*;
use crate::webhook::review::{Kind, Request};

const NAMESPACE: &str = "openshift-sandboxed-containers-operator";

/// With no other there.
fn decide(asked: &Asked<Stored>) -> Verdict {
    super::decide(asked, NAMESPACE, &[])
}

fn asked(operation: Operation, spec: Value) -> Asked<Stored> {
    Asked {
        request: Request {
            uid: "1".to_owned(),
            kind: Kind::new("confidentialcontainers.org", "v1alpha1", "PeerPodConfig"),
            sub_resource: None,
            name: "peerpodconfig-openshift".to_owned(),
            namespace: Some(NAMESPACE.to_owned()),
            operation,
        },
        object: Some(serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()),
        old_object: None,
    }
}

fn fields(verdict: Verdict) -> Vec<String> {
    match verdict {
        Verdict::Invalid(faults) => faults.into_iter().map(|fault| fault.field).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_operators_own_object_and_an_empty_one_are_taken() {
    for spec in [
        json!({}),
        json!(null),
        json!({"cloudSecretName": "peer-pods-secret", "configMapName": "peer-pods-cm", "limit": "10",
               "nodeSelector": {"node-role.kubernetes.io/kata-oc": ""}}),
        json!({"limit": "0"}),
    ] {
        assert_eq!(decide(&asked(Operation::Create, spec.clone())), Verdict::Allowed, "{spec}");
    }
}

#[test]
fn a_limit_that_is_no_number_of_vms_is_refused() {
    for limit in ["", "-1", "ten", "1.5", " 1", "1e3", "1000000", "١"] {
        let verdict = decide(&asked(Operation::Create, json!({"limit": limit})));
        assert_eq!(fields(verdict), ["spec.limit"], "{limit:?}");
    }
    assert_eq!(fields(decide(&asked(Operation::Create, json!({"limit": 10})))), ["spec.limit"]);
}

#[test]
fn every_fault_is_named_with_its_field() {
    let spec = json!({"cloudSecretName": "Secret", "configMapName": "", "limit": "x", "nodeSelector": {"a b": "", "a": "b c"}});
    assert_eq!(
        fields(decide(&asked(Operation::Create, spec))),
        [
            "spec.cloudSecretName",
            "spec.configMapName",
            "spec.limit",
            "spec.nodeSelector[a]",
            "spec.nodeSelector"
        ]
    );
}

#[test]
fn what_is_being_deleted_passes_whatever_it_holds() {
    let mut asked = asked(Operation::Update, json!({"limit": "x"}));
    assert_eq!(fields(decide(&asked)), ["spec.limit"]);
    let gone_at = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    asked.object.as_mut().unwrap().metadata.deletion_timestamp = Some(gone_at);
    assert_eq!(decide(&asked), Verdict::Allowed);
}

#[test]
fn an_update_is_only_held_to_what_it_makes_worse() {
    let mut asked = asked(Operation::Update, json!({"limit": "x"}));
    asked.old_object = asked.object.clone();
    assert_eq!(decide(&asked), Verdict::Allowed);
}

#[test]
fn a_second_one_is_refused_and_the_first_is_named() {
    let first = [Existing { name: "first".to_owned(), being_deleted: false }];
    let mut asked = asked(Operation::Create, json!({}));
    asked.request.name = crate::names::PEER_POD_CONFIG.to_owned();
    assert_eq!(super::decide(&asked, NAMESPACE, &first), Verdict::Allowed, "a KataConfig's own stands by");
    asked.request.name = "second".to_owned();
    assert_eq!(super::decide(&asked, NAMESPACE, &first), Verdict::SecondOne(first.to_vec()));
    asked.request.name = "first".to_owned();
    assert_eq!(
        super::decide(&asked, NAMESPACE, &first),
        Verdict::Allowed,
        "the API server says that it is there"
    );
    asked.request = Request { name: "other".to_owned(), operation: Operation::Update, ..asked.request };
    assert_eq!(super::decide(&asked, NAMESPACE, &first), Verdict::Allowed, "it was there before us");
}

#[test]
fn one_outside_the_operators_namespace_is_refused_with_its_name() {
    let mut asked = asked(Operation::Create, json!({}));
    asked.request.namespace = Some("shop".to_owned());
    let Verdict::Invalid(faults) = decide(&asked) else { panic!("taken") };
    assert_eq!(faults[0].field, "metadata.namespace");
    assert!(faults[0].reason.contains(NAMESPACE), "{faults:?}");
    asked.request.operation = Operation::Update;
    assert_eq!(decide(&asked), Verdict::Allowed, "it can be changed, and so go");
}
