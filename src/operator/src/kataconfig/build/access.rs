//! Who may do what on nodes: OpenShift's security context constraints for the monitor.

use serde_json::json;

use crate::names;
use crate::objects::{Desired, Kind, ObjectRef};

/// What the monitor's pods may do: read sockets of the host, nothing else.
#[must_use]
pub fn security_context_constraints(namespace: &str) -> Desired {
    let account = format!("system:serviceaccount:{namespace}:{}", names::MONITOR_ACCOUNT);
    Desired {
        object: ObjectRef::cluster(Kind::SECURITY_CONTEXT_CONSTRAINTS, names::SCC),
        body: json!({
            "allowHostDirVolumePlugin": true,
            "allowHostIPC": false,
            "allowHostNetwork": false,
            "allowHostPID": false,
            "allowHostPorts": false,
            "allowPrivilegeEscalation": false,
            "allowPrivilegedContainer": false,
            "readOnlyRootFilesystem": false,
            "requiredDropCapabilities": ["MKNOD", "FSETID", "KILL", "FOWNER"],
            "runAsUser": { "type": "MustRunAsNonRoot" },
            "seLinuxContext": { "type": "RunAsAny" },
            "fsGroup": { "type": "RunAsAny" },
            "supplementalGroups": { "type": "RunAsAny" },
            "volumes": ["*"],
            "users": [account],
        }),
    }
}
