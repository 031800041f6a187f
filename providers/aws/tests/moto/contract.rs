//! The provider keeps the contract every provider keeps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use peerpods_provider::contract::{self, Subject};
use peerpods_provider::{Provider, VmKey, VmSpec};
use peerpods_test_require::require;

use crate::form;
use crate::server::NEEDS;
use crate::site::{Site, live_of, spec};

struct Aws(Site);

#[async_trait]
impl Subject for Aws {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(self.0.provider())
    }

    fn spec(&self, name: &str, tags: BTreeMap<String, String>) -> VmSpec {
        VmSpec { tags, ..spec(name) }
    }

    async fn kill(&self, key: &VmKey) -> Result<(), String> {
        let ids = self.0.instances(key).await;
        let [id] = ids.as_slice() else { return Err(format!("{key} has {ids:?}")) };
        self.0.proxy.moto("StopInstances", &[("InstanceId.1", id)]).await;
        Ok(())
    }

    async fn tags(&self, key: &VmKey) -> Result<BTreeMap<String, String>, String> {
        let mut filters = live_of(key.cluster.as_str());
        filters.extend([
            ("Filter.3.Name", "tag:io.peerpods.sandbox"),
            ("Filter.3.Value.1", key.sandbox.as_str()),
        ]);
        let xml = self.0.proxy.moto("DescribeInstances", &filters).await;
        let set = form::texts(&xml, "tagSet").pop().ok_or("no such instance")?;
        Ok(form::texts(&set, "key").into_iter().zip(form::texts(&set, "value")).collect())
    }

    async fn leftovers(&self) -> Vec<String> {
        let ours = [("Filter.1.Name", "tag-key"), ("Filter.1.Value.1", "io.peerpods.cluster")];
        let xml = self.0.proxy.moto("DescribeInstances", &ours).await;
        let mine = format!("contract-{}-", std::process::id());
        let sets = xml.split("<item><reservationId>").skip(1).filter(|one| one.contains(&mine));
        let live = sets.filter(|one| !form::texts(one, "name").iter().any(|state| state == "terminated"));
        live.flat_map(|one| form::texts(one, "instanceId")).collect()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_keeps_the_contract() {
    if !require("aws_keeps_the_contract", NEEDS) {
        return;
    }
    let subject = Aws(Site::new().await);
    assert_eq!(contract::check(&subject).await, Ok(contract::CASES.len()));
}
