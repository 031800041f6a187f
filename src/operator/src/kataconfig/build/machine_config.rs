//! What the machine config operator is asked for: the extension with Kata Containers, our files, the pool of our nodes, the log level.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::files;
use crate::kataconfig::pools::Target;
use crate::names;
use crate::objects::{Desired, Kind, ObjectRef};
use crate::settings::Settings;

/// The label by which a pool of machine configs is meant.
fn pool_label(target: Target) -> String {
    format!("pools.operator.machineconfiguration.openshift.io/{}", target.pool())
}

/// The pool of workers with our role. It has the workers' configurations, and ours.
#[must_use]
pub fn pool() -> Desired {
    Desired {
        object: ObjectRef::cluster(Kind::MACHINE_CONFIG_POOL, names::POOL),
        body: json!({
            "metadata": { "labels": { pool_label(Target::Workers): "" } },
            "spec": {
                "machineConfigSelector": {
                    "matchExpressions": [
                        { "key": names::MACHINE_CONFIG_ROLE, "operator": "In", "values": [names::POOL, "worker"] },
                    ],
                },
                "nodeSelector": { "matchLabels": { names::ROLE_LABEL: "" } },
            },
        }),
    }
}

/// The MachineConfig that installs Kata Containers.
#[must_use]
pub fn extension(target: Target, config: &str, settings: &Settings) -> Desired {
    let spec =
        json!({ "config": { "ignition": { "version": "3.2.0" } }, "extensions": [settings.extension] });
    machine_config(names::EXTENSION_CONFIG, target, config, spec)
}

/// The MachineConfigs with the shim's configuration and CRI-O's handler.
#[must_use]
pub fn peer_pods(target: Target, settings: &Settings) -> [Desired; 2] {
    let shim = file(files::SHIM_CONFIGURATION, &files::shim_configuration(settings));
    let drop_in = format!("/etc/crio/crio.conf.d/{}", names::CRIO_CONFIG);
    let crio = file(&drop_in, &files::crio_drop_in(&settings.peer_pod_classes));
    [
        machine_config(names::SHIM_CONFIG, target, names::PEER_POD_CONFIG, shim),
        machine_config(names::CRIO_CONFIG, target, names::PEER_POD_CONFIG, crio),
    ]
}

fn machine_config(name: &str, target: Target, app: &str, spec: Value) -> Desired {
    Desired {
        object: ObjectRef::cluster(Kind::MACHINE_CONFIG, name),
        body: json!({
            "metadata": { "labels": { names::MACHINE_CONFIG_ROLE: target.pool(), "app": app } },
            "spec": spec,
        }),
    }
}

fn file(path: &str, content: &str) -> Value {
    let source = format!("data:text/plain;charset=utf-8;base64,{}", BASE64_STANDARD.encode(content));
    let file = json!({ "path": path, "mode": 0o644, "overwrite": true, "contents": { "source": source } });
    json!({ "config": { "ignition": { "version": "3.2.0" }, "storage": { "files": [file] } } })
}

/// The log level of the container runtime.
#[must_use]
pub fn container_runtime_config(target: Target, level: &str) -> Desired {
    Desired {
        object: ObjectRef::cluster(Kind::CONTAINER_RUNTIME_CONFIG, names::LOG_LEVEL_CONFIG),
        body: json!({
            "spec": {
                "containerRuntimeConfig": { "logLevel": level },
                "machineConfigPoolSelector": { "matchLabels": { pool_label(target): "" } },
            },
        }),
    }
}
