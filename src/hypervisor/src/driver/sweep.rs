//! What no request tells a driver: a sandbox nobody ever started, a pod network that is gone, a VM that stopped by itself.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use peerpods_agentlink::{ShimProcess, Shims};
use peerpods_podvm::admission::State;
use peerpods_provider::{Console, Instance, VmKey, VmState};
use tokio::time::Instant;
use tracing::warn;

use super::abandoned::{self, Netns, Observation, Rules, Socket, Verdict};
use super::console::tail;
use super::{Driver, link_spec, unwind};
use crate::clock::WallClock;
use crate::context::Context;
use crate::failure::{Failure, Why};
use crate::record::Record;

/// A VM the provider does not know is believed to be gone when that was said so many times in a row: providers forget for a moment.
pub(super) const MISSING_PASSES: u32 = 3;
/// A provider that takes longer is asked again at the next look.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// A provider that takes longer to say why a VM is gone has said nothing.
const WHY_WITHIN: Duration = Duration::from_secs(10);

/// A link that takes longer to say who holds its socket has said nothing.
const LINK_PATIENCE: Duration = Duration::from_secs(5);

/// What a driver has seen of its sandbox so far, and what it is looking at.
#[derive(Default)]
pub(super) struct Watch {
    /// The provider is being asked whether the VM of a running pod still runs.
    pub(super) sighting: Option<BoxFuture<'static, Sighting>>,
    /// Network namespace and agent socket are being looked at.
    pub(super) look: Option<BoxFuture<'static, Look>>,
    /// How often in a row the provider did not know the VM.
    vm_missing: u32,
    netns_gone_since: Option<Instant>,
    socket_free_since: Option<Instant>,
    /// Whether a connection to the agent socket was ever seen.
    was_held: bool,
}

/// One look at what is on this node.
pub(super) struct Look {
    netns: bool,
    /// `None`: there is no link, or it did not answer.
    shims: Option<Shims>,
}

/// Looks once. Takes no longer than [`LINK_PATIENCE`].
async fn look(context: Arc<Context>, record: Record) -> Look {
    let spec = link_spec(&record);
    let asked = tokio::time::timeout(LINK_PATIENCE, context.parts.link.shims(&spec));
    let (netns, asked) = tokio::join!(unwind::netns_exists(&record.netns), asked);
    Look { netns, shims: asked.ok().and_then(Result::ok).flatten() }
}

impl Watch {
    fn note(&mut self, look: &Look, now: Instant) -> (Netns, Socket) {
        let netns = if look.netns {
            self.netns_gone_since = None;
            Netns::There
        } else {
            Netns::Gone(now.duration_since(*self.netns_gone_since.get_or_insert(now)))
        };
        let socket = match look.shims {
            None => Socket::Unknown,
            Some(shims) if shims.connections > 0 => {
                (self.was_held, self.socket_free_since) = (true, None);
                Socket::Held
            }
            Some(Shims { last, .. }) => {
                let free = now.duration_since(*self.socket_free_since.get_or_insert(now));
                match last {
                    ShimProcess::Gone => Socket::LetGo { free, shim: abandoned::Shim::Gone },
                    ShimProcess::Lives => Socket::LetGo { free, shim: abandoned::Shim::MayLive },
                    ShimProcess::Unknown if self.was_held => {
                        Socket::LetGo { free, shim: abandoned::Shim::MayLive }
                    }
                    ShimProcess::Unknown => Socket::NeverHeld,
                }
            }
        };
        (netns, socket)
    }
}

/// How the VM of a running pod was found.
pub(super) enum Sighting {
    Alive,
    Stopped(Instance, Why),
    Missing(Why),
    /// The provider did not answer, which says nothing.
    Unknown,
}

/// Asks the provider for the VM once.
pub(super) async fn sight(context: Arc<Context>, record: Record) -> Sighting {
    let key = record.key();
    let asked = context.turns.provider(context.parts.provider.get(&key));
    let Ok(answer) = tokio::time::timeout(ANSWER_WITHIN, asked).await else { return Sighting::Unknown };
    match answer {
        Ok(Some(instance)) if instance.state == VmState::Stopped => {
            Sighting::Stopped(instance, why_gone(&context, &key).await)
        }
        Ok(Some(_)) => Sighting::Alive,
        Ok(None) => Sighting::Missing(why_gone(&context, &key).await),
        Err(e) => {
            warn!(sandbox = %record.sandbox, error = %e, "cannot ask whether the VM lives");
            Sighting::Unknown
        }
    }
}

/// What the provider says of a VM's end. It may be slow to say so: the death is told all the same.
pub(super) async fn why_gone(context: &Context, key: &VmKey) -> Why {
    Why(tokio::time::timeout(WHY_WITHIN, context.parts.provider.why_gone(key)).await.ok().flatten())
}

impl Driver {
    /// Looks around once; called at every [`sweep_interval`](crate::Config::sweep_interval).
    pub(super) fn look_around(&mut self) {
        let watched = matches!(self.publisher.state(), State::Created | State::Starting | State::Running);
        if let Some(record) = self.record.as_ref().filter(|_| watched && self.watch.look.is_none()) {
            self.watch.look = Some(look(self.context.clone(), record.clone()).boxed());
        }
    }

    /// Takes note of what was seen on this node, and acts on it; `next` is when the next look is due.
    pub(super) async fn looked(&mut self, look: Look, next: &mut tokio::time::Interval) {
        self.watch.look = None;
        let state = self.publisher.state();
        let Some(record) = &self.record else { return };
        let (netns, socket) = self.watch.note(&look, Instant::now());
        let age = self.created.elapsed();
        let attendance = abandoned::Attendance::of(&record.request);
        let seen = Observation { state, age, netns, socket, attendance };
        match abandoned::decide(&seen, &Rules::of(&self.context.config)) {
            Verdict::Unwind(why) => {
                let reason = why.sentence(&seen, record);
                self.stop_because(Failure::Denied { sandbox: self.sandbox(), reason }).await;
            }
            Verdict::LookAgain(soon) => next.reset_after(soon),
            Verdict::Fine => {
                if state == State::Running && look.netns && self.watch.sighting.is_none() {
                    self.watch.sighting = Some(sight(self.context.clone(), record.clone()).boxed());
                }
            }
        }
    }

    /// Takes note of how the VM of a running pod was found.
    pub(super) async fn sighted(&mut self, sighting: Sighting) {
        self.watch.sighting = None;
        if self.publisher.state() != State::Running {
            return;
        }
        match sighting {
            Sighting::Alive => self.watch.vm_missing = 0,
            Sighting::Unknown => {}
            Sighting::Missing(_) if self.may_be_unseen() => {}
            Sighting::Missing(_) if self.watch.vm_missing + 1 < MISSING_PASSES => self.watch.vm_missing += 1,
            Sighting::Missing(why) => self.vm_died(None, why).await,
            Sighting::Stopped(instance, why) => self.vm_died(instance.console, why).await,
        }
    }

    fn may_be_unseen(&self) -> bool {
        self.record.as_ref().is_some_and(|record| !unwind::may_be_missed(&self.context, record).is_zero())
    }

    async fn vm_died(&mut self, console: Option<Console>, why: Why) {
        let instance = self.record.as_ref().and_then(|record| record.instance.as_ref());
        let vm = instance.map(|instance| instance.id.clone()).unwrap_or_default();
        let console = tail(console.as_ref()).await;
        self.stop_because(Failure::VmDied { sandbox: self.sandbox(), vm, during: "", why, console }).await;
    }
}

/// When a sandbox of an earlier run was created, on this run's clock. The wall clock may have been set since, so its word is taken for
/// no more than `at_most`.
pub(super) fn created(record: &Record, clock: &WallClock, at_most: Duration) -> Instant {
    let age = clock.since(record.created_unix_ms).min(at_most);
    Instant::now().checked_sub(age).unwrap_or_else(Instant::now)
}
