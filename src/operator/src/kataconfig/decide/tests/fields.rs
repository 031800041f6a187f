//! That the status says what it has fields for, and says nothing too early.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

/// Every field that there is says something at some time between install and the last trace.
#[test]
fn b5_no_field_of_the_status_is_for_nothing() {
    let mut said = BTreeSet::new();
    for status in installing_with_a_failure().into_iter().chain(installed_and_removed()) {
        leaves(&json!(status), "", &mut said);
    }
    let unsaid: Vec<_> = fields().difference(&said).cloned().collect();
    assert_eq!(unsaid, ["/upgradeStatus"], "an empty object that has to be there");
}

fn installing_with_a_failure() -> Vec<KataConfigStatus> {
    let mut cluster = Cluster::new(3);
    cluster.spec().enable_peer_pods = true;
    let mut said = vec![cluster.reconcile()];
    cluster.begins("kata-oc", 3);
    cluster.works_on("worker0");
    fails(&mut cluster, "worker1", "kata-oc");
    said.push(cluster.reconcile());
    said
}

fn installed_and_removed() -> Vec<KataConfigStatus> {
    let mut cluster = Cluster::new(2);
    cluster.reconcile();
    cluster.begins("kata-oc", 2);
    cluster.reconcile();
    for worker in ["worker0", "worker1"] {
        cluster.done_with(worker, "R");
    }
    cluster.ends("kata-oc", "R", 2);
    cluster.ends("worker", "rendered-worker-0", 0);
    cluster.world.config.metadata.generation = Some(1);
    let mut said = vec![cluster.reconcile(), cluster.reconcile()];
    cluster.world.pods = vec![pod("kata", "a")];
    cluster.delete();
    said.push(cluster.reconcile());
    cluster.world.pods.clear();
    said.extend([cluster.reconcile(), cluster.reconcile()]);
    cluster.begins("worker", 2);
    cluster.works_on("worker0");
    fails(&mut cluster, "worker1", "worker");
    said.push(cluster.reconcile());
    cluster.done_with("worker0", "rendered-worker-0");
    let status = cluster.reconcile();
    assert_eq!(status.un_installation_status.completed.completed_nodes_list, ["worker0"]);
    said.push(status);
    said
}

fn fails(cluster: &mut Cluster, node: &str, pool: &str) {
    let failed = cluster.node(node);
    (failed.state, failed.reason) = (Some("Degraded".to_owned()), Some("disk full".to_owned()));
    cluster.pool(pool).degraded = Some(format!("{node} is degraded"));
}

/// The fields of the status, as its definition has them.
fn fields() -> BTreeSet<String> {
    let all: Vec<Value> = peerpods_crds::all().into_iter().map(|one| json!(one.object)).collect();
    let definition = all.iter().find(|one| one["spec"]["names"]["kind"] == "KataConfig").unwrap();
    let status = definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/status").unwrap();
    let mut found = BTreeSet::new();
    properties(status, "", &mut found);
    found
}

fn properties(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let inner = schema.get("items").unwrap_or(schema);
    let Some(all) = inner["properties"].as_object() else {
        found.insert(path.to_owned());
        return;
    };
    for (name, schema) in all {
        properties(schema, &format!("{path}/{name}"), found);
    }
}

/// What says something: neither empty nor zero nor false.
fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                leaves(value, &format!("{path}/{name}"), found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| leaves(value, path, found)),
        value if [json!(null), json!(""), json!(0), json!(false)].contains(value) => {}
        _ => drop(found.insert(path.to_owned())),
    }
}

#[test]
fn b13_a_status_alone_is_no_success() {
    let mut cluster = Cluster::new(1);
    let mut done = Vec::new();
    for step in 0..4 {
        match step {
            1 => cluster.begins("kata-oc", 1),
            2 => cluster.works_on("worker0"),
            3 => {
                cluster.done_with("worker0", "R");
                cluster.ends("kata-oc", "R", 1);
                cluster.ends("worker", "rendered-worker-0", 0);
            }
            _ => {}
        }
        let completed = cluster.reconcile().installation_status.completed.completed_nodes_count;
        done.push((cluster.condition().1, completed.unwrap_or_default()));
    }
    let installing = ("Installing".to_owned(), 0);
    assert_eq!(done[..3], [installing.clone(), installing.clone(), installing]);
    assert_eq!(done[3], (String::new(), 1));
}
