//! The provider keeps the contract every provider keeps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use peerpods_provider::contract::{self, Subject};
use peerpods_provider::{Provider, VmKey, VmSpec};
use peerpods_test_require::require;

use crate::site::{NEEDS, Site, spec};

struct Qemu(Site);

#[async_trait]
impl Subject for Qemu {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(self.0.provider())
    }

    fn spec(&self, name: &str, tags: BTreeMap<String, String>) -> VmSpec {
        VmSpec { tags, ..spec(name) }
    }

    async fn kill(&self, _key: &VmKey) -> Result<(), String> {
        // The case has one VM.
        self.0.kill();
        Ok(())
    }

    async fn tags(&self, key: &VmKey) -> Result<BTreeMap<String, String>, String> {
        let records = std::fs::read_dir(self.0.dir().join("state/records")).map_err(|e| e.to_string())?;
        for entry in records.flatten() {
            let text = std::fs::read_to_string(entry.path()).map_err(|e| e.to_string())?;
            let record: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
            if record["key"] == serde_json::to_value(key).map_err(|e| e.to_string())? {
                return serde_json::from_value(record["tags"].clone()).map_err(|e| e.to_string());
            }
        }
        Err(format!("no record of {key}"))
    }

    async fn leftovers(&self) -> Vec<String> {
        self.0.leftovers()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_keeps_the_contract() {
    if !require("qemu_keeps_the_contract", NEEDS) {
        return;
    }
    let subject = Qemu(Site::new());
    assert_eq!(contract::check(&subject).await, Ok(contract::CASES.len()));
}
