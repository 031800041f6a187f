//! [`AwsProvider`]: the methods of a provider, each handed to the module that does it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use peerpods_podvm::ClusterId;
use peerpods_podvm::image::GuestAdmission;
use peerpods_provider::{Facts, Instance, Provider, ProviderError, VmKey, VmSpec, VmState};
use tokio::time::Instant;

use crate::api::Api;
use crate::births::Births;
use crate::catalog::Catalog;
use crate::config::AwsConfig;
use crate::describe::Describer;
use crate::examine::{self, Finding, Needs};
use crate::found::{Found, Life};
use crate::image::Images;
use crate::placement::Unavailable;
use crate::ports::{self, Errand, Port, Rule};
use crate::site::{self, Site};
use crate::spot::SpotPrices;
use crate::{creation, removal, verify};

/// Makes pod VMs as EC2 instances. Holds caches and what EC2 does not show yet; what there is stands in EC2.
#[derive(Debug, Clone)]
pub struct AwsProvider {
    account: Arc<Account>,
}

/// What all calls of one provider share.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) config: AwsConfig,
    pub(crate) api: Arc<Api>,
    pub(crate) describer: Arc<Describer>,
    pub(crate) images: Images,
    pub(crate) catalog: Catalog,
    pub(crate) unavailable: Mutex<Unavailable>,
    pub(crate) spot: Arc<SpotPrices>,
    births: Mutex<Births>,
    site: tokio::sync::Mutex<Option<Arc<Site>>>,
}

impl AwsProvider {
    /// A provider by `config`, which [`Provider::verify`] judges. Calls nobody.
    #[must_use]
    pub fn new(config: AwsConfig) -> Self {
        let api = Arc::new(Api::new(config.launch_rate.into()));
        let account = Account {
            describer: Arc::new(Describer::new(api.clone(), config.public_address)),
            births: Mutex::new(Births::new(config.visible_within())),
            config,
            api,
            images: Images::default(),
            catalog: Catalog::default(),
            unavailable: Mutex::default(),
            spot: Arc::default(),
            site: tokio::sync::Mutex::default(),
        };
        Self { account: Arc::new(account) }
    }

    /// Looks at ports in the VMs' security groups, opens or closes them. `from` are the groups that are let in; empty: those of the
    /// configuration, else this worker's own.
    ///
    /// # Errors
    /// `Invalid` with every id that is malformed or does not exist. When EC2 does not allow it; what was done before stays done, and
    /// doing it again is harmless.
    pub async fn ports(
        &self,
        ports: &[Port],
        from: &[String],
        errand: Errand,
    ) -> Result<Vec<Rule>, ProviderError> {
        Box::pin(ports::run(&self.account, ports, from, errand)).await
    }

    /// Opens what is not open, for the service on this worker. Unlike [`AwsProvider::ports`] it opens nothing when it does not know this
    /// worker's security groups.
    ///
    /// # Errors
    /// As [`AwsProvider::ports`].
    pub async fn ensure_ports(&self, ports: &[Port]) -> Result<Vec<Rule>, ProviderError> {
        Box::pin(ports::ensure(&self.account, ports)).await
    }

    /// Looks at everything that can be wrong before the first VM, and changes nothing.
    ///
    /// # Cancel safety
    /// May be dropped at any await.
    pub async fn examine(&self, needs: &Needs) -> Vec<Finding> {
        Box::pin(examine::examine(&self.account, needs)).await
    }
}

impl Account {
    /// Region, subnets and client. Found once, and again after EC2 did not take the credentials: keys that were replaced are read
    /// without a restart. A failure is tried again by the next who asks.
    pub(crate) async fn site(&self) -> Result<Arc<Site>, ProviderError> {
        let mut found = self.site.lock().await;
        let stale = self.api.takes_stale_credentials();
        if let Some(site) = found.as_ref().filter(|_| !stale) {
            return Ok(site.clone());
        }
        let site = Arc::new(Box::pin(site::find(&self.config)).await?);
        *found = Some(site.clone());
        Ok(site)
    }

    pub(crate) fn births(&self) -> MutexGuard<'_, Births> {
        self.births.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The VM of a key: of what EC2 shows the oldest that lives, else the one it answered a moment ago.
    pub(crate) fn living(&self, key: &VmKey, seen: &[Found]) -> Option<Instance> {
        let births = self.births();
        let mine = |found: &&Found| {
            found.key == *key && found.life == Life::There && !births.is_ended(&found.instance.id)
        };
        if let Some(found) =
            seen.iter().filter(mine).min_by_key(|found| (found.launched_ms, &found.instance.id))
        {
            return Some(found.instance.clone());
        }
        let unseen = births.unseen(key, Instant::now())?;
        // Seen and not living: it ended by itself.
        (!seen.iter().any(|found| found.instance.id == unseen.id)).then(|| unseen.clone())
    }
}

#[async_trait]
impl Provider for AwsProvider {
    fn name(&self) -> &'static str {
        "aws"
    }

    async fn location(&self) -> Option<String> {
        let configured = self.account.config.region.clone();
        match configured {
            Some(region) => Some(region),
            None => self.account.site().await.ok().map(|site| site.region.clone()),
        }
    }

    fn visible_within(&self) -> Duration {
        self.account.config.visible_within()
    }

    async fn verify(&self) -> Result<Facts, ProviderError> {
        verify::verify(&self.account).await
    }

    /// By the tag that `peerpods image` gives an AMI. What is wrong with it, creating the VM says.
    async fn guest_admission(&self, image: Option<&str>) -> GuestAdmission {
        let account = &self.account;
        let (Ok(site), Some(id)) = (account.site().await, image.or(account.config.image.as_deref())) else {
            return GuestAdmission::Unknown;
        };
        let known = account.images.get(&account.api, &site, id).await;
        known.map_or(GuestAdmission::Unknown, |image| image.admission)
    }

    async fn create(&self, key: &VmKey, spec: &VmSpec) -> Result<Instance, ProviderError> {
        Box::pin(creation::create(&self.account, key, spec)).await
    }

    async fn get(&self, key: &VmKey) -> Result<Option<Instance>, ProviderError> {
        let site = self.account.site().await?;
        let seen = self.account.describer.of_key(&site, key).await?;
        Ok(self.account.living(key, &seen))
    }

    async fn list(&self, cluster: &ClusterId) -> Result<Vec<(VmKey, Instance)>, ProviderError> {
        let site = self.account.site().await?;
        let seen = self.account.describer.of_cluster(&site, cluster).await?;
        let mut keys: Vec<VmKey> = seen.iter().map(|found| found.key.clone()).collect();
        keys.extend(
            self.account
                .births()
                .all_unseen(Instant::now())
                .map(|(key, _)| key.clone())
                .filter(|key| key.cluster == *cluster),
        );
        let of_key = |key: VmKey| self.account.living(&key, &seen).map(|instance| (key, instance));
        let listed: BTreeMap<VmKey, Instance> = keys.into_iter().filter_map(of_key).collect();
        Ok(listed.into_iter().collect())
    }

    async fn delete(&self, key: &VmKey) -> Result<(), ProviderError> {
        removal::delete(&self.account, key).await
    }

    /// By the state reason of the instance, which EC2 shows for about an hour after its end.
    async fn why_gone(&self, key: &VmKey) -> Option<String> {
        let site = self.account.site().await.ok()?;
        let seen = self.account.describer.of_key(&site, key).await.ok()?;
        let ended = seen.into_iter().filter(|found| found.instance.state == VmState::Stopped);
        ended.max_by_key(|found| found.launched_ms)?.why
    }
}
