//! The cluster's record of VMs, which outlives the node.

use async_trait::async_trait;
use peerpods_hypervisor::ledger::{Claim, Ledger};
use peerpods_provider::{Instance, VmKey};

use super::world::{Incarnation, Seam};

impl Incarnation {
    async fn ledger_point(&self, key: &VmKey, what: &'static str) {
        let sandbox = key.sandbox.as_str();
        let slot = self.world.slot(Some(sandbox), Seam::Ledger);
        self.point(slot, what, sandbox).await;
    }
}

#[async_trait]
impl Ledger for Incarnation {
    async fn intend(&self, key: &VmKey, _: Claim<'_>) {
        self.ledger_point(key, "ledger intend").await;
        self.world.state().ledger.insert(key.to_string());
        self.ledger_point(key, "ledger intended").await;
    }

    async fn assign(&self, key: &VmKey, _: &Instance) {
        self.ledger_point(key, "ledger assign").await;
    }

    async fn recall(&self, key: &VmKey, _: Claim<'_>, _: Option<&str>) {
        self.world.state().ledger.insert(key.to_string());
    }

    async fn release(&self, key: &VmKey) {
        self.ledger_point(key, "ledger release").await;
        self.world.state().ledger.remove(&key.to_string());
        self.ledger_point(key, "ledger released").await;
    }
}
