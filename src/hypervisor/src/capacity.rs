//! How many VMs this node may have at once, and who has them.
//!
//! A sandbox holds a slot from before its Starting record is written until its record is removed, which is after the provider
//! confirmed the deletion. So the records are the count: `Capacity::new` makes the same holders of them after a restart, and a VM
//! that is being removed counts until it is gone. More holders than the limit (it was lowered) keep what they have; nobody joins them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use peerpods_podvm::SandboxId;

use crate::record::Record;

/// As many holders as an error text names.
const NAMED: usize = 8;
/// As much of a sandbox id as tells it from others.
const SHORT_ID: usize = 8;

/// The slots of this node.
#[derive(Debug)]
pub(crate) struct Capacity {
    limit: Option<u32>,
    holders: Mutex<Holders>,
}

/// Sandboxes that may have a VM, with their pods.
type Holders = BTreeMap<SandboxId, String>;

/// No slot is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full {
    /// How many VMs this node may have.
    pub limit: u32,
    /// Who has one: `namespace/pod (sandbox)`.
    pub holders: Vec<String>,
}

impl Capacity {
    /// The slots as the journal's records hold them; `None` means that there is no limit.
    pub(crate) fn new<'a>(limit: Option<u32>, records: impl IntoIterator<Item = &'a Record>) -> Self {
        let holders = records.into_iter().filter(|record| record.may_have_vm());
        let holders = holders.map(|record| (record.sandbox.clone(), pod(record))).collect();
        Self { limit, holders: Mutex::new(holders) }
    }

    /// Whether a slot is free now.
    pub(crate) fn check(&self) -> Result<(), Full> {
        self.room(&self.lock())
    }

    /// Takes a slot for the record's sandbox; Ok when it has one already.
    pub(crate) fn take(&self, record: &Record) -> Result<(), Full> {
        let mut holders = self.lock();
        if !holders.contains_key(&record.sandbox) {
            self.room(&holders)?;
            holders.insert(record.sandbox.clone(), pod(record));
        }
        Ok(())
    }

    /// Counts a VM that is there, whatever the limit says: one of an earlier run, or one that is adopted or removed without a record.
    pub(crate) fn hold(&self, record: &Record) {
        if record.may_have_vm() {
            self.lock().insert(record.sandbox.clone(), pod(record));
        }
    }

    /// Gives the sandbox's slot back; only for a sandbox whose record is gone, or never said that there may be a VM.
    pub(crate) fn release(&self, sandbox: &SandboxId) {
        self.lock().remove(sandbox);
    }

    fn room(&self, holders: &Holders) -> Result<(), Full> {
        match self.limit {
            Some(limit) if holders.len() >= limit as usize => Err(Full { limit, holders: named(holders) }),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pod(record: &Record) -> String {
    format!("{}/{}", record.request.pod_namespace, record.request.pod_name)
}

fn named(holders: &Holders) -> Vec<String> {
    let short = |id: &SandboxId| id.as_str().chars().take(SHORT_ID).collect::<String>();
    holders.iter().map(|(id, pod)| format!("{pod} ({})", short(id))).collect()
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "this node may have {} VMs (PEERPODS_LIMIT_PER_NODE) and has {}",
            self.limit,
            self.holders.len()
        )?;
        let mut before = ": ";
        for holder in self.holders.iter().take(NAMED) {
            write!(f, "{before}{holder}")?;
            before = ", ";
        }
        if self.holders.len() > NAMED {
            write!(f, " and {} more", self.holders.len() - NAMED)?;
        }
        f.write_str(
            "; try: stop a pod (its VM counts until the provider confirmed its deletion), raise the limit, or run the pod on another node",
        )
    }
}

#[cfg(test)]
mod tests;
