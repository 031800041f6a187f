//! The service: message → files → port → pod network → agent, and then the pod's life.
//!
//! ```text
//! setting up ──▶ serving ──agent ends──▶ links closed, port shut; waiting to be deleted
//!      │            └──told to stop──▶ links closed, agent ended, tunnel removed
//!      └─ any step fails: everything undone, the step named
//! ```
//!
//! The port opens as soon as the keys are known, so that an early caller is queued by the kernel and need not come again. Its handshake
//! waits until the agent is started: on one virtual CPU it would only delay the pod's network. The far end waits for the agent's socket.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use peerpods_agentlink::admission::Gate;
use peerpods_agentlink::far::{Far, FarConfig};
use peerpods_agentlink::tls::{FarKeys, MinVersion, TlsError, far_server, far_with_own_key};
use peerpods_podnet::guest::{ensure_podns, refuse};
use peerpods_podnet::{GuestTunnel, TunnelError};
use peerpods_podvm::guest_config::{Admission, ApfConfig};
use peerpods_podvm::network::{PodInterface, PodNetwork};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::agent::{self, Agent, AgentError, AgentSpec};
use crate::args::Args;
use crate::provision::{ProvisionError, Provisioned, provision};
use crate::uptime::Uptime;
use crate::user_data::{self, UserDataError};

/// How long the VM's own network may take to come up (DHCP, on a distribution's image).
const ROUTE_PATIENCE: Duration = Duration::from_secs(30);
/// How often a route to the worker is looked for.
const ROUTE_RETRY: Duration = Duration::from_millis(200);

/// How often it is made sure that others are kept out of the pod's tunnels.
const KEEP: Duration = Duration::from_secs(60);

/// Why the service ended, or never began. The text names the step.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no message from the worker.
    #[error("user data")]
    UserData(#[from] UserDataError),
    /// The message is broken, or its files cannot be written.
    #[error("provisioning")]
    Provision(#[from] ProvisionError),
    /// The message lacks a key without which nobody could be trusted.
    #[error(
        "TLS: apf.json has no {0}; a guest that made its own key and is started anew has lost it with the token, and needs a new VM"
    )]
    NoKeys(&'static str),
    /// The message asks for an admission that is not known here.
    #[error(
        "TLS: apf.json has an admission of version {0}, and this guest knows {known}; build the image anew",
        known = Admission::VERSION
    )]
    Admission(u32),
    /// The keys are unusable.
    #[error("TLS")]
    Tls(#[from] TlsError),
    /// The port cannot be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The pod's namespace or tunnel cannot be made.
    #[error("pod network")]
    Network(#[from] TunnelError),
    /// The agent does not start.
    #[error("agent")]
    Agent(#[from] AgentError),
}

/// Runs until `shutdown`. An agent that ends does not end the service: its links close, the port shuts, and the VM stays to be looked at.
///
/// # Errors
/// When a step fails; what was made before is undone.
///
/// # Cancel safety
/// Not to be dropped half-way: the pod's namespace and tunnel would stay. Cancel `shutdown` instead.
pub async fn run(args: &Args, shutdown: CancellationToken) -> Result<(), ServiceError> {
    let Some(told) = shutdown.run_until_cancelled(message(args)).await else { return Ok(()) };
    let mut told = told?;
    let worker = told.config.pod_network.as_ref().map(|network| network.worker_node_ip.addr());
    let address = args.listen(worker);
    let port = Port::open(address, args, &told.config).await?;
    // The gate has the token now, and wipes it.
    told.config.admission = None;
    say_step("listening", address);
    let tunnel = GuestTunnel { podns: args.podns.clone() };
    let result = match shutdown.run_until_cancelled(set_up(args, &told, &tunnel)).await {
        Some(Ok(agent)) => tokio::select! {
            result = live(agent, port, &shutdown) => result,
            never = keep(&tunnel, told.config.pod_network.as_ref()) => match never {},
        },
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    tear_down(&tunnel, told.config.pod_network.as_ref()).await;
    result
}

/// The worker's message, as files and as what we need of them.
async fn message(args: &Args) -> Result<Provisioned, ServiceError> {
    let message = user_data::find(args.user_data.as_deref(), &args.run_dir, args.user_data_wait).await?;
    let told = provision(&message, &args.run_dir)?;
    let ApfConfig { pod_name, pod_namespace, .. } = &told.config;
    say_step("user data", format_args!("pod {pod_namespace}/{pod_name}"));
    Ok(told)
}

/// The pod's namespace and tunnel, then the agent.
async fn set_up(args: &Args, told: &Provisioned, tunnel: &GuestTunnel) -> Result<Agent, ServiceError> {
    ensure_podns(&args.podns).await?;
    match &told.config.pod_network {
        Some(network) => {
            lay(tunnel, network).await?;
            tell_off(args, told, network).await;
            let all: Vec<String> = network.carried().iter().map(|c| shown(&c.interface)).collect();
            say_step("pod network", all.join(", "));
            tokio::spawn(announce(tunnel.clone(), network.clone()));
        }
        None => tracing::warn!("apf.json has no pod-network: containers will have a loopback device only"),
    }
    let own = std::env::current_exe().ok();
    let spec = AgentSpec {
        program: agent::find(args.agent.as_deref(), own.as_deref())?,
        socket: args.agent_socket.clone(),
        config: args.run_dir.join("agent.toml"),
        policy: told.policy.clone(),
    };
    let agent = spec.start()?;
    say_step("agent", format_args!("{} (pid {})", spec.program.display(), agent.pid().unwrap_or_default()));
    tell_service_manager();
    Ok(agent)
}

fn shown(interface: &PodInterface) -> String {
    format!("{} on {}", interface.address, interface.name)
}

/// Has the worker know how large this VM's packets may be. A worker that is not told takes the VM for a stock one.
async fn announce(tunnel: GuestTunnel, network: PodNetwork) {
    if let Err(error) = tunnel.announce(&network).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the worker cannot be told how large packets may be"
        );
    }
}

/// The pod learns at once what it cannot reach. The worker keeps it from there; without this it would only wait.
async fn tell_off(args: &Args, told: &Provisioned, network: &PodNetwork) {
    if let Err(error) =
        refuse(&args.podns, network.worker_node_ip.addr(), &told.config.blocked_addresses).await
    {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "the pod will wait in vain for what it cannot reach");
    }
}

/// Lays the tunnel; waits for a route to the worker, which a DHCP client may still be about to make.
async fn lay(tunnel: &GuestTunnel, network: &PodNetwork) -> Result<(), TunnelError> {
    let started = Instant::now();
    loop {
        match tunnel.setup(network).await {
            Err(TunnelError::Unreachable { .. }) if started.elapsed() < ROUTE_PATIENCE => {
                sleep(ROUTE_RETRY).await
            }
            done => return done,
        }
    }
}

/// What an agent said last before it ended is still carried for so long.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// From the agent's start to the end of the service. An agent that nobody could ever reach is an error: the worker must not wait for it.
async fn live(mut agent: Agent, port: Port, shutdown: &CancellationToken) -> Result<(), ServiceError> {
    let links = port.serve();
    if let Some(Err(error)) = shutdown.run_until_cancelled(agent.reachable()).await {
        links.close().await;
        return Err(error.into());
    }
    if let Some(status) = shutdown.run_until_cancelled(agent.ended()).await {
        match status {
            Ok(status) => tracing::error!("the agent ended ({status}); its links are closed for good"),
            Err(error) => tracing::error!(%error, "the agent is lost; its links are closed for good"),
        }
        sleep(LAST_WORDS).await;
        links.close().await;
        tracing::info!("the VM stays up until it is deleted, so that this console can be read");
        shutdown.cancelled().await;
    } else {
        links.close().await;
    }
    agent.stop().await;
    Ok(())
}

/// Keeps others out of the pod's tunnels, whatever flushes the VM's firewall.
async fn keep(tunnel: &GuestTunnel, network: Option<&PodNetwork>) -> Infallible {
    loop {
        sleep(KEEP).await;
        let Some(network) = network else { continue };
        if let Err(error) = tunnel.keep(network).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "cannot see whether the pod's tunnel is guarded; trying again");
        }
    }
}

async fn tear_down(tunnel: &GuestTunnel, network: Option<&PodNetwork>) {
    let Some(network) = network else { return };
    if let Err(error) = tunnel.teardown(network).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "the pod's interface could not be removed");
    }
}

/// The open port. Callers are queued and not yet served; dropped, they are refused.
struct Port {
    listener: TcpListener,
    far: Far,
}

impl Port {
    async fn open(address: SocketAddr, args: &Args, config: &ApfConfig) -> Result<Self, ServiceError> {
        let far = Far::new(far_config(args, config)?);
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| ServiceError::Listen { address, source })?;
        Ok(Self { listener, far })
    }

    fn serve(self) -> Links {
        let closing = CancellationToken::new();
        let token = closing.clone();
        let serving = tokio::spawn(async move { self.far.serve(self.listener, token).await });
        Links { closing, serving }
    }
}

/// The links behind the port.
struct Links {
    closing: CancellationToken,
    serving: JoinHandle<()>,
}

impl Links {
    /// Closes every link; callers are refused from here on.
    async fn close(self) {
        self.closing.cancel();
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the agent link broke");
        }
    }
}

/// With a token: a key made now, which nobody else has, behind a gate. Else the key in the message.
fn far_config(args: &Args, config: &ApfConfig) -> Result<FarConfig, ServiceError> {
    let place = |tls| FarConfig::new(tls, args.agent_socket.clone(), args.podns.clone());
    let Some(admission) = &config.admission else {
        return Ok(place(far_server(keys(config)?, min_version(config)?)?));
    };
    if admission.version != Admission::VERSION {
        return Err(ServiceError::Admission(admission.version));
    }
    let (tls, own) = far_with_own_key(client_ca(config)?)?;
    let validity = Duration::from_secs(admission.valid_seconds);
    let gate = Gate::new(own, admission.token.clone(), validity);
    say_step("own key made", format_args!("{own}, to be admitted within {validity:?}"));
    Ok(FarConfig { gate: Some(Arc::new(gate)), ..place(tls) })
}

fn client_ca(config: &ApfConfig) -> Result<&str, ServiceError> {
    config.tls_client_ca.as_deref().ok_or(ServiceError::NoKeys("tls-client-ca"))
}

fn keys(config: &ApfConfig) -> Result<FarKeys<'_>, ServiceError> {
    Ok(FarKeys {
        certificate: config.tls_server_cert.as_deref().ok_or(ServiceError::NoKeys("tls-server-cert"))?,
        key: config.tls_server_key.as_ref().ok_or(ServiceError::NoKeys("tls-server-key"))?.expose(),
        client_ca: client_ca(config)?,
    })
}

fn min_version(config: &ApfConfig) -> Result<MinVersion, TlsError> {
    config.tls_min_version.as_deref().map(str::parse).transpose().map(Option::unwrap_or_default)
}

fn say_step(step: &str, what: impl std::fmt::Display) {
    tracing::info!("{step} {}: {what}", Uptime::now());
}

fn tell_service_manager() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "cannot tell the service manager that we are ready");
    }
}
