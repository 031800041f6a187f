//! Taking a sandbox over from an earlier run of the service: its link and tunnel are found in place as a rule, and mended otherwise.

use std::net::IpAddr;
use std::sync::Arc;

use peerpods_agentlink::LinkError;
use tracing::warn;

use super::identity::known_trust;
use super::interfaces::tunnel_specs;
use super::link_spec;
use super::patience::Patience;
use super::start::target;
use super::unwind::{ANSWER_WITHIN, Steps};
use crate::context::Context;
use crate::failure::{ConsoleTail, Failure};
use crate::record::Record;
use crate::state::Publisher;

/// After a restart of the service: the link process still holds the agent socket, or is started again.
pub(super) async fn reopen(context: Arc<Context>, record: Record) {
    if let Err(e) = context.turns.node(context.parts.link.open(&link_spec(&record))).await {
        warn!(sandbox = %record.sandbox, error = %e, "cannot reopen the agent socket");
    }
}

/// After a restart of the service: mends the tunnel of a running pod and makes sure that its link is connected, for as long as that
/// takes. The link process outlived us as a rule, and then this finds everything in place.
pub(super) async fn reattach(context: Arc<Context>, publisher: Arc<Publisher>, record: Record) {
    let tunnels = tunnel_specs(&record);
    let Some(remote) = tunnels.first().map(|tunnel| tunnel.remote) else { return };
    let parts = &context.parts;
    let steps = Steps { record: &record, publisher: &publisher };
    let mend = async {
        for tunnel in &tunnels {
            let set_up = || context.turns.node(parts.tunnel.setup(&record.netns, tunnel));
            steps.until_done("mend the tunnel", set_up).await;
        }
    };
    // Dialling ends by the link's own deadline.
    let answer_within = context.config.start_deadline + ANSWER_WITHIN;
    let reconnect = steps.until_done_with(
        "reconnect the link",
        answer_within,
        |_| Patience::NODE,
        || reconnect(&context, &record, remote),
    );
    tokio::join!(mend, reconnect);
}

async fn reconnect(context: &Context, record: &Record, remote: IpAddr) -> Result<(), Failure> {
    let sandbox = || record.sandbox.clone();
    let link = |source: LinkError| Failure::Link {
        sandbox: sandbox(),
        console: ConsoleTail::default(),
        source: source.into(),
    };
    let link_spec = link_spec(record);
    context.turns.node(context.parts.link.open(&link_spec)).await.map_err(link)?;
    let target = target(context, record, remote, known_trust(record), context.config.start_deadline)
        .map_err(|e| Failure::Certificate { sandbox: sandbox(), source: e.into() })?;
    context.parts.link.connect(&link_spec, &target).await.map_err(link)?;
    Ok(())
}
