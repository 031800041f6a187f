//! What guarding tunnels does upon what nf_tables answered, for `tests/fuzz`; and what a kernel would make of it.

#![expect(clippy::panic, reason = "a message that a kernel would refuse is a finding")]

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::plan::{self, Change, Plan, State};
use super::table::{self, Peer, RuleText, SETS, Tracking};
use crate::nft::fuzzing::{Edit, elements, rules};
use crate::nft::{Element, Message, Rule};

/// A change of who is guarded.
#[derive(Debug, Clone, Copy)]
pub enum Guarding {
    /// This tunnel comes, with the only peer that may send its packets.
    Admit {
        /// VXLAN network identifier.
        vni: u32,
        /// UDP port.
        port: u16,
        /// The VM.
        peer: IpAddr,
    },
    /// This one goes.
    Withdraw {
        /// VXLAN network identifier.
        vni: u32,
        /// UDP port.
        port: u16,
    },
    /// Those go whose namespace is gone.
    Collect,
}

impl From<Guarding> for Change {
    fn from(guarding: Guarding) -> Self {
        match guarding {
            Guarding::Admit { vni, port, peer } => {
                Self::Admit(vec![Peer { vni, port, address: peer.to_canonical(), netns: None }])
            }
            Guarding::Withdraw { vni, port } => Self::Withdraw { vni, port },
            Guarding::Collect => Self::Collect,
        }
    }
}

/// Our table, as it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table(State);

impl Table {
    /// What the answers say: those to the question for the rules, and those for each of the four sets (none: there is no such set). A set
    /// holds a key once.
    #[must_use]
    pub fn of(rules_answer: &[u8], sets: [Option<&[u8]>; 4]) -> Self {
        let set = |answer| {
            let mut keys = BTreeSet::new();
            let mut found = elements(answer);
            found.retain(|element| keys.insert(element.key.clone()));
            found
        };
        let sets = sets.map(|answer| answer.map(set)).into();
        Self(State { generation: 0, rules: rules(rules_answer, table::NAME), sets })
    }

    /// How many rules and elements there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.rules.len() + self.0.sets.iter().flatten().map(Vec::len).sum::<usize>()
    }

    /// Every tunnel's port, identifier and peer, sorted.
    #[must_use]
    pub fn tunnels(&self) -> Vec<(u16, u32, IpAddr)> {
        table::peers(&self.0.sets).into_iter().map(|peer| (peer.port, peer.vni, peer.address)).collect()
    }

    /// The table after a change, and how many messages make it; no namespace is gone.
    ///
    /// # Panics
    /// When a kernel would refuse one of the messages.
    #[must_use]
    pub fn after(&self, guarding: Guarding) -> (Self, usize) {
        match plan::plan(&self.0, &guarding.into(), |_| false) {
            Plan::Nothing => (self.clone(), 0),
            Plan::Build(peers) => {
                let messages = table::build(&peers, Tracking::Bypassed);
                (Self(holding(&peers)), messages.len())
            }
            Plan::Change(messages) => (Self(changed(self.0.clone(), &messages)), messages.len()),
        }
    }
}

/// As the kernel lists it, one chain after the other.
fn holding(peers: &[Peer]) -> State {
    let found = |rule: RuleText| Rule { chain: rule.chain.to_owned(), comment: rule.comment };
    let mut rules: Vec<Rule> = table::rules(Tracking::Bypassed).into_iter().map(found).collect();
    rules.sort_by_key(|rule| table::CHAINS.iter().position(|chain| chain.name == rule.chain));
    State { generation: 0, rules, sets: table::contents(peers).map(Some).into() }
}

/// As the kernel does it: an element that is removed must be there, one that is added must not.
fn changed(mut state: State, messages: &[Message]) -> State {
    for message in messages {
        match message.edit() {
            Edit::NoTable => state = State { generation: 0, rules: Vec::new(), sets: vec![None; SETS.len()] },
            Edit::Add(set, elements) => {
                let held = held(&mut state, &set);
                for element in elements {
                    assert!(
                        held.iter().all(|other| other.key != element.key),
                        "{element:?} is in {set} already"
                    );
                    held.push(element);
                }
            }
            Edit::Remove(set, elements) => {
                let held = held(&mut state, &set);
                for element in elements {
                    let before = held.len();
                    held.retain(|other| other.key != element.key);
                    assert!(held.len() < before, "{element:?} is not in {set}");
                }
            }
            Edit::Other => panic!("{message:?} is no change of what is in the table"),
        }
    }
    state
}

fn held<'s>(state: &'s mut State, set: &str) -> &'s mut Vec<Element> {
    let at = SETS.iter().position(|known| known.name == set);
    let held = at.and_then(|at| state.sets.get_mut(at)).and_then(Option::as_mut);
    held.unwrap_or_else(|| panic!("there is no set {set}"))
}
