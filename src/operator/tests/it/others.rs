//! What another installer or an administrator made on a cluster without OpenShift, under names that the operator knows as well.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::ResourceExt;
use kube::api::DeleteParams;
use peerpods_crds::KataConfig;
use peerpods_operator::names;
use serde_json::{Value, json};

use crate::cluster::{Cluster, create};
use crate::kataconfig::NAME;

/// Objects of others, and their versions.
pub(crate) struct Others {
    classes: Vec<(String, Option<String>)>,
    secret: Option<String>,
}

impl Cluster {
    /// Registry credentials that are made by hand, and these runtime classes with their handlers.
    pub(crate) async fn others_make(&self, classes: &[(&str, &str)]) -> Others {
        let secret = json!({ "metadata": { "name": names::AUTH_SECRET }, "data": { "auth.json": "e30=" } });
        create(&self.operators::<Secret>(), secret).await;
        for (name, handler) in classes {
            let class: Value = json!({ "metadata": { "name": name }, "handler": handler });
            create(&self.all::<RuntimeClass>(), class).await;
        }
        self.what_is_others(&classes.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>()).await
    }

    async fn what_is_others(&self, names: &[String]) -> Others {
        let secret = self.operators::<Secret>().get(names::AUTH_SECRET).await.unwrap().resource_version();
        let mut classes = Vec::new();
        for name in names {
            let class = self.all::<RuntimeClass>().get(name).await.unwrap();
            classes.push((name.clone(), class.resource_version()));
        }
        Others { classes, secret }
    }

    /// Nobody has written them.
    pub(crate) async fn others_are_untouched(&self, before: &Others) {
        let names: Vec<_> = before.classes.iter().map(|(name, _)| name.clone()).collect();
        let now = self.what_is_others(&names).await;
        assert_eq!((&now.classes, &now.secret), (&before.classes, &before.secret));
    }
}

#[tokio::test]
async fn what_another_installer_made_is_neither_taken_over_nor_deleted() {
    let mut cluster = Cluster::without_openshift(1).await;
    let others = cluster.others_make(&[("kata", "kata-qemu"), ("kata-remote-cc", "kata-remote-cc")]).await;
    cluster.operate().await;
    cluster.ask_for(json!({})).await;
    cluster.label_is("n0", Some("installed")).await;
    cluster.pod_is_ready(names::INSTALLER, "n0").await;
    cluster
        .status_is("the class is named", |status| {
            status.conditions.first().is_some_and(|condition| {
                condition.reason == "ForeignRuntimeClass" && condition.message.contains("kata-qemu")
            })
        })
        .await;
    assert!(cluster.status().await.runtime_classes.is_empty());
    cluster.others_are_untouched(&others).await;

    cluster.all::<RuntimeClass>().delete("kata", &DeleteParams::default()).await.unwrap();
    cluster.status_is("ours is made", |status| status.runtime_classes == ["kata"]).await;
    let class = cluster.all::<RuntimeClass>().get("kata").await.unwrap();
    assert_eq!(class.handler, "kata");
    cluster.patch::<KataConfig>(NAME, json!({ "spec": { "enablePeerPods": true } })).await;
    cluster.status_is("the node is changed", |status| status.kata_nodes.ready_node_count == 0).await;
    cluster.pod_is_ready(names::INSTALLER, "n0").await;
    cluster.status_is("theirs will do", |status| status.runtime_classes.len() == 2).await;
    let rest = Others { classes: others.classes[1..].to_vec(), ..others };
    cluster.others_are_untouched(&rest).await;
}
