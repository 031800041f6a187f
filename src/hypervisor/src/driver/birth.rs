//! From CreateVM to an agent socket. Nothing that costs money is made here, and a failed birth leaves nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use peerpods_podvm::naming;
use tracing::{info, warn};

use super::{Ask, link_spec};
use crate::context::Context;
use crate::failure::Failure;
use crate::record::{Record, Stage};
use crate::socket::MAX_PATH;
use crate::state::Publisher;

/// Looks at the pod's network, records the sandbox and makes its agent socket.
pub(super) async fn birth(context: &Context, publisher: &Publisher, ask: &Ask) -> Result<Record, Failure> {
    let began = Instant::now();
    if ask.netns.as_os_str().is_empty() {
        return Err(Failure::Invalid(format!(
            "sandbox {} has no network namespace: a pod with hostNetwork cannot run in a VM of its own; remove hostNetwork from the pod, or use another runtime class",
            ask.sandbox
        )));
    }
    let network = |source| Failure::Network { sandbox: ask.sandbox.clone(), source: Box::new(source) };
    let pod = context.parts.tunnel.observe(&ask.netns).await.map_err(network)?;
    publisher.phase("pod network observed", began, format!("{} {}", pod.name, pod.address));
    let record = plan(context, ask)?;
    let written = Instant::now();
    if let Err(source) = context.journal.append(&record).await {
        context.vnis.release(record.vni);
        return Err(Failure::Journal { sandbox: ask.sandbox.clone(), source });
    }
    publisher.phase("recorded", written, String::new());
    publisher.record(&record);
    let opened = Instant::now();
    if let Err(source) = context.parts.link.open(&link_spec(&record)).await {
        undo(context, &record).await;
        let console = crate::failure::ConsoleTail::default();
        return Err(Failure::Link { sandbox: ask.sandbox.clone(), console, source: source.into() });
    }
    publisher.phase("agent socket made", opened, String::new());
    info!(sandbox = %record.sandbox, pod = %ask.request.pod_name, namespace = %ask.request.pod_namespace, "created");
    Ok(record)
}

fn plan(context: &Context, ask: &Ask) -> Result<Record, Failure> {
    let agent_socket = context.config.pods_dir.join(ask.sandbox.as_str()).join("agent.ttrpc");
    check_agent_socket(&agent_socket)?;
    let vni = context.vnis.take().ok_or_else(|| Failure::Denied {
        sandbox: ask.sandbox.clone(),
        reason: "no VXLAN network identifier is left on this node".into(),
    })?;
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Record {
        sandbox: ask.sandbox.clone(),
        stage: Stage::Created,
        request: ask.request.clone(),
        netns: ask.netns.clone(),
        agent_socket,
        vm_name: naming::vm_name(&ask.request.pod_name, &ask.sandbox, naming::VM_NAME_MAX),
        vni,
        vxlan_port: context.config.vxlan_port,
        tunnel: None,
        instance: None,
        created_unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        boot_id: context.boot_id.clone(),
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

async fn undo(context: &Context, record: &Record) {
    if let Err(e) = context.parts.link.close(&link_spec(record)).await {
        warn!(sandbox = %record.sandbox, error = %e, "cannot close the link of a sandbox that was not born");
    }
    super::unwind::remove_pod_dir(record).await;
    if let Err(e) = context.journal.remove(&record.sandbox).await {
        warn!(sandbox = %record.sandbox, error = %e, "the record of a sandbox that was not born stays behind");
    }
    context.vnis.release(record.vni);
}

/// After a restart of the service: the link process still holds the agent socket, or is started again.
pub(super) async fn reopen(context: Arc<Context>, record: Record) {
    if let Err(e) = context.parts.link.open(&link_spec(&record)).await {
        warn!(sandbox = %record.sandbox, error = %e, "cannot reopen the agent socket");
    }
}
