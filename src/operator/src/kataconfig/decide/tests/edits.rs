//! What an administrator changes after the install.

use super::*;
use crate::kataconfig::world::Class;

#[test]
fn an_administrators_overhead_limit_and_monitor_are_kept() {
    let mut cluster = Cluster::new(1);
    cluster.spec().enable_peer_pods = true;
    cluster.spec().kata_monitor_image = Some("registry/monitor:1".to_owned());
    cluster.install();
    let overhead = &cluster.objects["RuntimeClass kata-remote-cc"]["overhead"]["podFixed"];
    assert_eq!(overhead, &json!({ "cpu": "250m", "memory": "120Mi" }));
    let with = |overhead| Class { overhead, ours: true, ..Class::default() };
    let classes = [
        ("kata".to_owned(), with([("memory".to_owned(), "1Gi".to_owned())].into())),
        ("kata-remote-cc".to_owned(), with(BTreeMap::new())),
    ];
    cluster.world.classes.extend(classes);
    cluster.world.peer_pod_limit = Some("3".to_owned());
    cluster.reconcile();
    assert_eq!(cluster.objects["RuntimeClass kata"]["overhead"]["podFixed"], json!({ "memory": "1Gi" }));
    assert!(cluster.objects["RuntimeClass kata-remote-cc"].get("overhead").is_none());
    let namespace = names::NAMESPACE;
    assert_eq!(
        cluster.objects[&format!("PeerPodConfig {namespace}/peerpodconfig-openshift")]["spec"]["limit"],
        "3"
    );
    let monitor = &cluster.objects[&format!("DaemonSet {namespace}/{}", names::MONITOR)];
    assert_eq!(monitor["spec"]["template"]["spec"]["containers"][0]["image"], "registry/monitor:1");
}

#[test]
fn a_log_level_is_asked_for_and_taken_back() {
    let mut cluster = Cluster::new(1);
    cluster.install();
    cluster.spec().log_level = "debug".to_owned();
    cluster.reconcile();
    let level = |cluster: &Cluster| {
        cluster.objects["ContainerRuntimeConfig kata-crio-config"]["spec"]["containerRuntimeConfig"]["logLevel"].clone()
    };
    assert_eq!(level(&cluster), "debug");
    cluster.spec().log_level = String::new();
    cluster.reconcile();
    assert_eq!(level(&cluster), "info");
}
