use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;

fn pod_kind() -> Kind {
    Kind::new("", "v1", "Pod")
}

fn review(request: Value) -> Vec<u8> {
    serde_json::to_vec(&json!({"apiVersion": API_VERSION, "kind": KIND, "request": request})).unwrap()
}

fn request(kind: Value, object: Value) -> Value {
    json!({
        "uid": "705ab4f5", "kind": kind, "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": kind, "name": "p", "namespace": "ns", "operation": "CREATE", "dryRun": false,
        "userInfo": {"username": "u", "groups": ["g"]}, "object": object, "oldObject": null,
        "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
    })
}

fn pod() -> Value {
    json!({"group": "", "version": "v1", "kind": "Pod"})
}

fn refused(body: &[u8]) -> Answer {
    match read::<Pod>(body, &pod_kind()).unwrap() {
        Read::Unreadable(answer) => answer,
        Read::Asked(asked) => panic!("{asked:?}"),
    }
}

fn message(answer: &Answer) -> &str {
    &answer.status.as_ref().unwrap().message
}

#[test]
fn a_question_of_the_api_server_is_read() {
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [], "newField": 1}});
    let body = review(request(pod(), object));
    let Read::Asked(asked) = read::<Pod>(&body, &pod_kind()).unwrap() else { panic!() };
    assert_eq!(asked.request.uid, "705ab4f5");
    assert_eq!(
        (asked.request.operation, asked.request.namespace.as_deref()),
        (Operation::Create, Some("ns"))
    );
    assert_eq!(asked.object.unwrap().metadata.name.as_deref(), Some("p"));
    assert!(asked.old_object.is_none());
}

#[test]
fn an_object_that_cannot_be_read_is_refused_with_the_field_under_its_own_uid() {
    let object = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "c", "ports": [{"containerPort": "x"}]}]}});
    let answer = refused(&review(request(pod(), object)));
    assert_eq!((answer.uid.as_str(), answer.allowed), ("705ab4f5", false));
    assert_eq!(answer.status.as_ref().unwrap().code, 400);
    assert!(
        message(&answer)
            .starts_with("request.object.spec.containers[0].ports[0].containerPort: invalid type"),
        "{answer:?}"
    );
}

#[test]
fn an_object_of_another_kind_is_refused_and_both_kinds_are_named() {
    let kind = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    let answer = refused(&review(request(kind, json!({"apiVersion": "apps/v1", "kind": "Deployment"}))));
    assert!(
        message(&answer).contains("decides about core/v1 Pod, not about apps/v1 Deployment"),
        "{answer:?}"
    );
    // The envelope says Pod, the object says otherwise.
    let answer = refused(&review(request(pod(), json!({"apiVersion": "apps/v1", "kind": "Deployment"}))));
    assert!(message(&answer).contains("request.object"), "{answer:?}");
}

#[test]
fn what_is_no_review_is_told_apart_and_never_answered() {
    for (body, expected) in [
        (b"".to_vec(), "EOF"),
        (b"\xff\xfe".to_vec(), "expected value"),
        (b"[]".to_vec(), "body"),
        (b"{}".to_vec(), "apiVersion and kind are"),
        (
            serde_json::to_vec(&json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": KIND})).unwrap(),
            "v1beta1",
        ),
        (
            serde_json::to_vec(&json!({"apiVersion": API_VERSION, "kind": KIND})).unwrap(),
            "request: is missing",
        ),
        (review(json!({"kind": pod(), "operation": "CREATE"})), "missing field `uid`"),
        (review(json!({"uid": "1", "kind": pod(), "operation": "EAT"})), "request.operation"),
        (vec![b'['; 3 << 20], "[0]: invalid type: sequence"),
    ] {
        let error = read::<Pod>(&body, &pod_kind()).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected:?} is not in {error}");
        assert!(error.len() < 600, "{}", error.len());
    }
}

#[test]
fn three_mebibytes_of_json_are_an_answer_too() {
    let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"annotations": {"big": "x".repeat(3 << 20)}}, "spec": 1});
    let answer = refused(&review(request(pod(), object)));
    assert!(message(&answer).starts_with("request.object.spec: invalid type"), "{answer:?}");
}

#[test]
fn an_answer_is_what_the_api_server_reads() {
    let patch: Patch = serde_json::from_value(json!([{"op": "add", "path": "/a", "value": 1}])).unwrap();
    let answer = Answer::patched("u", &patch, vec!["w".to_owned()]).unwrap();
    let body: Value = serde_json::from_slice(&answer.to_body().unwrap()).unwrap();
    assert_eq!(
        body,
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": {"uid": "u", "allowed": true, "patchType": "JSONPatch", "warnings": ["w"],
                "patch": "W3sib3AiOiJhZGQiLCJwYXRoIjoiL2EiLCJ2YWx1ZSI6MX1d"},
        })
    );
    // As the crate reads it that others write webhooks with.
    let theirs: kube::core::admission::AdmissionReview<kube::core::DynamicObject> =
        serde_json::from_value(json!({"apiVersion": API_VERSION, "kind": KIND, "response":
            serde_json::to_value(Answer::invalid("u", &[Fault::new("spec.a", "is wrong")])).unwrap()}))
        .unwrap();
    let response = theirs.response.unwrap();
    assert_eq!(
        (response.allowed, response.result.code, response.result.message.as_str()),
        (false, 422, "spec.a: is wrong")
    );
    let empty = Answer::patched("u", &Patch(vec![]), vec![]).unwrap();
    assert_eq!(empty, Answer::allowed("u"));
}
