//! The node service: which provider, tunnel, link, journal and ledger it works with.

use std::convert::Infallible;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kube::Client;
use peerpods_agentlink::process::LinkProcesses;
use peerpods_hypervisor::journal::DiskJournal;
use peerpods_hypervisor::ledger::{Ledger, NoLedger};
use peerpods_hypervisor::{Lifecycle, Parts, RunError};
use peerpods_ledger::{PeerPodLedger, Place};
use peerpods_podnet::VxlanTunnel;
use peerpods_provider::Provider;

use super::{Prepared, RoleError, link_program, provider};
use crate::cluster;
use crate::config::Settings;
use crate::health;

/// Prepares it; with a cluster VMs are recorded there.
pub(super) fn prepare(
    settings: &Settings,
    life: Lifecycle,
    cluster: Option<Client>,
) -> Result<Prepared, RoleError> {
    let program = link_program(settings).map_err(RoleError::LinkProgram)?;
    let journal =
        DiskJournal::open(settings.hypervisor.state_dir.join("journal")).map_err(RunError::Journal)?;
    let provider = provider(&settings.provider);
    let parts = Parts {
        ledger: ledger(settings, provider.as_ref(), cluster.clone()),
        provider,
        tunnel: Arc::new(VxlanTunnel::with_metadata_access(settings.hypervisor.metadata_access)),
        link: Arc::new(LinkProcesses::placed(program, settings.link_placement.clone())),
        journal: Arc::new(journal.clone()),
    };
    let checks = health::of_hypervisor(life.clone(), journal);
    let settings = settings.clone();
    let running = async move {
        if let Some(client) = &cluster
            && !id_is_known(&settings, client, &life).await?
        {
            return Ok(());
        }
        let unknown = cluster.map(|client| cluster::no_such_node(client, &settings.hypervisor.node));
        tokio::select! {
            ended = peerpods_hypervisor::run(settings.hypervisor.clone(), parts, life) => Ok(ended?),
            never = beside(&settings) => match never {},
            () = async { unknown.unwrap_or_else(|| std::future::pending().boxed()).await } => {
                Err(RoleError::NoSuchNode(settings.hypervisor.node.clone()))
            }
        }
    };
    Ok(Prepared { running: running.boxed(), checks })
}

fn ledger(settings: &Settings, provider: &dyn Provider, cluster: Option<Client>) -> Arc<dyn Ledger> {
    let place = Place { node: settings.hypervisor.node.clone(), provider: provider.name().to_owned() };
    match cluster {
        Some(client) => Arc::new(PeerPodLedger::new(client, place)),
        None => Arc::new(NoLedger),
    }
}

/// False when it is time to end before the id is known.
async fn id_is_known(settings: &Settings, client: &Client, life: &Lifecycle) -> Result<bool, RoleError> {
    if settings.hypervisor.cluster_id.is_some() {
        return Ok(true);
    }
    tokio::select! {
        kept = cluster::remember_id(client, &settings.hypervisor.state_dir) => {
            kept.map(|()| true).map_err(RoleError::ClusterId)
        }
        () = life.asked_to_end() => Ok(false),
    }
}

/// What is done once beside the node service, and is no reason for its end.
fn beside(settings: &Settings) -> BoxFuture<'static, Infallible> {
    #[cfg(feature = "aws")]
    {
        let settings = settings.clone();
        async move {
            crate::ports::at_start(&settings).await;
            std::future::pending().await
        }
        .boxed()
    }
    #[cfg(not(feature = "aws"))]
    {
        let _ = settings;
        std::future::pending().boxed()
    }
}
