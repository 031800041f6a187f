//! The agent's socket: several connections, silent ones, and calls nobody knew when the link was written.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use protobuf::well_known_types::empty::Empty;
use tokio::net::UnixStream;

use super::requests::{create, stop};
use super::{Case, Ending, case};
use crate::conformance::world::{Sandbox, World};
use crate::conformance::{Model, Not, succeeded, wrong};
use crate::shim::wire::{CallError, Connection};
use crate::shim::{CHECK, annotations, check_agent};
use peerpods_proto::ttrpc::health::{CheckRequest, HealthCheckResponse};

const R5: &str = "facts/kata.md R5: many connections, never EOF for the shim while the VM may live";

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("rs/silent-second-connection", Some(Model::Rs), |world| silent(world).boxed()),
        case("go/twenty-connections-to-the-agent", Some(Model::Go), |world| many(world).boxed()),
        case("request/unknown-agent-call", None, |world| unknown(world).boxed()),
        case("request/agent-connection-cut-in-a-frame", None, |world| cut(world).boxed()),
    ]
}

async fn started(world: &World) -> Result<(Sandbox, String), Not> {
    let sandbox = world.sandbox().await;
    let socket = create(world, &sandbox, annotations("web")).await?;
    succeeded("StartVM", "facts/kata.md 1.4", world.shim().start(&sandbox.id).await)?;
    Ok((sandbox, socket))
}

async fn serving(agent: &Connection) -> Result<(), Not> {
    let within = Some(Duration::from_secs(30));
    let answer: Result<HealthCheckResponse, _> = agent.call(CHECK, &CheckRequest::new(), within).await;
    answer.map(drop).map_err(|e| wrong("Check", R5, "an answer", e.to_string()))
}

async fn dial(socket: &str) -> Result<Connection, Not> {
    Connection::dial(socket.as_ref()).await.map_err(|e| wrong("connect", R5, "a connection", e.to_string()))
}

/// The log forwarder waits for lines that never come. It must neither be closed nor stand in the way.
async fn silent(world: Arc<World>) -> Ending {
    let (sandbox, socket) = started(&world).await?;
    let agent = dial(&socket).await?;
    let map = |e: std::io::Error| wrong("connect", "facts/kata.md 0.6", "a connection", e.to_string());
    let forwarder = UnixStream::connect(&socket).await.map_err(map)?;
    for _ in 0..10 {
        serving(&agent).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut byte = [0];
    let read = forwarder.try_read(&mut byte);
    stop(&world, &sandbox).await?;
    match read {
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(String::new()),
        other => Err(wrong("log forwarder", "facts/kata.md 0.6", "silence", format!("{other:?}"))),
    }
}

async fn many(world: Arc<World>) -> Ending {
    let (sandbox, socket) = started(&world).await?;
    let mut agents = Vec::new();
    for _ in 0..20 {
        agents.push(dial(&socket).await?);
    }
    for agent in &agents {
        serving(agent).await?;
    }
    stop(&world, &sandbox).await?;
    Ok(String::new())
}

/// The link forwards frames, not a list of calls: what nobody knows, the agent says so.
async fn unknown(world: Arc<World>) -> Ending {
    let (sandbox, socket) = started(&world).await?;
    let agent = dial(&socket).await?;
    let within = Some(Duration::from_secs(30));
    let name = ("grpc.AgentService", "FromAKataOfNextYear");
    let answer: Result<Empty, _> = agent.call(name, &Empty::new(), within).await;
    let next = serving(&agent).await;
    stop(&world, &sandbox).await?;
    next?;
    match answer {
        Err(CallError::Status { code: 12, .. }) => Ok(String::new()),
        other => {
            let rule = "design.md: the agent link forwards frames (UNIMPLEMENTED from the agent)";
            Err(wrong("call", rule, "UNIMPLEMENTED (12)", format!("{other:?}")))
        }
    }
}

/// A shim that dies in the middle of a frame takes nobody with it.
async fn cut(world: Arc<World>) -> Ending {
    let (sandbox, socket) = started(&world).await?;
    let other = dial(&socket).await?;
    serving(&other).await?;
    let map = |e: std::io::Error| wrong("connect", R5, "a connection", e.to_string());
    let half = UnixStream::connect(&socket).await.map_err(map)?;
    drop(crate::shim::wire::write_all(&half, b"\0\0\0\x40\0\0\0\x01\x01\0half a request").await);
    drop(half);
    serving(&other).await?;
    succeeded("Check", R5, check_agent(socket.as_ref()).await)?;
    stop(&world, &sandbox).await?;
    Ok(String::new())
}
