//! Something goes wrong at a step of a life: whatever it is, nothing stays, and others do not notice.
//!
//! | fault | what the shim does then | when the sandbox goes |
//! |---|---|---|
//! | killed | nothing, it is dead | its caller left a StartVM: at once; it held the agent socket: `shim-gone-ttl`; never started: `unstarted-ttl`; it never came to the agent: with the pod's network |
//! | closed, reset | Go: StopVM, but not after a CreateVM; runtime-rs the same, unless it was its one connection | at once, or as above |
//! | timed out | StopVM, over a connection that still serves | at once |
//! | held (the service is restarted) | a call to the service fails, one to the agent does not | at once; with runtime-rs, whose connection is dead, when its process ends |

use std::sync::Arc;
use std::time::Duration;

use super::{Act, Case, Company, Ending, Extent};
use crate::conformance::actor::{Actor, Life};
use crate::conformance::play::steps::{self, Line, Step};
use crate::conformance::play::{Fault, Kind};
use crate::conformance::world::{Sandbox, World, over};
use crate::conformance::{Model, Not, wrong};

const COLLECTED: &str = "facts/kata.md 0.3: no StopVM after a shim's death (R6: orphans are collected)";
const UNWOUND: &str = "facts/kata.md R3, R4: whatever a caller does, cleanup is guaranteed";

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Killed => "killed",
        Kind::Closed => "closed",
        Kind::Reset => "reset",
        Kind::TimedOut => "timed-out",
        Kind::Held => "restart",
    }
}

fn at(model: Model, step: Step, kind: Kind) -> Case {
    Case {
        name: format!("{}/{}/{}", model.word(), word(kind), step.name),
        model: Some(model),
        company: if kind == Kind::Held { Company::Restart } else { Company::Any },
        // What nobody stops is collected by its own rules, which only show in a service that is looked into.
        needs_control: matches!(kind, Kind::Killed | Kind::Held) || step.line == Line::Hypervisor,
        act: Act::Fault(step, kind),
    }
}

/// All of them, or with the gentler ones taking turns.
pub(super) fn cases(extent: Extent) -> Vec<Case> {
    let mut cases = Vec::new();
    for model in [Model::Go, Model::Rs] {
        for (n, step) in steps::of(model).into_iter().enumerate() {
            let gentle = [Kind::Closed, Kind::TimedOut, Kind::Reset];
            let turn = |kind: &Kind| {
                extent == Extent::Whole || step.line == Line::Hypervisor || gentle[n % gentle.len()] == *kind
            };
            let kinds = gentle.iter().filter(|kind| turn(kind)).chain(&[Kind::Killed, Kind::Held]);
            let kinds = kinds.filter(|kind| step.allows(model, **kind));
            cases.extend(kinds.map(|kind| at(model, step, *kind)));
        }
    }
    cases
}

/// The faults that say most where a VM takes seconds: in the boot, at a call that is under way, and in the middle of it all.
pub(super) fn few() -> Vec<Case> {
    let named = |model, name: &str, kind| {
        steps::of(model).into_iter().find(|step| step.name == name).map(|step| at(model, step, kind))
    };
    let few = [
        named(Model::Go, "StartVM", Kind::Killed),
        named(Model::Rs, "app.ReadStdout", Kind::Held),
        named(Model::Rs, "GetMetrics", Kind::Killed),
    ];
    few.into_iter().flatten().collect()
}

/// One life with a fault, that is not a restart.
pub(super) async fn run(world: Arc<World>, model: Model, step: Step, kind: Kind) -> Ending {
    if world.bed.rootfs().is_none() && step.needs_containers() {
        return Err(Not::Skipped("no containers without --rootfs".to_owned()));
    }
    // Many may wait for what is to go; not so many may live at once.
    let turn = world.turn().await;
    let mut sandbox = world.sandbox().await;
    let fault = Fault { step: step.name.to_owned(), kind };
    let mut actor = world.actor(&world.order(&sandbox, model, Some(fault))).await;
    let life = actor.follow().await;
    drop(turn);
    if kind == Kind::Killed {
        match life {
            Life::Died => actor.let_go().await,
            other => over(other, &actor)?,
        }
    } else {
        over(life, &actor)?;
    }
    // Its answer was there, and with runtime-rs nobody is left who could ask for anything.
    let unheard = (model, step.name, kind) == (Model::Rs, "StartVM", Kind::Reset);
    if unheard || (kind == Kind::Killed && !step.reaches_the_agent()) {
        // Nobody ever came to the agent's socket, so nobody is missed there. What kubelet does then is what ends it.
        sandbox.place.own.take();
    }
    let (due, rule) = due(&world, model, step, kind);
    let gone = world.gone(&sandbox, due, rule).await?;
    actor.let_go().await;
    Ok(format!("gone after {:.1} s", gone.as_secs_f64()))
}

/// When it must begin to go, and which fact says so.
fn due(world: &World, model: Model, step: Step, kind: Kind) -> (Duration, &'static str) {
    let Some(times) = world.bed.times() else { return (Duration::ZERO, UNWOUND) };
    match (step.name, kind) {
        // What was a StopVM is one, whoever waits for its answer.
        ("StopVM", _) if kind != Kind::Killed => (Duration::ZERO, UNWOUND),
        ("StopVM", _) => (times.shim_gone, COLLECTED),
        ("StartVM", Kind::Reset) if model == Model::Rs => (times.netns_gone, COLLECTED),
        // Its caller is gone, and there is no other.
        ("StartVM", _) => (Duration::ZERO, UNWOUND),
        ("CreateVM", Kind::Killed) => (times.netns_gone, COLLECTED),
        ("CreateVM", Kind::Closed | Kind::Reset) => (times.unstarted, COLLECTED),
        ("CreateVM", Kind::TimedOut) => (Duration::ZERO, UNWOUND),
        (_, Kind::Killed) => (times.shim_gone, COLLECTED),
        (_, Kind::Held) if model == Model::Rs => (times.shim_gone, COLLECTED),
        _ => (Duration::ZERO, UNWOUND),
    }
}

/// A life that waits at a step for the service to be restarted under it.
pub struct Held {
    world: Arc<World>,
    model: Model,
    step: Step,
    sandbox: Sandbox,
    actor: Actor,
}

impl Held {
    /// Brings the life to its step.
    ///
    /// # Errors
    /// When it does not come there.
    pub async fn bring(world: Arc<World>, model: Model, step: Step) -> Result<Self, Not> {
        let sandbox = world.sandbox().await;
        let fault = Fault { step: step.name.to_owned(), kind: Kind::Held };
        let mut actor = world.actor(&world.order(&sandbox, model, Some(fault))).await;
        match actor.follow().await {
            Life::Holding(_) => Ok(Self { world, model, step, sandbox, actor }),
            other => {
                over(other, &actor)?;
                Err(wrong(step.name, "the suite itself", "the step to come", "it never did"))
            }
        }
    }

    /// Lets it go on with the service that is there now, to its end.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn finish(mut self) -> Result<Self, Not> {
        self.actor.go_on().await;
        let life = self.actor.follow().await;
        over(life, &self.actor)?;
        Ok(self)
    }

    /// Waits until nothing is left of it.
    ///
    /// # Errors
    /// What is left.
    pub async fn gone(mut self) -> Ending {
        let times = self.world.bed.times();
        if self.model == Model::Rs {
            // It could not stop its sandbox: that its process ends is what says so.
            self.actor.let_go().await;
        }
        let due = match self.step.name {
            // Whether anything was recorded when the service died, nobody knows; what was is never started.
            "CreateVM" => times.map(|times| times.unstarted).unwrap_or_default(),
            // Running, and its shim never came to the agent.
            "StartVM" if self.model == Model::Rs => {
                self.sandbox.place.own.take();
                times.map(|times| times.netns_gone).unwrap_or_default()
            }
            _ => due(&self.world, self.model, self.step, Kind::Held).0,
        };
        let gone = self.world.gone(&self.sandbox, due, COLLECTED).await?;
        self.actor.let_go().await;
        Ok(format!("gone after {:.1} s", gone.as_secs_f64()))
    }
}
