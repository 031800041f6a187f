//! The monitor on each node, and the dashboard in the console.

use std::collections::BTreeMap;

use serde_json::json;

use crate::kataconfig::pools::Target;
use crate::names;
use crate::objects::{Desired, Kind, ObjectRef};

/// Where the monitor listens.
const PORT: u16 = 8090;

/// The monitor's DaemonSet.
#[must_use]
pub fn monitor(target: Target, namespace: &str, image: &str) -> Desired {
    let labels = json!({ "name": names::MONITOR });
    let container = json!({
        "name": "kata-monitor",
        "image": image,
        "imagePullPolicy": "Always",
        "command": ["/usr/bin/kata-monitor", format!("--listen-address=:{PORT}"), "--log-level=info", "--runtime-endpoint=/run/crio/crio.sock"],
        "ports": [{ "name": "metrics", "containerPort": PORT, "protocol": "TCP" }],
        "readinessProbe": { "httpGet": { "path": "/", "port": PORT } },
        "resources": { "requests": { "cpu": "10m", "memory": "32Mi" } },
        "securityContext": {
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "runAsUser": 1001,
            "runAsGroup": 1001,
            "seLinuxOptions": { "type": "osc_monitor.process" },
        },
        "volumeMounts": [
            { "name": "crio-sock", "mountPath": "/run/crio/" },
            { "name": "sbs", "mountPath": "/run/vc/sbs/" },
        ],
    });
    Desired {
        object: ObjectRef::namespaced(Kind::DAEMON_SET, namespace, names::MONITOR),
        body: json!({
            "spec": {
                "selector": { "matchLabels": labels },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": {
                        "serviceAccountName": names::MONITOR_ACCOUNT,
                        "nodeSelector": { target.role_label(): "" },
                        "tolerations": [{ "operator": "Exists" }],
                        "containers": [container],
                        "volumes": [
                            { "name": "crio-sock", "hostPath": { "path": "/run/crio/" } },
                            { "name": "sbs", "hostPath": { "path": "/run/vc/sbs/" } },
                        ],
                    },
                },
            },
        }),
    }
}

/// The dashboard where the console looks for it: a copy of what was installed with the operator.
#[must_use]
pub fn dashboard(data: &BTreeMap<String, String>) -> Desired {
    Desired {
        object: ObjectRef::namespaced(Kind::CONFIG_MAP, names::DASHBOARD_NAMESPACE, names::DASHBOARD),
        body: json!({ "metadata": { "labels": { "console.openshift.io/dashboard": "true" } }, "data": data }),
    }
}
