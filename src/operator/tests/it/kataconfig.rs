//! KataConfig from install to the last trace.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use peerpods_crds::{KATACONFIG_FINALIZER, KataConfig, KataConfigStatus, PeerPodConfig};
use peerpods_operator::deploy::OPERATOR;
use peerpods_operator::names;
use peerpods_operator::objects::Kind;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Mark, create, until};
use crate::place;
use crate::tidy::MADE;

pub(crate) const NAME: &str = "example-kataconfig";

impl Cluster {
    pub(crate) async fn ask_for(&self, spec: Value) {
        let whole = json!({
            "apiVersion": "kataconfiguration.openshift.io/v1", "kind": "KataConfig",
            "metadata": { "name": NAME, "labels": { MADE: "" } }, "spec": spec,
        });
        create(&self.all::<KataConfig>(), whole).await;
    }

    pub(crate) async fn status(&self) -> KataConfigStatus {
        let config = self.all::<KataConfig>().get_opt(NAME).await.unwrap();
        config.and_then(|config| config.status).unwrap_or_default()
    }

    pub(crate) async fn status_is(&self, what: &str, holds: impl Fn(&KataConfigStatus) -> bool) {
        until(what, || async { holds(&self.status().await) }).await;
    }

    pub(crate) async fn has_role(&self, node: &str) -> bool {
        self.all::<Node>().get(node).await.unwrap().labels().contains_key(names::ROLE_LABEL)
    }

    /// The machine config operator's part of an install on one worker.
    pub(crate) async fn worker_is_changed(&self, rendered: &str) {
        self.status_is("waiting for the machine config operator", |status| status.waiting_for_mco_to_start)
            .await;
        self.pool_is(names::POOL, "Updating", rendered, 1).await;
        self.node_is("worker0", "Working", "rendered-worker-0").await;
        self.status_is("in progress", |status| {
            status.installation_status.is_in_progress == "True" && status.kata_nodes.installing == ["worker0"]
        })
        .await;
        self.node_is("worker0", "Done", rendered).await;
        self.pool_is(names::POOL, "Updated", rendered, 1).await;
        self.pool_is("worker", "Updated", "rendered-worker-0", 0).await;
        self.status_is("done", |status| status.installation_status.is_in_progress == "False").await;
    }

    /// The machine config operator's part of an uninstall.
    pub(crate) async fn worker_goes_back(&self, rendered: &str) {
        self.status_is("uninstalling", |status| {
            status.un_installation_status.in_progress.status == "True" && status.waiting_for_mco_to_start
        })
        .await;
        assert!(!self.has_role("worker0").await, "the role goes first");
        self.pool_is("worker", "Updating", "rendered-worker-0", 1).await;
        self.node_is("worker0", "Working", rendered).await;
        self.status_is("begun", |status| !status.waiting_for_mco_to_start).await;
        self.node_is("worker0", "Done", "rendered-worker-0").await;
        self.pool_is("worker", "Updated", "rendered-worker-0", 1).await;
    }

    pub(crate) async fn installed(spec: Value) -> Self {
        let mut cluster = Self::new(1).await;
        cluster.operate().await;
        cluster.ask_for(spec).await;
        cluster.worker_is_changed("R1").await;
        cluster
    }
}

#[tokio::test]
async fn install_and_uninstall_leave_the_cluster_as_it_was() {
    let mut cluster = Cluster::new(1).await;
    let before = cluster.everything().await;
    cluster.operate().await;
    cluster.ask_for(json!({ "enablePeerPods": true, "logLevel": "debug" })).await;
    cluster.worker_is_changed("R1").await;
    let test = "install_and_uninstall_leave_the_cluster_as_it_was";
    let webhook = if place::reaches_us(test) { Some(cluster.webhook().await) } else { None };
    let status = cluster.status().await;
    assert_eq!((status.runtime_class.as_str(), status.total_nodes_count), ("kata", 1));
    assert_eq!(status.runtime_classes, ["kata", "kata-remote-cc"]);
    assert_eq!(status.installation_status.completed.completed_nodes_list, ["worker0"]);
    for (kind, name) in [
        (Kind::MACHINE_CONFIG, names::EXTENSION_CONFIG),
        (Kind::MACHINE_CONFIG, names::SHIM_CONFIG),
        (Kind::MACHINE_CONFIG, names::CRIO_CONFIG),
        (Kind::CONTAINER_RUNTIME_CONFIG, names::LOG_LEVEL_CONFIG),
        (Kind::SECURITY_CONTEXT_CONSTRAINTS, names::SCC),
    ] {
        assert!(cluster.untyped(kind).get_opt(name).await.unwrap().is_some(), "{name}");
    }
    let config = cluster.operators::<PeerPodConfig>().get(names::PEER_POD_CONFIG).await.unwrap();
    assert_eq!(config.spec.limit, "10");
    until("the node advertises its VMs", || async {
        let node = cluster.all::<Node>().get("worker0").await.unwrap();
        let capacity = node.status.and_then(|status| status.capacity).unwrap_or_default();
        capacity.get("kata.peerpods.io/vm").is_some_and(|limit| limit.0 == "10")
    })
    .await;

    let configs = cluster.all::<KataConfig>();
    configs.delete(NAME, &DeleteParams::default()).await.unwrap();
    cluster.worker_goes_back("R1").await;
    until("the KataConfig is gone", || async { configs.get_opt(NAME).await.unwrap().is_none() }).await;
    cluster.is_as_before(&before).await;
    // Its process lives a little longer, as a pod does, and makes nothing anew.
    if let Some(webhook) = webhook {
        webhook.end().await;
    }
    cluster.is_as_before(&before).await;
}

#[tokio::test]
async fn a_pod_keeps_its_runtime_class_and_is_named() {
    if !place::reaches_us("a_pod_keeps_its_runtime_class_and_is_named") {
        return;
    }
    let cluster = Cluster::installed(json!({ "enablePeerPods": true })).await;
    let _webhook = cluster.webhook().await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    let spec = json!({ "runtimeClassName": "kata-remote-cc", "containers": [{ "name": "a", "image": "a" }] });
    create(&pods, json!({ "metadata": { "name": "till" }, "spec": spec })).await;
    cluster.all::<KataConfig>().delete(NAME, &DeleteParams::default()).await.unwrap();
    cluster
        .status_is("blocked", |status| {
            status.un_installation_status.error_message.contains("shop/till (kata-remote-cc)")
        })
        .await;
    assert!(
        cluster.has_role("worker0").await
            && cluster.all::<RuntimeClass>().get_opt("kata").await.unwrap().is_some()
    );
}

#[tokio::test]
async fn what_somebody_changed_or_took_away_is_put_right_and_an_overhead_is_kept() {
    let cluster = Cluster::installed(json!({})).await;
    let monitors = cluster.operators::<DaemonSet>();
    let first = monitors.get(names::MONITOR).await.unwrap().uid();
    monitors.delete(names::MONITOR, &DeleteParams::default()).await.unwrap();
    until("the monitor is back", || async {
        monitors.get_opt(names::MONITOR).await.unwrap().is_some_and(|monitor| monitor.uid() != first)
    })
    .await;
    let pool = cluster.untyped(Kind::MACHINE_CONFIG_POOL);
    let bent = json!({ "spec": { "nodeSelector": { "matchLabels": { names::ROLE_LABEL: "bent" } } } });
    pool.patch(names::POOL, &PatchParams::default(), &Patch::Merge(bent)).await.unwrap();
    until("the pool is straight", || async {
        pool.get(names::POOL).await.unwrap().data["spec"]["nodeSelector"]["matchLabels"][names::ROLE_LABEL]
            == ""
    })
    .await;
    let mine = json!({ "overhead": { "podFixed": { "memory": "1Gi" } } });
    cluster.patch::<RuntimeClass>("kata", mine).await;
    // Something else that makes the controller look at everything.
    monitors.delete(names::MONITOR, &DeleteParams::default()).await.unwrap();
    until("the monitor is back", || async { monitors.get_opt(names::MONITOR).await.unwrap().is_some() })
        .await;
    let class = cluster.all::<RuntimeClass>().get("kata").await.unwrap();
    assert_eq!(class.overhead.unwrap().pod_fixed.unwrap()["memory"].0, "1Gi");
}

#[tokio::test]
async fn a_look_at_what_is_as_it_should_be_writes_nothing() {
    let cluster = Cluster::installed(json!({ "enablePeerPods": true })).await;
    cluster.rests().await;
    cluster.patch::<RuntimeClass>("kata", json!({ "metadata": { "labels": { "look": "again" } } })).await;
    let before = cluster.mark().await;
    if let Some(server) = cluster.place.server() {
        server.forget_requests();
        until("the controller has looked", || async {
            server.requests().iter().any(|asked| asked.path.contains("kata-crio-config"))
        })
        .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(cluster.mark().await, Mark::Writes(Vec::new()), "{:#?}", server.requests());
    } else {
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(cluster.mark().await, before);
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_or_told_and_a_second_one_waits() {
    let mut cluster = Cluster::new(1).await;
    cluster.operate().await;
    let bad = json!({
        "apiVersion": "kataconfiguration.openshift.io/v1", "kind": "KataConfig", "metadata": { "name": "bad", "labels": { MADE: "" } },
        "spec": { "kataConfigPoolSelector": { "matchExpressions": [{ "key": "a", "operator": "Foo" }] } },
    });
    let object: KataConfig = serde_json::from_value(bad).unwrap();
    let refused = cluster.all::<KataConfig>().create(&Default::default(), &object).await.unwrap_err();
    assert!(
        refused.to_string().contains("spec.kataConfigPoolSelector.matchExpressions[0].operator"),
        "{refused}"
    );

    // What the schema takes, and Kubernetes would not take as a label.
    cluster.ask_for(json!({ "kataConfigPoolSelector": { "matchLabels": { "a b": "c" } } })).await;
    let reason = |status: &KataConfigStatus| {
        status.conditions.first().map(|one| (one.reason.clone(), one.message.clone()))
    };
    cluster
        .status_is("told", |status| {
            reason(status)
                .is_some_and(|(reason, text)| reason == "InvalidSpec" && text.contains("matchLabels[a b]"))
        })
        .await;
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), "default");
    until("an Event", || async {
        let uid = cluster.all::<KataConfig>().get(NAME).await.unwrap().uid();
        let about = |event: &Event| event.regarding.as_ref().is_some_and(|object| object.uid == uid);
        let list = events.list(&ListParams::default()).await.unwrap();
        list.iter().any(|event| event.reason.as_deref() == Some("InvalidSpec") && about(event))
    })
    .await;

    let second = json!({
        "apiVersion": "kataconfiguration.openshift.io/v1", "kind": "KataConfig", "metadata": { "name": "zz-second", "labels": { MADE: "" } },
    });
    // Without a spec, which the API server fills in.
    let resource = ApiResource::erase::<KataConfig>(&());
    create(&Api::<DynamicObject>::all_with(cluster.client.clone(), &resource), second).await;
    until("the second is told", || async {
        let second = cluster.all::<KataConfig>().get("zz-second").await.unwrap();
        let told = second.status.clone().and_then(|status| reason(&status));
        told.is_some_and(|(reason, text)| reason == "AnotherKataConfig" && text.contains(NAME))
    })
    .await;
    // Nothing else wakes the controller.
    cluster.rests().await;
    let configs = cluster.all::<KataConfig>();
    configs.delete(NAME, &DeleteParams::default()).await.unwrap();
    until("the first can be deleted", || async { configs.get_opt(NAME).await.unwrap().is_none() }).await;
    until("the second begins", || async {
        let second = configs.get("zz-second").await.unwrap();
        second.status.is_some_and(|status| status.waiting_for_mco_to_start)
    })
    .await;
}

#[tokio::test]
async fn others_finalizers_stay() {
    let cluster = Cluster::installed(json!({})).await;
    let both = json!({ "metadata": { "finalizers": [KATACONFIG_FINALIZER, "somebody.example.com/else"] } });
    cluster.patch::<KataConfig>(NAME, both).await;
    let configs = cluster.all::<KataConfig>();
    configs.delete(NAME, &DeleteParams::default()).await.unwrap();
    cluster.worker_goes_back("R1").await;
    until("ours alone is gone", || async {
        configs.get(NAME).await.unwrap().finalizers() == ["somebody.example.com/else"]
    })
    .await;
}

#[tokio::test]
async fn the_dashboard_is_copied_to_where_the_console_looks() {
    let cluster = Cluster::installed(json!({})).await;
    let maps = cluster.operators::<ConfigMap>();
    create(
        &maps,
        json!({ "metadata": { "name": names::DASHBOARD }, "data": { "kata-resources.json": "{}" } }),
    )
    .await;
    let copies: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), names::DASHBOARD_NAMESPACE);
    until("the copy", || async {
        let copy = copies.get_opt(names::DASHBOARD).await.unwrap();
        copy.is_some_and(|copy| {
            copy.labels().get("console.openshift.io/dashboard").is_some_and(|label| label == "true")
        })
    })
    .await;
}

/// A node is written by its kubelet all the time: whoever replaces it is late or overwrites.
#[tokio::test]
async fn b18_nodes_are_patched_and_never_replaced() {
    if !place::has_own_server(
        "b18_nodes_are_patched_and_never_replaced",
        "a real API server lists no requests",
    ) {
        return;
    }
    let cluster = Cluster::installed(json!({ "enablePeerPods": true })).await;
    cluster.advertises("worker0", Some("10")).await;
    let requests = cluster.place.server().unwrap().requests();
    let writes = requests.iter().filter(|asked| asked.is_write() && asked.path.starts_with("/api/v1/nodes/"));
    let ours: BTreeSet<_> = writes
        .filter(|asked| asked.agent == OPERATOR)
        .map(|asked| (asked.verb, asked.path.as_str()))
        .collect();
    let patched = |path| ("patch", path);
    assert_eq!(ours, [patched("/api/v1/nodes/worker0"), patched("/api/v1/nodes/worker0/status")].into());
}
