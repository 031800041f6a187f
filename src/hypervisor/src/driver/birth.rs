//! From CreateVM to an agent socket. Nothing that costs money is made here, and a failed birth leaves nothing.

use std::path::Path;

use peerpods_agentlink::LinkError;
use peerpods_podvm::naming;
use tokio::time::Instant;
use tracing::info;

use super::{Ask, interfaces, link_spec};
use crate::context::Context;
use crate::failure::{ConsoleTail, Failure};
use crate::record::{Record, Stage};
use crate::socket::MAX_PATH;
use crate::state::Publisher;

/// Looks at the pod's network, records the sandbox and makes its agent socket. After an error with a published record the driver unwinds
/// what there may be.
pub(super) async fn birth(context: &Context, publisher: &Publisher, ask: &Ask) -> Result<Record, Failure> {
    let began = Instant::now();
    if ask.netns.as_os_str().is_empty() {
        return Err(Failure::Invalid(format!(
            "sandbox {} has no network namespace: a pod with hostNetwork cannot run in a VM of its own; remove hostNetwork from the pod, or use another runtime class",
            ask.sandbox
        )));
    }
    context.ready()?;
    // Nothing is held before StartVM, which asks again; but kubelet had better know before it does the rest.
    context.capacity.check().map_err(|full| Failure::Limit { sandbox: ask.sandbox.clone(), full })?;
    let network = |source| Failure::Network { sandbox: ask.sandbox.clone(), source: Box::new(source) };
    let pod = context.parts.tunnel.observe(&ask.netns).await.map_err(network)?;
    publisher.phase("pod network observed", began, interfaces::summary(&pod));
    let mut record = plan(context, ask)?;
    if let Err(failure) = interfaces::assign(context, &mut record, &pod) {
        context.vnis.release(record.vnis());
        return Err(failure);
    }
    let written = Instant::now();
    write_down(context, &record).await?;
    publisher.phase("recorded", written, String::new());
    publisher.record(&record);
    let opened = Instant::now();
    let link = |source: LinkError| Failure::Link {
        sandbox: ask.sandbox.clone(),
        console: ConsoleTail::default(),
        source: source.into(),
    };
    context.parts.link.open(&link_spec(&record)).await.map_err(link)?;
    publisher.phase("agent socket made", opened, String::new());
    info!(sandbox = %record.sandbox, pod = %ask.request.pod_name, namespace = %ask.request.pod_namespace, "created");
    Ok(record)
}

async fn write_down(context: &Context, record: &Record) -> Result<(), Failure> {
    let Err(source) = context.parts.journal.append(record).await else { return Ok(()) };
    // It may be on the disk all the same, and must not come back as somebody else's identifier.
    if context.parts.journal.remove(&record.sandbox).await.is_ok() {
        context.vnis.release(record.vnis());
    }
    Err(Failure::Journal { sandbox: record.sandbox.clone(), source })
}

fn plan(context: &Context, ask: &Ask) -> Result<Record, Failure> {
    let agent_socket = context.config.agent_socket(&ask.sandbox);
    check_agent_socket(&agent_socket)?;
    let vni = context.vnis.take().ok_or_else(|| Failure::Denied {
        sandbox: ask.sandbox.clone(),
        reason: "no VXLAN network identifier is left on this node".into(),
    })?;
    Ok(Record {
        sandbox: ask.sandbox.clone(),
        cluster: context.cluster.clone(),
        stage: Stage::Created,
        request: ask.request.clone(),
        netns: ask.netns.clone(),
        agent_socket,
        vm_name: naming::vm_name(&ask.request.pod_name, &ask.sandbox, naming::VM_NAME_MAX),
        vni,
        vxlan_port: context.config.vxlan_port,
        secondary: Vec::new(),
        tunnel: None,
        instance: None,
        guest: None,
        whereabouts: None,
        creations_unix_ms: Vec::new(),
        created_unix_ms: context.config.clock.unix_ms(),
        boot_id: context.boot_id.clone(),
        why: None,
    })
}

/// Both shims make a URL of the path and split it at colons.
fn check_agent_socket(path: &Path) -> Result<(), Failure> {
    let text = path.display().to_string();
    if text.len() > MAX_PATH {
        return Err(Failure::Invalid(format!(
            "the agent socket {text} would have {} bytes, {MAX_PATH} is the most; choose a shorter PODS_DIR",
            text.len()
        )));
    }
    match text.chars().find(|c| matches!(c, ':' | '%' | '?' | '#' | ' ')) {
        Some(bad) => Err(Failure::Invalid(format!(
            "the agent socket {text} has {bad:?}, which the shims cannot follow; choose another PODS_DIR"
        ))),
        None => Ok(()),
    }
}
