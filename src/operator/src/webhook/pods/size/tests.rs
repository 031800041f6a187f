use serde_json::{Value, json};

use super::*;

fn wanted(spec: Value) -> Wanted {
    of(&serde_json::from_value(spec).unwrap()).unwrap()
}

/// Millicores, MiB, GPUs.
fn size(spec: Value) -> (u128, u128, u128) {
    let wanted = wanted(spec);
    let millis = Quantity::parse("1000").unwrap();
    assert!(millis > wanted.cpu);
    let cpu: f64 = wanted.cpu.to_string().parse().unwrap();
    ((cpu * 1000.0) as u128, wanted.memory.units_of(1 << 20), wanted.gpus.units_of(1))
}

fn limits(cpu: &str, memory: &str) -> Value {
    json!({"limits": {"cpu": cpu, "memory": memory}})
}

fn container(resources: Value) -> Value {
    json!({"name": "c", "resources": resources})
}

fn sidecar(resources: Value) -> Value {
    json!({"name": "s", "restartPolicy": "Always", "resources": resources})
}

#[test]
fn containers_add_up_and_ask_for_nothing_when_none_does() {
    assert_eq!(size(json!({"containers": [{"name": "a"}, container(json!({}))]})), (0, 0, 0));
    let two = json!({"containers": [container(limits("500m", "1Gi")), container(limits("1", "512Mi"))]});
    assert_eq!(size(two), (1500, 1536, 0));
}

#[test]
fn a_limit_counts_where_there_is_one_and_a_request_otherwise() {
    let mixed = json!({"containers": [
        container(json!({"limits": {"cpu": "2"}, "requests": {"cpu": "100m", "memory": "256Mi"}})),
        container(json!({"requests": {"cpu": "300m"}})),
    ]});
    // Upstream would say 2: its sum of limits forgets the second container.
    assert_eq!(size(mixed), (2300, 256, 0));
    // Refused by the API server later; the larger is the safe one until then.
    let wrong_way_round =
        json!({"containers": [container(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}))]});
    assert_eq!(size(wrong_way_round), (2000, 0, 0));
}

#[test]
fn init_containers_count_one_by_one_as_they_run() {
    let spec = |init: &str| {
        json!({
            "initContainers": [container(limits(init, "1Gi")), container(limits("100m", "3Gi"))],
            "containers": [container(limits("1", "1Gi"))],
        })
    };
    assert_eq!(size(spec("500m")), (1000, 3072, 0));
    assert_eq!(size(spec("4")), (4000, 3072, 0));
}

#[test]
fn sidecars_count_beside_containers_and_beside_the_init_containers_behind_them() {
    let spec = json!({
        "initContainers": [
            container(limits("3", "100Mi")),
            sidecar(limits("500m", "200Mi")),
            container(limits("2500m", "300Mi")),
            sidecar(limits("250m", "400Mi")),
        ],
        "containers": [container(limits("1", "500Mi"))],
    });
    // cpu: 3000 | 500 | 3000 | 750 while starting, 1750 running. memory: 100 | 200 | 500 | 600, then 1100.
    assert_eq!(size(spec), (3000, 1100, 0));
    let before = json!({
        "initContainers": [sidecar(limits("1", "1Mi")), container(limits("2500m", "1Mi"))],
        "containers": [container(limits("1", "1Mi"))],
    });
    assert_eq!(size(before), (3500, 2, 0));
}

#[test]
fn what_the_pod_asks_for_as_a_whole_holds_instead_of_the_sum() {
    let containers = json!([container(limits("1", "1Gi")), container(limits("1", "1Gi"))]);
    for (whole, expected) in [
        (json!({"limits": {"cpu": "1500m", "memory": "1Gi"}}), (1500, 1024, 0)),
        (json!({"requests": {"cpu": "3"}}), (3000, 2048, 0)),
        (json!({"requests": {"cpu": "1"}}), (2000, 2048, 0)),
        (json!({"requests": {"cpu": "1"}, "limits": {"cpu": "4"}}), (4000, 2048, 0)),
        (json!({}), (2000, 2048, 0)),
    ] {
        assert_eq!(size(json!({"containers": containers, "resources": whole})), expected, "{whole}");
    }
}

#[test]
fn gpus_of_every_maker_count_and_parts_of_one_do_not() {
    let spec = json!({"containers": [
        container(json!({"limits": {"nvidia.com/gpu": "1"}})),
        container(json!({"limits": {"amd.com/gpu": "2", "nvidia.com/mig-1g.5gb": "7"}})),
    ]});
    assert_eq!(size(spec), (0, 0, 3));
}

#[test]
fn the_runtime_classes_overhead_is_about_the_node() {
    let spec = json!({"overhead": {"cpu": "250m", "memory": "120Mi"}, "containers": [container(limits("1", "1Gi"))]});
    assert_eq!(size(spec), (1000, 1024, 0));
}

#[test]
fn every_quantity_that_cannot_be_read_is_named() {
    let spec = json!({
        "initContainers": [container(json!({"requests": {"cpu": "lots"}}))],
        "containers": [container(limits("-1", "1 Gi"))],
        "resources": {"limits": {"memory": "1e400"}},
    });
    let faults = of(&serde_json::from_value(spec).unwrap()).unwrap_err();
    let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "spec.initContainers[0].resources.requests[cpu]",
            "spec.containers[0].resources.limits[cpu]",
            "spec.containers[0].resources.limits[memory]",
            "spec.resources.limits[memory]",
        ]
    );
    assert_eq!(faults[1].reason, "\"-1\": want a quantity of 0 or more");
}
