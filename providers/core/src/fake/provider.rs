//! The near side: a client of the fake cloud that the script can disturb.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use peerpods_podvm::ClusterId;
use peerpods_podvm::image::GuestAdmission;

use super::FakeCloud;
use super::script::{Birth, Operation};
use crate::{ErrorKind, Facts, Instance, Provider, ProviderError, VmKey, VmSpec};

/// A client of a [`FakeCloud`]. Holds nothing itself: two clients of one cloud see the same VMs.
#[derive(Clone)]
pub struct FakeProvider {
    cloud: Arc<FakeCloud>,
}

impl FakeProvider {
    pub(super) fn new(cloud: Arc<FakeCloud>) -> Self {
        Self { cloud }
    }

    /// Does `work` as the script allows.
    async fn scripted<T, W>(
        &self,
        operation: Operation,
        subject: String,
        work: impl FnOnce(Birth) -> W,
    ) -> Result<T, ProviderError>
    where
        W: Future<Output = Result<T, ProviderError>>,
    {
        let effects = self.cloud.next(operation);
        if !effects.delay.is_zero() {
            tokio::time::sleep(effects.delay).await;
        }
        if let Some(kind) = effects.fail {
            let text = "the script says so; nothing was done";
            return Err(scripted_error(kind, effects.retry_after, subject, text));
        }
        let answer = work(effects.birth).await?;
        match effects.lose {
            Some(kind) => {
                let text = "the answer was lost; the work was done";
                Err(scripted_error(kind, effects.retry_after, subject, text))
            }
            None => Ok(answer),
        }
    }
}

fn scripted_error(
    kind: ErrorKind,
    retry_after: Option<Duration>,
    subject: String,
    text: &str,
) -> ProviderError {
    let error = ProviderError::new(kind, subject, text).code("Scripted").request_id("scripted-request");
    ProviderError { retry_after, ..error }
}

#[async_trait]
impl Provider for FakeProvider {
    fn name(&self) -> &'static str {
        "fake"
    }

    async fn location(&self) -> Option<String> {
        self.cloud.location()
    }

    async fn verify(&self) -> Result<Facts, ProviderError> {
        self.scripted(Operation::Verify, "verify".to_owned(), |_| async { Ok(self.cloud.facts()) }).await
    }

    /// An image somebody names is one nobody knows.
    async fn guest_admission(&self, image: Option<&str>) -> GuestAdmission {
        image.map_or_else(|| self.cloud.guest_admission(), |_| GuestAdmission::Unknown)
    }

    async fn create(&self, key: &VmKey, spec: &VmSpec) -> Result<Instance, ProviderError> {
        let subject = format!("create VM of {key}");
        self.scripted(Operation::Create, subject, |birth| self.cloud.create(key, spec, birth)).await
    }

    async fn get(&self, key: &VmKey) -> Result<Option<Instance>, ProviderError> {
        let subject = format!("get VM of {key}");
        self.scripted(Operation::Get, subject, |_| async { Ok(self.cloud.get(key)) }).await
    }

    async fn list(&self, cluster: &ClusterId) -> Result<Vec<(VmKey, Instance)>, ProviderError> {
        let subject = format!("list VMs of cluster {cluster}");
        self.scripted(Operation::List, subject, |_| async { Ok(self.cloud.list(cluster)) }).await
    }

    async fn why_gone(&self, _key: &VmKey) -> Option<String> {
        self.cloud.why_gone()
    }

    async fn delete(&self, key: &VmKey) -> Result<(), ProviderError> {
        let subject = format!("delete VM of {key}");
        self.scripted(Operation::Delete, subject, |_| self.cloud.delete(key)).await
    }
}
