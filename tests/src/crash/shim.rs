//! Kubelet and the Go shim: a pod's sandboxes one after the other, each called, stopped, forgotten or crashed as the seed says.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::Duration;

use peerpods_hypervisor::failure::Failure;
use peerpods_hypervisor::{Ask, Service};
use peerpods_podvm::annotations::PodRequest;
use tokio::sync::watch;
use tokio::time::timeout;

use super::invariants::Invariant;
use super::node::{Node, START_DEADLINE};
use super::rng::Rng;
use super::world::World;
use crate::shim::annotations;

/// What becomes of a sandbox.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It runs until the end.
    Long,
    Stopped(u64),
    StoppedWhileStarting(u64),
    NeverStarted,
    StoppedUnstarted,
    ShimCrashes(u64),
    VmDies(u64),
    LinkDies(u64),
}

impl Fate {
    fn draw(luck: &mut Rng) -> Self {
        let after = luck.between(0, 240_000);
        match luck.between(0, 16) {
            0..=4 => Fate::Long,
            5..=7 => Fate::Stopped(after),
            8..=9 => Fate::StoppedWhileStarting(after / 10),
            10 => Fate::NeverStarted,
            11 => Fate::StoppedUnstarted,
            12..=13 => Fate::ShimCrashes(after),
            14 => Fate::VmDies(after),
            _ => Fate::LinkDies(after),
        }
    }
}

/// How a call ended.
enum Outcome {
    Done,
    Failed,
    /// The daemon died, or was not there.
    Broken,
}

/// What kubelet does next.
enum Next {
    Over,
    NewSandbox,
}

/// One pod of the workload.
pub struct Kubelet {
    /// The node it is on.
    pub node: Arc<Node>,
    /// Which pod.
    pub pod: u64,
    /// Told when the pod has nothing more to do before the end.
    pub parked: watch::Sender<u64>,
    /// True when everything is to be stopped.
    pub end: watch::Receiver<bool>,
}

/// The most sandboxes kubelet makes for one pod.
const SANDBOXES: u64 = 4;

impl Kubelet {
    /// The pod's whole life.
    pub async fn run(mut self) {
        for attempt in 0..SANDBOXES {
            let mut luck = Rng::of(&[self.node.world.plan.seed, self.pod, attempt, 0x6b75]);
            self.pause(luck.between(0, 30_000)).await;
            let id = format!("s{}-{attempt}", self.pod);
            if *self.end.borrow() || matches!(self.sandbox(&id, &mut luck).await, Next::Over) {
                break;
            }
        }
        self.park();
    }

    /// Waits a while, and then for a millisecond in which nothing else happens.
    async fn pause(&self, milliseconds: u64) {
        self.node.world.wait(World::shim_slot(self.pod), milliseconds).await;
    }

    fn park(&self) {
        self.parked.send_modify(|parked| *parked |= 1 << self.pod);
    }

    async fn sandbox(&mut self, id: &str, luck: &mut Rng) -> Next {
        let fate = Fate::draw(luck);
        self.make_pod(id, fate);
        if !matches!(self.create(id).await, Outcome::Done) {
            return self.give_up(id, luck).await;
        }
        match fate {
            Fate::NeverStarted => return self.leave(id, luck.between(0, 900_000)).await,
            Fate::StoppedUnstarted => return self.stop_and_remove(id, luck).await,
            Fate::StoppedWhileStarting(after) => {
                let stopping = async {
                    self.pause(after).await;
                    self.stop(id).await;
                };
                tokio::join!(self.start(id), stopping);
                return self.leave(id, luck.between(0, 20_000)).await;
            }
            _ => {}
        }
        if !matches!(self.start(id).await, Outcome::Done) {
            return self.give_up(id, luck).await;
        }
        self.running(id, fate, luck).await
    }

    async fn running(&mut self, id: &str, fate: Fate, luck: &mut Rng) -> Next {
        match fate {
            Fate::ShimCrashes(after) => {
                self.pause(after).await;
                return self.leave(id, luck.between(0, 300_000)).await;
            }
            Fate::VmDies(after) => {
                self.pause(after).await;
                let now = self.node.world.now();
                self.node.world.note(&format!("the VM of {id} dies"));
                self.node.world.state().cloud.power_off(id, now);
                self.pause(luck.between(0, 60_000)).await;
            }
            Fate::LinkDies(after) => {
                self.pause(after).await;
                self.update(id, |sandbox| sandbox.doomed = Some("its link ended"));
                self.node.world.link_dies(id);
                self.pause(luck.between(0, 10_000)).await;
            }
            Fate::Stopped(after) => self.pause(after).await,
            _ => {
                self.park();
                drop(self.end.wait_for(|end| *end).await);
                self.pause(luck.between(0, 10_000)).await;
            }
        }
        self.stop_and_remove(id, luck).await
    }

    /// The shim saw an error or the end of its connection: it may stop the sandbox, and ends.
    async fn give_up(&self, id: &str, luck: &mut Rng) -> Next {
        if luck.chance(500) {
            self.stop(id).await;
        }
        self.leave(id, luck.between(0, 60_000)).await;
        Next::NewSandbox
    }

    async fn stop_and_remove(&self, id: &str, luck: &mut Rng) -> Next {
        self.stop(id).await;
        self.leave(id, luck.between(0, 20_000)).await
    }

    /// The shim ends; its network namespace goes a while later.
    async fn leave(&self, id: &str, after: u64) -> Next {
        self.node.world.note(&format!("the shim of {id} ends"));
        self.update(id, |sandbox| sandbox.shim_lives = false);
        self.pause(after).await;
        let (world, lingers) = (&self.node.world, self.node.world.luck(id, "lingering").between(0, 4_000));
        world.note(&format!("the namespace of {id} is removed"));
        let (netns, now) = (world.dir.join("netns").join(id), world.now());
        drop(fs::remove_file(&netns));
        let mut state = world.state();
        state.pods.update(id, |sandbox| sandbox.netns_there = false);
        state.kernel.forget_netns(&netns, now + lingers);
        Next::Over
    }

    fn update(&self, id: &str, change: impl FnOnce(&mut super::pod::Sandbox)) {
        self.node.world.state().pods.update(id, change);
    }

    fn make_pod(&self, id: &str, fate: Fate) {
        let world = &self.node.world;
        world.note(&format!("pod {id}: {fate:?}"));
        let netns = world.dir.join("netns").join(id);
        drop(symlink("/proc/self/ns/net", &netns));
        world.state().pods.add(id, netns);
    }

    async fn create(&self, id: &str) -> Outcome {
        let (Ok(sandbox), Ok(request)) = (id.parse(), PodRequest::from_annotations(&annotations(id))) else {
            return Outcome::Failed;
        };
        let ask = Ask { sandbox, request, netns: self.node.world.dir.join("netns").join(id) };
        self.call("CreateVM", id, 60, |service| async move { service.create(ask).await.map(drop) }).await
    }

    async fn start(&self, id: &str) -> Outcome {
        let Ok(sandbox) = id.parse() else { return Outcome::Failed };
        let limit = START_DEADLINE.as_secs() + 60;
        let started =
            self.call("StartVM", id, limit, |service| async move { service.start(&sandbox).await }).await;
        if matches!(started, Outcome::Done) {
            self.update(id, |sandbox| sandbox.running = true);
        }
        started
    }

    /// StopVM, a few times when nobody is there.
    async fn stop(&self, id: &str) {
        self.update(id, |sandbox| sandbox.stop_asked = true);
        let Ok(sandbox) = id.parse::<peerpods_podvm::SandboxId>() else { return };
        for _ in 0..5 {
            let asked = sandbox.clone();
            match self.call("StopVM", id, 30, |service| async move { service.stop(&asked).await }).await {
                Outcome::Done => return self.update(id, |sandbox| sandbox.stop_answered = true),
                Outcome::Failed => {
                    let text = format!("StopVM of {id} was answered with an error");
                    self.node.world.violated(Invariant::Answered, &text);
                    return;
                }
                Outcome::Broken => self.pause(5_000).await,
            }
        }
    }

    /// One call with a deadline that a living daemon has to keep.
    async fn call<F>(&self, what: &str, id: &str, seconds: u64, call: impl FnOnce(Service) -> F) -> Outcome
    where
        F: Future<Output = Result<(), Arc<Failure>>>,
    {
        let outcome = self.ask(what, id, seconds, call).await;
        self.pause(1).await;
        outcome
    }

    async fn ask<F>(&self, what: &str, id: &str, seconds: u64, call: impl FnOnce(Service) -> F) -> Outcome
    where
        F: Future<Output = Result<(), Arc<Failure>>>,
    {
        let world = &self.node.world;
        let Some((number, service)) = self.node.service() else { return Outcome::Broken };
        world.note(&format!("{what} {id}"));
        let answered = tokio::select! {
            biased;
            () = world.death_of(number) => return Outcome::Broken,
            answered = timeout(Duration::from_secs(seconds), call(service)) => answered,
        };
        match answered {
            Ok(Ok(())) => {
                world.note(&format!("{what} {id}: ok"));
                Outcome::Done
            }
            Ok(Err(failure)) => {
                world.note(&format!("{what} {id}: {}", failure.chain()));
                Outcome::Failed
            }
            Err(_) => {
                world.violated(Invariant::Answered, &format!("{what} of {id} had no answer in {seconds} s"));
                Outcome::Failed
            }
        }
    }
}
