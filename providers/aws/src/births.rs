//! What this process knows of VMs that EC2 may not show yet: under which number each is being asked for, with which placement, and what
//! was answered. Pure; the caller holds the lock.
//!
//! ```text
//!   open(number, placement) ──answer──▶ born ──EC2 shows it, or a minute──▶ forgotten
//!      │  ▲ same again while the answer is not known
//!      └──definitely refused, or its VM is dead──▶ open(number + 1, next placement)
//! ```
//!
//! Nothing here has to outlive the process. A start that the process does not survive is not gone on with: the next one deletes what
//! EC2 shows, for as long as `visible_within` says that something may still turn up.

use std::collections::HashMap;
use std::time::Duration;

use peerpods_provider::{Instance, VmKey};
use tokio::time::Instant;

use crate::placement::Placement;

/// How long EC2 may still show what it began to end.
const ENDING_WITHIN: Duration = Duration::from_secs(600);

/// One number and what is asked for under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) number: u32,
    pub(crate) placement: Placement,
}

#[derive(Debug, Default)]
struct Birth {
    number: u32,
    /// What was asked for under the number, while the answer is not known.
    open: Option<Placement>,
    born: Option<(Instance, Instant)>,
}

/// All births, and deaths that EC2 may not show yet.
#[derive(Debug)]
pub(crate) struct Births {
    /// How long EC2 may not show what it made.
    visible_within: Duration,
    of: HashMap<VmKey, Birth>,
    ended: HashMap<String, Instant>,
}

impl Births {
    pub(crate) fn new(visible_within: Duration) -> Self {
        Self { visible_within, of: HashMap::new(), ended: HashMap::new() }
    }

    /// What to ask for now: the same as before while that has no answer, else the first of `candidates` under a number of at least
    /// `at_least`. `None` when there is nothing left to try.
    pub(crate) fn open(&mut self, key: &VmKey, at_least: u32, candidates: &[Placement]) -> Option<Attempt> {
        let birth = self.of.entry(key.clone()).or_default();
        if birth.number < at_least {
            (birth.number, birth.open) = (at_least, None);
        }
        let placement = birth.open.clone().or_else(|| candidates.first().cloned())?;
        birth.open = Some(placement.clone());
        Some(Attempt { number: birth.number, placement })
    }

    /// The attempt made nothing that lives, and never will: the next has a number of its own. Several callers may say so of one
    /// attempt.
    pub(crate) fn spent(&mut self, key: &VmKey, attempt: &Attempt) {
        let birth = self.of.entry(key.clone()).or_default();
        if birth.number == attempt.number {
            (birth.number, birth.open) = (attempt.number.saturating_add(1), None);
        }
    }

    /// EC2 answered with a VM.
    pub(crate) fn born(&mut self, key: &VmKey, instance: Instance, now: Instant) {
        let within = self.visible_within;
        self.of.retain(|_, birth| {
            birth.born.as_ref().is_none_or(|(_, at)| now.saturating_duration_since(*at) < within)
        });
        let birth = self.of.entry(key.clone()).or_default();
        birth.born = Some((instance, now));
    }

    /// The VM EC2 answered with and may not show yet.
    pub(crate) fn unseen(&self, key: &VmKey, now: Instant) -> Option<&Instance> {
        let (instance, at) = self.of.get(key)?.born.as_ref()?;
        (now.saturating_duration_since(*at) < self.visible_within).then_some(instance)
    }

    /// Those of a cluster that EC2 may not show yet.
    pub(crate) fn all_unseen(&self, now: Instant) -> impl Iterator<Item = (&VmKey, &Instance)> {
        self.of.keys().filter_map(move |key| Some((key, self.unseen(key, now)?)))
    }

    /// EC2 confirmed that the VM ends.
    pub(crate) fn ended(&mut self, key: &VmKey, id: &str, now: Instant) {
        self.ended.retain(|_, at| now.saturating_duration_since(*at) < ENDING_WITHIN);
        self.ended.insert(id.to_owned(), now);
        if self.of.get(key).and_then(|birth| birth.born.as_ref()).is_some_and(|(born, _)| born.id == id) {
            self.of.remove(key);
        }
    }

    /// Nothing of the key is there any more, as far as EC2 shows.
    pub(crate) fn forget(&mut self, key: &VmKey) {
        self.of.remove(key);
    }

    /// Whether the VM is known to end, whatever EC2 shows.
    pub(crate) fn is_ended(&self, id: &str) -> bool {
        self.ended.contains_key(id)
    }
}

#[cfg(test)]
mod tests {
    use peerpods_provider::VmState;

    use super::*;
    use crate::config::Market;
    use crate::placement;

    fn key() -> VmKey {
        VmKey { cluster: "c".parse().unwrap(), sandbox: "s".parse().unwrap() }
    }

    fn none_yet() -> Births {
        Births::new(Duration::from_secs(60))
    }

    fn places() -> Vec<Placement> {
        placement::all(&[(Market::OnDemand, vec!["small".to_owned(), "large".to_owned()])], &[])
    }

    fn instance(id: &str) -> Instance {
        Instance {
            id: id.to_owned(),
            name: "podvm".to_owned(),
            addresses: Vec::new(),
            state: VmState::Pending,
            console: None,
            tags: Default::default(),
        }
    }

    #[test]
    fn while_the_answer_is_not_known_the_same_is_asked_for_again() {
        let mut births = none_yet();
        let first = births.open(&key(), 0, &places()).unwrap();
        assert_eq!(first.number, 0);
        // Meanwhile the first place was found to have no capacity.
        assert_eq!(births.open(&key(), 0, &places()[1..]), Some(first.clone()));
        births.spent(&key(), &first);
        births.spent(&key(), &first);
        let second = births.open(&key(), 0, &places()[1..]).unwrap();
        assert_eq!((second.number, second.placement), (1, places()[1].clone()));
    }

    #[test]
    fn numbers_go_on_after_those_of_the_dead() {
        let mut births = none_yet();
        births.open(&key(), 0, &places()).unwrap();
        assert_eq!(births.open(&key(), 3, &places()).unwrap().number, 3);
        assert_eq!(births.open(&key(), 1, &places()).unwrap().number, 3);
    }

    #[test]
    fn nothing_left_to_try_is_nothing() {
        assert_eq!(none_yet().open(&key(), 0, &[]), None);
    }

    #[test]
    fn a_vm_is_vouched_for_until_ec2_must_show_it() {
        let (mut births, now) = (none_yet(), Instant::now());
        births.born(&key(), instance("i-1"), now);
        assert_eq!(births.unseen(&key(), now + Duration::from_secs(59)).map(|i| i.id.as_str()), Some("i-1"));
        assert_eq!(births.unseen(&key(), now + Duration::from_secs(61)), None);
        assert_eq!(births.all_unseen(now).count(), 1);
        births.ended(&key(), "i-1", now);
        assert!(births.unseen(&key(), now).is_none() && births.is_ended("i-1"));
    }

    #[test]
    fn the_end_of_an_older_vm_does_not_hide_the_new_one() {
        let (mut births, now) = (none_yet(), Instant::now());
        births.born(&key(), instance("i-2"), now);
        births.ended(&key(), "i-1", now);
        assert!(births.unseen(&key(), now).is_some());
    }
}
