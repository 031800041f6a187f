//! Keeps the certificate: observe the Secret and the configurations, decide, act, again.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use peerpods_podvm::causes::chain;
use tracing::{info, warn};

use super::decide::{State, Step, decide};
use super::held::{self, HeldError, fresh};
use super::make::make;
use super::store::{Configuration, Store, StoreError, Written};
use super::{MANAGED_BY, Serving, Source, names_of};
use crate::webhook::configuration as names;

/// How often a certificate that is in order is looked at although nothing happened: time passes.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How soon after something did not work.
const LOOK_SOON: Duration = Duration::from_secs(5);
/// How soon after something changed: who changes the same back again and again keeps nobody busy.
const SETTLE: Duration = Duration::from_millis(500);
/// Steps in a row: Make, then Stage and so on are never needed at once.
const STEPS: usize = 4;

/// Why the certificate is not in order.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The API server did not do something.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No certificate could be made.
    #[error("cannot make a certificate for the webhook")]
    Make(#[from] rcgen::Error),
    /// The Secret is somebody else's and cannot be used.
    #[error(
        "Secret {secret} was not made by peerpods and cannot be used; let its maker renew it, or delete it"
    )]
    Foreign {
        /// The Secret, with its namespace.
        secret: String,
        /// What is wrong with it.
        #[source]
        source: HeldError,
    },
    /// Somebody else is to make the certificate.
    #[error("Secret {secret} is not there yet: it is made by {by}")]
    NotYet {
        /// The Secret, with its namespace.
        secret: String,
        /// By whom.
        by: &'static str,
    },
    /// Others write at the same time, again and again.
    #[error("Secret {0} is being changed by others all the time")]
    Contended(String),
}

/// What is kept, and for whom.
#[derive(Debug, Clone)]
pub struct Place {
    /// The namespace of Secret and Service.
    pub namespace: String,
    /// The Secret.
    pub secret: String,
    /// The Service that the API server calls.
    pub service: String,
    /// Who makes the certificate.
    pub source: Source,
    /// The configurations that call the Service.
    pub configurations: Vec<Configuration>,
}

impl Place {
    /// That of the pods' webhook, which the operator installs in its namespace.
    #[must_use]
    pub fn of_pods(namespace: &str, source: Source) -> Self {
        Self {
            namespace: namespace.to_owned(),
            secret: names::CERTIFICATE_SECRET.to_owned(),
            service: names::SERVICE.to_owned(),
            source,
            configurations: vec![Configuration::Mutating(names::CONFIGURATION.to_owned())],
        }
    }

    /// That of the operator's own webhook, which is installed with the operator.
    #[must_use]
    pub fn of_operator(namespace: &str, source: Source) -> Self {
        Self {
            namespace: namespace.to_owned(),
            secret: names::OPERATOR_CERTIFICATE_SECRET.to_owned(),
            service: names::OPERATOR_SERVICE.to_owned(),
            source,
            configurations: vec![Configuration::Validating(names::CONFIGURATION.to_owned())],
        }
    }

    /// The names that the API server calls its Service by.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        names_of(&self.service, &self.namespace)
    }
}

/// Keeps one certificate.
pub struct Keeper {
    store: Arc<dyn Store>,
    place: Place,
    serving: Serving,
}

impl Keeper {
    /// A keeper that shows what it keeps by `serving`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, place: Place, serving: Serving) -> Self {
        Self { store, place, serving }
    }

    /// Keeps the certificate until `shutdown`.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut changes = self.store.changes(&self.place.configurations);
        let mut told = String::new();
        loop {
            let pause = tokio::select! {
                () = &mut shutdown => return,
                done = self.pass(SystemTime::now()) => self.tell(done, &mut told),
            };
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(pause) => {}
                Some(()) = changes.next() => tokio::time::sleep(SETTLE).await,
            }
        }
    }

    /// Tells a failure once, and how long to wait.
    fn tell(&self, done: Result<(), KeeperError>, told: &mut String) -> Duration {
        match done {
            Ok(()) => {
                told.clear();
                LOOK_EVERY
            }
            Err(error) => {
                let text = chain(&error);
                self.serving.missing(text.clone());
                if *told != text {
                    warn!(error = text, "the webhook's certificate is not in order; trying again");
                    *told = text;
                }
                LOOK_SOON
            }
        }
    }

    /// Brings everything in order once.
    ///
    /// # Errors
    /// What is in the way; the same again later is safe.
    pub async fn pass(&self, now: SystemTime) -> Result<(), KeeperError> {
        for _ in 0..STEPS {
            let secret = self.store.read().await?;
            let state = held::state_of(secret.as_ref());
            self.show(secret.as_ref(), &state)?;
            let trusted = self.make_trusted(secret.as_ref()).await?;
            let step = match (&state, &self.place.source) {
                // Whose it is to be is said; it is not ours to be first.
                (State::Missing, Source::ServiceCa | Source::CertManager(_)) => Step::Wait,
                _ => decide(&state, &self.place.names(), trusted, now),
            };
            let Some(wanted) = self.next(secret, state, step, now)? else { return Ok(()) };
            let written = match wanted.metadata.resource_version {
                None => self.store.create(wanted).await?,
                Some(_) => self.store.replace(wanted).await?,
            };
            if written == Written::Yes {
                info!(secret = self.secret(), ?step, "the webhook's certificate was changed");
            }
        }
        Err(KeeperError::Contended(self.secret()))
    }

    fn show(&self, secret: Option<&Secret>, state: &State) -> Result<(), KeeperError> {
        match (state, secret) {
            (State::Ours(held), _) => self.serving.show(&held.serving),
            (State::Foreign, Some(secret)) => {
                let foreign = |source| KeeperError::Foreign { secret: self.secret(), source };
                self.serving.show(&held::serving_of(secret).map_err(foreign)?);
            }
            (State::Missing, _) => match self.place.source {
                Source::Own => {}
                Source::ServiceCa => return Err(self.not_yet("OpenShift's service-ca")),
                Source::CertManager(_) => return Err(self.not_yet("cert-manager")),
            },
            (State::Broken(_) | State::Foreign, _) => {}
        }
        Ok(())
    }

    fn not_yet(&self, by: &'static str) -> KeeperError {
        KeeperError::NotYet { secret: self.secret(), by }
    }

    /// Whether every configuration trusts the Secret's authorities; makes it so first. One that is not there yet has nobody to fail.
    async fn make_trusted(&self, secret: Option<&Secret>) -> Result<bool, KeeperError> {
        let Some(bundle) = secret.and_then(held::bundle_of) else { return Ok(false) };
        for configuration in &self.place.configurations {
            let Some(configured) = self.store.configured(configuration).await? else { continue };
            if configured.is_injected_by_others() || configured.trusts(&bundle) {
                continue;
            }
            let webhooks: Vec<String> = configured.webhooks.into_iter().map(|(name, _)| name).collect();
            self.store.trust(configuration, &webhooks, &bundle).await?;
            info!(?configuration, "the API server was told to trust the webhook's certificate");
        }
        Ok(true)
    }

    /// The Secret as it should be, when it is to be written.
    fn next(
        &self,
        secret: Option<Secret>,
        state: State,
        step: Step,
        now: SystemTime,
    ) -> Result<Option<Secret>, KeeperError> {
        let names = self.place.names();
        let data = match (step, state) {
            (Step::Make, _) => fresh(&make(&names, now)?),
            (Step::Stage, State::Ours(held)) => held.staged(&make(&names, now)?),
            (Step::Promote, State::Ours(held)) => held.promoted(),
            (Step::Forget, State::Ours(held)) => held.forgotten(now),
            _ => return Ok(None),
        };
        let mut wanted = secret.unwrap_or_else(|| self.empty());
        wanted.data = Some(data);
        Ok(Some(wanted))
    }

    fn empty(&self) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(self.place.secret.clone()),
                namespace: Some(self.place.namespace.clone()),
                labels: Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into()),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            ..Secret::default()
        }
    }

    fn secret(&self) -> String {
        format!("{}/{}", self.place.namespace, self.place.secret)
    }
}
