//! What has to be done for the table to hold some tunnels more, or one less. Pure.

use std::collections::BTreeSet;

use super::table::{self, Peer, Tracking};
use crate::nft::{Element, Message, Rule};

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// These tunnels are guarded.
    Admit(Vec<Peer>),
    /// This one is not.
    Withdraw {
        /// Its identifier.
        vni: u32,
        /// Its port.
        port: u16,
    },
    /// Nothing but what is always done: tunnels of namespaces that are gone are forgotten.
    Collect,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// The number that every change by anybody raises.
    pub(super) generation: u32,
    /// The table's rules, in their order.
    pub(super) rules: Vec<Rule>,
    /// What is in each of [`table::SETS`]; `None` for one that is not there.
    pub(super) sets: Vec<Option<Vec<Element>>>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// All is as wanted.
    Nothing,
    /// These, all at once.
    Change(Vec<Message>),
    /// The table for these tunnels, in place of what there is.
    Build(Vec<Peer>),
}

impl State {
    /// What the rules found do about connection tracking.
    pub(super) fn tracking(&self) -> Tracking {
        if self.has_rules(Tracking::Seen) { Tracking::Seen } else { Tracking::Bypassed }
    }

    fn is_there(&self) -> bool {
        !self.rules.is_empty() || self.sets.iter().any(Option::is_some)
    }

    fn has_rules(&self, tracking: Tracking) -> bool {
        let wanted = table::rules(tracking);
        let found = self.rules.iter().map(|rule| (rule.chain.as_str(), rule.comment.as_str()));
        by_chain(found) == by_chain(wanted.iter().map(|rule| (rule.chain, rule.comment.as_str())))
    }

    /// All rules are there, and the sets say the same.
    fn is_whole(&self, peers: &[Peer]) -> bool {
        let same = |(found, wanted): (&Option<Vec<Element>>, Vec<Element>)| {
            found.as_ref().is_some_and(|found| {
                let mut found = found.clone();
                found.sort();
                found == wanted
            })
        };
        let sets = self.sets.iter().zip(table::contents(peers));
        (self.has_rules(Tracking::Bypassed) || self.has_rules(Tracking::Seen))
            && self.sets.len() == table::SETS.len()
            && sets.into_iter().all(same)
    }
}

/// Rules in their order within their chains. Chains have none: the kernel lists them as they were made.
fn by_chain<'a>(rules: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(&'a str, &'a str)> {
    let mut rules: Vec<_> = rules.collect();
    rules.sort_by_key(|(chain, _)| *chain);
    rules
}

/// The way from what was found to what is wanted. `is_gone` tells whether a pod's namespace is gone.
pub(super) fn plan(state: &State, change: &Change, is_gone: impl Fn(&str) -> bool) -> Plan {
    let found = table::peers(&state.sets);
    let replaced: BTreeSet<(u16, u32)> = match change {
        Change::Admit(peers) => peers.iter().map(Peer::tunnel).collect(),
        Change::Withdraw { vni, port } => BTreeSet::from([(*port, *vni)]),
        Change::Collect => BTreeSet::new(),
    };
    let stays =
        |peer: &&Peer| !replaced.contains(&peer.tunnel()) && !peer.netns.as_deref().is_some_and(&is_gone);
    let mut wanted: Vec<Peer> = found.iter().filter(stays).cloned().collect();
    if let Change::Admit(peers) = change {
        wanted.extend_from_slice(peers);
        wanted.sort();
    }
    if wanted.is_empty() {
        let gone = Message::remove_table(table::NAME);
        return if state.is_there() { Plan::Change(vec![gone]) } else { Plan::Nothing };
    }
    if !state.is_whole(&found) {
        return Plan::Build(wanted);
    }
    let messages = encode(&differences(&found, &wanted));
    if messages.is_empty() { Plan::Nothing } else { Plan::Change(messages) }
}

/// What changes in one set.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Difference {
    set: &'static str,
    removed: Vec<Element>,
    added: Vec<Element>,
}

/// One for each set, in their order.
fn differences(found: &[Peer], wanted: &[Peer]) -> Vec<Difference> {
    let only = |these: &[Element], others: &[Element]| -> Vec<Element> {
        these.iter().filter(|e| others.binary_search(e).is_err()).cloned().collect()
    };
    let sets = table::SETS.iter().zip(table::contents(found).into_iter().zip(table::contents(wanted)));
    sets.map(|(set, (old, new))| Difference {
        set: set.name,
        removed: only(&old, &new),
        added: only(&new, &old),
    })
    .collect()
}

/// Removals first: an element whose comment changes is removed and added.
fn encode(differences: &[Difference]) -> Vec<Message> {
    let removals = differences.iter().flat_map(|d| Message::remove_elements(table::NAME, d.set, &d.removed));
    let additions = differences.iter().flat_map(|d| Message::add_elements(table::NAME, d.set, &d.added));
    removals.chain(additions).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
