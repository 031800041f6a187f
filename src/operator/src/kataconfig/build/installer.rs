//! Who places our files on nodes, and who removes them, where there is no machine config operator: two DaemonSets, each on the nodes
//! whose label asks for it.
//!
//! They have no owner: the end of a KataConfig needs the one that removes, and a foreground deletion would take it away first.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::kataconfig::world::Files;
use crate::names;
use crate::objects::{Desired, Kind, ObjectRef};
use crate::settings::Settings;
use crate::stuck::REASON_FILE;

/// Where the host's files are in the container.
const HOST: &str = "/host";

/// What nodes get.
#[derive(Debug, Clone, Copy)]
pub struct NodeFiles<'a> {
    /// The runtime classes of peer pods.
    pub classes: &'a [String],
    /// The container runtime's log level; none leaves what the node has.
    pub log_level: Option<&'a str>,
}

/// The ServiceAccount of both DaemonSets. Their pods never talk to the API server.
#[must_use]
pub fn installer_account(namespace: &str) -> Desired {
    Desired {
        object: ObjectRef::namespaced(Kind::SERVICE_ACCOUNT, namespace, names::INSTALLER_ACCOUNT),
        body: json!({ "automountServiceAccountToken": false }),
    }
}

/// The DaemonSet that places files.
#[must_use]
pub fn installer(settings: &Settings, files: NodeFiles<'_>) -> Desired {
    let mut command = command();
    command.extend(["--hypervisor-timeout".to_owned(), format!("{}s", settings.hypervisor_timeout)]);
    command.extend(files.classes.iter().flat_map(|class| ["--class".to_owned(), class.clone()]));
    command.extend(
        files.log_level.iter().flat_map(|level| ["--runtime-log-level".to_owned(), (*level).to_owned()]),
    );
    daemon_set(settings, Files::Installed, &command)
}

/// The DaemonSet that removes them. What was placed is known on the node: nothing that the KataConfig says now is needed.
#[must_use]
pub fn remover(settings: &Settings) -> Desired {
    let mut command = command();
    command.push("--remove".to_owned());
    daemon_set(settings, Files::Removed, &command)
}

fn command() -> Vec<String> {
    ["peerpods", "install-node", "--host-root", HOST, "--reason-file", REASON_FILE].map(str::to_owned).into()
}

/// The name of the DaemonSet for this.
#[must_use]
pub fn name_for(files: Files) -> &'static str {
    match files {
        Files::Installed => names::INSTALLER,
        Files::Removed => names::REMOVER,
    }
}

/// What pods of a DaemonSet are made of, as it says itself.
#[must_use]
pub fn template_of(set: &Value) -> Option<&str> {
    set["spec"]["template"]["metadata"]["annotations"][names::TEMPLATE].as_str()
}

fn daemon_set(settings: &Settings, files: Files, command: &[String]) -> Desired {
    let name = name_for(files);
    let labels = json!({ "name": name });
    let pod = pod(settings, files, command);
    let template = hex::encode(&Sha256::digest(pod.to_string().as_bytes())[..8]);
    Desired {
        object: ObjectRef::namespaced(Kind::DAEMON_SET, &settings.namespace, name),
        body: json!({
            "metadata": { "labels": labels },
            "spec": {
                "selector": { "matchLabels": labels },
                // A change that breaks a node's container runtime stops at the first one.
                "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
                "template": {
                    "metadata": { "labels": labels, "annotations": { names::TEMPLATE: template } },
                    "spec": pod,
                },
            },
        }),
    }
}

fn pod(settings: &Settings, files: Files, command: &[String]) -> Value {
    json!({
        "serviceAccountName": names::INSTALLER_ACCOUNT,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "nodeSelector": { names::FILES_LABEL: files.word() },
        // Files are placed before the pod network is there, and removed when it is not any more.
        "hostNetwork": true,
        "priorityClassName": "system-node-critical",
        "tolerations": [{ "operator": "Exists" }],
        "containers": [{
            "name": "peerpods",
            "image": settings.image,
            "imagePullPolicy": "IfNotPresent",
            "command": command,
            // A file of the container, and not a port of the host: nobody else can answer in its place.
            "readinessProbe": {
                "exec": { "command": ["peerpods", "install-node", "--is-ready"] },
                "periodSeconds": 5,
                "timeoutSeconds": 5,
            },
            "resources": { "requests": { "cpu": "10m", "memory": "32Mi" } },
            "terminationMessagePath": REASON_FILE,
            // The host's systemd takes orders from root alone, and confined containers may not talk to it.
            "securityContext": { "privileged": true, "runAsUser": 0 },
            "volumeMounts": [{ "name": "host", "mountPath": HOST, "mountPropagation": "HostToContainer" }],
        }],
        "volumes": [{ "name": "host", "hostPath": { "path": "/", "type": "Directory" } }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(classes: &[String]) -> NodeFiles<'_> {
        NodeFiles { classes, log_level: None }
    }

    #[test]
    fn each_runs_where_its_label_is_and_tells_its_form() {
        let settings = Settings { image: "image:1".to_owned(), ..Settings::default() };
        let (placing, removing) = (installer(&settings, files(&[])).whole(), remover(&settings).whole());
        for (set, word) in [(&placing, "installed"), (&removing, "removed")] {
            let pod = &set["spec"]["template"]["spec"];
            assert_eq!(pod["nodeSelector"], json!({ "peerpods.io/kata": word }));
            assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]));
            assert_eq!(pod["automountServiceAccountToken"], false);
            assert!(set["metadata"].get("ownerReferences").is_none());
            assert!(template_of(set).is_some());
        }
        assert_ne!(template_of(&placing), template_of(&removing));
        let command = removing["spec"]["template"]["spec"]["containers"][0]["command"].as_array().unwrap();
        assert!(command.contains(&json!("--remove")) && !command.contains(&json!("--class")));
    }

    #[test]
    fn what_nodes_get_is_in_the_form() {
        let settings = Settings::default();
        let classes = ["kata-remote-cc".to_owned()];
        let plain = installer(&settings, files(&[])).whole();
        let peer_pods = installer(&settings, files(&classes)).whole();
        let loud = installer(&settings, NodeFiles { log_level: Some("debug"), ..files(&classes) }).whole();
        let forms = [&plain, &peer_pods, &loud].map(|set| template_of(set).unwrap().to_owned());
        assert!(forms[0] != forms[1] && forms[1] != forms[2]);
        let command = loud["spec"]["template"]["spec"]["containers"][0]["command"].to_string();
        assert!(command.contains(r#""--class","kata-remote-cc","--runtime-log-level","debug""#), "{command}");
        assert!(command.contains(r#""--hypervisor-timeout","900s""#), "{command}");
    }
}
