//! The hypervisor socket as bytes: several calls at once, what no shim says, and gRPC beside ttrpc. Whatever one connection says, the
//! service goes on for the others.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use peerpods_proto::grpc;
use peerpods_proto::ttrpc::hypervisor::{
    CreateVMResponse, StartVMResponse, StopVMResponse, VersionRequest, VersionResponse,
};
use protobuf::well_known_types::empty::Empty;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

use super::requests::{create, stop};
use super::{Case, Ending, case};
use crate::conformance::world::World;
use crate::conformance::{Not, succeeded, wrong};
use crate::shim::go::{self, CREATE_VM, START_VM, STOP_VM, VERSION};
use crate::shim::wire::{self, CallError, Connection, HEADER, MAX_PAYLOAD, REQUEST, header, write_all};
use crate::shim::{annotations, grpc_channel};

/// `google.rpc.Code`.
const INVALID_ARGUMENT: i32 = 3;
const UNIMPLEMENTED: i32 = 12;
const RULE: &str = "facts/kata.md 2: ttrpc wire format";
/// How long an answer to something odd may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("request/unknown-service", None, |world| unknown_service(world).boxed()),
        case("request/unknown-method", None, |world| unknown_method(world).boxed()),
        case("request/metadata", None, |world| metadata(world).boxed()),
        case("request/payload-that-makes-no-sense", None, |world| nonsense(world).boxed()),
        case("request/envelope-that-makes-no-sense", None, |world| no_envelope(world).boxed()),
        case("request/even-stream", None, |world| even(world).boxed()),
        case("request/frame-of-4-MiB-and-1", None, |world| oversized(world).boxed()),
        case("request/frame-of-4-GiB", None, |world| enormous(world).boxed()),
        case("request/half-frames-and-silence", None, |world| halves(world).boxed()),
        case("request/frame-in-pieces", None, |world| pieces(world).boxed()),
        case("request/many-in-flight", None, |world| in_flight(world).boxed()),
        case("request/two-hundred-connections", None, |world| connections(world).boxed()),
        case("request/grpc-beside-ttrpc", None, |world| both(world).boxed()),
    ]
}

async fn dial(world: &World) -> Result<Connection, Not> {
    let dialled = Connection::dial(&world.bed.socket()).await;
    dialled.map_err(|e| wrong("connect", "facts/kata.md R1", "a connection", e.to_string()))
}

async fn raw(world: &World) -> Result<UnixStream, Not> {
    let dialled = UnixStream::connect(world.bed.socket()).await;
    dialled.map_err(|e| wrong("connect", "facts/kata.md R1", "a connection", e.to_string()))
}

/// The service answers somebody else.
async fn serves(world: &World) -> Result<(), Not> {
    succeeded("Version", "facts/kata.md R1: the service goes on", world.shim().version().await).map(drop)
}

/// And this connection too.
async fn goes_on(connection: &Connection) -> Result<(), Not> {
    let answer: Result<VersionResponse, _> =
        connection.call(VERSION, &VersionRequest::new(), Some(PATIENCE)).await;
    let map = |e: CallError| wrong("Version", RULE, "the connection to go on", e.to_string());
    answer.map(drop).map_err(map)
}

/// Go's server says UNIMPLEMENTED, Rust's INVALID_ARGUMENT.
async fn unknown_service(world: Arc<World>) -> Ending {
    let connection = dial(&world).await?;
    let name = ("podvminfo.NoSuchService", "GetInfo");
    let answer: Result<Empty, _> = connection.call(name, &Empty::new(), Some(PATIENCE)).await;
    let note = match answer {
        Err(CallError::Status { code: code @ (INVALID_ARGUMENT | UNIMPLEMENTED), .. }) => {
            format!("status {code}")
        }
        other => {
            let expected = "INVALID_ARGUMENT (3) or UNIMPLEMENTED (12)";
            return Err(wrong("call", "facts/kata.md 2: unknown service", expected, format!("{other:?}")));
        }
    };
    goes_on(&connection).await?;
    Ok(note)
}

async fn unknown_method(world: Arc<World>) -> Ending {
    let connection = dial(&world).await?;
    let name = ("hypervisor.Hypervisor", "PauseVM");
    let answer: Result<Empty, _> = connection.call(name, &Empty::new(), Some(PATIENCE)).await;
    match answer {
        Err(CallError::Status { code: UNIMPLEMENTED, .. }) => goes_on(&connection).await?,
        other => {
            let rule = "facts/kata.md 2: unknown method";
            return Err(wrong("call", rule, "UNIMPLEMENTED (12)", format!("{other:?}")));
        }
    }
    Ok(String::new())
}

/// With tracing the Go shim sends this one, besides its node's namespace, which is in every life; agent-ctl sends some always.
async fn metadata(world: Arc<World>) -> Ending {
    let connection = dial(&world).await?;
    let request = wire::envelope_with_metadata(VERSION, Vec::new(), "traceparent");
    answered(&connection, request).await?;
    Ok(String::new())
}

async fn answered(connection: &Connection, request: Vec<u8>) -> Result<(), Not> {
    let map = |e: CallError| wrong("call", RULE, "an answer", e.to_string());
    let sent = connection.begin_raw(request, Some(PATIENCE)).await.map_err(map)?;
    sent.answer::<VersionResponse>().await.map(drop).map_err(map)
}

async fn nonsense(world: Arc<World>) -> Ending {
    let connection = dial(&world).await?;
    let request = wire::envelope(CREATE_VM, vec![0xff; 64], None, &[]);
    let map = |e: CallError| wrong("CreateVM", RULE, "an error status", e.to_string());
    let sent = connection.begin_raw(request, Some(PATIENCE)).await.map_err(map)?;
    let note = match sent.answer::<CreateVMResponse>().await {
        Err(CallError::Status { code, .. }) => format!("status {code}"),
        Err(CallError::Closed(_)) => "the connection was closed".to_owned(),
        other => return Err(wrong("CreateVM", RULE, "an error status, or the end", format!("{other:?}"))),
    };
    serves(&world).await?;
    Ok(note)
}

async fn no_envelope(world: Arc<World>) -> Ending {
    ends_or_answers(&world, &framed(&[0xff; 64], 1)).await
}

/// Clients' streams are odd.
async fn even(world: Arc<World>) -> Ending {
    ends_or_answers(&world, &framed(&wire::envelope(VERSION, Vec::new(), None, &[]), 2)).await
}

async fn oversized(world: Arc<World>) -> Ending {
    let mut bytes = header(MAX_PAYLOAD + 1, 1, REQUEST).to_vec();
    bytes.resize(HEADER + MAX_PAYLOAD + 1, 0);
    ends_or_answers(&world, &bytes).await
}

async fn enormous(world: Arc<World>) -> Ending {
    let mut bytes = vec![0xff; 4];
    bytes.extend_from_slice(&[0, 0, 0, 1, REQUEST, 0]);
    ends_or_answers(&world, &bytes).await
}

fn framed(payload: &[u8], stream: u32) -> Vec<u8> {
    let mut bytes = header(payload.len(), stream, REQUEST).to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// Says something odd: some answer must come, or the connection must end; silence would keep a client waiting for ever.
async fn ends_or_answers(world: &World, bytes: &[u8]) -> Ending {
    let mut stream = raw(world).await?;
    // It may be closed before all of it is taken.
    drop(tokio::time::timeout(PATIENCE, write_all(&stream, bytes)).await);
    let mut answer = [0; HEADER];
    let came = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await;
    let note = match came {
        Ok(Ok(0) | Err(_)) => "the connection was closed",
        Ok(Ok(_)) => "answered",
        Err(_) => return Err(wrong("call", RULE, "an answer or the end", "neither for 10 s")),
    };
    serves(world).await?;
    Ok(note.to_owned())
}

/// Clients that say half of something and fall silent.
async fn halves(world: Arc<World>) -> Ending {
    let mut stalled = Vec::new();
    for said in [&b""[..], b"\0", b"\0\0\0\x10\0", b"\0\0\0\x10\0\0\0\x01\x01\0half", b"P", b"PRI * HTTP"] {
        let stream = raw(&world).await?;
        drop(write_all(&stream, said).await);
        stalled.push(stream);
    }
    serves(&world).await?;
    let sandbox = world.sandbox().await;
    create(&world, &sandbox, annotations("web")).await?;
    stop(&world, &sandbox).await?;
    Ok(String::new())
}

async fn pieces(world: Arc<World>) -> Ending {
    let mut stream = raw(&world).await?;
    let map = |e: std::io::Error| wrong("Version", RULE, "an answer", e.to_string());
    for byte in framed(&wire::envelope(VERSION, Vec::new(), None, &[]), 1) {
        write_all(&stream, &[byte]).await.map_err(map)?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut answer = [0; HEADER];
    match tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await {
        Ok(Ok(_)) => Ok(String::new()),
        other => Err(wrong("Version", RULE, "an answer", format!("{other:?}"))),
    }
}

/// A start that is under way holds up nothing else on its connection.
async fn in_flight(world: Arc<World>) -> Ending {
    if world.bed.places() < 2 {
        return Err(Not::Skipped("needs two network namespaces".to_owned()));
    }
    let connection = dial(&world).await?;
    let (first, second) = (world.sandbox().await, world.sandbox().await);
    let map =
        |e: CallError| wrong("call", "facts/kata.md 2: unary calls in any order", "success", e.to_string());
    let request = go::create_request(&first.id, &first.place.netns, annotations("web"));
    connection.call::<CreateVMResponse>(CREATE_VM, &request, None).await.map_err(map)?;
    let start = go::start_request(&first.id);
    let starting = connection.begin(START_VM, &start, Some(go::START_DEADLINE)).await.map_err(map)?;
    for _ in 0..20 {
        connection.call::<VersionResponse>(VERSION, &VersionRequest::new(), None).await.map_err(map)?;
    }
    let request = go::create_request(&second.id, &second.place.netns, annotations("other"));
    connection.call::<CreateVMResponse>(CREATE_VM, &request, None).await.map_err(map)?;
    let request = go::stop_request(&second.id);
    connection.call::<StopVMResponse>(STOP_VM, &request, None).await.map_err(map)?;
    starting.answer::<StartVMResponse>().await.map_err(map)?;
    stop(&world, &first).await?;
    world.gone(&second, Duration::ZERO, RULE).await?;
    Ok(String::new())
}

/// A node with many pods has that many shims, and each may have a connection that it keeps.
async fn connections(world: Arc<World>) -> Ending {
    let mut held = Vec::new();
    for _ in 0..200 {
        let connection = dial(&world).await?;
        goes_on(&connection).await?;
        held.push(connection);
    }
    goes_on(&held[0]).await?;
    serves(&world).await?;
    Ok(String::new())
}

/// One socket, both protocols at once: each sees what the other did.
async fn both(world: Arc<World>) -> Ending {
    let unavailable = |e: &dyn std::fmt::Display| Not::Skipped(format!("no gRPC on this socket: {e}"));
    let channel = grpc_channel(&world.bed.socket()).await.map_err(|e| unavailable(&e))?;
    let mut client = grpc::hypervisor::hypervisor_client::HypervisorClient::new(channel);
    let asked = grpc::hypervisor::VersionRequest { version: String::new() };
    let answer = tokio::time::timeout(PATIENCE, client.version(asked)).await;
    let version = match answer {
        Ok(Ok(answer)) => answer.into_inner().version,
        Ok(Err(status)) => return Err(unavailable(&status.code())),
        Err(_) => return Err(unavailable(&"no answer")),
    };
    let over_ttrpc = succeeded("Version", "product.md G1", world.shim().version().await)?;
    if version != over_ttrpc {
        return Err(wrong("Version", "product.md G1", over_ttrpc, version));
    }
    let sandbox = world.sandbox().await;
    let map = |s: tonic::Status| wrong("gRPC", "product.md G1: both on one socket", "success", s.to_string());
    let request = grpc::hypervisor::CreateVmRequest {
        id: sandbox.id.clone(),
        annotations: annotations("web"),
        network_namespace_path: sandbox.place.netns.display().to_string(),
    };
    client.create_vm(request).await.map_err(map)?;
    let start = client.start_vm(grpc::hypervisor::StartVmRequest { id: sandbox.id.clone() });
    let shim = world.shim();
    let (grpc, ttrpc) = tokio::join!(start, shim.start(&sandbox.id));
    grpc.map_err(map)?;
    succeeded("StartVM", "product.md G1", ttrpc)?;
    stop(&world, &sandbox).await?;
    Ok(String::new())
}
