//! What pools tell, whoever watched, and the nodes of a cluster's other pools.

use super::*;

#[test]
fn nobody_has_to_watch_the_machine_config_operator_at_work() {
    let mut cluster = Cluster::new(1);
    assert!(cluster.reconcile().waiting_for_mco_to_start);
    cluster.done_with("worker0", "R");
    cluster.ends("kata-oc", "R", 1);
    cluster.pool("kata-oc").sources = ["00-worker", names::EXTENSION_CONFIG].map(str::to_owned).into();
    let status = cluster.reconcile();
    assert!(!status.waiting_for_mco_to_start && cluster.has("RuntimeClass kata"), "{status:#?}");
}

#[test]
fn nodes_of_other_pools_are_neither_ours_nor_waited_for() {
    let mut cluster = Cluster::new(1);
    let mut infra = node("infra0", names::WORKER_LABEL, "rendered-infra-0");
    infra.labels.insert("node-role.kubernetes.io/infra".to_owned(), String::new());
    cluster.world.nodes.push(infra);
    let pool = Pool { target: Some("rendered-infra-0".to_owned()), ..cluster.pool("worker").clone() };
    cluster.world.pools.insert("infra".to_owned(), pool);
    // One whose name another's begins with.
    cluster.world.pools.insert("kata".to_owned(), Pool::default());
    cluster.node("master0").labels.insert(names::WORKER_LABEL.to_owned(), String::new());
    cluster.reconcile();
    assert_eq!(cluster.plan.roles, [Role { node: "worker0".to_owned(), has: true }]);

    // Nobody watched.
    cluster.done_with("worker0", "rendered-kata-oc-0");
    cluster.ends("kata-oc", "rendered-kata-oc-0", 1);
    cluster.pool("kata-oc").sources = ["00-worker", names::EXTENSION_CONFIG].map(str::to_owned).into();
    assert!(!cluster.reconcile().waiting_for_mco_to_start && cluster.has("RuntimeClass kata"));

    cluster.delete();
    cluster.ends("worker", "rendered-worker-0", 0);
    cluster.pool("worker").sources = ["00-worker".to_owned()].into();
    assert!(cluster.reconcile().waiting_for_mco_to_start, "the node has still ours");
    cluster.done_with("worker0", "rendered-worker-0");
    cluster.ends("worker", "rendered-worker-0", 1);
    cluster.reconcile();
    cluster.reconcile();
    assert!(cluster.finalized && cluster.objects.is_empty(), "{:?}", cluster.objects.keys());
}

#[test]
fn one_that_is_deleted_before_any_node_was_touched_goes() {
    let mut cluster = Cluster::new(1);
    cluster.pool("worker").sources = ["00-worker".to_owned()].into();
    assert!(cluster.reconcile().waiting_for_mco_to_start);
    cluster.delete();
    for _ in 0..3 {
        cluster.reconcile();
    }
    assert!(cluster.finalized && cluster.objects.is_empty(), "{:?}", cluster.objects.keys());
}
