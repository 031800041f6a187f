//! What `peerpods doctor` says of AWS: observe → findings (`judge`, pure). Every call looks or is a dry run; nothing is changed.
//!
//! `verify` asks for part of it when the service starts, and ends at what no VM can be made with. Here each line stands for itself, so
//! that everything that is wrong is seen at once.

mod identity;
mod judge;
mod observe;
mod quota;
mod trial;

use crate::ports::Port;
use crate::provider::Account;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Works, or could not be looked at.
    Warning,
    /// Pods will not start.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is, such as `aws subnet`.
    pub check: &'static str,
    /// How grave.
    pub grade: Grade,
    /// What was found.
    pub found: String,
    /// What to do about it; nothing when it is ok.
    pub fix: Option<String>,
}

/// What the service wants of AWS and the provider does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// The ports between workers and VMs.
    pub ports: Vec<Port>,
    /// How many VMs this node may have; `None`: no limit.
    pub most_vms: Option<u32>,
}

/// Looks at everything, and judges it.
pub(crate) async fn examine(account: &Account, needs: &Needs) -> Vec<Finding> {
    let faults = account.config.faults();
    if !faults.is_empty() {
        return faults.into_iter().map(judge::misconfigured).collect();
    }
    // On the heap: many questions are asked together.
    match Box::pin(observe::observe(account, needs)).await {
        Ok(seen) => judge::findings(&seen, &account.config, needs),
        Err(error) => vec![judge::blind(&error)],
    }
}
