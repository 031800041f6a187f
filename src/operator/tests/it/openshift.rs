//! OpenShift's kinds as far as the operator and `deploy/` use them, with schemas that take anything.

use serde_json::{Value, json};

/// Their definitions.
pub(crate) fn definitions() -> Vec<Value> {
    [
        ("machineconfiguration.openshift.io", "MachineConfig", "machineconfigs", "mc"),
        ("machineconfiguration.openshift.io", "MachineConfigPool", "machineconfigpools", "mcp"),
        ("machineconfiguration.openshift.io", "ContainerRuntimeConfig", "containerruntimeconfigs", "ctrcfg"),
        ("security.openshift.io", "SecurityContextConstraints", "securitycontextconstraints", "scc"),
    ]
    .map(|(group, kind, plural, short)| definition(group, kind, plural, short))
    .into_iter()
    .chain(monitoring())
    .collect()
}

/// What its Prometheus is told by.
fn monitoring() -> [Value; 3] {
    [
        ("ServiceMonitor", "servicemonitors", "smon"),
        ("PodMonitor", "podmonitors", "pmon"),
        ("PrometheusRule", "prometheusrules", "promrule"),
    ]
    .map(|(kind, plural, short)| {
        let mut definition = definition("monitoring.coreos.com", kind, plural, short);
        definition["spec"]["scope"] = "Namespaced".into();
        definition
    })
}

/// The definition of one.
pub(crate) fn definition(group: &str, kind: &str, plural: &str, short: &str) -> Value {
    // Constraints have their fields beside metadata.
    let schema =
        json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    let version = json!({
        "name": "v1", "served": true, "storage": true, "schema": schema, "subresources": { "status": {} },
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase(), "shortNames": [short] },
            "versions": [version],
        },
    })
}
