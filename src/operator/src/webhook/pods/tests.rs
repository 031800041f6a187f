use serde_json::{Value, json};

use super::*;
use crate::webhook::review::Kind;

const VCPUS: &str = "io.katacontainers.config.hypervisor.default_vcpus";
const MEMORY: &str = "io.katacontainers.config.hypervisor.default_memory";
const GPUS: &str = "io.katacontainers.config.hypervisor.default_gpus";

fn request(operation: Operation) -> Request {
    Request {
        uid: "1".to_owned(),
        kind: Kind::new("", "v1", "Pod"),
        sub_resource: None,
        name: "pod".to_owned(),
        namespace: Some("ns".to_owned()),
        operation,
    }
}

fn pod(metadata: Value, mut spec: Value) -> Value {
    let object = spec.as_object_mut().unwrap();
    object.entry("runtimeClassName").or_insert(json!("kata-remote-cc"));
    object.entry("containers").or_insert(json!([{"name": "c", "resources": {}}]));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

fn decided(pod: &Value) -> Decision {
    decided_with(pod, &Settings::default())
}

/// From what is read of the pod, and from the whole: there is no difference.
fn decided_with(pod: &Value, settings: &Settings) -> Decision {
    let seen: Seen = serde_json::from_value(pod.clone()).unwrap();
    let decision = decide(&request(Operation::Create), &seen.into(), settings);
    let whole = serde_json::from_value(pod.clone()).unwrap();
    assert_eq!(decision, decide(&request(Operation::Create), &whole, settings));
    decision
}

fn patched_with(pod: &Value, settings: &Settings) -> (Value, Vec<String>) {
    match decided_with(pod, settings) {
        Decision::Patched { patch, warnings } => {
            let mut patched = pod.clone();
            json_patch::patch(&mut patched, &patch).unwrap();
            (patched, warnings)
        }
        other => panic!("{other:?}"),
    }
}

/// The pod as it would be stored.
fn patched(pod: &Value) -> Value {
    patched_with(pod, &Settings::default()).0
}

fn warnings(spec: Value) -> Vec<String> {
    patched_with(&pod(json!({}), spec), &Settings::default()).1
}

fn fields(spec: Value) -> Vec<String> {
    match decided(&pod(json!({}), spec)) {
        Decision::Refused { faults, .. } => faults.into_iter().map(|fault| fault.field).collect(),
        other => panic!("{other:?}"),
    }
}

fn one_vm() -> Value {
    json!({"limits": {"kata.peerpods.io/vm": "1"}, "requests": {"kata.peerpods.io/vm": "1"}})
}

#[test]
fn all_resources_go_the_first_container_asks_for_a_vm_and_the_size_is_annotated() {
    let resources = json!({"limits": {"cpu": "1500m", "memory": "1Gi", "ephemeral-storage": "1Gi"}, "requests": {"cpu": "1"}});
    let before = pod(
        json!({"name": "pod", "annotations": {"a/b~c": "kept"}}),
        json!({
            "initContainers": [{"name": "i", "resources": {"requests": {"memory": "3Gi"}}}],
            "containers": [{"name": "a", "resources": resources}, {"name": "b", "resources": {"limits": {"nvidia.com/gpu": "2"}}}, {"name": "c"}],
            "resources": {"limits": {"cpu": "4"}},
        }),
    );
    let after = patched(&before);
    assert_eq!(after["spec"]["containers"][0]["resources"], one_vm());
    assert_eq!(after["spec"]["containers"][1]["resources"], json!({}));
    assert_eq!(after["spec"]["containers"][2].get("resources"), None);
    assert_eq!(after["spec"]["initContainers"][0]["resources"], json!({}));
    assert_eq!(after["spec"].get("resources"), None);
    assert_eq!(
        after["metadata"]["annotations"],
        json!({"a/b~c": "kept", VCPUS: "4", MEMORY: "3072", GPUS: "2", "kata.peerpods.io.gpus": "2"})
    );
}

#[test]
fn a_pod_that_asks_for_nothing_gets_a_vm_of_the_default_size() {
    let after = patched(&pod(json!({}), json!({})));
    assert_eq!(after["spec"]["containers"][0]["resources"], one_vm());
    assert_eq!(after["metadata"].get("annotations"), None);
}

#[test]
fn the_patch_changes_nothing_the_second_time() {
    let first = patched(&pod(
        json!({}),
        json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]}),
    ));
    match decided(&first) {
        Decision::Patched { patch, .. } => assert_eq!(patch, Patch(vec![])),
        other => panic!("{other:?}"),
    }
}

#[test]
fn containers_that_another_webhook_adds_behind_us_come_on_top() {
    let mut pod = patched(&pod(
        json!({}),
        json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": "2", "memory": "1Gi"}}}]}),
    ));
    let added = json!({"name": "proxy", "resources": {"limits": {"cpu": "500m"}}});
    pod["spec"]["containers"].as_array_mut().unwrap().push(added);
    let after = patched(&pod);
    assert_eq!(after["metadata"]["annotations"], json!({VCPUS: "3", MEMORY: "1024"}));
    assert_eq!(after["spec"]["containers"][1]["resources"], json!({}));
}

#[test]
fn a_size_that_the_user_wrote_is_never_made_smaller() {
    let of = |annotations: Value| {
        let spec =
            json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": "2", "memory": "2Gi"}}}]});
        patched(&pod(json!({"annotations": annotations}), spec))["metadata"]["annotations"].clone()
    };
    assert_eq!(of(json!({VCPUS: "8", MEMORY: "16GiB"})), json!({VCPUS: "8", MEMORY: "16GiB"}));
    assert_eq!(of(json!({VCPUS: "1.5", MEMORY: "512"})), json!({VCPUS: "1.5", MEMORY: "2048"}));
    assert_eq!(of(json!({VCPUS: "0", MEMORY: ""})), json!({VCPUS: "2", MEMORY: "2048"}));
}

#[test]
fn an_annotation_that_nobody_can_read_is_refused_and_named() {
    let bad = pod(json!({"annotations": {VCPUS: "many", MEMORY: "1 potato"}}), json!({}));
    match decided(&bad) {
        Decision::Refused { faults, class } => {
            assert_eq!(class, "kata-remote-cc");
            assert_eq!(faults[0].field, format!("metadata.annotations[{VCPUS}]"));
            assert!(
                faults[0].reason.starts_with("\"many\": want a number of virtual processors"),
                "{}",
                faults[0]
            );
            assert_eq!(faults.len(), 2);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_size_that_no_machine_has_is_refused() {
    let spec = |cpu: &str| json!({"containers": [{"name": "c", "resources": {"limits": {"cpu": cpu}}}]});
    assert_eq!(fields(spec("1E")), ["spec.containers[*].resources"]);
    assert_eq!(patched(&pod(json!({}), spec("4096")))["metadata"]["annotations"][VCPUS], "4096");
}

#[test]
fn other_classes_other_operations_and_what_is_not_ours_pass_unchanged() {
    let plain = serde_json::from_value::<Pod>(pod(json!({}), json!({"hostNetwork": true}))).unwrap();
    let settings = Settings { excluded: ["kube-system".to_owned()].into(), ..Settings::default() };
    let unchanged = |request: &Request, pod: &Pod| decide(request, pod, &settings) == Decision::Unchanged;
    let create = request(Operation::Create);
    assert!(!unchanged(&create, &plain));

    for operation in [Operation::Update, Operation::Delete, Operation::Connect] {
        assert!(unchanged(&request(operation), &plain), "{operation:?}");
    }
    assert!(unchanged(&Request { sub_resource: Some("resize".to_owned()), ..create.clone() }, &plain));
    assert!(unchanged(&Request { namespace: Some("kube-system".to_owned()), ..create.clone() }, &plain));
    for other in [json!({"runtimeClassName": "kata"}), json!({"runtimeClassName": null})] {
        let other: Pod = serde_json::from_value(pod(json!({}), other)).unwrap();
        assert!(unchanged(&create, &other));
    }
    let mirror = pod(json!({"annotations": {"kubernetes.io/config.mirror": "abc"}}), json!({}));
    assert!(unchanged(&create, &serde_json::from_value(mirror).unwrap()));
    assert!(unchanged(&create, &Pod::default()));
}

#[test]
fn further_classes_and_another_resource_are_a_matter_of_settings() {
    let settings = Settings {
        classes: ["kata-remote".to_owned()].into(),
        resource: "example.com/vm".to_owned(),
        ..Settings::default()
    };
    let pod = pod(json!({}), json!({"runtimeClassName": "kata-remote"}));
    let (after, _) = patched_with(&pod, &settings);
    assert_eq!(after["spec"]["containers"][0]["resources"]["limits"], json!({"example.com/vm": "1"}));
}

#[test]
fn an_instance_type_is_annotated_only_when_one_is_set_and_none_is_there() {
    let settings = Settings { instance_type: Some("t3.small".to_owned()), ..Settings::default() };
    let key = "kata.peerpods.io/instance_type";
    let of = |metadata: Value| {
        patched_with(&pod(metadata, json!({})), &settings).0["metadata"]["annotations"][key].clone()
    };
    assert_eq!(of(json!({})), "t3.small");
    assert_eq!(of(json!({"annotations": {key: "own"}})), "own");
}

#[test]
fn what_of_the_node_a_pod_cannot_share_is_refused_each_with_its_field() {
    let refused: [(Value, &[&str]); 12] = [
        (json!({"hostNetwork": true}), &["spec.hostNetwork"]),
        (json!({"hostPID": true}), &["spec.hostPID"]),
        (json!({"hostIPC": true}), &["spec.hostIPC"]),
        (
            json!({"hostNetwork": true, "hostPID": true, "hostIPC": true}),
            &["spec.hostNetwork", "spec.hostPID", "spec.hostIPC"],
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/run/x.sock", "type": "Socket"}}]}),
            &["spec.volumes[0].hostPath.type"],
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/x", "type": "CharDevice"}}]}),
            &["spec.volumes[0].hostPath.type"],
        ),
        (
            json!({"volumes": [{"name": "o", "emptyDir": {}}, {"name": "v", "hostPath": {"path": "/dev/kvm"}}]}),
            &["spec.volumes[1].hostPath.path"],
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "//./"}}]}),
            &["spec.volumes[0].hostPath.path"],
        ),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {"medium": "HugePages-2Mi"}}]}),
            &["spec.volumes[0].emptyDir.medium"],
        ),
        (
            json!({"containers": [{"name": "c", "volumeDevices": [{"name": "v", "devicePath": "/dev/xvda"}]}]}),
            &["spec.containers[0].volumeDevices[0]"],
        ),
        (
            json!({"initContainers": [{"name": "i", "volumeMounts": [
                {"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b", "mountPropagation": "Bidirectional"}]}]}),
            &["spec.initContainers[0].volumeMounts[1].mountPropagation"],
        ),
        (json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": "g"}]}), &["spec.resourceClaims[0]"]),
    ];
    for (spec, expected) in refused {
        assert_eq!(fields(spec.clone()), expected, "{spec}");
    }
}

#[test]
fn what_works_in_a_vm_passes_without_a_word() {
    let spec = json!({
        "hostNetwork": false,
        "shareProcessNamespace": true,
        "nodeName": "worker-0",
        "securityContext": {"runAsUser": 0, "sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}]},
        "containers": [{
            "name": "c",
            "ports": [{"containerPort": 80, "hostPort": 8080}],
            "securityContext": {"privileged": true},
            "volumeMounts": [{"name": "a", "mountPath": "/a", "mountPropagation": "HostToContainer"}],
        }],
        "volumes": [
            {"name": "a", "configMap": {"name": "x"}},
            {"name": "b", "secret": {"secretName": "x"}},
            {"name": "c", "projected": {"sources": []}},
            {"name": "d", "downwardAPI": {}},
            {"name": "e", "emptyDir": {"medium": "Memory"}},
            {"name": "f", "aKindOfTheFuture": {}},
        ],
    });
    assert_eq!(warnings(spec), Vec::<String>::new());
}

#[test]
fn what_works_otherwise_than_on_a_node_is_told() {
    let volumes: Vec<Value> = ["/etc/ssl", "/devices", "/procx"]
        .iter()
        .enumerate()
        .map(|(n, path)| json!({"name": format!("h{n}"), "hostPath": {"path": path, "type": "Directory"}}))
        .chain((0..3).map(|n| json!({"name": format!("p{n}"), "persistentVolumeClaim": {"claimName": "x"}})))
        .collect();
    let told = warnings(json!({"volumes": volumes}));
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with("volumes h0, h1, h2, p0 and 2 more are copied into the pod's VM"),
        "{}",
        told[0]
    );

    let resources = json!({"limits": {"hugepages-2Mi": "4Mi", "example.com/fpga": "1", "cpu": "1"}, "claims": [{"name": "c"}]});
    let told = warnings(json!({"containers": [{"name": "c", "resources": resources}]}));
    assert_eq!(
        told,
        [
            "claims, example.com/fpga, hugepages-2Mi of the node do not reach the pod's VM and are not asked for"
        ]
    );
    let longest = "v".repeat(63);
    let volumes: Vec<Value> = (0..9)
        .map(|n| json!({"name": format!("{longest}{n}"), "nfs": {"server": "s", "path": "/"}}))
        .collect();
    assert!(warnings(json!({"volumes": volumes}))[0].len() < 450);
}
