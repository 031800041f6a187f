//! What goes wrong, and at which call.

use std::time::Duration;

use crate::ErrorKind;

/// One method of the provider, as scripts and counters name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Provider::verify`](crate::Provider::verify).
    Verify,
    /// [`Provider::create`](crate::Provider::create).
    Create,
    /// [`Provider::get`](crate::Provider::get).
    Get,
    /// [`Provider::list`](crate::Provider::list).
    List,
    /// [`Provider::delete`](crate::Provider::delete).
    Delete,
}

/// Which calls of an operation a fault meets. Calls are counted from 1 over the cloud's whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// Every call.
    All,
    /// The first so many calls.
    First(u64),
    /// Exactly this call.
    Nth(u64),
}

impl Calls {
    fn include(self, call: u64) -> bool {
        match self {
            Calls::All => true,
            Calls::First(count) => call <= count,
            Calls::Nth(number) => call == number,
        }
    }
}

/// What goes wrong. Several faults may meet one call; they add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call does nothing and fails.
    Fail(ErrorKind),
    /// The call does its work and its answer is lost: the caller sees this error.
    LoseAnswer(ErrorKind),
    /// Every error of the call asks the caller to wait this long.
    AskToWait(Duration),
    /// The call starts its work only after this long.
    Delay(Duration),
    /// A create makes two VMs of one key, as a cloud without idempotency does with a client that retries.
    Duplicate,
    /// The VM of a create stops by itself this long after its birth.
    DieAfter(Duration),
    /// The VM of a create runs and never gets an address.
    NoAddress,
    /// The VM of a create stays pending, without an address, for this long.
    StayPending(Duration),
}

/// How the VMs of one create are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Birth {
    pub(super) copies: usize,
    pub(super) pending_for: Duration,
    pub(super) dies_after: Option<Duration>,
    pub(super) addressing: Addressing,
}

impl Default for Birth {
    fn default() -> Self {
        Self { copies: 1, pending_for: Duration::ZERO, dies_after: None, addressing: Addressing::Given }
    }
}

/// Whether a VM ever gets its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Addressing {
    Given,
    Never,
}

/// Everything the script has for one call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Effects {
    pub(super) delay: Duration,
    pub(super) fail: Option<ErrorKind>,
    pub(super) lose: Option<ErrorKind>,
    pub(super) retry_after: Option<Duration>,
    pub(super) birth: Birth,
}

impl Effects {
    fn add(&mut self, fault: Fault) {
        match fault {
            Fault::Fail(kind) => self.fail = Some(kind),
            Fault::LoseAnswer(kind) => self.lose = Some(kind),
            Fault::AskToWait(time) => self.retry_after = Some(time),
            Fault::Delay(time) => self.delay = self.delay.saturating_add(time),
            Fault::Duplicate => self.birth.copies += 1,
            Fault::DieAfter(time) => self.birth.dies_after = Some(time),
            Fault::NoAddress => self.birth.addressing = Addressing::Never,
            Fault::StayPending(time) => self.birth.pending_for = time,
        }
    }
}

/// The rules and how often each operation was called.
#[derive(Debug, Default)]
pub(super) struct Script {
    rules: Vec<(Operation, Calls, Fault)>,
    calls: std::collections::HashMap<Operation, u64>,
}

impl Script {
    pub(super) fn add(&mut self, operation: Operation, calls: Calls, fault: Fault) {
        self.rules.push((operation, calls, fault));
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(super) fn calls(&self, operation: Operation) -> u64 {
        self.calls.get(&operation).copied().unwrap_or(0)
    }

    /// Counts a call and says what is to happen to it.
    pub(super) fn next(&mut self, operation: Operation) -> Effects {
        let call = self.calls.entry(operation).or_insert(0);
        *call += 1;
        let mut effects = Effects::default();
        for (_, _, fault) in
            self.rules.iter().filter(|(op, calls, _)| *op == operation && calls.include(*call))
        {
            effects.add(*fault);
        }
        effects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_meets_only_its_operation_and_its_calls() {
        let mut script = Script::default();
        script.add(Operation::Create, Calls::Nth(2), Fault::Fail(ErrorKind::Capacity));
        script.add(Operation::Create, Calls::First(2), Fault::Delay(Duration::from_secs(1)));
        assert_eq!(script.next(Operation::Get), Effects::default());
        assert_eq!(script.next(Operation::Create).fail, None);
        let second = script.next(Operation::Create);
        assert_eq!((second.fail, second.delay), (Some(ErrorKind::Capacity), Duration::from_secs(1)));
        assert_eq!(script.next(Operation::Create), Effects::default());
        assert_eq!(script.calls(Operation::Create), 3);
    }
}
