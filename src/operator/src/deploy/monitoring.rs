//! What Prometheus and OpenShift's console read: the monitor's Service, and the dashboard that a KataConfig copies to where the console
//! looks.

use serde_json::{Value, json};

use super::access::with_kind;
use super::{OPERATOR, labels, named, workload};
use crate::names;
use crate::webhook::configuration;

const COMPONENT: &str = "monitoring";
/// Who scrapes, on OpenShift.
const PROMETHEUS: (&str, &str) = ("openshift-monitoring", "prometheus-k8s");

/// The monitor's Service.
#[must_use]
pub fn everywhere() -> Vec<Value> {
    vec![service()]
}

/// The dashboard for the console, and that OpenShift's Prometheus finds the monitor, the operator and the webhook. Upstream's names.
#[must_use]
pub fn on_openshift() -> Vec<Value> {
    let group = "rbac.authorization.k8s.io";
    let version = format!("{group}/v1");
    let rule = json!({
        "apiGroups": [""], "resources": ["services", "endpoints", "pods"], "verbs": ["get", "list", "watch"],
    });
    let metadata = |name: &str| json!(named(name, Some(names::NAMESPACE), COMPONENT));
    let role = json!({ "metadata": metadata("monitor-role"), "rules": [rule] });
    let binding = json!({
        "metadata": metadata("monitor-rolebinding"),
        "roleRef": { "apiGroup": group, "kind": "Role", "name": "monitor-role" },
        "subjects": [{ "kind": "ServiceAccount", "namespace": PROMETHEUS.0, "name": PROMETHEUS.1 }],
    });
    vec![
        with_kind(&version, "Role", role),
        with_kind(&version, "RoleBinding", binding),
        scraped(names::MONITOR, json!({ "name": names::MONITOR })),
        scraped(OPERATOR, json!(labels(workload::METRICS))),
        of_webhook(),
        rules(),
        dashboard(),
    ]
}

/// That Prometheus asks the Services with these labels, at their port `metrics`.
fn scraped(name: &str, labels: Value) -> Value {
    let spec = json!({ "selector": { "matchLabels": labels }, "endpoints": [{ "port": "metrics" }] });
    let metadata = named(name, Some(names::NAMESPACE), COMPONENT);
    with_kind("monitoring.coreos.com/v1", "ServiceMonitor", json!({ "metadata": metadata, "spec": spec }))
}

/// That it asks the pods of the pods' webhook, which come and go with peer pods.
fn of_webhook() -> Value {
    let labels = json!({ "app": configuration::DEPLOYMENT });
    let spec =
        json!({ "selector": { "matchLabels": labels }, "podMetricsEndpoints": [{ "port": "metrics" }] });
    let metadata = named(configuration::DEPLOYMENT, Some(names::NAMESPACE), COMPONENT);
    with_kind("monitoring.coreos.com/v1", "PodMonitor", json!({ "metadata": metadata, "spec": spec }))
}

/// What OpenShift's telemetry reads.
fn rules() -> Value {
    let record = json!({
        "record": "cluster:kata_monitor_running_shim_count:sum", "expr": "sum(kata_monitor_running_shim_count)",
    });
    let spec = json!({ "groups": [{ "name": "kata_monitor_rules", "rules": [record] }] });
    let metadata = named("prometheus-sandboxed-containers-rules", Some(names::NAMESPACE), COMPONENT);
    with_kind("monitoring.coreos.com/v1", "PrometheusRule", json!({ "metadata": metadata, "spec": spec }))
}

fn service() -> Value {
    let mut metadata = json!(named("metrics", Some(names::NAMESPACE), COMPONENT));
    metadata["labels"]["name"] = names::MONITOR.into();
    let port = json!({ "name": "metrics", "port": 8090, "protocol": "TCP", "targetPort": 8090 });
    let spec = json!({ "type": "ClusterIP", "selector": { "name": names::MONITOR }, "ports": [port] });
    with_kind("v1", "Service", json!({ "metadata": metadata, "spec": spec }))
}

/// A graph of the dashboard.
struct Graph {
    id: u32,
    title: &'static str,
    legend: &'static str,
    query: &'static str,
}

const GRAPHS: [Graph; 3] = [
    Graph {
        id: 2,
        title: "Number of running VMs",
        legend: "number of VMs",
        query: r#"sum(count by(instance) (kata_guest_load{item="load1"}))"#,
    },
    Graph {
        id: 10,
        title: "CPU Usage (per VM)",
        legend: "sandbox id {{sandbox_id}}",
        query: r#"sum by (sandbox_id) (irate(kata_guest_cpu_time{cpu="total",  item=~"irq|softirq|system|user"}[5m]))"#,
    },
    Graph {
        id: 12,
        title: "Memory Usage (per VM)",
        legend: "sandbox id {{sandbox_id}}",
        query: r#"(kata_guest_meminfo{item="mem_total"} - on(sandbox_id) kata_guest_meminfo{item="mem_free"})"#,
    },
];

/// The dashboard, in our namespace: a KataConfig has it copied.
fn dashboard() -> Value {
    let panel = |graph: &Graph| {
        json!({
            "id": graph.id, "title": graph.title, "type": "graph", "span": 4, "lines": true,
            "targets": [{ "expr": graph.query, "legendFormat": graph.legend, "format": "time_series", "refId": "A" }],
        })
    };
    let panels: Vec<Value> = GRAPHS.iter().map(panel).collect();
    let board = json!({
        "title": "Sandboxed Containers", "uid": "aacN2Wh7k", "schemaVersion": 14, "tags": ["kata-mixin"],
        "refresh": "10s", "time": { "from": "now-6h", "to": "now" }, "editable": false,
        "rows": [{ "title": "Kata Pods", "height": "250px", "panels": panels }],
    });
    let metadata = named(names::DASHBOARD, Some(names::NAMESPACE), COMPONENT);
    let data = json!({ "kata-resources.json": format!("{board:#}\n") });
    with_kind("v1", "ConfigMap", json!({ "metadata": metadata, "data": data }))
}
