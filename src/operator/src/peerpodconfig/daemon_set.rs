//! The node service's DaemonSet. Pure.
//!
//! What it may do is much, and each right has its reason: the host's network namespace holds the tunnels' sockets and reaches VMs; the host's processes and
//! control groups, because links outlive the service and find their shims; privileges, to enter pods' network namespaces.

use serde_json::{Value, json};

use crate::names;
use crate::objects::{Desired, Kind, ObjectRef};
use crate::stuck::REASON_FILE;

/// Where the service tells of its health, on the node's loopback.
const HEALTH_PORT: u16 = 8088;
/// Its ServiceAccount.
pub const ACCOUNT: &str = "peerpods-node";
/// What its pods are restarted by when it changes.
const DIGEST: &str = "peerpods.io/configuration";

/// What the DaemonSet depends on.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// The image.
    pub image: &'a str,
    /// Labels of the nodes.
    pub node_selector: &'a std::collections::BTreeMap<String, String>,
    /// The Secret with the cloud's credentials.
    pub secret: &'a str,
    /// The ConfigMap with the cloud's settings.
    pub config_map: &'a str,
    /// How many VMs a node may have.
    pub limit: u32,
    /// Of the contents of both.
    pub digest: &'a str,
}

/// The DaemonSet.
#[must_use]
pub fn daemon_set(parts: &Parts<'_>) -> Desired {
    let labels = json!({ "name": names::NODE_SERVICE });
    Desired {
        object: ObjectRef::namespaced(Kind::DAEMON_SET, parts.namespace, names::NODE_SERVICE),
        body: json!({
            "metadata": { "labels": labels },
            "spec": {
                "selector": { "matchLabels": labels },
                "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
                "template": {
                    "metadata": { "labels": labels, "annotations": { DIGEST: parts.digest } },
                    "spec": pod(parts),
                },
            },
        }),
    }
}

fn pod(parts: &Parts<'_>) -> Value {
    json!({
        "serviceAccountName": ACCOUNT,
        "nodeSelector": parts.node_selector,
        "hostNetwork": true,
        "hostPID": true,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "priorityClassName": "system-node-critical",
        // B22: a node that is tainted for what runs on it needs the service all the same.
        "tolerations": [{ "operator": "Exists" }],
        // Drains wait for deletions for half a minute.
        "terminationGracePeriodSeconds": 40,
        "containers": [container(parts)],
        "volumes": volumes(),
    })
}

fn container(parts: &Parts<'_>) -> Value {
    let health =
        |path: &str| json!({ "httpGet": { "host": "127.0.0.1", "path": path, "port": HEALTH_PORT } });
    let mut liveness = health("/livez");
    liveness["periodSeconds"] = 10.into();
    liveness["failureThreshold"] = 6.into();
    let mut readiness = health("/readyz");
    readiness["periodSeconds"] = 5.into();
    let mounts: Vec<Value> = MOUNTS.iter().map(Mount::mount).collect();
    json!({
        "name": "peerpods",
        "image": parts.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["peerpods", "hypervisor", "--reason-file", REASON_FILE],
        "terminationMessagePath": REASON_FILE,
        "env": [
            { "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
            { "name": "PEERPODS_NAMESPACE", "valueFrom": { "fieldRef": { "fieldPath": "metadata.namespace" } } },
            { "name": "PEERPODS_LIMIT_PER_NODE", "value": parts.limit.to_string() },
            { "name": "PEERPODS_HEALTH_ADDRESS", "value": format!("127.0.0.1:{HEALTH_PORT}") },
        ],
        // The later one wins where both have a key.
        "envFrom": [{ "secretRef": { "name": parts.secret } }, { "configMapRef": { "name": parts.config_map } }],
        "livenessProbe": liveness,
        "readinessProbe": readiness,
        "resources": { "requests": { "cpu": "50m", "memory": "64Mi" } },
        "securityContext": { "privileged": true, "runAsUser": 0 },
        "volumeMounts": mounts,
    })
}

/// A directory of the host, or a Secret.
struct Mount {
    name: &'static str,
    path: &'static str,
    from: From,
}

enum From {
    /// The same path of the host; what is mounted there is seen, or also shown to the host.
    Host { propagation: &'static str },
    /// A Secret that need not be there.
    Secret(&'static str),
}

const MOUNTS: [Mount; 7] = [
    Mount { name: "run-peerpod", path: "/run/peerpod", from: From::Host { propagation: "Bidirectional" } },
    Mount { name: "run-netns", path: "/run/netns", from: From::Host { propagation: "HostToContainer" } },
    Mount { name: "state", path: "/var/lib/peerpod", from: From::Host { propagation: "None" } },
    Mount { name: "cgroup", path: "/sys/fs/cgroup", from: From::Host { propagation: "None" } },
    Mount { name: "dbus", path: "/run/dbus", from: From::Host { propagation: "None" } },
    Mount { name: "auth", path: "/root/containers", from: From::Secret(names::AUTH_SECRET) },
    Mount { name: "ssh", path: "/root/.ssh", from: From::Secret(names::SSH_SECRET) },
];

impl Mount {
    fn mount(&self) -> Value {
        match self.from {
            From::Host { propagation } => {
                json!({ "name": self.name, "mountPath": self.path, "mountPropagation": propagation })
            }
            From::Secret(_) => json!({ "name": self.name, "mountPath": self.path, "readOnly": true }),
        }
    }

    fn volume(&self) -> Value {
        match self.from {
            From::Host { .. } => {
                json!({ "name": self.name, "hostPath": { "path": self.path, "type": "DirectoryOrCreate" } })
            }
            From::Secret(secret) => {
                json!({ "name": self.name, "secret": { "secretName": secret, "optional": true, "defaultMode": 0o600 } })
            }
        }
    }
}

fn volumes() -> Vec<Value> {
    MOUNTS.iter().map(Mount::volume).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(digest: &str) -> Value {
        let node_selector = [(names::ROLE_LABEL.to_owned(), String::new())].into();
        daemon_set(&Parts {
            namespace: "ns",
            image: "image:1",
            node_selector: &node_selector,
            secret: "peer-pods-secret",
            config_map: "peer-pods-cm",
            limit: 10,
            digest,
        })
        .whole()
    }

    #[test]
    fn b9_b22_it_follows_its_configuration_and_tolerates_every_taint() {
        assert_ne!(made("a"), made("b"), "another configuration restarts it");
        let pod = &made("a")["spec"]["template"]["spec"];
        assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]));
        assert_eq!((&pod["hostNetwork"], &pod["hostPID"]), (&json!(true), &json!(true)));
        assert_eq!(pod["serviceAccountName"], ACCOUNT);
        assert_ne!(ACCOUNT, "default", "others' rights are not its own");
    }

    #[test]
    fn every_mount_has_its_volume_and_the_config_map_comes_last() {
        let pod = &made("a")["spec"]["template"]["spec"];
        let names = |list: &Value| -> Vec<String> {
            list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&pod["volumes"]), names(&pod["containers"][0]["volumeMounts"]));
        assert!(pod["containers"][0]["envFrom"][1].get("configMapRef").is_some());
    }

    #[test]
    fn why_it_ended_goes_where_the_kubelet_reads_it() {
        let container = &made("a")["spec"]["template"]["spec"]["containers"][0];
        let command = container["command"].as_array().unwrap();
        let file = command.iter().skip_while(|word| **word != "--reason-file").nth(1);
        assert_eq!(file, Some(&container["terminationMessagePath"]));
    }
}
