//! Composing roles: the only place that knows concrete providers, tunnels and links.

mod hypervisor;
mod operator;
mod webhook;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use peerpods_hypervisor::{Lifecycle, RunError};
use peerpods_operator::webhook::role::RoleError as WebhookError;
use peerpods_provider::Provider;
#[cfg(feature = "aws")]
use peerpods_provider_aws::{AwsConfig, AwsProvider};
use peerpods_provider_qemu::QemuProvider;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cluster::{self, ClusterError};
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
    /// There is no cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// VMs would be tagged with a node that the operator takes for lost.
    #[error(
        "the cluster has no Node {0:?}: set node (NODE_NAME) to this node's name as kubectl get nodes has it"
    )]
    NoSuchNode(String),
    /// The cluster's id is known and cannot be kept.
    #[error("cannot keep the cluster's id in state-dir")]
    ClusterId(#[source] std::io::Error),
    /// The webhook failed.
    #[error("the webhook failed")]
    Webhook(#[from] WebhookError),
    /// The webhook's port cannot be had.
    #[error("the webhook cannot listen at {address}; free it, or set webhook-address")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
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
/// Health and metrics are answered from before the roles begin until they have ended.
///
/// # Errors
/// The first role's failure.
pub async fn run(settings: &Settings, roles: &[Role]) -> Result<(), RoleError> {
    let life = Lifecycle::new();
    end_on_signals(&life)?;
    let mut registry = Registry::default();
    registry.register("peerpods_build", "This program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    let (mut running, mut checks) = (Vec::new(), Vec::new());
    for prepared in prepare(settings, roles, &life, &mut registry).await? {
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
        never = answer_health(settings.health_address, checks, registry) => match never {},
    }
}

async fn prepare(
    settings: &Settings,
    roles: &[Role],
    life: &Lifecycle,
    registry: &mut Registry,
) -> Result<Vec<Prepared>, RoleError> {
    let mut prepared = Vec::new();
    if roles.contains(&Role::Hypervisor) {
        let cluster = cluster::client(settings.kubernetes).await?;
        prepared.push(hypervisor::prepare(settings, life.clone(), cluster)?);
    }
    if roles.iter().any(|role| *role != Role::Hypervisor) {
        // These are nothing without a cluster.
        let client = cluster::anywhere().await?;
        let stop = until_the_end(life);
        if roles.contains(&Role::Operator) {
            prepared.push(operator::prepare(settings, &client, stop.clone(), registry));
        }
        prepared.extend(webhook::prepare(settings, roles, &client, stop, registry)?);
    }
    Ok(prepared)
}

/// Cancelled when the process is asked to end.
fn until_the_end(life: &Lifecycle) -> CancellationToken {
    let (token, life) = (CancellationToken::new(), life.clone());
    let cancelled = token.clone();
    tokio::spawn(async move {
        life.asked_to_end().await;
        cancelled.cancel();
    });
    token
}

async fn answer_health(address: Option<SocketAddr>, checks: Vec<Check>, registry: Registry) -> Infallible {
    match address {
        Some(address) => health::server::serve(address, health::server::Shown { checks, registry }).await,
        None => std::future::pending().await,
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
