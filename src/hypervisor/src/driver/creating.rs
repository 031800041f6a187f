//! Making the VM: asks for it, counts every time before it, and tries again as [`crate::creation`] decides.

use std::net::IpAddr;
use std::time::Duration;

use peerpods_provider::{Instance, ProviderError, VmSpec, VmState};
use tokio::time::Instant;
use tracing::warn;

use super::start::Start;
use super::sweep::MISSING_PASSES;
use crate::backoff::{self, Backoff};
use crate::creation::{self, Advice, Attempts, GaveUp, Next, Standing};
use crate::failure::Failure;
use crate::record::Whereabouts;

/// Pauses between questions for a VM that has no address yet, or that may be there.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LONGEST_LOOK: Duration = Duration::from_secs(3);

impl Start {
    /// Asks for the VM and waits until it has an address.
    pub(super) async fn make_vm(&mut self, spec: &VmSpec) -> Result<(Instance, IpAddr), Failure> {
        let began = Instant::now();
        let parts = self.context.parts.clone();
        let key = self.record.key();
        self.record.whereabouts = Some(Whereabouts::of(parts.provider.as_ref()).await);
        parts.ledger.intend(&key, self.record.claim()).await;
        if self.context.unreadable.contains_key(&key.sandbox) {
            // Whatever was made under this id was made for another pod network.
            parts.provider.delete(&key).await.map_err(|e| self.provider(e))?;
        }
        let instance = self.create(spec).await?;
        self.publisher.phase("VM created", began, format!("{} {}", parts.provider.name(), instance.id));
        let waiting = Instant::now();
        let (instance, address) = self.address_of(instance).await?;
        parts.ledger.assign(&key, &instance).await;
        self.publisher.phase("address known", waiting, address.to_string());
        Ok((instance, address))
    }

    /// Creates until there is a VM, or until another attempt is not allowed.
    async fn create(&mut self, spec: &VmSpec) -> Result<Instance, Failure> {
        let key = self.record.key();
        let provider = self.context.parts.provider.clone();
        let mut failed = Attempts::default();
        loop {
            self.count_creation().await?;
            let error = match provider.create(&key, spec).await {
                Ok(instance) => {
                    self.date_creation();
                    return Ok(instance);
                }
                Err(error) => error,
            };
            failed.note(&error);
            let next =
                creation::after_failure(error.kind, error.retry_after, self.standing(), backoff::roll());
            warn!(sandbox = %key.sandbox, %error, ?next, "cannot create the VM");
            match next {
                Next::GiveUp(why) => return Err(self.not_created(failed, why, error)),
                Next::Create(pause) => tokio::time::sleep(pause).await,
                Next::Look(pause) => {
                    tokio::time::sleep(pause).await;
                    if let Some(there) = self.look().await? {
                        self.publisher.phase("VM adopted", Instant::now(), there.id.clone());
                        return Ok(there);
                    }
                    match creation::until_allowed(self.standing()) {
                        Ok(wait) => tokio::time::sleep(wait).await,
                        Err(why) => return Err(self.not_created(failed, why, error)),
                    }
                }
            }
        }
    }

    /// Whether an attempt whose answer is not known made a VM after all.
    async fn look(&self) -> Result<Option<Instance>, Failure> {
        let key = self.record.key();
        let mut pauses = Backoff::new(FIRST_LOOK, LONGEST_LOOK);
        loop {
            match self.context.parts.provider.get(&key).await {
                Ok(found) => return Ok(found),
                Err(e) if e.kind.may_pass() => {
                    let pause = pauses.next(e.retry_after);
                    warn!(sandbox = %key.sandbox, error = %e, "cannot ask whether there is a VM; asking again");
                    tokio::time::sleep(pause).await;
                }
                Err(e) => return Err(self.provider(e)),
            }
        }
    }

    /// Waits until the VM has an address, and records what becomes known of it.
    async fn address_of(&mut self, mut instance: Instance) -> Result<(Instance, IpAddr), Failure> {
        let key = self.record.key();
        let mut pauses = Backoff::new(FIRST_LOOK, LONGEST_LOOK);
        let (mut missing, mut hint) = (0, None);
        loop {
            self.console.clone_from(&instance.console);
            self.note(&instance).await?;
            if instance.state == VmState::Stopped {
                return Err(self.died(&instance).await);
            }
            if let Some(address) = instance.addresses.first() {
                let address = *address;
                return Ok((instance, address));
            }
            tokio::time::sleep(pauses.next(hint.take())).await;
            match self.context.parts.provider.get(&key).await {
                Ok(Some(found)) => (instance, missing) = (found, 0),
                Ok(None) if self.may_be_unseen() => {}
                Ok(None) if missing + 1 < MISSING_PASSES => missing += 1,
                Ok(None) => return Err(self.died(&instance).await),
                Err(e) if e.kind.may_pass() => {
                    hint = e.retry_after;
                    warn!(sandbox = %key.sandbox, error = %e, "cannot ask for the VM's address; asking again");
                }
                Err(e) => return Err(self.provider(e)),
            }
        }
    }

    /// Written before every creation, so that no crash makes us forget one.
    async fn count_creation(&mut self) -> Result<(), Failure> {
        let now = self.context.config.clock.unix_ms();
        self.record.creations_unix_ms.push(now);
        self.write().await
    }

    /// The provider answered with a VM: from now on, and not from when it was asked, it may be missing from what the provider shows.
    /// Written together with the VM.
    fn date_creation(&mut self) {
        let now = self.context.config.clock.unix_ms();
        if let Some(last) = self.record.creations_unix_ms.last_mut() {
            *last = now;
        }
    }

    fn standing(&self) -> Standing<'_> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        Standing { begun: &self.record.creations_unix_ms, now: self.context.config.clock.unix_ms(), left }
    }

    fn not_created(&self, attempts: Attempts, why: GaveUp, error: ProviderError) -> Failure {
        let sandbox = self.record.sandbox.clone();
        let advice = Advice::on(&error);
        Failure::Creation { sandbox, attempts, why, advice, source: error.into() }
    }

    fn provider(&self, error: ProviderError) -> Failure {
        Failure::Provider { sandbox: self.record.sandbox.clone(), source: error.into() }
    }
}
