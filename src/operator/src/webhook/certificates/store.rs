//! Where the certificate is kept and who is told whom to trust: the API server, or a fake of it.

use async_trait::async_trait;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Secret;

use super::{CERT_MANAGER_INJECT, SERVICE_CA_INJECT};

/// A webhook configuration that calls us.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Configuration {
    /// A `MutatingWebhookConfiguration` by its name.
    Mutating(String),
    /// A `ValidatingWebhookConfiguration` by its name.
    Validating(String),
}

/// Such a configuration as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configured {
    /// Its annotations' keys.
    pub annotations: Vec<String>,
    /// Its webhooks and whom each trusts.
    pub webhooks: Vec<(String, Option<Vec<u8>>)>,
}

impl Configured {
    /// Whether somebody else was asked to say whom to trust.
    #[must_use]
    pub fn is_injected_by_others(&self) -> bool {
        self.annotations.iter().any(|key| key == SERVICE_CA_INJECT || key.starts_with(CERT_MANAGER_INJECT))
    }

    /// Whether every webhook trusts exactly `bundle`.
    #[must_use]
    pub fn trusts(&self, bundle: &[u8]) -> bool {
        self.webhooks.iter().all(|(_, trusted)| trusted.as_deref() == Some(bundle))
    }
}

/// Whether a write took place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It did.
    Yes,
    /// Somebody else was first: read again.
    NotFirst,
}

/// What the API server did not do.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {object}")]
pub struct StoreError {
    /// What was tried.
    pub doing: &'static str,
    /// With what: kind, namespace and name.
    pub object: String,
    /// What was said.
    #[source]
    pub source: Box<kube::Error>,
}

/// The Secret and the configurations. Every method may be repeated, and may be dropped at any await.
#[async_trait]
pub trait Store: Send + Sync {
    /// The Secret, or nothing.
    async fn read(&self) -> Result<Option<Secret>, StoreError>;
    /// Creates the Secret unless there is one.
    async fn create(&self, secret: Secret) -> Result<Written, StoreError>;
    /// Replaces the Secret unless it was changed since it was read.
    async fn replace(&self, secret: Secret) -> Result<Written, StoreError>;
    /// A configuration, or nothing.
    async fn configured(&self, of: &Configuration) -> Result<Option<Configured>, StoreError>;
    /// Says whom the named webhooks of a configuration trust.
    async fn trust(&self, of: &Configuration, webhooks: &[String], bundle: &[u8]) -> Result<(), StoreError>;
    /// Something happens whenever the Secret or one of these configurations changes, comes or goes. Never ends.
    fn changes(&self, of: &[Configuration]) -> BoxStream<'static, ()>;
}
