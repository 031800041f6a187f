//! The role whole: the server and the keeper of its certificate beside each other, until somebody says that it is enough.

use std::sync::Arc;

use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::certificates::keeper::Place;
use super::certificates::serving::ServingError;
use super::certificates::{Keeper, KubeStore, Serving};
use super::pods::Settings;
use super::server::{KubeKataConfigs, Limits, TlsError, Webhooks, serve};

/// Why the role cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// There is nothing to show even to health checks.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A webhook that is ready to run.
pub struct Role {
    webhooks: Arc<Webhooks>,
    keeper: Keeper,
    limits: Limits,
}

impl Role {
    /// Prepares it: nothing is read or written yet.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new(client: &Client, place: Place, settings: Settings, limits: Limits) -> Result<Self, RoleError> {
        let serving = Serving::untrusted()?;
        let store = KubeStore::new(client.clone(), &place.namespace, &place.secret);
        let kataconfigs = Arc::new(KubeKataConfigs::new(client.clone()));
        Ok(Self {
            webhooks: Arc::new(Webhooks::new(settings, kataconfigs, serving.clone())),
            keeper: Keeper::new(Arc::new(store), place, serving),
            limits,
        })
    }

    /// What answers, for metrics and readiness.
    #[must_use]
    pub fn webhooks(&self) -> Arc<Webhooks> {
        self.webhooks.clone()
    }

    /// Runs until `shutdown`. The certificate is kept until the last answer.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), RoleError> {
        let answered = CancellationToken::new();
        let serving = async {
            let served = serve(listener, self.webhooks.clone(), self.limits, shutdown.cancelled()).await;
            answered.cancel();
            served
        };
        let (served, ()) = tokio::join!(serving, self.keeper.run(answered.cancelled()));
        Ok(served?)
    }
}
