//! Starts that are doubled, interrupted, too late or too short.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use peerpods_proto::ttrpc::hypervisor::StartVMResponse;

use super::requests::{create, stop};
use super::{Case, Company, Ending, case};
use crate::conformance::world::{Sandbox, World};
use crate::conformance::{Model, Not, refused, said, succeeded, wrong};
use crate::shim::go::{START_VM, start_request};
use crate::shim::{admin_get, annotations, check_agent};

const R3: &str = "facts/kata.md R3: concurrent and duplicate StartVM join";
const CANCELS: &str = "design.md: StopVM cancels a start in flight";
/// How long a VM takes to be made while a start is looked for and stopped.
const MEANWHILE: Duration = Duration::from_secs(5);

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("request/start-three-at-once", None, |world| at_once(world).boxed()),
        case("request/start-again", None, |world| again(world).boxed()),
        case("request/start-after-stop", None, |world| after_stop(world).boxed()),
        case("request/start-with-50-ms", None, |world| too_short(world).boxed()),
        case("request/start-answers-when-the-agent-does", None, |world| at_once_there(world).boxed()),
        Case {
            // The cloud becomes slow for all.
            company: Company::Alone,
            ..case("go/stop-while-starting", Some(Model::Go), |world| stopped(world).boxed())
        },
        case("go/start-fails-then-stop", Some(Model::Go), |world| network_gone(world).boxed()),
    ]
}

async fn at_once(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    create(&world, &sandbox, annotations("web")).await?;
    let shim = world.shim();
    let all = futures::future::join_all((0..3).map(|_| shim.start(&sandbox.id))).await;
    for answer in all {
        succeeded("StartVM", R3, answer)?;
    }
    stop(&world, &sandbox).await?;
    Ok(String::new())
}

async fn again(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    create(&world, &sandbox, annotations("web")).await?;
    for _ in 0..2 {
        succeeded("StartVM", R3, world.shim().start(&sandbox.id).await)?;
    }
    stop(&world, &sandbox).await?;
    Ok(String::new())
}

async fn after_stop(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    create(&world, &sandbox, annotations("web")).await?;
    succeeded("StopVM", R3, world.shim().stop(&sandbox.id).await)?;
    let rule = "facts/adaptor.md 1.4: StartVM of an unknown sandbox is an error";
    refused(&world, "StartVM", rule, world.shim().start(&sandbox.id).await)?;
    world.gone(&sandbox, Duration::ZERO, rule).await?;
    Ok(String::new())
}

/// A deadline that passes is a caller that has gone.
async fn too_short(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    create(&world, &sandbox, annotations("web")).await?;
    let rule = "facts/kata.md R3: timeout_nano is a cancel with guaranteed cleanup";
    let connection =
        world.shim().dial().await.map_err(|e| wrong("connect", rule, "success", e.to_string()))?;
    let within = Some(Duration::from_millis(50));
    let answer: Result<StartVMResponse, _> =
        connection.call(START_VM, &start_request(&sandbox.id), within).await;
    if answer.is_ok() {
        stop(&world, &sandbox).await?;
        return Err(Not::Skipped("the VM was there within 50 ms".to_owned()));
    }
    if world.bed.times().is_none() {
        // Whether it goes by itself cannot be seen; the shim would stop it.
        stop(&world, &sandbox).await?;
        return Ok(String::new());
    }
    world.gone(&sandbox, Duration::ZERO, rule).await?;
    Ok(String::new())
}

/// The next call of a shim has 30 s, and no VM boots in them.
async fn at_once_there(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    let socket = create(&world, &sandbox, annotations("web")).await?;
    succeeded("StartVM", R3, world.shim().start(&sandbox.id).await)?;
    let answer = tokio::time::timeout(Duration::from_secs(5), check_agent(socket.as_ref())).await;
    stop(&world, &sandbox).await?;
    let rule = "facts/kata.md 1.5: StartVM returns when the agent answers Check";
    match answer {
        Ok(Ok(1)) => Ok(String::new()),
        other => Err(wrong("Check", rule, "SERVING at once", format!("{other:?}"))),
    }
}

async fn stopped(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    create(&world, &sandbox, annotations("web")).await?;
    world.bed.delay_creations(MEANWHILE);
    let ending = stopped_in_the_middle(&world, &sandbox).await;
    world.bed.hurry_creations();
    ending
}

async fn stopped_in_the_middle(world: &World, sandbox: &Sandbox) -> Ending {
    let (shim, id) = (world.shim(), sandbox.id.clone());
    let starting = tokio::spawn(async move { shim.start(&id).await });
    under_way(world, sandbox).await?;
    stop(world, sandbox).await?;
    let ended = tokio::time::timeout(Duration::from_secs(10), starting).await;
    match ended {
        Ok(Ok(Err(error))) => Ok(first_line(&said(&error))),
        Ok(Ok(Ok(()))) if !world.is_ours() => Ok("StartVM had been quicker".to_owned()),
        other => Err(wrong("StartVM", CANCELS, "an error within 10 s", format!("{other:?}"))),
    }
}

/// Waits until the sandbox starts. Somebody else's service cannot be looked into: it gets the time in which most begin.
async fn under_way(world: &World, sandbox: &Sandbox) -> Result<(), Not> {
    if !world.is_ours() {
        tokio::time::sleep(Duration::from_millis(30)).await;
        return Ok(());
    }
    let began = Instant::now();
    loop {
        let seen = admin_get(&world.bed.socket(), &sandbox.id).await.map(|told| told.state);
        match seen {
            Ok(state) if state == "starting" => return Ok(()),
            Ok(state) if state == "created" && began.elapsed() < MEANWHILE => {}
            other => return Err(wrong("StartVM", CANCELS, "state starting", format!("{other:?}"))),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The pod's network goes between the two calls: StartVM fails, the Go shim calls StopVM, and its Delete asks for nothing more.
async fn network_gone(world: Arc<World>) -> Ending {
    let mut sandbox = world.sandbox().await;
    if sandbox.place.own.is_none() {
        return Err(Not::Skipped("the pod's network is not ours to remove".to_owned()));
    }
    create(&world, &sandbox, annotations("web")).await?;
    sandbox.place.own.take();
    let rule = "facts/kata.md 1.4: StartVM needs the netns path to exist; on its error StopVM, then Delete";
    refused(&world, "StartVM", rule, world.shim().start(&sandbox.id).await)?;
    stop(&world, &sandbox).await?;
    Ok(String::new())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(80).collect()
}
