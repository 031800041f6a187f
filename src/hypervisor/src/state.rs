//! What a driver publishes of its sandbox: the only way state leaves it.

use std::sync::Arc;
use std::time::Duration;

use peerpods_podvm::SandboxId;
use peerpods_podvm::admission::State;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::failure::Failure;
use crate::record::Record;

/// One thing that was done, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// What was done.
    pub name: &'static str,
    /// When it began, counted from CreateVM.
    pub start: Duration,
    /// How long it took.
    pub took: Duration,
    /// Anything worth saying, such as the number of dials.
    pub detail: String,
}

/// A step that fails and is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What is tried, such as `delete the VM`.
    pub step: &'static str,
    /// How often it failed so far.
    pub tries: u32,
    /// How it failed last.
    pub error: String,
    /// When it failed first.
    pub since: Instant,
}

/// A sandbox as everybody else sees it.
#[derive(Debug, Clone)]
pub struct Published {
    /// Raised with every change.
    pub generation: u64,
    /// Where it is.
    pub state: State,
    /// Why it is being removed, when that was not asked for.
    pub failure: Option<Arc<Failure>>,
    /// What was done so far.
    pub phases: Vec<Phase>,
    /// The record as it was last written; `None` before the first.
    pub record: Option<Record>,
    /// Where the VM's console can be read on this node.
    pub console: Option<String>,
    /// What fails now and is tried again.
    pub troubles: Vec<Trouble>,
}

/// The publishing side, owned by the driver.
#[derive(Debug)]
pub(crate) struct Publisher {
    sender: watch::Sender<Published>,
    sandbox: SandboxId,
    born: Instant,
}

impl Publisher {
    pub(crate) fn new(sandbox: SandboxId) -> (Self, watch::Receiver<Published>) {
        let first = Published {
            generation: 0,
            state: State::None,
            failure: None,
            phases: Vec::new(),
            record: None,
            console: None,
            troubles: Vec::new(),
        };
        let (sender, receiver) = watch::channel(first);
        (Self { sender, sandbox, born: Instant::now() }, receiver)
    }

    pub(crate) fn sandbox(&self) -> SandboxId {
        self.sandbox.clone()
    }

    /// The record as it was last written, also by a start that was called off since.
    pub(crate) fn latest_record(&self) -> Option<Record> {
        self.sender.borrow().record.clone()
    }

    pub(crate) fn state(&self) -> State {
        self.sender.borrow().state
    }

    /// Why the sandbox is being removed, for people.
    pub(crate) fn failure(&self) -> Option<String> {
        self.sender.borrow().failure.as_ref().map(|failure| failure.chain())
    }

    fn change(&self, change: impl FnOnce(&mut Published)) {
        self.sender.send_modify(|published| {
            published.generation += 1;
            change(published);
        });
    }

    pub(crate) fn enter(&self, state: State) {
        self.change(|p| p.state = state);
    }

    pub(crate) fn fail(&self, failure: Arc<Failure>) {
        self.change(|p| p.failure = Some(failure));
    }

    pub(crate) fn record(&self, record: &Record) {
        self.change(|p| p.record = Some(record.clone()));
    }

    pub(crate) fn console(&self, console: String) {
        self.change(|p| p.console = Some(console));
    }

    /// Publishes that `step` failed and will be tried again.
    pub(crate) fn failing(&self, step: &'static str, tries: u32, error: String) {
        self.change(|p| match p.troubles.iter_mut().find(|trouble| trouble.step == step) {
            Some(trouble) => (trouble.tries, trouble.error) = (tries, error),
            None => p.troubles.push(Trouble { step, tries, error, since: Instant::now() }),
        });
    }

    /// Publishes that `step` no longer fails.
    pub(crate) fn recovered(&self, step: &'static str) {
        if self.sender.borrow().troubles.iter().any(|trouble| trouble.step == step) {
            self.change(|p| p.troubles.retain(|trouble| trouble.step != step));
        }
    }

    /// Publishes that `name` was done between `started` and now.
    pub(crate) fn phase(&self, name: &'static str, started: Instant, detail: String) {
        self.phase_between(name, started, started.elapsed(), detail);
    }

    pub(crate) fn phase_between(&self, name: &'static str, started: Instant, took: Duration, detail: String) {
        let start = started.saturating_duration_since(self.born);
        self.change(|p| p.phases.push(Phase { name, start, took, detail }));
    }

    /// The name of the last phase that was finished.
    pub(crate) fn reached(&self) -> &'static str {
        self.sender.borrow().phases.last().map_or("nothing", |phase| phase.name)
    }
}
