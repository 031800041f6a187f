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
//! [`run`] is the whole service: take state directory and socket, load the journal, take over what runs, serve, and ask the provider
//! beside that. What a VM is made of, how frames travel and which cloud is used are other crates' business; this one decides nothing that
//! [`peerpods_podvm::admission`] can decide.

mod backoff;
pub mod capacity;
pub mod clock;
pub mod config;
mod context;
pub mod creation;
mod drain;
mod driver;
pub mod failure;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod journal;
pub mod ledger;
pub mod lifecycle;
pub mod orphans;
mod path_mtu;
mod readiness;
pub mod record;
mod rpc;
mod service;
pub mod socket;
pub mod state;
mod tunnels;
mod turns;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use peerpods_agentlink::ca::{CaError, ClusterCa};
use peerpods_podvm::SandboxId;
use peerpods_podvm::causes::chain;
use peerpods_provider::{Provider, ProviderError};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use config::Config;
pub use context::Parts;
pub use driver::Ask;
pub use lifecycle::{Lifecycle, Status};
pub use service::Service;

use crate::capacity::Capacity;
use crate::context::{Context, Vnis};
use crate::journal::{JournalError, Loaded, Salvaged};
use crate::path_mtu::PathMtu;
use crate::readiness::Readiness;
use crate::record::Whereabouts;
use crate::socket::SocketError;
use crate::turns::Turns;

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
    /// The provider is set to another place than the VMs are at.
    #[error(
        "{count} sandboxes have their VMs at {at} (the first is {first}), and this service is set to {now}, where it would take them for gone \
         and leave them running: set it back until they are gone"
    )]
    Elsewhere {
        /// How many sandboxes.
        count: usize,
        /// The first of them.
        first: SandboxId,
        /// Where their VMs are.
        at: Box<Whereabouts>,
        /// Where new ones would be.
        now: Box<Whereabouts>,
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

/// How long the provider may take to say where it is set to; what it does not say by then is not compared.
const LOCATION_WITHIN: Duration = Duration::from_secs(5);
/// How long drivers may take to let go at the very end. They were dropped by then; this is for those in the middle of a poll.
const LETTING_GO: Duration = Duration::from_secs(1);

/// Runs the service until `life` asks it to end, and no longer than [`Config::drain_timeout`] and some seconds after that, whatever hangs.
/// Running pods are left alone; starts in flight may finish; what is not removed by then is removed by the next run.
///
/// # Errors
/// When something is missing, or the provider says with nothing on record that it is not usable as configured; the error names it.
pub async fn run(config: Config, parts: Parts, life: impl Into<Lifecycle>) -> Result<(), RunError> {
    let life = life.into();
    let ended = serve(config, parts, &life).await;
    life.enter(Status::Ended);
    ended
}

async fn serve(config: Config, parts: Parts, life: &Lifecycle) -> Result<(), RunError> {
    // Before the work that may take a moment: whoever connects meanwhile waits and is served.
    let socket = socket::take(&config.socket)?;
    let drain_timeout = config.drain_timeout;
    let (service, unusable) = tokio::select! {
        opened = assemble(config, parts, life.drain.clone()) => opened?,
        // Nobody was answered yet. A provider that hangs must not hold the end up.
        () = life.drain.cancelled() => return Ok(()),
    };
    life.look_at(service.context());
    life.enter(Status::Serving);
    let close = CancellationToken::new();
    let draining = async {
        life.drain.cancelled().await;
        let began = Instant::now();
        drain::drain(&service, life, drain_timeout, began).await;
        close.cancel();
        Ok(began)
    };
    let serving = rpc::serve(socket.listener, service.clone(), close.clone());
    let ((), began) = tokio::try_join!(serving, draining).map_err(RunError::Serve)?;
    drain::drain(&service, life, drain_timeout, began).await;
    if tokio::time::timeout(LETTING_GO, service.abandon()).await.is_err() {
        warn!("a sandbox's driver does not let go");
    }
    match unusable.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The service without a socket: takes the state directory, loads the journal, takes over what runs, and asks the provider beside that.
/// [`run`] adds the shim's socket; a simulation calls the methods of [`Service`] itself. `shutdown` is cancelled when the provider says
/// that it is not usable as configured, and there is no sandbox to look after.
///
/// # Errors
/// When something is missing; the error names it.
pub async fn open(config: Config, parts: Parts, shutdown: CancellationToken) -> Result<Service, RunError> {
    Ok(assemble(config, parts, shutdown).await?.0)
}

/// Why the service ended by itself, once it did.
type Unusable = Arc<Mutex<Option<RunError>>>;

async fn assemble(
    config: Config,
    parts: Parts,
    shutdown: CancellationToken,
) -> Result<(Service, Unusable), RunError> {
    private_dir(&config.state_dir)?;
    private_dir(&config.pods_dir)?;
    let lock = only_one(&config.state_dir)?;
    let (context, records) = prepare(config, parts).await?;
    same_place(context.parts.provider.as_ref(), &records, context.config.clock.unix_ms()).await?;
    let context = Arc::new(context);
    let unusable = Unusable::default();
    // An unreadable record may be that of a pod that lives, and `gc adopt` needs a service.
    let nothing_to_lose = records.is_empty() && context.unreadable.is_empty();
    ask_the_provider(&context, nothing_to_lose.then(|| unusable.clone()), shutdown.clone());
    let service = Service::new(context, lock, shutdown);
    let taken_over = records.len();
    recall(service.context.parts.ledger.as_ref(), &records).await;
    service.resume(records);
    service.sweep_for_orphans();
    service.keep_tunnels();
    info!(version = rpc::VERSION, taken_over, provider = service.provider(), "ready");
    Ok((service, unusable))
}

/// Whether the provider sees the VMs that are on record. Pods go on meanwhile: their VMs and links need no service to run.
async fn same_place(
    provider: &dyn Provider,
    records: &[record::Record],
    now_unix_ms: u64,
) -> Result<(), RunError> {
    let lag = provider.visible_within();
    let asked = tokio::time::timeout(LOCATION_WITHIN, Whereabouts::of(provider)).await;
    let now = asked.unwrap_or_else(|_| Whereabouts { provider: provider.name().to_owned(), location: None });
    let at = |record: &record::Record| {
        let elsewhere = record.whereabouts.clone().filter(|at| at.is_elsewhere(&now));
        // A start that failed must hold nobody up who sets the service to a place with room.
        elsewhere.filter(|_| record.may_be_shown(lag, now_unix_ms))
    };
    let elsewhere: Vec<_> =
        records.iter().filter_map(|record| Some((&record.sandbox, at(record)?))).collect();
    let Some((first, at)) = elsewhere.first().cloned() else { return Ok(()) };
    Err(RunError::Elsewhere { count: elsewhere.len(), first: first.clone(), at: at.into(), now: now.into() })
}

/// Pods whose VMs the cluster may not know of: they came to them while it could not be told. One that is on its way out is released.
async fn recall(ledger: &dyn ledger::Ledger, records: &[record::Record]) {
    for record in records.iter().filter(|record| may_have_a_vm(record.stage)) {
        let id = record.instance.as_ref().map(|instance| instance.id.as_str());
        ledger.recall(&record.key(), record.claim(), id).await;
    }
}

fn may_have_a_vm(stage: record::Stage) -> bool {
    matches!(stage, record::Stage::Starting | record::Stage::Running)
}

/// Asks whether VMs can be made, beside everything else. With `unusable` a provider that somebody has to mend ends the service; whoever
/// has sandboxes to stop must not be kept from it by what new ones would need.
fn ask_the_provider(context: &Context, unusable: Option<Unusable>, shutdown: CancellationToken) {
    let (config, parts) = (context.config.clone(), context.parts.clone());
    let readiness = context.readiness.clone();
    let ending = shutdown.clone();
    let give_up = move |error| {
        if let Some(unusable) = unusable {
            *unusable.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            ending.cancel();
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = readiness.keep_asking(config, parts, give_up) => {}
            () = shutdown.cancelled() => {}
        }
    });
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
    let Loaded { records, aside, salvaged } = parts.journal.load().await?;
    for bad in aside {
        error!(file = %bad.path.display(), reason = bad.reason, "a journal record makes no sense; it was set aside");
    }
    if let Err(error) = parts.tunnel.collect().await {
        warn!(
            error = chain(&error),
            "what lost tunnels left on this node could not be removed; the next start tries again"
        );
    }
    let cluster = match &config.cluster_id {
        Some(id) => id.clone(),
        None => context::cluster_id(&config.state_dir).map_err(file("read the cluster id in"))?,
    };
    let authority = ClusterCa::load_or_create(&config.state_dir.join("ca"))?;
    let vnis = Vnis::new(config.vxlan_min_id, vnis_in_use(&records, &salvaged));
    let boot_id = context::boot_id().map_err(file("read the boot id for"))?;
    info!(%cluster, socket = %config.socket.display(), "configured");
    let readiness = Readiness::new(parts.provider.name());
    let capacity = Capacity::new(config.limit_per_node, &records);
    let turns = Turns::new();
    let unreadable = salvaged.into_iter().map(|found| (found.sandbox, found.vni)).collect();
    let path_mtu = PathMtu::default();
    let context = Context {
        config,
        parts,
        readiness,
        capacity,
        turns,
        cluster,
        authority,
        vnis,
        path_mtu,
        boot_id,
        unreadable,
    };
    Ok((context, records))
}

/// Those of the sandboxes, and those that an unreadable record still shows: its tunnel may be there.
fn vnis_in_use(records: &[record::Record], salvaged: &[Salvaged]) -> impl Iterator<Item = u32> {
    let salvaged =
        salvaged.iter().flat_map(|found| found.vni.into_iter().chain(found.more_vnis.iter().copied()));
    records.iter().flat_map(record::Record::vnis).chain(salvaged)
}

fn private_dir(path: &Path) -> Result<(), RunError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| RunError::File {
        step: "make the directory",
        path: path.to_owned(),
        source,
    })
}
