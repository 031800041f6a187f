//! Making a VM: look, decide what to ask for, ask, and once more elsewhere when there is no capacity.
//!
//! What to ask for is decided when the turn has come: in a burst that is minutes after the call began, and meanwhile others have found
//! out what there is no capacity for.
//!
//! The client token makes a repetition harmless ([`crate::token`]); the look before it saves the call where the VM is there, and tells
//! a new process after which numbers to go on. A create that is dropped anywhere has made nothing, or an instance that get and delete
//! find.

use std::sync::PoisonError;

use peerpods_provider::{ErrorKind, Instance, ProviderError, VmKey, VmSpec};
use tokio::time::Instant;

use crate::api::Action;
use crate::births::Attempt;
use crate::catalog::{self, MachineType};
use crate::choice::{self, Asked};
use crate::config::{Confidential, Market};
use crate::failure;
use crate::found::{self, Found, Life};
use crate::image::Image;
use crate::limiter::Place;
use crate::placement::{self, Placement};
use crate::prices::Prices;
use crate::provider::Account;
use crate::request::{self, Memory, Order, USER_DATA_LIMIT};
use crate::site::Site;
use crate::{tags, token};

/// How many requests one create makes at most: placements without capacity, and numbers whose VM is dead.
const MOST_REQUESTS: u32 = 32;

/// A create, decided: what it may ask for.
struct Plan {
    image: Option<Image>,
    placements: Vec<Placement>,
    /// Types of the placements that can encrypt memory.
    encrypting: Vec<String>,
}

/// Makes the VM of `key`, or answers the one that is there.
pub(crate) async fn create(account: &Account, key: &VmKey, spec: &VmSpec) -> Result<Instance, ProviderError> {
    let operation = format!("create VM {} of {key}", spec.name);
    check_user_data(&operation, spec)?;
    let site = account.site().await?;
    let site = site.as_ref();
    // Before anything that may fail: an AMI that is gone must not hide the VM that was made of it.
    let seen = account.describer.of_key(site, key).await?;
    if let Some(there) = account.living(key, &seen) {
        return Ok(there);
    }
    let plan = plan(account, site, &operation, spec).await?;
    let at_least = seen.iter().map(|found| found.attempt + 1).max().unwrap_or(0);
    Creation { account, site, key, spec, operation, plan }.ask(at_least).await
}

fn check_user_data(operation: &str, spec: &VmSpec) -> Result<(), ProviderError> {
    let size = spec.user_data.expose().len();
    if size <= USER_DATA_LIMIT {
        return Ok(());
    }
    let text = format!("user data has {size} bytes, EC2 takes {USER_DATA_LIMIT}");
    Err(ProviderError::new(ErrorKind::Invalid, operation, text).hint(
        "shorten the pod's initdata (annotation or INITDATA): it is the only part of user data that grows",
    ))
}

/// Image and types, before anything is made.
async fn plan(account: &Account, site: &Site, operation: &str, spec: &VmSpec) -> Result<Plan, ProviderError> {
    let config = &account.config;
    let image = match spec.image.as_ref().or(config.image.as_ref()) {
        Some(id) => Some(account.images.get(&account.api, site, id).await?),
        None => None,
    };
    let catalog = account.catalog.types(&account.api, site, config).await?;
    let asked = Asked {
        machine_type: spec.machine_type.as_deref(),
        size: spec.size,
        architecture: image.as_ref().map(|image| image.architecture.as_str()),
    };
    let in_order = |prices: &Prices<'_>| {
        choice::types(asked, config, catalog, prices)
            .map_err(|refused| ProviderError::new(ErrorKind::Invalid, operation, refused.to_string()))
    };
    let on_demand = in_order(&Prices::of_config(config))?;
    let mut markets = Vec::new();
    if config.market == Market::Spot {
        let told = account.spot.known(&account.api, site, || catalog::names(config));
        let types = in_order(&Prices::of_config(config).and_told(&told))?;
        markets.push((Market::Spot, names(&types)));
    }
    markets.push((Market::OnDemand, names(&on_demand)));
    // Where it is only wanted, an image that could not boot so is booted without.
    let boots =
        config.confidential == Confidential::Required || image.as_ref().is_none_or(|image| image.uefi);
    let wanted = boots && config.confidential != Confidential::Off;
    let can = |kind: &&&MachineType| kind.sev_snp && wanted;
    let encrypting = on_demand.iter().filter(can).map(|kind| kind.name.clone()).collect();
    let placements = placement::all(&markets, &site.subnets);
    Ok(Plan { image, placements, encrypting })
}

fn names(types: &[&MachineType]) -> Vec<String> {
    types.iter().map(|kind| kind.name.clone()).collect()
}

/// What a request came to.
enum Outcome {
    Made(Instance),
    /// What was made under the number is dead.
    Dead,
    /// EC2 refused, definitely.
    Refused(ProviderError),
    /// Nobody knows.
    Open(ProviderError),
}

struct Creation<'a> {
    account: &'a Account,
    site: &'a Site,
    key: &'a VmKey,
    spec: &'a VmSpec,
    operation: String,
    plan: Plan,
}

impl Creation<'_> {
    /// Asks until there is a VM, or until nothing is left to try.
    async fn ask(&self, at_least: u32) -> Result<Instance, ProviderError> {
        let mut tried: Vec<Placement> = Vec::new();
        let mut last = None;
        let mut place = self.account.api.line(Action::Run);
        for _ in 0..MOST_REQUESTS {
            place.turn().await;
            let Some(attempt) = self.next(at_least, &tried) else { break };
            match self.request(&mut place, &attempt).await {
                Outcome::Made(instance) => return Ok(self.made(&attempt, instance)),
                Outcome::Dead => self.account.births().spent(self.key, &attempt),
                Outcome::Open(error) => return self.look_into(&attempt, error).await,
                Outcome::Refused(error) => {
                    self.account.births().spent(self.key, &attempt);
                    if !failure::elsewhere_may_help(&error) {
                        return Err(error);
                    }
                    tracing::warn!(key = %self.key, placement = %attempt.placement, %error, "not to be had here");
                    self.unavailable().note(attempt.placement.clone(), &error, Instant::now());
                    tried.push(attempt.placement);
                    last = Some(error);
                }
            }
        }
        Err(self.nowhere(last))
    }

    /// What to ask for now. `None` when nothing is left to try.
    fn next(&self, at_least: u32, tried: &[Placement]) -> Option<Attempt> {
        let candidates = self.unavailable().candidates(&self.plan.placements, tried, Instant::now());
        self.account.births().open(self.key, at_least, &candidates)
    }

    /// Nothing is left to try: the last refusal, with what was refused to this and to other creations.
    fn nowhere(&self, last: Option<ProviderError>) -> ProviderError {
        let Some(last) = last else {
            let text = "what EC2 made for it ended at once, each time";
            return ProviderError::new(ErrorKind::Transient, &self.operation, text);
        };
        let (unavailable, now) = (self.unavailable(), Instant::now());
        let told = unavailable.told(&self.plan.placements, now);
        let kind = match unavailable.lacked_capacity(&self.plan.placements, now) {
            true => ErrorKind::Capacity,
            false => last.kind,
        };
        ProviderError { kind, message: format!("{} (tried: {told})", last.message), ..last }
    }

    async fn request(&self, place: &mut Place<'_>, attempt: &Attempt) -> Outcome {
        let input = request::run(&self.order(attempt));
        let send = |client: aws_sdk_ec2::Client| {
            let input = input.clone();
            async move { input.send_with(&client).await }
        };
        let operation = format!("{} ({})", self.operation, attempt.placement);
        match self.account.api.call_from(place, &self.site.client, &operation, send).await {
            Ok(answer) => match answer.instances().first() {
                Some(told) if found::life(told.state().and_then(|state| state.name())) == Life::Ended => {
                    Outcome::Dead
                }
                Some(told) => {
                    let tags = self.order(attempt).tags;
                    Outcome::Made(found::instance(told, tags, self.account.config.public_address))
                }
                None => Outcome::Open(ProviderError::new(
                    ErrorKind::Transient,
                    operation,
                    "EC2 answered no instance",
                )),
            },
            Err(error) if error.code.as_deref() == Some(failure::TOKEN_SPENT) => Outcome::Dead,
            Err(error) if failure::leaves_open(&error) => Outcome::Open(error),
            Err(error) => Outcome::Refused(error),
        }
    }

    fn order<'o>(&'o self, attempt: &'o Attempt) -> Order<'o> {
        let machine = attempt.placement.machine_type.as_ref();
        let encrypts = machine.is_some_and(|name| self.plan.encrypting.contains(name));
        Order {
            config: &self.account.config,
            security_groups: &self.site.security_groups,
            placement: &attempt.placement,
            image: self.plan.image.as_ref(),
            memory: if encrypts { Memory::Encrypted } else { Memory::Plain },
            user_data: &self.spec.user_data,
            tags: tags::of_vm(self.key, self.spec, attempt.number, &self.account.config.tags),
            token: token::of(self.key, attempt.number),
        }
    }

    fn made(&self, attempt: &Attempt, instance: Instance) -> Instance {
        tracing::info!(key = %self.key, id = instance.id, placement = %attempt.placement, "EC2 made the VM");
        self.unavailable().clear(&attempt.placement);
        self.account.births().born(self.key, instance.clone(), Instant::now());
        instance
    }

    /// The answer was lost, or somebody else asked for other things under the number: what was made, if EC2 shows it already.
    async fn look_into(&self, attempt: &Attempt, error: ProviderError) -> Result<Instance, ProviderError> {
        if error.code.as_deref() != Some(failure::TOKEN_MISMATCH) {
            return Err(error);
        }
        let seen = self.account.describer.of_key(self.site, self.key).await?;
        if let Some(there) = self.account.living(self.key, &seen) {
            return Ok(there);
        }
        if seen.iter().any(|found: &Found| found.attempt == attempt.number) {
            // Made and dead: the next attempt has a number of its own.
            self.account.births().spent(self.key, attempt);
        }
        Err(error)
    }

    fn unavailable(&self) -> std::sync::MutexGuard<'_, placement::Unavailable> {
        self.account.unavailable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
