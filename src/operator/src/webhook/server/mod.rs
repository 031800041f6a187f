//! The HTTPS server: TLS 1.2 or newer, HTTP/1.1 (as API servers speak it to webhooks) and HTTP/2, everything that a peer can make us hold
//! bounded.
//!
//! It owns connections and their limits. What is answered is decided elsewhere: [`Webhooks`] takes a path and a body and gives an answer.
//! The caller owns the socket and the reason to stop, so tests bind port 0.
//!
//! ```text
//! accept ─▶ TLS (a certificate that may change any time) ─▶ HTTP ─▶ path ─▶ body (bounded) ─▶ Webhooks ─▶ answer
//! ```

mod body;
mod connection;
mod existing;
mod respond;
mod tls;
pub mod took;
mod webhooks;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use connection::Connections;
pub use existing::{Configs, KubeConfigs};
pub use tls::TlsError;
pub use webhooks::{Counts, Question, Webhooks};

/// Asks about a pod.
pub const MUTATE_POD: &str = "/mutate-v1-pod";
/// Asks about a `KataConfig`.
pub const VALIDATE_KATACONFIG: &str = "/validate-kataconfiguration-openshift-io-v1-kataconfig";
/// Asks about a `PeerPodConfig`.
pub const VALIDATE_PEERPODCONFIG: &str = "/validate-confidentialcontainers-org-v1alpha1-peerpodconfig";
/// Whether the process lives.
pub const HEALTHZ: &str = "/healthz";
/// Whether the API server should ask here.
pub const READYZ: &str = "/readyz";

/// What peers are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; more wait.
    pub connections: usize,
    /// Questions at a time on one HTTP/2 connection.
    pub streams: u32,
    /// Bytes of one body. The API server takes objects of up to 3 MiB, and wraps them.
    pub body: usize,
    /// Bytes of all bodies at a time; more wait.
    pub bodies: usize,
    /// A TLS handshake's time.
    pub handshake: Duration,
    /// The time until the first question.
    pub head: Duration,
    /// The time between questions. An API server keeps an idle connection for 90 s; who closes it earlier may do so while a question is on
    /// its way, which then fails: it is not asked again.
    pub idle: Duration,
    /// A body's time, waiting for room included.
    pub body_time: Duration,
    /// How long questions are still taken after the end was asked for: until then somebody may not know that we are not ready any more.
    pub linger: Duration,
    /// How long answers under way may take after that.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            streams: 1000,
            body: 4 << 20,
            bodies: 32 << 20,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(150),
            body_time: Duration::from_secs(10),
            linger: Duration::from_secs(5),
            drain: Duration::from_secs(10),
        }
    }
}

/// Answers at `listener` until `shutdown`, and then what is under way.
///
/// # Errors
/// When TLS cannot be set up.
pub async fn serve(
    listener: TcpListener,
    webhooks: Arc<Webhooks>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Result<(), TlsError> {
    let connections = Arc::new(Connections {
        tls: tls::acceptor(webhooks.shown())?,
        // Room for one of the largest at least.
        bodies: Arc::new(Semaphore::new((limits.bodies.max(limits.body) >> 10) + 1)),
        webhooks: webhooks.clone(),
        limits,
        ending: CancellationToken::new(),
        over: CancellationToken::new(),
    });
    let tasks = TaskTracker::new();
    tokio::select! {
        () = accept(listener, &connections, &tasks) => {}
        () = async {
            shutdown.await;
            webhooks.end();
            info!("the webhook ends; it answers a little longer");
            tokio::time::sleep(limits.linger).await;
        } => {}
    }
    connections.ending.cancel();
    tasks.close();
    if tokio::time::timeout(limits.drain, tasks.wait()).await.is_err() {
        warn!("webhook connections are cut off: they did not end in time");
        connections.over.cancel();
        tasks.wait().await;
    }
    Ok(())
}

async fn accept(listener: TcpListener, connections: &Arc<Connections>, tasks: &TaskTracker) {
    let room = Arc::new(Semaphore::new(connections.limits.connections));
    loop {
        // Never closed.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connections = connections.clone();
                tasks.spawn(async move {
                    connections.serve(stream).await;
                    drop(permit);
                });
            }
            Err(e) => {
                // Out of descriptors, as a rule.
                warn!(error = %e, "cannot accept a webhook connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
