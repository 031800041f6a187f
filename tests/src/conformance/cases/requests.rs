//! Requests to the service that are odd, doubled, or about nothing.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;

use super::{Case, Ending, case};
use crate::conformance::world::{Sandbox, World};
use crate::conformance::{Model, Not, code, refused, succeeded, wrong};
use crate::shim::rs::START_DEADLINE;
use crate::shim::{RsShim, annotations};

/// `google.rpc.Code`.
const INVALID_ARGUMENT: i32 = 3;
const FAILED_PRECONDITION: i32 = 9;
/// How long a service may take to forget what has left nothing.
const LAST_LINE: Duration = Duration::from_secs(5);
const R4: &str = "facts/kata.md R4: StopVM answers in under 1 s, idempotent, OK for unknown";
const R2: &str = "facts/kata.md R2: CreateVM is cheap, idempotent per id, and checks what it is told";

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("request/version", None, |world| version(world).boxed()),
        case("request/create-empty-id", None, |world| empty_id(world).boxed()),
        case("request/create-odd-ids", None, |world| odd_ids(world).boxed()),
        case("request/start-unknown", None, |world| start_unknown(world).boxed()),
        case("go/stop-unknown", Some(Model::Go), |world| stop_unknown_go(world).boxed()),
        case("rs/stop-unknown-twice", Some(Model::Rs), |world| stop_unknown_rs(world).boxed()),
        case("request/stop-empty-id", None, |world| stop_empty(world).boxed()),
        case("request/create-without-netns", None, |world| no_netns(world).boxed()),
        case("request/create-missing-netns", None, |world| missing_netns(world).boxed()),
        case("request/create-without-a-name", None, |world| no_name(world).boxed()),
        case("request/create-twice", None, |world| twice(world).boxed()),
        case("request/create-twice-otherwise", None, |world| twice_otherwise(world).boxed()),
        case("request/create-after-stop", None, |world| after_stop(world).boxed()),
        case("request/create-initdata", None, |world| initdata(world).boxed()),
        case("request/create-old-initdata", None, |world| old_initdata(world).boxed()),
        case("go/stop-never-started", Some(Model::Go), |world| never_started(world).boxed()),
        case("rs/stop-twice-at-once", Some(Model::Rs), |world| at_once(world).boxed()),
        case("rs/stop-never-started-twice", Some(Model::Rs), |world| never_started_rs(world).boxed()),
        case("rs/start-for-10000-s", Some(Model::Rs), |world| long_deadline(world).boxed()),
    ]
}

/// Nobody asks, and everybody answers.
async fn version(world: Arc<World>) -> Ending {
    match world.shim().version().await {
        Ok(version) => Ok(format!("{version:?}")),
        Err(error) => Err(wrong("Version", "facts/kata.md 1.1", "a version", error.to_string())),
    }
}

async fn empty_id(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    odd_id(&world, &sandbox, "").await?;
    Ok(String::new())
}

async fn odd_id(world: &World, sandbox: &Sandbox, id: &str) -> Result<(), Not> {
    let created = world.shim().create(id, &sandbox.place.netns).await;
    let rule = "facts/adaptor.md 1.4: CreateVM refuses an empty id";
    if created.is_ok() {
        drop(world.shim().stop(id).await);
    }
    refused(world, "CreateVM", rule, created)?;
    refused(world, "StartVM", rule, world.shim().start(id).await)?;
    Ok(())
}

/// Ids become names of directories and VMs.
async fn odd_ids(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    for id in ["..", ".", "a/b", "../../etc", "a b", "a\u{0}b", "naïve", "a\nb", &"x".repeat(300)] {
        let answered = tokio::time::timeout(Duration::from_secs(10), odd_id(&world, &sandbox, id)).await;
        match answered {
            Ok(answer) => answer?,
            Err(_) => return Err(wrong("CreateVM", R2, format!("an answer for id {id:?}"), "none for 10 s")),
        }
    }
    Ok(String::new())
}

async fn start_unknown(world: Arc<World>) -> Ending {
    let answer = world.shim().start(&unknown()).await;
    refused(&world, "StartVM", "facts/adaptor.md 1.4: StartVM of an unknown sandbox is an error", answer)?;
    Ok(String::new())
}

async fn stop_unknown_go(world: Arc<World>) -> Ending {
    for _ in 0..3 {
        succeeded("StopVM", R4, world.shim().stop(&unknown()).await)?;
    }
    Ok(String::new())
}

async fn stop_unknown_rs(world: Arc<World>) -> Ending {
    let shim = connected(&world).await?;
    let id = unknown();
    let began = Instant::now();
    succeeded("StopVM", R4, shim.stop(&id).await)?;
    succeeded("StopVM", R4, shim.stop(&id).await)?;
    Ok(format!("both in {:.0} ms", began.elapsed().as_secs_f64() * 1e3))
}

/// Either answer will do; none will not.
async fn stop_empty(world: Arc<World>) -> Ending {
    match connected(&world).await?.stop("").await {
        Ok(()) => Ok("success".to_owned()),
        Err(error) if code(&error) == Some(INVALID_ARGUMENT) => Ok("INVALID_ARGUMENT".to_owned()),
        Err(error) => Err(wrong("StopVM", R4, "success or INVALID_ARGUMENT (3)", error.to_string())),
    }
}

/// A hostNetwork pod has no namespace of its own. It may be refused, with a reason; nothing may be left of it.
async fn no_netns(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    let note = match world.shim().create(&sandbox.id, Path::new("")).await {
        Ok(_) => "taken",
        Err(error) if code(&error).is_some() => "refused",
        Err(error) => return Err(wrong("CreateVM", "facts/kata.md 0.15", "an answer", error.to_string())),
    };
    succeeded("StopVM", R4, world.shim().stop(&sandbox.id).await)?;
    world.gone(&sandbox, Duration::ZERO, R4).await?;
    Ok(note.to_owned())
}

async fn missing_netns(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    let missing = Path::new("/run/netns/peerpods-conformance-none");
    refused(&world, "CreateVM", R2, world.shim().create(&sandbox.id, missing).await)?;
    world.gone(&sandbox, Duration::ZERO, R2).await?;
    Ok(String::new())
}

async fn no_name(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    for key in ["io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.sandbox-namespace"] {
        let mut unnamed = annotations("web");
        unnamed.insert(key.to_owned(), String::new());
        let created = world.shim().create_with(&sandbox.id, &sandbox.place.netns, unnamed).await;
        refused(&world, "CreateVM", "facts/adaptor.md 1.4: empty name or namespace is an error", created)?;
    }
    world.gone(&sandbox, Duration::ZERO, R2).await?;
    Ok(String::new())
}

async fn twice(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    let first = create(&world, &sandbox, annotations("web")).await?;
    let second = create(&world, &sandbox, annotations("web")).await?;
    stop(&world, &sandbox).await?;
    if first == second {
        return Ok(String::new());
    }
    Err(wrong("CreateVM", R2, format!("the same path {first}"), second))
}

async fn twice_otherwise(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    create(&world, &sandbox, annotations("web")).await?;
    let other = world.shim().create_with(&sandbox.id, &sandbox.place.netns, annotations("other")).await;
    let refused = refused(&world, "CreateVM", "facts/adaptor.md 1.4: a duplicate id is an error", other);
    stop(&world, &sandbox).await?;
    refused?;
    Ok(String::new())
}

/// Nothing of the first is in the second's way, once it is gone. When nothing of it is left to be seen a service may still have a last
/// line to write about it: until then it says that it is being stopped.
async fn after_stop(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    create(&world, &sandbox, annotations("web")).await?;
    stop(&world, &sandbox).await?;
    let began = Instant::now();
    loop {
        let again = world.shim().create_with(&sandbox.id, &sandbox.place.netns, annotations("other")).await;
        match again {
            Err(error) if code(&error) == Some(FAILED_PRECONDITION) && began.elapsed() < LAST_LINE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            again => {
                succeeded("CreateVM", R2, again)?;
                break;
            }
        }
    }
    stop(&world, &sandbox).await?;
    Ok(String::new())
}

const TOML: &str = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\"aa.toml\" = \"x = 1\"\n";
/// The same, compressed and encoded.
const ENCODED: &str = "H4sIAAAAAAACAytLLSrOzM9TsFVQMtAz1DNQ4krMSc8vyizJyAWJFWckGpmaKXFxRackliTGciklJuqV5OfmKIEkK4CEoRIXAEDbEJhDAAAA";

async fn initdata(world: Arc<World>) -> Ending {
    given(world, "io.katacontainers.config.hypervisor.cc_init_data", TOML).await
}

/// Before Kata 3.16 nobody had decoded it, and the key was another.
async fn old_initdata(world: Arc<World>) -> Ending {
    given(world, "io.katacontainers.config.runtime.cc_init_data", ENCODED).await
}

async fn given(world: Arc<World>, key: &str, value: &str) -> Ending {
    let sandbox = world.sandbox().await;
    let mut with = annotations("web");
    with.insert(key.to_owned(), value.to_owned());
    create(&world, &sandbox, with).await?;
    stop(&world, &sandbox).await?;
    Ok(String::new())
}

async fn never_started(world: Arc<World>) -> Ending {
    let sandbox = world.sandbox().await;
    create(&world, &sandbox, annotations("web")).await?;
    for _ in 0..3 {
        stop(&world, &sandbox).await?;
    }
    Ok(String::new())
}

async fn never_started_rs(world: Arc<World>) -> Ending {
    let (sandbox, shim) = (world.sandbox().await, connected(&world).await?);
    create(&world, &sandbox, annotations("web")).await?;
    succeeded("StopVM", R4, shim.stop(&sandbox.id).await)?;
    succeeded("StopVM", R4, shim.stop(&sandbox.id).await)?;
    world.gone(&sandbox, Duration::ZERO, R4).await?;
    Ok(String::new())
}

/// The path that waits for the process and the one that shuts down race, on one connection.
async fn at_once(world: Arc<World>) -> Ending {
    let (sandbox, shim) = (world.sandbox().await, connected(&world).await?);
    create(&world, &sandbox, annotations("web")).await?;
    succeeded("StartVM", "facts/kata.md 1.4", world.shim().start(&sandbox.id).await)?;
    let (first, second) = tokio::join!(shim.stop(&sandbox.id), shim.stop(&sandbox.id));
    succeeded("StopVM", R4, first)?;
    succeeded("StopVM", R4, second)?;
    world.gone(&sandbox, Duration::ZERO, R4).await?;
    Ok(String::new())
}

/// 10,000 s are an ordinary deadline to a service.
async fn long_deadline(world: Arc<World>) -> Ending {
    use crate::shim::go::{START_VM, start_request};
    use peerpods_proto::ttrpc::hypervisor::StartVMResponse;
    let (sandbox, shim) = (world.sandbox().await, connected(&world).await?);
    create(&world, &sandbox, annotations("web")).await?;
    let request = start_request(&sandbox.id);
    let answer: Result<StartVMResponse, _> =
        shim.connection().call(START_VM, &request, Some(START_DEADLINE)).await;
    succeeded("StartVM", "facts/kata.md 0.10", answer.map_err(ttrpc::Error::from))?;
    stop(&world, &sandbox).await?;
    Ok(String::new())
}

fn unknown() -> String {
    format!("{:016x}", fastrand::u64(..)).repeat(4)
}

async fn connected(world: &World) -> Result<RsShim, Not> {
    let connected = RsShim::connect(world.bed.socket()).await;
    connected.map_err(|error| wrong("connect", "facts/kata.md R1", "a connection", error.to_string()))
}

/// CreateVM that has to succeed; the agent socket.
pub(super) async fn create(
    world: &World,
    sandbox: &Sandbox,
    with: HashMap<String, String>,
) -> Result<String, Not> {
    let created = world.shim().create_with(&sandbox.id, &sandbox.place.netns, with).await;
    succeeded("CreateVM", R2, created).map(|path| path.display().to_string())
}

/// StopVM that has to succeed, and nothing left.
pub(super) async fn stop(world: &World, sandbox: &Sandbox) -> Result<(), Not> {
    succeeded("StopVM", R4, world.shim().stop(&sandbox.id).await)?;
    world.gone(sandbox, Duration::ZERO, R4).await.map(drop)
}
