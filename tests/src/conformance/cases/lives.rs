//! Whole lives of a pod.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;

use super::{Case, Ending, case};
use crate::conformance::play::{Order, Runtime, steps};
use crate::conformance::world::{World, over};
use crate::conformance::{Model, wrong};
use crate::shim::admin_get;

/// How many of the first cases are the whole lives.
pub(super) const WHOLE: usize = 2;

/// How long nothing is said but health checks, and how many of them must have been answered: the sixth may be late.
const QUIET: Duration = Duration::from_secs(31);
const CHECKS: u32 = 5;
const GONE: &str = "facts/kata.md R4: StopVM removes everything, in the background";

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("go/life", Some(Model::Go), |world| whole(world, Model::Go, |_| {}).boxed()),
        case("rs/life", Some(Model::Rs), |world| whole(world, Model::Rs, |_| {}).boxed()),
        case("go/life-of-a-crio-pod", Some(Model::Go), |world| {
            whole(world, Model::Go, |order| order.runtime = Runtime::Crio).boxed()
        }),
        case("go/crio-name-is-taken-apart", Some(Model::Go), |world| crio(world).boxed()),
        case("go/long-polls-for-six-checks", Some(Model::Go), |world| long(world).boxed()),
    ]
}

/// From CreateVM to StopVM, every call in its order, and nothing left.
async fn whole(world: Arc<World>, model: Model, change: fn(&mut Order)) -> Ending {
    let sandbox = world.sandbox().await;
    let mut order = world.order(&sandbox, model, None);
    change(&mut order);
    let mut actor = world.actor(&order).await;
    let life = actor.follow().await;
    over(life, &actor)?;
    let mut expected: Vec<&str> = steps::of(model).iter().map(|step| step.name).collect();
    if order.rootfs.is_none() {
        expected.retain(|name| actor.steps.iter().any(|step| step == name));
    }
    let taken: Vec<&str> = actor.steps.iter().map(String::as_str).filter(|s| expected.contains(s)).collect();
    if taken != expected {
        let (expected, taken) = (expected.join(" "), taken.join(" "));
        return Err(wrong("the end", "facts/kata.md 2.1: the RPC sequence", expected, taken));
    }
    let gone = world.gone(&sandbox, Duration::ZERO, GONE).await?;
    actor.let_go().await;
    let stops: Vec<String> = actor.stops.iter().map(|ms| format!("{ms:.0}")).collect();
    let containers = if order.rootfs.is_none() { ", without containers: no --rootfs" } else { "" };
    Ok(format!("StopVM {} ms, all gone {:.1} s later{containers}", stops.join(" and "), gone.as_secs_f64()))
}

/// `k8s_<pod>_<namespace>_<uid>_<attempt>`: what the pod is called is its second part. Seen in our own admin API.
async fn crio(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    let mut order = world.order(&sandbox, Model::Go, None);
    order.runtime = Runtime::Crio;
    order.rootfs = None;
    order.linger = true;
    let mut actor = world.actor(&order).await;
    let life = actor.follow().await;
    let told = admin_get(&world.bed.socket(), &sandbox.id).await;
    actor.go_on().await;
    if !matches!(life, super::super::actor::Life::Holding(_)) {
        over(life, &actor)?;
    }
    let life = actor.follow().await;
    over(life, &actor)?;
    world.gone(&sandbox, Duration::ZERO, GONE).await?;
    match told {
        Ok(told) if told.pod_name == order.pod => Ok(String::new()),
        Ok(told) => {
            let rule = "facts/kata.md 1.3: CRI-O's sandbox name";
            Err(wrong("CreateVM", rule, format!("the pod's name {}", order.pod), told.pod_name))
        }
        Err(status) => Err(super::super::Not::Skipped(format!("no admin API here: {}", status.code()))),
    }
}

/// Half a minute with nothing said but the health checks, over an agent that answers every one, and long polls that stay.
async fn long(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    let mut order = world.order(&sandbox, Model::Go, None);
    order.linger = true;
    let mut actor = world.actor(&order).await;
    let life = actor.follow().await;
    if !matches!(life, super::super::actor::Life::Holding(_)) {
        over(life, &actor)?;
    }
    tokio::time::sleep(QUIET).await;
    actor.go_on().await;
    let life = actor.follow().await;
    over(life, &actor)?;
    world.gone(&sandbox, Duration::ZERO, GONE).await?;
    if actor.checks < CHECKS {
        let expected = format!("at least {CHECKS} answers to Check in {QUIET:?}");
        return Err(wrong(
            "monitor",
            "facts/kata.md 2.1: Check every 5 s",
            expected,
            actor.checks.to_string(),
        ));
    }
    Ok(format!("{} answers to Check in {QUIET:?}", actor.checks))
}
