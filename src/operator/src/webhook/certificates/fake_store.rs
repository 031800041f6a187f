//! An API server for the keeper alone: one Secret with resource versions, and configurations.

use std::collections::HashMap;
use std::sync::Mutex;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::api::core::v1::Secret;

use super::store::{Configuration, Configured, Store, StoreError, Written};

/// Its state, and what was done to it.
#[derive(Default)]
pub(super) struct FakeStore {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    secret: Option<Secret>,
    version: u64,
    configurations: HashMap<Configuration, Configured>,
    writes: usize,
    away: bool,
}

impl FakeStore {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap())
    }

    fn reached<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> Result<T, StoreError> {
        self.with(|inner| match inner.away {
            true => Err(StoreError {
                doing: "reach",
                object: "the API server".to_owned(),
                source: Box::new(kube::Error::LinesCodecMaxLineLengthExceeded),
            }),
            false => Ok(act(inner)),
        })
    }

    pub(super) fn put(&self, mut secret: Secret) {
        self.with(|inner| {
            inner.version += 1;
            secret.metadata.resource_version = Some(inner.version.to_string());
            inner.secret = Some(secret);
        });
    }

    pub(super) fn secret(&self) -> Option<Secret> {
        self.with(|inner| inner.secret.clone())
    }

    pub(super) fn writes(&self) -> usize {
        self.with(|inner| inner.writes)
    }

    pub(super) fn go_away(&self, away: bool) {
        self.with(|inner| inner.away = away);
    }

    pub(super) fn configure(&self, of: Configuration, configured: Configured) {
        self.with(|inner| inner.configurations.insert(of, configured));
    }

    pub(super) fn bundle(&self, of: &Configuration) -> Option<Vec<u8>> {
        self.with(|inner| inner.configurations.get(of)?.webhooks.first()?.1.clone())
    }
}

#[async_trait]
impl Store for FakeStore {
    async fn read(&self) -> Result<Option<Secret>, StoreError> {
        let secret = self.reached(|inner| inner.secret.clone());
        // Lets another keeper read the same before either writes.
        tokio::task::yield_now().await;
        secret
    }

    async fn create(&self, secret: Secret) -> Result<Written, StoreError> {
        self.reached(|inner| inner.secret.is_some())?;
        if self.secret().is_some() {
            return Ok(Written::NotFirst);
        }
        self.with(|inner| inner.writes += 1);
        self.put(secret);
        Ok(Written::Yes)
    }

    async fn replace(&self, secret: Secret) -> Result<Written, StoreError> {
        let now = self.reached(|inner| inner.secret.clone())?.and_then(|now| now.metadata.resource_version);
        if now != secret.metadata.resource_version {
            return Ok(Written::NotFirst);
        }
        self.with(|inner| inner.writes += 1);
        self.put(secret);
        Ok(Written::Yes)
    }

    async fn configured(&self, of: &Configuration) -> Result<Option<Configured>, StoreError> {
        self.reached(|inner| inner.configurations.get(of).cloned())
    }

    async fn trust(&self, of: &Configuration, webhooks: &[String], bundle: &[u8]) -> Result<(), StoreError> {
        self.reached(|inner| {
            inner.writes += 1;
            if let Some(configured) = inner.configurations.get_mut(of) {
                let named = configured.webhooks.iter_mut().filter(|(name, _)| webhooks.contains(name));
                named.for_each(|(_, trusted)| *trusted = Some(bundle.to_vec()));
            }
        })
    }

    fn changes(&self, _of: &[Configuration]) -> BoxStream<'static, ()> {
        stream::pending().boxed()
    }
}
