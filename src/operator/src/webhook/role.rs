//! The role whole: the server and the keepers of its certificates beside each other, until somebody says that it is enough.
//!
//! Two processes run it: the pods of the Deployment `peer-pods-webhook`, which are asked about pods, and the operator's own, which is asked
//! about `KataConfig` and `PeerPodConfig` before the Deployment exists. Both answer everything that is asked; what they differ in is the
//! Service in front of them, and so whose certificate they keep. One process can be both: it has one port and shows each Service's callers
//! that Service's certificate.

use std::sync::Arc;

use futures::future::join_all;
use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::certificates::keeper::Place;
use super::certificates::serving::ServingError;
use super::certificates::{Keeper, KubeStore, Serving, Shown};
use super::pods::Settings;
use super::server::{KubeConfigs, Limits, TlsError, Webhooks, serve};

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
    keepers: Vec<Keeper>,
    limits: Limits,
}

impl Role {
    /// Prepares it for the Service of `place`: nothing is read or written yet. `settings` say what is done with pods.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new(client: &Client, place: Place, settings: Settings, limits: Limits) -> Result<Self, RoleError> {
        Self::of(client, place, Vec::new(), settings, limits)
    }

    /// Prepares it for more than one Service, all in front of the same port.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn of(
        client: &Client,
        first: Place,
        more: Vec<Place>,
        settings: Settings,
        limits: Limits,
    ) -> Result<Self, RoleError> {
        let kept = |place: Place| {
            let (serving, names) = (Serving::untrusted()?, place.names());
            let store = KubeStore::new(client.clone(), &place.namespace, &place.secret);
            Ok::<_, ServingError>((names, serving.clone(), Keeper::new(Arc::new(store), place, serving)))
        };
        let configs = Arc::new(KubeConfigs::new(client.clone(), &first.namespace));
        let (_, first, keeper) = kept(first)?;
        let (mut keepers, mut others) = (vec![keeper], Vec::new());
        for place in more {
            let (names, serving, keeper) = kept(place)?;
            others.push((names, serving));
            keepers.push(keeper);
        }
        let webhooks = Arc::new(Webhooks::new(settings, configs, Shown::new(first, others)));
        Ok(Self { webhooks, keepers, limits })
    }

    /// What answers, for metrics and readiness.
    #[must_use]
    pub fn webhooks(&self) -> Arc<Webhooks> {
        self.webhooks.clone()
    }

    /// Runs until `shutdown`. The certificates are kept until the last answer.
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
        let keeping = join_all(self.keepers.iter().map(|keeper| keeper.run(answered.cancelled())));
        let (served, _) = tokio::join!(serving, keeping);
        Ok(served?)
    }
}
