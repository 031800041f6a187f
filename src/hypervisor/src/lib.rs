//! The node service behind the shim's socket.
//!
//! ```text
//!            one unix socket
//!  shim ──▶ rpc::mux ─┬─ ttrpc ─┐
//!                     └─ gRPC ──┴─▶ Service ──▶ Driver (one per sandbox) ──▶ Provider, Tunnel, Link, Ledger
//!                                                  │
//!                                                  └─▶ Journal (before every effect)
//! ```
//!
//! [`run`] is the whole service: take state directory and socket, load the journal, ask the provider, take over what runs, serve. What a VM is made
//! of, how frames travel and which cloud is used are other crates' business; this one decides nothing that
//! [`peerpods_podvm::admission`] can decide.

pub mod config;
mod context;
mod driver;
pub mod failure;
pub mod journal;
pub mod ledger;
pub mod orphans;
pub mod record;
mod rpc;
mod service;
pub mod socket;
pub mod state;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use peerpods_agentlink::ca::{CaError, ClusterCa};
use peerpods_provider::ProviderError;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use config::Config;
pub use context::Parts;
pub use driver::Ask;
pub use service::Service;

use crate::context::{Context, Ready, Vnis};
use crate::journal::{JournalError, Loaded};
use crate::socket::SocketError;

/// Why the service could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The provider is not usable as configured.
    #[error("provider {name} is not usable")]
    Provider {
        /// Its name.
        name: &'static str,
        /// What is wrong.
        #[source]
        source: Box<ProviderError>,
    },
    /// A directory or file of the service could not be made or read.
    #[error("cannot {step} {}", path.display())]
    File {
        /// What was being done.
        step: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another service works on the same state.
    #[error("another service works on {}; stop it, or give this one another state directory", dir.display())]
    InUse {
        /// The state directory.
        dir: PathBuf,
    },
    /// The journal could not be opened.
    #[error("cannot open the journal")]
    Journal(#[from] JournalError),
    /// The certificate authority could not be loaded or made.
    #[error("cannot load the cluster's certificate authority")]
    Authority(#[from] CaError),
    /// The node's own address could not be found.
    #[error("cannot find the address that VMs reach this node by")]
    WorkerAddress(#[source] peerpods_podnet::TunnelError),
    /// The shim's socket could not be taken.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The RPC servers failed.
    #[error("the RPC server ended")]
    Serve(#[source] io::Error),
}

/// How long a shutdown waits for starts in flight to be unwound.
const DRAIN_BUDGET: Duration = Duration::from_secs(20);

/// Runs the service until `shutdown`. Running pods are left alone; starts in flight are unwound.
///
/// # Errors
/// Before the first request when something is missing; the error names it.
pub async fn run(config: Config, parts: Parts, shutdown: CancellationToken) -> Result<(), RunError> {
    // Before the work that may take a moment: whoever connects meanwhile waits and is served.
    let socket = socket::take(&config.socket)?;
    let service = open(config, parts, shutdown.clone()).await?;
    rpc::serve(socket.listener, service.clone(), shutdown).await.map_err(RunError::Serve)?;
    if tokio::time::timeout(DRAIN_BUDGET, service.drained()).await.is_err() {
        warn!("some sandboxes are still being removed; the next start goes on with them");
    }
    Ok(())
}

/// The service without a socket: takes the state directory, loads the journal, asks the provider, takes over what runs. [`run`] adds the
/// shim's socket; a simulation calls the methods of [`Service`] itself.
///
/// # Errors
/// When something is missing; the error names it.
pub async fn open(config: Config, parts: Parts, shutdown: CancellationToken) -> Result<Service, RunError> {
    private_dir(&config.state_dir)?;
    private_dir(&config.pods_dir)?;
    let lock = only_one(&config.state_dir)?;
    let (context, records) = prepare(config, parts).await?;
    let service = Service::new(Arc::new(context), lock, shutdown);
    let taken_over = records.len();
    service.resume(records);
    service.sweep_for_orphans();
    info!(version = rpc::VERSION, taken_over, provider = service.provider(), "ready");
    Ok(service)
}

/// Two services on one journal would unwind each other's sandboxes.
fn only_one(dir: &Path) -> Result<service::Lock, RunError> {
    let name = dir.join("lock");
    match socket::exclusive(&name) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(RunError::InUse { dir: dir.to_owned() }),
        Err(source) => Err(RunError::File { step: "lock", path: name, source }),
    }
}

async fn prepare(config: Config, parts: Parts) -> Result<(Context, Vec<record::Record>), RunError> {
    let file = |step| {
        let path = config.state_dir.clone();
        move |source| RunError::File { step, path, source }
    };
    let Loaded { records, aside } = parts.journal.load().await?;
    for bad in aside {
        error!(file = %bad.path.display(), reason = bad.reason, "a journal record makes no sense; it was set aside");
    }
    let ready = match ready(&config, &parts).await {
        Ok(ready) => Ok(ready),
        // Whoever has sandboxes to stop must not be kept from it by what new ones would need.
        Err(e) if !records.is_empty() => Err(chain(&e)),
        Err(e) => return Err(e),
    };
    if let Err(why) = &ready {
        error!(why, "no new VM can be made; looking after the sandboxes there are");
    }
    let cluster = match &config.cluster_id {
        Some(id) => id.clone(),
        None => context::cluster_id(&config.state_dir).map_err(file("read the cluster id in"))?,
    };
    let authority = ClusterCa::load_or_create(&config.state_dir.join("ca"))?;
    let vnis = Vnis::new(config.vxlan_min_id, records.iter().map(|record| record.vni));
    let boot_id = context::boot_id().map_err(file("read the boot id for"))?;
    info!(%cluster, socket = %config.socket.display(), "configured");
    Ok((Context { config, parts, ready, cluster, authority, vnis, boot_id }, records))
}

/// Asks the provider and finds the node's own address.
async fn ready(config: &Config, parts: &Parts) -> Result<Ready, RunError> {
    let name = parts.provider.name();
    let verified = parts.provider.verify().await;
    let facts = verified.map_err(|source| RunError::Provider { name, source: source.into() })?;
    for remark in &facts.remarks {
        info!(provider = name, "{remark}");
    }
    let worker_address = match facts.worker_address {
        Some(address) => address,
        None => worker_address(config.host_interface.as_deref()).await?,
    };
    info!(worker = %worker_address, mtu = facts.underlay_mtu, "VMs reach this node");
    Ok(Ready { facts, worker_address })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

async fn worker_address(interface: Option<&str>) -> Result<IpNet, RunError> {
    let found = peerpods_podnet::worker_address(interface).await.map_err(RunError::WorkerAddress)?;
    if let IpAddr::V6(address) = found.addr() {
        warn!(%address, "the node's primary address is IPv6");
    }
    Ok(found)
}

fn private_dir(path: &Path) -> Result<(), RunError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| RunError::File {
        step: "make the directory",
        path: path.to_owned(),
        source,
    })
}
