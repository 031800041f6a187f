//! One driver task owns one sandbox: it takes requests one after the other, asks the admission table, records, acts, publishes.
//!
//! ```text
//!  rpc ──Message──▶ Driver ── decide ──▶ record (fsync) ──▶ act: birth │ start │ unwind
//!                     └────────── watch<Published> ──▶ rpc, admin
//! ```
//!
//! Birth runs in the task itself: it is short. A start and an unwinding run as a future the task polls beside its requests, so that a
//! Stop is heard at once; cancelling a start is dropping that future, which is safe because everything it makes was recorded before
//! and is found again. Nobody else touches the sandbox, so there is no lock.

mod abandoned;
mod birth;
mod console;
#[cfg(feature = "fuzzing")]
pub(crate) use console::last_lines as console_end;
mod creating;
mod identity;
mod interfaces;
pub(crate) use interfaces::tunnel_specs;
mod patience;
mod reattach;
mod start;
mod sweep;
mod takeover;
mod unwind;

use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use peerpods_agentlink::LinkSpec;
use peerpods_podvm::SandboxId;
use peerpods_podvm::admission::{Decision, Event, Request, State, decide, next};
use peerpods_podvm::annotations::PodRequest;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::sweep::Watch;
use self::unwind::Intent;
use crate::backoff;
use crate::context::Context;
use crate::failure::Failure;
use crate::record::{Record, Stage};
use crate::state::Publisher;

/// What CreateVM asked for, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// What its annotations ask for.
    pub request: PodRequest,
    /// Its network namespace.
    pub netns: PathBuf,
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Arc<Failure>>>;

/// What may be said to a driver. A reply that is dropped unanswered means the driver was at its end: look the sandbox up again.
#[derive(Debug)]
pub(crate) enum Message {
    /// CreateVM; answered with the agent socket.
    Create(Box<Ask>, Reply<PathBuf>),
    /// StartVM; answered when the agent answers. When every caller has dropped its end, the start is called off.
    Start(Reply<()>),
    /// StopVM; answered as soon as it is recorded and the link is closed.
    Stop(Reply<()>),
}

enum Work {
    Start(BoxFuture<'static, Result<Record, Failure>>),
    /// Putting tunnel and link of a running pod in order after a restart of the service.
    Reattach(BoxFuture<'static, ()>),
    Unwind(BoxFuture<'static, ()>),
}

enum Done {
    Start(Result<Box<Record>, Failure>),
    Reattach,
    Unwind,
}

/// The steps of the service's end, as drivers see them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ending {
    /// No more creations and starts; starts in flight go on. Stops are still taken.
    pub(crate) shutdown: CancellationToken,
    /// Starts in flight are unwound.
    pub(crate) unwind: CancellationToken,
    /// No more requests come: created and running sandboxes are left as they are.
    pub(crate) leave: CancellationToken,
    /// Drivers are dropped wherever they are.
    pub(crate) abandon: CancellationToken,
}

impl Ending {
    pub(crate) fn begun(&self) -> bool {
        self.shutdown.is_cancelled() || self.leave.is_cancelled()
    }
}

/// The owner of one sandbox.
pub(crate) struct Driver {
    context: Arc<Context>,
    publisher: Arc<Publisher>,
    requests: mpsc::Receiver<Message>,
    ending: Ending,
    record: Option<Record>,
    work: Option<Work>,
    starters: Vec<Reply<()>>,
    created: Instant,
    watch: Watch,
    /// Whether the disk holds that the sandbox is to go.
    stop: Intent,
}

impl Driver {
    pub(crate) fn new(
        context: Arc<Context>,
        publisher: Publisher,
        requests: mpsc::Receiver<Message>,
        ending: Ending,
    ) -> Self {
        Self {
            context,
            publisher: Arc::new(publisher),
            requests,
            ending,
            record: None,
            work: None,
            starters: Vec::new(),
            created: Instant::now(),
            watch: Watch::default(),
            stop: Intent::Unrecorded,
        }
    }

    /// Serves the sandbox until it is gone, or the service shuts down and leaves it as it is.
    pub(crate) async fn run(mut self) {
        // Sandboxes taken over together do not look around together.
        let interval = self.context.config.sweep_interval;
        let first = tokio::time::Instant::now() + interval.mul_f64(backoff::roll());
        let mut sweep = tokio::time::interval_at(first, interval);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let Ending { unwind, leave, .. } = self.ending.clone();
        let mut told = false;
        while self.publisher.state() != State::Gone {
            // Biased, so that the same events have the same history; tokio's budget keeps a flood of requests from starving the rest.
            tokio::select! {
                biased;
                message = self.requests.recv() => match message {
                    Some(message) => self.take(message).await,
                    None => return,
                },
                done = run_work(&mut self.work) => self.finished(done).await,
                sighting = in_progress(&mut self.watch.sighting) => self.sighted(sighting).await,
                look = in_progress(&mut self.watch.look) => self.looked(look, &mut sweep).await,
                () = all_left(&mut self.starters), if !self.starters.is_empty() => {
                    self.stop_because(Failure::Cancelled { sandbox: self.sandbox(), by: "its caller went away" }).await;
                }
                _ = sweep.tick() => self.look_around(),
                () = unwind.cancelled(), if !told => {
                    told = true;
                    if self.publisher.state() == State::Starting {
                        self.stop_because(Failure::ShuttingDown).await;
                    }
                }
                // Running and created sandboxes go on without us: their link processes hold the shim's connections.
                () = leave.cancelled(), if self.publisher.state() != State::Stopping => return,
            }
        }
    }

    async fn take(&mut self, message: Message) {
        let state = self.publisher.state();
        match message {
            Message::Create(ask, reply) => match decide(state, Request::Create) {
                Decision::Queue => self.be_born(*ask, reply).await,
                Decision::Deny(reason) => self.deny(reply, &reason),
                _ => send(reply, self.same_answer(&ask)),
            },
            Message::Start(reply) => match decide(state, Request::Start) {
                // Asked for just before the end: nobody would unwind it any more.
                Decision::Queue if self.ending.shutdown.is_cancelled() => {
                    send(reply, Err(Arc::new(Failure::ShuttingDown)));
                }
                Decision::Queue => self.begin_start(reply).await,
                Decision::Join => self.starters.push(reply),
                Decision::Deny(reason) => self.deny(reply, &reason),
                _ => send(reply, Ok(())),
            },
            Message::Stop(reply) => {
                if decide(state, Request::Stop).is_work() {
                    self.fail_starters(&Arc::new(Failure::Cancelled {
                        sandbox: self.sandbox(),
                        by: "StopVM",
                    }));
                    self.begin_unwinding().await;
                }
                send(reply, Ok(()));
            }
        }
    }

    fn deny<T>(&self, reply: Reply<T>, reason: &dyn std::fmt::Display) {
        let denied = Failure::Denied { sandbox: self.sandbox(), reason: reason.to_string() };
        send(reply, Err(Arc::new(denied)));
    }

    fn same_answer(&self, ask: &Ask) -> Result<PathBuf, Arc<Failure>> {
        match &self.record {
            Some(record) if record.request == ask.request && record.netns == ask.netns => {
                Ok(record.agent_socket.clone())
            }
            _ => Err(Arc::new(Failure::Conflict(ask.sandbox.clone()))),
        }
    }

    async fn be_born(&mut self, ask: Ask, reply: Reply<PathBuf>) {
        match birth::birth(&self.context, &self.publisher, &ask).await {
            Ok(record) => {
                send(reply, Ok(record.agent_socket.clone()));
                self.record = Some(record);
                self.publisher.enter(next(State::None, Event::Accepted(Request::Create)));
            }
            Err(failure) => {
                warn!(sandbox = %ask.sandbox, error = failure.chain(), "create refused");
                let failure = Arc::new(failure);
                self.publisher.fail(failure.clone());
                // With a record there may be more: then the sandbox is unwound like any other.
                self.begin_unwinding().await;
                send(reply, Err(failure));
            }
        }
    }

    async fn begin_start(&mut self, reply: Reply<()>) {
        let Some(record) = &mut self.record else { return };
        let began = Instant::now();
        if let Err(full) = self.context.capacity.take(record) {
            // The shim does not ask a second time for this sandbox, so nothing is gained by keeping it.
            let failure = Failure::Limit { sandbox: record.sandbox.clone(), full };
            self.starters.push(reply);
            return self.stop_because(failure).await;
        }
        let before = record.stage;
        record.stage = Stage::Starting;
        if let Err(source) = self.context.parts.journal.append(record).await {
            record.stage = before;
            self.context.capacity.release(&record.sandbox);
            let sandbox = record.sandbox.clone();
            // Which of the two is on the disk is not known; if this fails too, a restart unwinds a sandbox that never started.
            drop(self.context.parts.journal.append(record).await);
            return send(reply, Err(Arc::new(Failure::Journal { sandbox, source })));
        }
        self.publisher.record(record);
        self.publisher.enter(next(State::Created, Event::Accepted(Request::Start)));
        self.starters.push(reply);
        let start = start::start(self.context.clone(), self.publisher.clone(), record.clone(), began);
        self.work = Some(Work::Start(start.boxed()));
    }

    async fn finished(&mut self, done: Done) {
        self.work = None;
        match done {
            Done::Reattach => {}
            Done::Unwind => self.publisher.enter(next(State::Stopping, Event::DeletionConfirmed)),
            Done::Start(Ok(record)) => {
                info!(sandbox = %record.sandbox, vm = ?record.instance.as_ref().map(|i| &i.id), "running");
                self.record = Some(*record);
                self.publisher.enter(next(State::Starting, Event::Started));
                for reply in self.starters.drain(..) {
                    send(reply, Ok(()));
                }
            }
            Done::Start(Err(failure)) => self.stop_because(failure).await,
        }
    }

    /// Nobody asked for it, but the sandbox has to go: tells those who wait for the start, after the intent is recorded.
    async fn stop_because(&mut self, failure: Failure) {
        warn!(sandbox = %self.sandbox(), error = failure.chain(), "unwinding");
        let failure = Arc::new(failure);
        self.publisher.fail(failure.clone());
        self.begin_unwinding().await;
        self.fail_starters(&failure);
    }

    fn fail_starters(&mut self, failure: &Arc<Failure>) {
        for reply in self.starters.drain(..) {
            send(reply, Err(failure.clone()));
        }
    }

    /// Records that the sandbox is to go, closes its link and begins removing the rest. When this returns, nothing can stop the
    /// removal but a confirmed end.
    async fn begin_unwinding(&mut self) {
        self.work = None;
        // A start that was under way may have recorded more than this task was told.
        if let Some(latest) = self.publisher.latest_record() {
            self.record = Some(latest);
        }
        let Some(record) = &mut self.record else {
            return self.publisher.enter(State::Gone);
        };
        record.stage = Stage::Stopping;
        record.why = record.why.take().or_else(|| self.publisher.failure());
        if self.stop == Intent::Unrecorded {
            self.stop = unwind::record_intent(&self.context, record).await;
        }
        self.publisher.record(record);
        self.publisher.enter(State::Stopping);
        unwind::close_link(&self.context, record).await;
        let unwind = unwind::unwind(self.context.clone(), self.publisher.clone(), record.clone(), self.stop);
        self.work = Some(Work::Unwind(unwind.boxed()));
    }

    fn sandbox(&self) -> SandboxId {
        self.publisher.sandbox()
    }
}

/// A caller that is gone does not need its answer.
fn send<T>(reply: Reply<T>, answer: Result<T, Arc<Failure>>) {
    drop(reply.send(answer));
}

async fn run_work(work: &mut Option<Work>) -> Done {
    match work {
        Some(Work::Start(start)) => Done::Start(start.await.map(Box::new)),
        Some(Work::Reattach(reattach)) => {
            reattach.await;
            Done::Reattach
        }
        Some(Work::Unwind(unwind)) => {
            unwind.await;
            Done::Unwind
        }
        None => std::future::pending().await,
    }
}

async fn in_progress<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn all_left(starters: &mut [Reply<()>]) {
    join_all(starters.iter_mut().map(oneshot::Sender::closed)).await;
}

pub(crate) fn link_spec(record: &Record) -> LinkSpec {
    LinkSpec { sandbox: record.sandbox.clone(), agent_socket: record.agent_socket.clone() }
}
