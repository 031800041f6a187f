//! What outlives the daemon (cloud, kernel, link processes, disk, pods) in one place, the clock its events happen by, and the points
//! at which the daemon can be made to die.
//!
//! Every call into a seam passes one or more *points*: before its effect, between its steps, after its effect. Each point has a
//! millisecond of virtual time to itself: which one follows from the sandbox and the seam alone. So the order of events does not
//! depend on which of two ready tasks runs first or how long a blocking call takes, and one seed gives one history.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::hash::{Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::cloud::Cloud;
use super::invariants::{Invariant, Violation};
use super::journal::Disk;
use super::kernel::Kernel;
use super::link::Links;
use super::plan::Plan;
use super::pod::Pods;
use super::rng::Rng;

/// A seam, as the report counts points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seam {
    /// The cloud.
    Provider,
    /// The kernel, by netlink.
    Tunnel,
    /// Link processes.
    Link,
    /// The node's disk.
    Journal,
    /// The cluster's record.
    Ledger,
    /// Kubelet and shims: no seam of the service, and no points of their own.
    Shim,
}

impl Seam {
    /// What its points are called in a report.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Seam::Provider => "provider call",
            Seam::Tunnel => "netlink step",
            Seam::Link => "link call",
            Seam::Journal => "journal write",
            Seam::Ledger => "ledger call",
            Seam::Shim => "shim",
        }
    }
}

/// Whose event it is: a sandbox's lane (0: the node's own) at a seam.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    lane: u64,
    seam: Seam,
}

/// Milliseconds after which slots come round again.
const ROUND: u64 = 180;
const SEAMS: u64 = 6;

impl Slot {
    /// The residue that all times of this slot have modulo [`ROUND`].
    fn residue(self) -> u64 {
        (self.lane % (ROUND / SEAMS)) * SEAMS + self.seam as u64
    }
}

/// Everything that is there, whether or not a daemon runs.
pub struct World {
    /// Everything on disk of this run.
    pub dir: PathBuf,
    /// What was drawn for this run.
    pub plan: Plan,
    began: Instant,
    state: Mutex<State>,
    /// The number of the incarnation that lives; 0 when none does.
    alive: watch::Sender<u64>,
}

/// The world's state.
#[derive(Default)]
pub struct State {
    /// The VMs.
    pub cloud: Cloud,
    /// The tunnels.
    pub kernel: Kernel,
    /// The link processes.
    pub links: Links,
    /// The journal's disk.
    pub disk: Disk,
    /// What the cluster's record says: keys intended and not released.
    pub ledger: BTreeSet<String>,
    /// Pods, shims and network namespaces.
    pub pods: Pods,
    /// What went wrong.
    pub violations: Vec<Violation>,
    /// What happened, one line an event.
    pub trace: Vec<String>,
    /// How many points of each seam were passed.
    pub passed: BTreeMap<Seam, u64>,
    /// At which points a daemon died.
    pub deaths: Vec<(u64, Seam, &'static str)>,
    taken: BTreeSet<u64>,
    calls: BTreeMap<(String, &'static str), u64>,
    points: u64,
}

impl World {
    /// A world in which nothing has happened.
    #[must_use]
    pub fn new(dir: PathBuf, plan: Plan) -> Arc<Self> {
        let (began, alive) = (Instant::now(), watch::Sender::new(0));
        Arc::new(Self { dir, plan, began, state: Mutex::default(), alive })
    }

    /// The state. Never held across an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the world began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The slot of a sandbox at a seam; `None`: the node's own.
    pub fn slot(&self, sandbox: Option<&str>, seam: Seam) -> Slot {
        Slot { lane: sandbox.map_or(0, |id| self.state().pods.lane(id)), seam }
    }

    /// The slot of a pod's kubelet.
    #[must_use]
    pub fn shim_slot(pod: u64) -> Slot {
        Slot { lane: pod, seam: Seam::Shim }
    }

    /// Waits until the slot's next free millisecond after `delay`.
    pub async fn wait(&self, slot: Slot, delay: u64) {
        let due = {
            let earliest = self.now() + delay.max(1);
            let mut state = self.state();
            let mut due = earliest - earliest % ROUND + slot.residue();
            while due < earliest || state.taken.contains(&due) {
                due += ROUND;
            }
            state.taken.insert(due);
            due
        };
        sleep_until(self.began + Duration::from_millis(due)).await;
    }

    /// Writes down that something happened.
    pub fn note(&self, line: &str) {
        let now = self.now();
        self.state().trace.push(format!("{:>9}.{:03} {line}", now / 1000, now % 1000));
    }

    /// Writes down that an invariant was broken; once for the same words.
    pub fn violated(&self, invariant: Invariant, text: &str) {
        let found = Violation { invariant, text: text.to_owned() };
        if !self.state().violations.contains(&found) {
            self.note(&format!("VIOLATION {found}"));
            self.state().violations.push(found);
        }
    }

    /// The generator for the next call of `operation` on `subject`.
    pub fn luck(&self, subject: &str, operation: &'static str) -> Rng {
        let call = {
            let mut state = self.state();
            let call = state.calls.entry((subject.to_owned(), operation)).or_insert(0);
            *call += 1;
            *call
        };
        let mut hasher = DefaultHasher::new();
        (subject, operation).hash(&mut hasher);
        Rng::of(&[self.plan.seed, hasher.finish(), call])
    }

    /// How many points were passed, and a digest of the history.
    pub fn outcome(&self) -> (u64, u64) {
        let state = self.state();
        let mut hasher = DefaultHasher::new();
        state.trace.hash(&mut hasher);
        (state.points, hasher.finish())
    }

    /// A daemon begins to live.
    pub fn begin(&self, number: u64) {
        self.note(&format!("daemon {number} begins"));
        self.alive.send_replace(number);
    }

    /// Waits until incarnation `number` is dead.
    pub async fn death_of(&self, number: u64) {
        let mut alive = self.alive.subscribe();
        if alive.wait_for(|living| *living != number).await.is_err() {
            pending::<()>().await;
        }
    }

    fn lives(&self, number: u64) -> bool {
        *self.alive.borrow() == number
    }

    /// Whether incarnation `number` survives this point.
    fn pass(&self, number: u64, slot: Slot, what: &'static str, subject: &str) -> bool {
        if !self.lives(number) {
            return false;
        }
        let (point, dies) = {
            let mut state = self.state();
            state.points += 1;
            *state.passed.entry(slot.seam).or_insert(0) += 1;
            let (point, dies) = (state.points, self.plan.crashes.contains(&state.points));
            if dies {
                state.deaths.push((point, slot.seam, what));
            }
            (point, dies)
        };
        self.note(&format!("{point:>5} {what} {subject}"));
        if dies {
            self.note(&format!("daemon {number} dies"));
            self.alive.send_replace(0);
        }
        !dies
    }
}

/// One life of the daemon, as the seams know it: when it is over, no call of it has an effect or returns.
#[derive(Clone)]
pub struct Incarnation {
    /// What it lives in.
    pub world: Arc<World>,
    /// Counted from 1.
    pub number: u64,
}

impl Incarnation {
    /// Passes a point after `delay` milliseconds, or dies there.
    pub async fn point_after(&self, slot: Slot, delay: u64, what: &'static str, subject: &str) {
        self.world.wait(slot, delay).await;
        if !self.world.pass(self.number, slot, what, subject) {
            pending::<()>().await;
        }
    }

    /// Passes a point, or dies there.
    pub async fn point(&self, slot: Slot, what: &'static str, subject: &str) {
        self.point_after(slot, 1, what, subject).await;
    }
}
