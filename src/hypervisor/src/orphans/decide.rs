//! The sweep's decision, from what passes saw. Looks at nothing itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peerpods_podvm::SandboxId;
use peerpods_podvm::admission::State;
use tokio::time::Instant;

use crate::config::Config;

/// Passes that must have seen an orphan, one after the other.
const PASSES: u32 = 2;

/// One VM of the cluster, as a pass saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The sandbox it was made for.
    pub sandbox: SandboxId,
    /// The provider's id.
    pub vm: String,
    /// The node that made it, when it says so.
    pub node: Option<String>,
    /// Who on this node owns it.
    pub owner: Owner,
}

/// Who on this node owns a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A sandbox with a record.
    Sandbox(State),
    /// No sandbox; but a shim seems to use it, as the text says.
    Shim(String),
    /// Nobody.
    Nobody,
}

/// What a VM is to this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A sandbox of this node owns it.
    Live(State),
    /// There is no record of it, and a shim seems to use it.
    HeldByShim(String),
    /// It does not say which node made it.
    NoNode,
    /// Another node made it.
    OtherNode(String),
    /// This node made it, and nobody owns it.
    Orphan,
}

/// What decides besides what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// This node.
    pub node: String,
    /// How long an orphan must have been seen.
    pub grace: Duration,
}

impl Rules {
    pub(crate) fn of(config: &Config) -> Self {
        Self { node: config.node.clone(), grace: config.gc_grace }
    }
}

/// An orphan as earlier passes saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion {
    /// When it was seen first.
    pub since: Instant,
    /// In how many passes, without a break.
    pub passes: u32,
}

/// Which orphans the passes so far have seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory(BTreeMap<(SandboxId, String), Suspicion>);

impl Memory {
    /// What is remembered of a VM.
    #[must_use]
    pub fn of(&self, observed: &Observed) -> Option<Suspicion> {
        self.0.get(&(observed.sandbox.clone(), observed.vm.clone())).copied()
    }

    /// Whether a VM of this sandbox was an orphan in the last pass.
    #[must_use]
    pub fn suspects(&self, sandbox: &SandboxId) -> bool {
        self.0.keys().any(|(suspect, _)| suspect == sandbox)
    }
}

/// What a pass comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// For the next pass.
    pub memory: Memory,
    /// Sandboxes whose VMs are to be deleted now.
    pub due: Vec<SandboxId>,
}

/// What one VM is to the node of `rules`. Whoever is doubted is left alone.
#[must_use]
pub fn verdict(observed: &Observed, rules: &Rules) -> Verdict {
    match (&observed.owner, &observed.node) {
        (Owner::Sandbox(state), _) => Verdict::Live(*state),
        (Owner::Shim(why), _) => Verdict::HeldByShim(why.clone()),
        (Owner::Nobody, None) => Verdict::NoNode,
        (Owner::Nobody, Some(node)) if *node != rules.node => Verdict::OtherNode(node.clone()),
        (Owner::Nobody, Some(_)) => Verdict::Orphan,
    }
}

/// Judges a whole list. A provider deletes all VMs of a sandbox at once, so each of them must be due.
#[must_use]
pub fn decide(observed: &[Observed], memory: &Memory, now: Instant, rules: &Rules) -> Pass {
    let mut next = Memory::default();
    let mut due = BTreeSet::new();
    let mut spared = BTreeSet::new();
    for vm in observed {
        if verdict(vm, rules) != Verdict::Orphan {
            spared.insert(vm.sandbox.clone());
            continue;
        }
        let before = memory.of(vm).unwrap_or(Suspicion { since: now, passes: 0 });
        let seen = Suspicion { passes: before.passes.saturating_add(1), ..before };
        next.0.insert((vm.sandbox.clone(), vm.vm.clone()), seen);
        let old = now.saturating_duration_since(seen.since) >= rules.grace;
        let set = if old && seen.passes >= PASSES { &mut due } else { &mut spared };
        set.insert(vm.sandbox.clone());
    }
    Pass { memory: next, due: due.difference(&spared).cloned().collect() }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
