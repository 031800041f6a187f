//! Composing roles: the only place that knows concrete providers, tunnels and links.

use std::path::PathBuf;
use std::sync::Arc;

use peerpods_agentlink::process::LinkProcesses;
use peerpods_hypervisor::journal::DiskJournal;
use peerpods_hypervisor::ledger::NoLedger;
use peerpods_hypervisor::{Parts, RunError};
use peerpods_podnet::VxlanTunnel;
use peerpods_provider::Provider;
use peerpods_provider_qemu::QemuProvider;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{ProviderSettings, Role, Settings};
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

/// Runs roles in this process until all end, one fails, or SIGTERM or SIGINT asks them to end.
///
/// # Errors
/// The first role's failure.
pub async fn run(settings: &Settings, roles: &[Role]) -> Result<(), RoleError> {
    let shutdown = CancellationToken::new();
    cancel_on_signal(&shutdown)?;
    let running = roles.iter().map(|role| async {
        let ended = match role {
            Role::Hypervisor => hypervisor(settings, shutdown.clone()).await,
        };
        if ended.is_err() {
            shutdown.cancel();
        }
        ended
    });
    futures::future::join_all(running).await.into_iter().collect()
}

async fn hypervisor(settings: &Settings, shutdown: CancellationToken) -> Result<(), RoleError> {
    let program = link_program(settings).map_err(RoleError::LinkProgram)?;
    let journal =
        DiskJournal::open(settings.hypervisor.state_dir.join("journal")).map_err(RunError::Journal)?;
    let parts = Parts {
        provider: provider(&settings.provider),
        tunnel: Arc::new(VxlanTunnel::new()),
        link: Arc::new(LinkProcesses::new(program)),
        ledger: Arc::new(NoLedger),
        journal: Arc::new(journal),
    };
    Ok(peerpods_hypervisor::run(settings.hypervisor.clone(), parts, shutdown).await?)
}

fn cancel_on_signal(shutdown: &CancellationToken) -> Result<(), RoleError> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signal = signal(kind).map_err(RoleError::Signals)?;
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            if signal.recv().await.is_some() {
                tracing::info!(signal = kind.as_raw_value(), "asked to end");
                shutdown.cancel();
            }
        });
    }
    Ok(())
}
