//! What every case works with: the service, pods' networks, and the sandboxes that may be open, so that none stays.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::actor::{Actor, Life};
use super::bed::{Bed, Place, devices};
use super::play::{Fault, Order, Runtime, Wrong};
use super::{Model, Not, wrong};
use crate::shim::GoShim;

/// How long a removal may take from the moment in which it is due, on a slow machine. Not how long it does.
pub const REMOVAL: Duration = Duration::from_secs(40);
/// The pause before the second look; it doubles up to [`LOOK`].
const FIRST_LOOK: Duration = Duration::from_millis(60);
/// A look reads every process' command line, and many cases wait at a time: looking must not be the load that makes the service late.
const LOOK: Duration = Duration::from_millis(500);

/// The suite's surroundings.
pub struct World {
    /// The service.
    pub bed: Arc<dyn Bed>,
    /// This program, to be a shim's process.
    pub program: PathBuf,
    open: Mutex<BTreeSet<String>>,
    turns: Semaphore,
}

/// A sandbox of a case: its id, and the pod it is for.
pub struct Sandbox {
    /// Its id, 64 hexadecimal digits as containerd's and CRI-O's.
    pub id: String,
    /// The pod's network.
    pub place: Place,
}

impl World {
    /// A world around a service, in which `jobs` lives are led at a time.
    #[must_use]
    pub fn new(bed: Arc<dyn Bed>, program: PathBuf, jobs: usize) -> Self {
        Self { bed, program, open: Mutex::default(), turns: Semaphore::new(jobs.max(1)) }
    }

    /// Whether the service is our own, of which more is expected than that its answers fit the protocol.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.bed.times().is_some()
    }

    /// One of so many lives at a time.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// The Go shim's client.
    #[must_use]
    pub fn shim(&self) -> GoShim {
        GoShim::new(self.bed.socket())
    }

    /// A sandbox that is not there yet, with a network.
    pub async fn sandbox(&self) -> Sandbox {
        let place = self.bed.place().await;
        let id: String = (0..64).map(|_| fastrand::char('0'..='9')).collect();
        // Digits alone would make ids look alike in a log.
        let id = format!("{:08x}{}", fastrand::u32(..), &id[8..]);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        Sandbox { id, place }
    }

    /// What a shim's process is to play for a sandbox.
    #[must_use]
    pub fn order(&self, sandbox: &Sandbox, model: Model, fault: Option<Fault>) -> Order {
        Order {
            model,
            socket: self.bed.socket(),
            netns: sandbox.place.netns.clone(),
            id: sandbox.id.clone(),
            pod: "web-5d9c7f6b8-x2x4z".to_owned(),
            runtime: Runtime::Containerd,
            address: sandbox.place.address.clone(),
            rootfs: self.bed.rootfs(),
            fault,
            linger: false,
        }
    }

    /// Starts a shim's process.
    pub async fn actor(&self, order: &Order) -> Actor {
        Actor::start(&self.program, order).await
    }

    /// What is left of a sandbox, as far as it can be seen. The pod's devices, which cost a process, are looked at when the rest is gone.
    async fn remains(&self, sandbox: &Sandbox) -> Vec<String> {
        let (bed, id) = (self.bed.clone(), sandbox.id.clone());
        let (netns, before) = (sandbox.place.netns.clone(), sandbox.place.devices.clone());
        let look = tokio::task::spawn_blocking(move || {
            let left = bed.remains(&id);
            if !left.is_empty() {
                return left;
            }
            let more = devices(&netns).into_iter().filter(|device| !before.contains(device));
            more.map(|device| format!("device {device} in the pod")).collect()
        });
        look.await.unwrap_or_else(|panic| vec![format!("what could not be looked at: {panic}")])
    }

    /// Waits until nothing is left of a sandbox; `due` is when it may begin to go.
    ///
    /// # Errors
    /// What is left [`REMOVAL`] later.
    pub async fn gone(&self, sandbox: &Sandbox, due: Duration, rule: &str) -> Result<Duration, Not> {
        let began = Instant::now();
        let mut pause = FIRST_LOOK;
        loop {
            let left = self.remains(sandbox).await;
            if left.is_empty() {
                self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&sandbox.id);
                return Ok(began.elapsed());
            }
            if began.elapsed() > due + REMOVAL {
                let expected = format!("nothing left of {} within {:?}", sandbox.id, due + REMOVAL);
                return Err(wrong("afterwards", rule, expected, format!("left: {}", left.join(", "))));
            }
            tokio::time::sleep(pause).await;
            pause = LOOK.min(pause * 2);
        }
    }

    /// Stops whatever may still be open: no run leaves a sandbox behind.
    pub async fn close(&self) {
        let open: Vec<String> =
            self.open.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        for id in open {
            // Nobody is left to tell; a service that is down has nothing open of ours that it would not collect.
            drop(tokio::time::timeout(Duration::from_secs(5), self.shim().stop(&id)).await);
        }
    }
}

/// What a life must come to when nothing was to go wrong.
///
/// # Errors
/// How it went otherwise.
pub fn over(life: Life, actor: &Actor) -> Result<(), Not> {
    let last = actor.steps.last().cloned().unwrap_or_default();
    match life {
        Life::Over => Ok(()),
        Life::Wrong(wrong) => Err(Not::Wrong(wrong)),
        Life::Died => {
            Err(wrong(&last, "the suite itself", "the life to come to its end", "its process died"))
        }
        Life::Holding(step) => Err(wrong(&step, "the suite itself", "the life to go on", "it waits")),
    }
}

/// A case that met something wrong did not pass.
impl From<Wrong> for Not {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}
