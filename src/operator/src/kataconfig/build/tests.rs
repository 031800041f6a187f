use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::kataconfig::pools::Target;
use crate::names;
use crate::objects::Desired;
use crate::settings::Settings;

fn shown(desired: &Desired) -> Value {
    let mut whole = desired.whole();
    whole["metadata"]["annotations"] = Value::Null;
    whole
}

fn content(machine_config: &Desired) -> (String, String) {
    let file = &machine_config.body["spec"]["config"]["storage"]["files"][0];
    let source = file["contents"]["source"].as_str().unwrap();
    let encoded = source.strip_prefix("data:text/plain;charset=utf-8;base64,").unwrap();
    assert_eq!(file["mode"], 0o644);
    (
        file["path"].as_str().unwrap().to_owned(),
        String::from_utf8(BASE64_STANDARD.decode(encoded).unwrap()).unwrap(),
    )
}

#[test]
fn the_pool_has_workers_configurations_and_ours() {
    assert_eq!(
        shown(&pool()),
        json!({
            "apiVersion": "machineconfiguration.openshift.io/v1",
            "kind": "MachineConfigPool",
            "metadata": {
                "name": "kata-oc",
                "labels": { "pools.operator.machineconfiguration.openshift.io/kata-oc": "" },
                "annotations": null,
            },
            "spec": {
                "machineConfigSelector": { "matchExpressions": [
                    { "key": "machineconfiguration.openshift.io/role", "operator": "In", "values": ["kata-oc", "worker"] },
                ] },
                "nodeSelector": { "matchLabels": { "node-role.kubernetes.io/kata-oc": "" } },
            },
        })
    );
}

#[test]
fn the_extension_is_one_machine_config_of_the_right_role() {
    for (target, role) in [(Target::Workers, "kata-oc"), (Target::ControlPlane, "master")] {
        let settings = Settings { extension: "sandboxed-containers".to_owned(), ..Settings::default() };
        assert_eq!(
            shown(&extension(target, "example", &settings)),
            json!({
                "apiVersion": "machineconfiguration.openshift.io/v1",
                "kind": "MachineConfig",
                "metadata": {
                    "name": "50-enable-sandboxed-containers-extension",
                    "labels": { "machineconfiguration.openshift.io/role": role, "app": "example" },
                    "annotations": null,
                },
                "spec": { "config": { "ignition": { "version": "3.2.0" } }, "extensions": ["sandboxed-containers"] },
            })
        );
    }
}

#[test]
fn the_shims_configuration_is_good_for_both_shims() {
    let [shim, crio] = peer_pods_of(&Settings::default());
    let (path, text) = content(&shim);
    assert_eq!(path, "/opt/kata/configuration-remote.toml");
    let table: toml::Table = text.parse().unwrap();
    let remote = &table["hypervisor"]["remote"];
    for key in ["remote_hypervisor_socket", "hypervisor_socket"] {
        assert_eq!(remote[key].as_str(), Some("/run/peerpod/hypervisor.sock"));
    }
    for key in ["remote_hypervisor_timeout", "hypervisor_timeout"] {
        assert_eq!(remote[key].as_integer(), Some(900));
    }
    assert!(remote.get("overhead_memory").is_some(), "the Rust shim refuses some pods without it");
    assert_eq!(table["runtime"]["internetworking_model"].as_str(), Some("none"));
    // The Rust shim takes no unknown key in an agent's section.
    let known = [
        "enable_debug",
        "debug_console_enabled",
        "dial_timeout",
        "dial_timeout_ms",
        "reconnect_timeout_ms",
        "create_container_timeout",
    ];
    assert!(table["agent"]["kata"].as_table().unwrap().keys().all(|key| known.contains(&key.as_str())));

    let (path, text) = content(&crio);
    assert_eq!(path, "/etc/crio/crio.conf.d/50-kata-remote-cc");
    let table: toml::Table = text.parse().unwrap();
    let handler = &table["crio"]["runtime"]["runtimes"]["kata-remote-cc"];
    assert_eq!(handler["runtime_config_path"].as_str(), Some("/opt/kata/configuration-remote.toml"));
    assert_eq!(handler["runtime_type"].as_str(), Some("vm"));
}

fn peer_pods_of(settings: &Settings) -> [Desired; 2] {
    peer_pod_machine_configs(Target::Workers, settings)
}

#[test]
fn every_name_of_the_class_has_a_handler() {
    let classes = ["kata-remote-cc", "kata-remote"].map(str::to_owned);
    let table: toml::Table = crio_drop_in(&classes).parse().unwrap();
    assert_eq!(table["crio"]["runtime"]["runtimes"].as_table().unwrap().len(), 2);
}

#[test]
fn the_monitor_runs_on_our_nodes_with_little_right() {
    let monitor = shown(&monitor(Target::Workers, "ns", "image:1", MonitoredHost::OpenShift));
    let pod = &monitor["spec"]["template"]["spec"];
    assert_eq!(pod["nodeSelector"], json!({ names::ROLE_LABEL: "" }));
    assert_eq!(pod["tolerations"], json!([{ "operator": "Exists" }]));
    assert_eq!(pod["serviceAccountName"], "monitor");
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!((&security["privileged"], &security["runAsUser"]), (&json!(false), &json!(1001)));
    assert_eq!(monitor["spec"]["selector"]["matchLabels"], monitor["spec"]["template"]["metadata"]["labels"]);
}

#[test]
fn the_constraints_are_the_monitors_alone() {
    let constraints = shown(&security_context_constraints("ns"));
    assert_eq!(constraints["users"], json!(["system:serviceaccount:ns:monitor"]));
    for forbidden in
        ["allowHostIPC", "allowHostNetwork", "allowHostPID", "allowHostPorts", "allowPrivilegedContainer"]
    {
        assert_eq!(constraints[forbidden], false, "{forbidden}");
    }
}

#[test]
fn the_peer_pod_config_has_the_guides_defaults() {
    let config = shown(&peer_pod_config(Target::Workers, "ns", None));
    assert_eq!(
        config["spec"],
        json!({
            "cloudSecretName": "peer-pods-secret",
            "configMapName": "peer-pods-cm",
            "limit": "10",
            "nodeSelector": { "node-role.kubernetes.io/kata-oc": "" },
        })
    );
}

#[test]
fn guests_get_the_clusters_credentials_under_the_name_they_know() {
    let secret = shown(&auth_secret("ns", b"{\"auths\":{}}"));
    assert_eq!(secret["data"]["auth.json"], BASE64_STANDARD.encode("{\"auths\":{}}"));
}
