//! The ttrpc services. They hold no decision: each call is handed on, and its answer put in a message.

mod agent;
mod health;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use peerpods_proto::ttrpc::agent_ttrpc::create_agent_service;
use peerpods_proto::ttrpc::health_ttrpc::create_health;
use protobuf::well_known_types::empty::Empty;
use ttrpc::r#async::Service;

use crate::error::AgentError;
use crate::sandbox::Sandbox;

/// The calls of `grpc.AgentService` that we answer.
const ANSWERED: [&str; 23] = [
    "CloseStdin",
    "CopyFile",
    "CreateContainer",
    "CreateSandbox",
    "DestroySandbox",
    "ExecProcess",
    "GetGuestDetails",
    "GetMetrics",
    "GetOOMEvent",
    "OnlineCPUMem",
    "ReadStderr",
    "ReadStdout",
    "RemoveContainer",
    "RemoveStaleVirtiofsShareMounts",
    "ReseedRandomDev",
    "SetGuestDateTime",
    "SignalProcess",
    "StartContainer",
    "StatsContainer",
    "TtyWinResize",
    "UpdateContainer",
    "WaitProcess",
    "WriteStdin",
];

/// The services of a sandbox's agent, by name.
#[must_use]
pub fn services(sandbox: &Arc<Sandbox>) -> HashMap<String, Service> {
    let agent = agent::Agent::new(Arc::clone(sandbox));
    let mut services = create_agent_service(Arc::new(agent));
    for service in services.values_mut() {
        // The generated answer to what we leave out would be NOT_FOUND; the server's, to what it does not know, UNIMPLEMENTED.
        service.methods.retain(|name, _| ANSWERED.contains(&name.as_str()));
    }
    services.extend(create_health(Arc::new(health::Answering)));
    services
}

/// Runs to its end what must not stop half-way: the server drops a call's future when its connection closes.
async fn whole<F, T>(work: F) -> Result<T, AgentError>
where
    F: Future<Output = Result<T, AgentError>> + Send + 'static,
    T: Send + 'static,
{
    tokio::spawn(work).await?
}

fn answer<T>(result: Result<T, AgentError>) -> ttrpc::Result<T> {
    result.map_err(|error| error.to_status())
}

fn done(result: Result<(), AgentError>) -> ttrpc::Result<Empty> {
    answer(result.map(|()| Empty::new()))
}
