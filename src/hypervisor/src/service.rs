//! The sandboxes of this node: finds the driver that owns one, or starts it. Holds no decision about any of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use nix::fcntl::Flock;
use peerpods_podvm::SandboxId;
use peerpods_podvm::admission::{Decision, Request, State, decide};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::context::Context;
use crate::driver::{Ask, Driver, Ending, Message, Reply};
use crate::failure::Failure;
use crate::orphans::{self, Sweep};
use crate::record::Record;
use crate::state::{Published, Publisher};
use crate::tunnels;

/// Requests that may wait for one driver.
const QUEUE: usize = 32;
/// CreateVM has no deadline of its own; so long it waits for a provider that has not answered since the service was started.
const READY_PATIENCE: Duration = Duration::from_secs(60);
/// A driver that panics at once again must not do so in a tight loop.
const PAUSE_AFTER_PANIC: Duration = Duration::from_secs(1);
/// How soon a request is put again that met a driver at its end.
const PAUSE_BETWEEN_DRIVERS: Duration = Duration::from_millis(5);

#[derive(Clone)]
struct Handle {
    requests: mpsc::Sender<Message>,
    published: watch::Receiver<Published>,
    /// Tells this sandbox from a later one with the same id.
    number: u64,
}

impl Handle {
    /// Whether its driver ended without having ended its sandbox. Until another takes over, requests wait: a Stop that found nobody
    /// would be answered and forgotten.
    fn is_to_be_replaced(&self) -> bool {
        let published = self.published.borrow();
        published.record.is_some() && published.state != State::Gone
    }
}

#[derive(Default)]
struct Sandboxes {
    by_id: HashMap<SandboxId, Handle>,
    born: u64,
}

/// What keeps another service off the same state, for as long as it lives.
pub(crate) type Lock = Flock<File>;

/// The front of the service, shared by all RPC adapters: one method a request. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    pub(crate) context: Arc<Context>,
    pub(crate) orphans: Arc<Sweep>,
    sandboxes: Arc<Mutex<Sandboxes>>,
    drivers: TaskTracker,
    pub(crate) ending: Ending,
    _lock: Arc<Lock>,
}

impl Service {
    pub(crate) fn new(context: Arc<Context>, lock: Lock, shutdown: CancellationToken) -> Self {
        let ending = Ending { shutdown, ..Ending::default() };
        Self {
            context,
            orphans: Arc::default(),
            sandboxes: Arc::default(),
            drivers: TaskTracker::new(),
            ending,
            _lock: Arc::new(lock),
        }
    }

    /// Takes over what an earlier run of the service recorded.
    pub(crate) fn resume(&self, records: Vec<Record>) {
        for record in records {
            let id = record.sandbox.clone();
            self.spawn(&mut self.lock(), &id, |driver| Box::pin(driver.resume_recorded(record)));
        }
    }

    /// Looks for VMs nobody owns from now on, until the service ends.
    pub(crate) fn sweep_for_orphans(&self) {
        self.drivers.spawn(orphans::run(self.clone()));
    }

    /// Keeps others out of the tunnels from now on, until the service ends.
    pub(crate) fn keep_tunnels(&self) {
        self.drivers.spawn(tunnels::run(self.clone()));
    }

    /// Gives a sandbox that nobody owns to a new driver. False when somebody owns it, or when the service is at its end: drivers let
    /// go of their sandboxes then, so that having none means nothing.
    #[must_use]
    pub(crate) fn claim(
        &self,
        id: &SandboxId,
        run: impl FnOnce(Driver) -> futures::future::BoxFuture<'static, ()>,
    ) -> bool {
        let mut sandboxes = self.lock();
        let free = !sandboxes.by_id.contains_key(id) && !self.ending.begun();
        if free {
            drop(self.spawn(&mut sandboxes, id, run));
        }
        free
    }

    /// CreateVM; answers the agent socket.
    ///
    /// # Errors
    /// Says what was wrong; nothing that costs money was made.
    pub async fn create(&self, ask: Ask) -> Result<PathBuf, Arc<Failure>> {
        let id = ask.sandbox.clone();
        if self.get(&id).is_none() {
            // For the answer's sake only: the driver that does the work looks for itself.
            drop(self.context.readiness.within(READY_PATIENCE).await);
        }
        self.ask(&id, Request::Create, |reply| Message::Create(Box::new(ask.clone()), reply)).await
    }

    /// StartVM; returns when the agent answers. Dropping the future is taken as "the caller went away".
    ///
    /// # Errors
    /// Says what was wrong; the sandbox is being unwound then.
    pub async fn start(&self, id: &SandboxId) -> Result<(), Arc<Failure>> {
        self.ask(id, Request::Start, Message::Start).await
    }

    /// StopVM; returns when the intent is recorded.
    ///
    /// # Errors
    /// Only when the service itself is at its end.
    pub async fn stop(&self, id: &SandboxId) -> Result<(), Arc<Failure>> {
        self.ask(id, Request::Stop, Message::Stop).await
    }

    /// Every sandbox with what its driver published last.
    #[must_use]
    pub fn list(&self) -> Vec<(SandboxId, Published)> {
        let mut all: Vec<_> = self
            .lock()
            .by_id
            .iter()
            .map(|(id, handle)| (id.clone(), handle.published.borrow().clone()))
            .collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// What the driver of one sandbox published last.
    #[must_use]
    pub fn get(&self, id: &SandboxId) -> Option<Published> {
        self.lock().by_id.get(id).map(|handle| handle.published.borrow().clone())
    }

    /// The provider's name.
    #[must_use]
    pub fn provider(&self) -> &'static str {
        self.context.parts.provider.name()
    }

    /// Lets go of what goes on without us, unwinds the starts in flight, and waits until the rest is removed. To be called when no more
    /// requests come.
    pub async fn drained(&self) {
        self.ending.unwind.cancel();
        self.ending.leave.cancel();
        self.drivers.close();
        self.drivers.wait().await;
    }

    /// Starts in flight are unwound from now on, and told so.
    pub(crate) fn unwind_starts(&self) {
        self.ending.unwind.cancel();
    }

    /// Lets go of everything, also of what hangs: for the journal and the provider this is a crash, and what is not done is on record.
    pub(crate) async fn abandon(&self) {
        self.ending.abandon.cancel();
        self.drivers.close();
        self.drivers.wait().await;
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Puts a request to the sandbox's driver and waits for the answer. A driver at its end drops the request unanswered; then the
    /// sandbox is looked up again.
    async fn ask<T: Nothing>(
        &self,
        id: &SandboxId,
        request: Request,
        message: impl Fn(Reply<T>) -> Message,
    ) -> Result<T, Arc<Failure>> {
        loop {
            if self.ending.shutdown.is_cancelled() && request != Request::Stop {
                return Err(Arc::new(Failure::ShuttingDown));
            }
            let Some(requests) = self.find(id, request) else { return nobody(id, request) };
            let (reply, answer) = oneshot::channel();
            if requests.send(message(reply)).await.is_ok()
                && let Ok(answer) = answer.await
            {
                return answer;
            }
            if self.ending.shutdown.is_cancelled() {
                return Err(Arc::new(Failure::ShuttingDown));
            }
            tokio::time::sleep(PAUSE_BETWEEN_DRIVERS).await;
        }
    }

    /// The sandbox's driver; for Create a new one when there is none or it is at its end.
    fn find(&self, id: &SandboxId, request: Request) -> Option<mpsc::Sender<Message>> {
        let mut sandboxes = self.lock();
        match sandboxes.by_id.get(id) {
            Some(handle) if !handle.requests.is_closed() || handle.is_to_be_replaced() => {
                Some(handle.requests.clone())
            }
            _ if request == Request::Create => {
                Some(self.spawn(&mut sandboxes, id, |driver| Box::pin(driver.run())).requests)
            }
            _ => None,
        }
    }

    fn spawn(
        &self,
        sandboxes: &mut Sandboxes,
        id: &SandboxId,
        run: impl FnOnce(Driver) -> futures::future::BoxFuture<'static, ()>,
    ) -> Handle {
        let (requests, inbox) = mpsc::channel(QUEUE);
        let (publisher, published) = Publisher::new(id.clone());
        sandboxes.born += 1;
        let handle = Handle { requests, published, number: sandboxes.born };
        sandboxes.by_id.insert(id.clone(), handle.clone());
        let driver = Driver::new(self.context.clone(), publisher, inbox, self.ending.clone());
        let ended = run(driver);
        let (service, id, watched) = (self.clone(), id.clone(), handle.clone());
        let abandoned = self.ending.abandon.clone().cancelled_owned();
        self.drivers.spawn(async move {
            let ended = async {
                tokio::select! {
                    biased;
                    () = ended => {}
                    () = abandoned => {}
                }
            };
            if AssertUnwindSafe(ended).catch_unwind().await.is_err() {
                tokio::time::sleep(PAUSE_AFTER_PANIC).await;
                service.replace(&id, &watched);
            } else {
                service.forget(id, watched.number);
            }
        });
        handle
    }

    /// A driver that panicked is a defect; its sandbox must not become unknown by it. A new driver takes over as after a restart.
    fn replace(&self, id: &SandboxId, broken: &Handle) {
        let record = broken.published.borrow().record.clone();
        error!(sandbox = %id, recorded = record.is_some(), "the sandbox's driver panicked; it is replaced");
        match record {
            Some(record) => {
                self.spawn(&mut self.lock(), id, |driver| Box::pin(driver.resume(record)));
            }
            None => self.forget(id.clone(), broken.number),
        }
    }

    fn forget(&self, id: SandboxId, number: u64) {
        if let Entry::Occupied(found) = self.lock().by_id.entry(id)
            && found.get().number == number
        {
            found.remove();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sandboxes> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request answers when there is nothing it could be about.
pub(crate) trait Nothing: Sized {
    fn nothing() -> Option<Self>;
}

impl Nothing for () {
    fn nothing() -> Option<Self> {
        Some(())
    }
}

impl Nothing for PathBuf {
    fn nothing() -> Option<Self> {
        None
    }
}

/// The admission table's answer for a sandbox nobody owns.
fn nobody<T: Nothing>(id: &SandboxId, request: Request) -> Result<T, Arc<Failure>> {
    let unknown = || Arc::new(Failure::Unknown(id.clone()));
    match decide(State::None, request) {
        Decision::Done => T::nothing().ok_or_else(unknown),
        _ => Err(unknown()),
    }
}
