//! The monitor on each node, and the dashboard in the console.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::kataconfig::pools::Target;
use crate::kataconfig::world::World;
use crate::names;
use crate::objects::{Desired, Kind, ObjectRef};

/// Where the monitor listens.
const PORT: u16 = 8090;

/// What the monitor meets on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonitoredHost {
    /// OpenShift's: CRI-O, whose socket others than root may use, and a type of SELinux for the monitor.
    OpenShift,
    /// CRI-O of another installation.
    Crio,
    /// containerd.
    Containerd,
}

impl MonitoredHost {
    /// Those of a cluster. One DaemonSet is for all nodes: where they differ it is for containerd.
    #[must_use]
    pub fn of(world: &World, target: Target) -> Self {
        let mut nodes = world.nodes.iter().filter(|node| target.has(node)).peekable();
        match target {
            Target::Plain
                if nodes.peek().is_some() && nodes.all(|node| node.runtime.starts_with("cri-o://")) =>
            {
                Self::Crio
            }
            Target::Plain => Self::Containerd,
            Target::Workers | Target::ControlPlane => Self::OpenShift,
        }
    }

    /// The directory of the container runtime's socket, and the socket.
    fn socket(self) -> (&'static str, &'static str) {
        match self {
            Self::OpenShift | Self::Crio => ("/run/crio/", "/run/crio/crio.sock"),
            Self::Containerd => ("/run/containerd/", "/run/containerd/containerd.sock"),
        }
    }

    fn security_context(self) -> Value {
        // Elsewhere the socket is root's.
        let user = if self == Self::OpenShift { 1001 } else { 0 };
        let mut context = json!({
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "runAsUser": user,
            "runAsGroup": user,
        });
        if self == Self::OpenShift {
            context["seLinuxOptions"] = json!({ "type": "osc_monitor.process" });
        }
        context
    }
}

/// The monitor's DaemonSet.
#[must_use]
pub fn monitor(target: Target, namespace: &str, image: &str, host: MonitoredHost) -> Desired {
    let (directory, socket) = host.socket();
    let labels = json!({ "name": names::MONITOR });
    let container = json!({
        "name": "kata-monitor",
        "image": image,
        "imagePullPolicy": "Always",
        "command": ["/usr/bin/kata-monitor", format!("--listen-address=:{PORT}"), "--log-level=info", format!("--runtime-endpoint={socket}")],
        "ports": [{ "name": "metrics", "containerPort": PORT, "protocol": "TCP" }],
        "readinessProbe": { "httpGet": { "path": "/", "port": PORT } },
        "resources": { "requests": { "cpu": "10m", "memory": "32Mi" } },
        "securityContext": host.security_context(),
        "volumeMounts": [
            { "name": "crio-sock", "mountPath": directory },
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
                            { "name": "crio-sock", "hostPath": { "path": directory } },
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
