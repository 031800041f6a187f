//! What only a service under our control can show: its own promises beyond the shims' needs.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::net::UnixStream;

use super::requests::{create, stop};
use super::{Case, Company, Ending, own_case};
use crate::conformance::world::World;
use crate::conformance::{Not, refused, succeeded, wrong};
use crate::shim::{annotations, check_agent};

pub(super) fn cases() -> Vec<Case> {
    vec![
        own_case("own/agent-socket-from-createvm-on", Company::Any, |world| from_createvm(world).boxed()),
        own_case("own/sockets-are-for-root-alone", Company::Any, |world| for_root(world).boxed()),
        own_case("own/socket-file-outlives-the-service", Company::Alone, |world| file_stays(world).boxed()),
        own_case("own/createvm-makes-no-vm", Company::Alone, |world| costs_nothing(world).boxed()),
        own_case("own/three-starts-one-vm", Company::Alone, |world| one_vm(world).boxed()),
        own_case("own/start-fails-at-the-provider", Company::Alone, |world| provider_fails(world).boxed()),
    ]
}

/// A shim that dials before its time must find the socket, and is served when the VM is there.
async fn from_createvm(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    let socket = create(&world, &sandbox, annotations("web")).await?;
    let rule = "design.md: Link.open makes the agent socket at once";
    let early = UnixStream::connect(&socket).await;
    early.map(drop).map_err(|e| wrong("CreateVM", rule, "the agent socket", e.to_string()))?;
    let asked = tokio::spawn(async move { check_agent(socket.as_ref()).await });
    succeeded("StartVM", rule, world.shim().start(&sandbox.id).await)?;
    let answer = tokio::time::timeout(Duration::from_secs(30), asked).await;
    stop(&world, &sandbox).await?;
    match answer {
        Ok(Ok(Ok(1))) => Ok("a Check from before StartVM was answered after it".to_owned()),
        other => Err(wrong("Check", rule, "SERVING", format!("{other:?}"))),
    }
}

async fn for_root(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    let socket = create(&world, &sandbox, annotations("web")).await?;
    for path in [world.bed.socket().display().to_string(), socket] {
        let mode = std::fs::metadata(&path).map(|found| found.mode() & 0o777).unwrap_or(0o777);
        if mode & 0o077 != 0 {
            let expected = format!("{path} for its owner alone");
            return Err(wrong("CreateVM", "facts/kata.md R1: for root", expected, format!("mode {mode:o}")));
        }
    }
    stop(&world, &sandbox).await?;
    Ok(String::new())
}

/// runtime-rs resolves the path when a pod starts and when it is deleted, whether anybody listens or not.
async fn file_stays(world: Arc<World>) -> Ending {
    let (end, seen) = (Arc::new(std::sync::atomic::AtomicBool::new(false)), world.bed.socket());
    let over = end.clone();
    let watcher = tokio::task::spawn_blocking(move || {
        let mut missing = 0_u32;
        while !over.load(std::sync::atomic::Ordering::SeqCst) {
            missing += u32::from(!seen.exists());
            std::thread::sleep(Duration::from_millis(1));
        }
        missing
    });
    world.bed.restart().await;
    end.store(true, std::sync::atomic::Ordering::SeqCst);
    let missing = watcher.await.unwrap_or(u32::MAX);
    // The stale file is replaced in one step.
    if missing > 0 {
        let rule = "facts/kata.md 1.2: the socket file must exist when a pod starts and when it is deleted";
        return Err(wrong("restart", rule, "the file to stay", format!("missing in {missing} looks")));
    }
    Ok(String::new())
}

fn born(world: &World) -> Result<u64, Not> {
    world.bed.born().ok_or_else(|| Not::Skipped("this provider does not count its VMs".to_owned()))
}

async fn costs_nothing(world: Arc<World>) -> Ending {
    let before = born(&world)?;
    let sandbox = world.sandbox().await;
    create(&world, &sandbox, annotations("web")).await?;
    let made = born(&world)? - before;
    stop(&world, &sandbox).await?;
    if made == 0 {
        return Ok(String::new());
    }
    let rule = "facts/kata.md 0.4: CreateVM must not allocate cloud resources";
    Err(wrong("CreateVM", rule, "no VM", format!("{made}")))
}

async fn one_vm(world: Arc<World>) -> Ending {
    let before = born(&world)?;
    let sandbox = world.sandbox().await;
    create(&world, &sandbox, annotations("web")).await?;
    let shim = world.shim();
    for answer in futures::future::join_all((0..3).map(|_| shim.start(&sandbox.id))).await {
        succeeded("StartVM", "facts/kata.md R3", answer)?;
    }
    let made = born(&world)? - before;
    stop(&world, &sandbox).await?;
    if made == 1 {
        return Ok(String::new());
    }
    Err(wrong("StartVM", "product.md: never two VMs of one sandbox", "one VM", format!("{made}")))
}

/// The Go shim's way out: StartVM fails, StopVM on a new connection, then Delete, which asks for nothing.
async fn provider_fails(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    create(&world, &sandbox, annotations("web")).await?;
    if !world.bed.refuse_creations(true) {
        stop(&world, &sandbox).await?;
        return Err(Not::Skipped("this provider cannot be made to fail".to_owned()));
    }
    let answer = world.shim().start(&sandbox.id).await;
    let rule = "facts/kata.md 1.4: on a StartVM error StopVM, then Delete";
    let refused = refused(&world, "StartVM", rule, answer);
    let stopped = stop(&world, &sandbox).await;
    world.bed.refuse_creations(false);
    let why = refused?;
    stopped?;
    Ok(why.lines().next().unwrap_or_default().chars().take(80).collect())
}
