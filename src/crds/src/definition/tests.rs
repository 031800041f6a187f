use std::path::Path;

use kube::Resource;
use serde_json::Value;

use super::*;
use crate::{KataConfigStatus, PeerPodConfig};

fn schema(name: &str) -> Value {
    let definition = all().into_iter().find(|one| one.object.spec.names.kind == name).unwrap();
    serde_json::to_value(&definition.object.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema)
        .unwrap()
}

/// Calls `visit` with every property below a schema and its path.
fn each(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        visit(&path, property);
        each(property, &path, visit);
        each(&property["items"], &path, visit);
    }
}

#[test]
fn the_files_in_deploy_are_these_definitions() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    for definition in all() {
        let file = place.join(format!("{}.yaml", definition.name()));
        let there = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(there, definition.yaml().unwrap(), "make manifests writes {}", file.display());
    }
    assert_eq!(std::fs::read_dir(place).unwrap().count(), all().len(), "a file nobody makes");
}

#[test]
fn every_field_has_a_short_help() {
    for kind in ["KataConfig", "PeerPodConfig", "PeerPod"] {
        each(&schema(kind), "", &mut |path, property| {
            // Kubernetes' own.
            if path.starts_with(".metadata") {
                return;
            }
            let help = property["description"].as_str().unwrap_or_default();
            assert!(!help.is_empty() && help.len() <= 160 && help.ends_with('.'), "{kind}{path}: {help:?}");
        });
    }
}

#[test]
fn a_schema_is_structural() {
    for kind in ["KataConfig", "PeerPodConfig", "PeerPod"] {
        each(&schema(kind), "", &mut |path, property| {
            assert!(
                property["type"].is_string() || property["x-kubernetes-int-or-string"] == true,
                "{kind}{path} has no type"
            );
            assert!(property.get("$ref").is_none(), "{kind}{path}");
        });
    }
}

#[test]
fn a_missing_spec_is_an_empty_one_and_gets_its_defaults() {
    for kind in ["KataConfig", "PeerPodConfig", "PeerPod"] {
        let schema = schema(kind);
        assert_eq!(schema["properties"]["spec"]["default"], json!({}), "{kind}");
        assert!(schema.get("required").is_none(), "{kind}");
    }
    let spec = &schema("KataConfig")["properties"]["spec"];
    assert_eq!(spec["properties"]["logLevel"]["default"], "info");
    assert_eq!(spec["properties"]["checkNodeEligibility"]["default"], false);
    assert_eq!(spec["properties"]["enablePeerPods"]["default"], false);
    assert!(spec["properties"]["kataMonitorImage"].get("default").is_none());
    assert!(spec.get("required").is_none(), "{spec}");
    let spec = &schema("PeerPodConfig")["properties"]["spec"];
    assert_eq!(spec["properties"]["limit"]["default"], "10");
    assert_eq!(spec["properties"]["cloudSecretName"]["default"], "peer-pods-secret");
    assert_eq!(spec["properties"]["configMapName"]["default"], "peer-pods-cm");
}

#[test]
fn names_and_scopes_are_those_that_objects_were_made_for() {
    let names: Vec<_> =
        all().iter().map(|one| (one.name().to_owned(), one.object.spec.scope.clone())).collect();
    assert_eq!(
        names,
        [
            ("kataconfigs.kataconfiguration.openshift.io".to_owned(), "Cluster".to_owned()),
            ("peerpodconfigs.confidentialcontainers.org".to_owned(), "Namespaced".to_owned()),
            ("peerpods.confidentialcontainers.org".to_owned(), "Namespaced".to_owned()),
        ]
    );
    assert_eq!(KataConfig::api_version(&()), "kataconfiguration.openshift.io/v1");
    assert_eq!(PeerPodConfig::api_version(&()), "confidentialcontainers.org/v1alpha1");
}

#[test]
fn the_guides_columns_are_printed() {
    let definition = &all()[0];
    let columns = definition.object.spec.versions[0].additional_printer_columns.as_ref().unwrap();
    let shown: Vec<_> =
        columns.iter().map(|one| (one.name.as_str(), one.type_.as_str(), one.json_path.as_str())).collect();
    assert_eq!(
        shown,
        [
            ("InProgress", "string", ".status.installationStatus.IsInProgress"),
            ("Completed", "integer", ".status.installationStatus.completed.completedNodesCount"),
            ("Total", "integer", ".status.totalNodesCount"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ]
    );
}

#[test]
fn a_status_of_1_4_has_its_empty_objects_and_odd_capitals() {
    let status = KataConfigStatus {
        total_nodes_count: 2,
        waiting_for_mco_to_start: true,
        ..KataConfigStatus::default()
    };
    let written = serde_json::to_value(&status).unwrap();
    assert_eq!(
        written,
        json!({
            "runtimeClass": "",
            "totalNodesCount": 2,
            "installationStatus": { "IsInProgress": "", "inprogress": {}, "completed": {}, "failed": {} },
            "unInstallationStatus": { "inProgress": { "status": "" }, "completed": {}, "failed": {} },
            "upgradeStatus": {},
            "waitingForMcoToStart": true,
            "kataNodes": { "nodeCount": 0, "readyNodeCount": 0 },
        })
    );
    assert_eq!(serde_json::from_value::<KataConfigStatus>(written).unwrap(), status);
}

#[test]
fn objects_of_other_versions_are_read() {
    for (object, runtime_class) in [
        (
            json!({ "metadata": { "name": "old" }, "spec": {}, "status": { "runtimeClass": ["kata", "kata-remote"] } }),
            "kata",
        ),
        (
            json!({ "metadata": { "name": "old" }, "spec": { "logLevel": "loud" }, "status": { "runtimeClass": "kata", "prevMcpGeneration": 3 } }),
            "kata",
        ),
        (
            json!({ "metadata": { "name": "bad" }, "spec": { "kataConfigPoolSelector": { "matchExpressions": [{ "key": "a", "operator": "Foo" }] } } }),
            "",
        ),
    ] {
        let mut whole = object.clone();
        whole["apiVersion"] = "kataconfiguration.openshift.io/v1".into();
        whole["kind"] = "KataConfig".into();
        let read: KataConfig = serde_json::from_value(whole).unwrap();
        assert_eq!(read.status.unwrap_or_default().runtime_class, runtime_class, "{object}");
    }
}
