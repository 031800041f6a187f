//! Composing roles: the only place that knows concrete providers, tunnels and links.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use peerpods_agentlink::process::LinkProcesses;
use peerpods_hypervisor::journal::DiskJournal;
use peerpods_hypervisor::ledger::NoLedger;
use peerpods_hypervisor::{Lifecycle, Parts, RunError};
use peerpods_podnet::VxlanTunnel;
use peerpods_provider::Provider;
#[cfg(feature = "aws")]
use peerpods_provider_aws::{AwsConfig, AwsProvider};
use peerpods_provider_qemu::QemuProvider;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{ProviderSettings, Role, Settings};
use crate::health::{self, Check};
use crate::programs::{LINK, NotFound, Places};

/// Why a role ended, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// The link program is not there.
    #[error("no link program: install {LINK} beside peerpods or set link-program")]
    LinkProgram(#[source] NotFound),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] std::io::Error),
    /// The node service failed.
    #[error("the node service failed")]
    Hypervisor(#[from] RunError),
}

/// The provider that was configured.
#[must_use]
pub fn provider(settings: &ProviderSettings) -> Arc<dyn Provider> {
    match settings {
        ProviderSettings::Qemu(config) => Arc::new(QemuProvider::new(config.clone())),
        #[cfg(feature = "aws")]
        ProviderSettings::Aws(config) => Arc::new(AwsProvider::new(AwsConfig::clone(config))),
    }
}

/// The link program that was configured, or the one found.
///
/// # Errors
/// When there is none.
pub fn link_program(settings: &Settings) -> Result<PathBuf, NotFound> {
    let configured = settings.link_program.clone().unwrap_or_else(|| LINK.into());
    Places::of_this_process().find(&configured)
}

/// A role ready to run, and what its health is told by.
struct Prepared {
    running: BoxFuture<'static, Result<(), RoleError>>,
    checks: Vec<Check>,
}

/// Runs roles in this process until all end, one fails, or SIGTERM or SIGINT asks them to end; a second signal makes them hurry.
/// Health is answered from before the roles begin until they have ended.
///
/// # Errors
/// The first role's failure.
pub async fn run(settings: &Settings, roles: &[Role]) -> Result<(), RoleError> {
    let life = Lifecycle::new();
    end_on_signals(&life)?;
    let (mut running, mut checks) = (Vec::new(), Vec::new());
    for role in roles {
        let prepared = match role {
            Role::Hypervisor => hypervisor(settings, life.clone())?,
        };
        running.push(prepared.running);
        checks.extend(prepared.checks);
    }
    let running = running.into_iter().map(|role| async {
        let ended = role.await;
        if ended.is_err() {
            life.drain();
        }
        ended
    });
    tokio::select! {
        ended = futures::future::join_all(running) => ended.into_iter().collect(),
        never = answer_health(settings.health_address, checks) => match never {},
    }
}

async fn answer_health(address: Option<SocketAddr>, checks: Vec<Check>) -> Infallible {
    match address {
        Some(address) => health::server::serve(address, checks).await,
        None => std::future::pending().await,
    }
}

fn hypervisor(settings: &Settings, life: Lifecycle) -> Result<Prepared, RoleError> {
    let program = link_program(settings).map_err(RoleError::LinkProgram)?;
    let journal =
        DiskJournal::open(settings.hypervisor.state_dir.join("journal")).map_err(RunError::Journal)?;
    let parts = Parts {
        provider: provider(&settings.provider),
        tunnel: Arc::new(VxlanTunnel::with_metadata_access(settings.hypervisor.metadata_access)),
        link: Arc::new(LinkProcesses::placed(program, settings.link_placement.clone())),
        ledger: Arc::new(NoLedger),
        journal: Arc::new(journal.clone()),
    };
    let checks = health::of_hypervisor(life.clone(), journal);
    let config = settings.hypervisor.clone();
    let beside = beside(settings);
    let running = async move {
        tokio::select! {
            ended = peerpods_hypervisor::run(config, parts, life) => Ok(ended?),
            never = beside => match never {},
        }
    };
    Ok(Prepared { running: running.boxed(), checks })
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

/// The first SIGTERM or SIGINT makes a service drain, a further one makes it hurry.
///
/// # Errors
/// When signals cannot be received.
pub fn end_on_signals(life: &Lifecycle) -> Result<(), RoleError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RoleError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RoleError::Signals)?;
    let life = life.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                Some(()) = terminate.recv() => "SIGTERM",
                Some(()) = interrupt.recv() => "SIGINT",
                else => return,
            };
            if life.is_draining() {
                tracing::info!(signal = name, "asked again: starts in flight are unwound now");
                life.hurry();
            } else {
                tracing::info!(signal = name, "asked to end; a second signal hurries");
                life.drain();
            }
        }
    });
    Ok(())
}
