//! The node service writes, dies, and the operator deletes.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use peerpods_hypervisor::ledger::Ledger;
use peerpods_operator::peerpod::clouds::{Cloud, Clouds, MakeCloud};
use peerpods_operator::peerpod::metrics::Metrics;
use peerpods_operator::peerpod::world::Pace;
use peerpods_operator::{names, peerpod};
use peerpods_provider::fake::FakeCloud;
use peerpods_provider::{Provider, UserData, VmSize, VmSpec};
use serde_json::{Value, json};

use crate::bench::{Bench, SHOP, claim, create, key, until};

fn spec() -> VmSpec {
    VmSpec {
        name: "podvm-web".to_owned(),
        image: None,
        machine_type: None,
        size: VmSize::default(),
        user_data: UserData::new("#cloud-config"),
        tags: std::collections::BTreeMap::new(),
    }
}

/// With whatever the node got done before it was lost: the intent only, the VM without its id, or everything.
#[tokio::test]
async fn a_lost_nodes_vm_goes_with_its_pod_wherever_the_node_stopped() {
    for done in 0..3 {
        let bench = Bench::new().await;
        let cloud = FakeCloud::bare();
        let provider = cloud.provider();
        let make: MakeCloud =
            Arc::new(move |_| Ok(Cloud { provider: Some(Arc::new(provider.clone())), cluster: None }));
        let client = bench.server.client("operator").unwrap();
        let clouds = Clouds::new(client.clone(), names::NAMESPACE, make);
        let pace = Pace { nodes_turn: Duration::from_secs(1), ..Pace::default() };
        let forever = std::future::pending();
        tokio::spawn(peerpod::controller::run(
            client,
            names::NAMESPACE,
            clouds,
            Metrics::default(),
            pace,
            forever,
        ));

        let maps: Api<ConfigMap> = Api::namespaced(bench.client.clone(), names::NAMESPACE);
        let data = json!({ "CLOUD_PROVIDER": "fake" });
        create(&maps, json!({ "metadata": { "name": names::CLOUD_CONFIG }, "data": data })).await;
        bench.pod("web", Value::Null).await;
        bench.ledger.intend(&key("s1"), claim(SHOP, "web")).await;
        if done > 0 {
            let made = cloud.provider().create(&key("s1"), &spec()).await.unwrap();
            if done > 1 {
                bench.ledger.assign(&key("s1"), &made).await;
                until("its id is known", || async { bench.only().await.spec.instance_id == made.id }).await;
            }
        }
        bench.delete_pod("web").await;
        until("nothing is left", || async { cloud.machines().is_empty() && bench.all().await.is_empty() })
            .await;
    }
}
