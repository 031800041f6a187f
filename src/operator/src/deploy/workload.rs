//! The operator's Deployment and what stands beside it: the namespace, Services, how many may be away, and the configuration that has the
//! API server ask it.

use serde_json::{Value, json};

use super::access::with_kind;
use super::{OPERATOR, labels, named};
use crate::names;
use crate::webhook::certificates::Source;
use crate::webhook::configuration::{self, HEALTH_PORT, MatchConditions};

const COMPONENT: &str = "operator";
/// The component that the operator's metrics are, by whose labels they are found.
pub(super) const METRICS: &str = "operator-metrics";
/// The image of our program, which the node service and the webhook run as well.
pub const IMAGE: &str = "quay.io/peerpods/peerpods:latest";

/// The namespace. Node service and monitor mount directories of their node, which nothing below `privileged` may.
#[must_use]
pub fn namespace() -> Value {
    let mut metadata = json!(named(names::NAMESPACE, None, "namespace"));
    metadata["labels"]["openshift.io/cluster-monitoring"] = "true".into();
    for mode in ["enforce", "audit", "warn"] {
        metadata["labels"][format!("pod-security.kubernetes.io/{mode}")] = "privileged".into();
    }
    with_kind("v1", "Namespace", json!({ "metadata": metadata }))
}

/// The Deployment, its Services and its disruption budget.
#[must_use]
pub fn operator() -> Vec<Value> {
    vec![deployment(), webhook_service(), metrics_service(), disruption_budget()]
}

/// What has the API server ask about KataConfigs and PeerPodConfigs. Applied last: it refuses KataConfigs until the operator answers.
#[must_use]
pub fn asking() -> Value {
    let address = configuration::operator::address(names::NAMESPACE);
    let object = configuration::validating(&address, &Source::Own, MatchConditions::Supported);
    with_kind("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", json!(object))
}

fn here(name: &str) -> Value {
    json!(named(name, Some(names::NAMESPACE), COMPONENT))
}

fn selector() -> Value {
    json!({ "app": OPERATOR })
}

fn deployment() -> Value {
    let mut pod_labels = json!(labels(COMPONENT));
    pod_labels["app"] = OPERATOR.into();
    let spec = json!({
        // One leads; the other answers the API server meanwhile and takes over.
        "replicas": 2,
        "selector": { "matchLabels": selector() },
        "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
        "template": { "metadata": { "labels": pod_labels }, "spec": pod() },
    });
    with_kind("apps/v1", "Deployment", json!({ "metadata": here(OPERATOR), "spec": spec }))
}

fn pod() -> Value {
    let apart = json!({
        "weight": 100,
        "podAffinityTerm": { "labelSelector": { "matchLabels": selector() }, "topologyKey": "kubernetes.io/hostname" },
    });
    json!({
        "serviceAccountName": OPERATOR,
        "priorityClassName": "system-cluster-critical",
        "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [apart] } },
        // Clusters whose only nodes are the control plane's, and nodes that just became unreachable.
        "tolerations": [
            { "key": "node-role.kubernetes.io/master", "operator": "Exists", "effect": "NoSchedule" },
            { "key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule" },
            { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 120 },
            { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 120 },
        ],
        // OpenShift lets a pod choose its user by `nonroot-v2`, which the account may use.
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": configuration::USER,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "terminationGracePeriodSeconds": 30,
        "containers": [container()],
    })
}

fn container() -> Value {
    let probe = |path: &str, every: u32| json!({ "httpGet": { "path": path, "port": "health" }, "periodSeconds": every });
    json!({
        "name": "operator",
        "image": IMAGE,
        "args": ["run"],
        "env": [
            { "name": "PEERPODS_ROLES", "value": "operator" },
            { "name": "PEERPODS_NAMESPACE", "valueFrom": { "fieldRef": { "fieldPath": "metadata.namespace" } } },
            { "name": "PEERPODS_HEALTH_ADDRESS", "value": format!("0.0.0.0:{HEALTH_PORT}") },
            { "name": "RELATED_IMAGE_CAA", "value": IMAGE },
            { "name": "SANDBOXED_CONTAINERS_EXTENSION", "value": "sandboxed-containers" },
        ],
        "ports": [
            { "name": "webhook", "containerPort": configuration::PORT, "protocol": "TCP" },
            { "name": "health", "containerPort": HEALTH_PORT, "protocol": "TCP" },
        ],
        "livenessProbe": probe("/livez", 20),
        "readinessProbe": probe("/readyz", 5),
        "resources": {
            "requests": { "cpu": "50m", "memory": "64Mi" },
            "limits": { "cpu": "500m", "memory": "256Mi" },
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "readOnlyRootFilesystem": true,
        },
    })
}

fn service(name: &str, port: Value) -> Value {
    let spec = json!({ "type": "ClusterIP", "selector": selector(), "ports": [port] });
    with_kind("v1", "Service", json!({ "metadata": here(name), "spec": spec }))
}

fn webhook_service() -> Value {
    let pods = [("app".to_owned(), OPERATOR.to_owned())].into();
    let object = configuration::operator::service(names::NAMESPACE, pods, &Source::Own);
    with_kind("v1", "Service", json!(object))
}

fn metrics_service() -> Value {
    let name = format!("{OPERATOR}-metrics");
    let port = json!({ "name": "metrics", "port": HEALTH_PORT, "protocol": "TCP", "targetPort": "health" });
    let mut service = service(&name, port);
    service["metadata"]["labels"] = json!(labels(METRICS));
    service
}

/// One may be away. Pods that never became ready do not hold a drain up.
fn disruption_budget() -> Value {
    let spec = json!({
        "maxUnavailable": 1,
        "selector": { "matchLabels": selector() },
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    });
    with_kind("policy/v1", "PodDisruptionBudget", json!({ "metadata": here(OPERATOR), "spec": spec }))
}
