//! Asking AWS. Nothing here decides whether what it sees is good.

use aws_sdk_ec2::types::{Filter, Subnet};
use peerpods_provider::{ErrorKind, ProviderError};

use super::identity::{self, Identity};
use super::quota::{self, Quota};
use super::trial::{self, Verdict};
use super::{Needs, judge};
use crate::api::Action;
use crate::catalog::MachineType;
use crate::config::Market;
use crate::failure;
use crate::image::Image;
use crate::placement::{self, Placement};
use crate::ports::{self, Errand, Rule};
use crate::provider::Account;
use crate::site::Site;
use crate::tags;

/// What was seen. Every field is an answer to one question.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) region: String,
    pub(super) identity: Result<Identity, ProviderError>,
    /// `None`: a launch template names it.
    pub(super) image: Option<Result<Image, ProviderError>>,
    pub(super) types: Result<Vec<MachineType>, ProviderError>,
    /// The ids that were asked for.
    pub(super) subnet_ids: Vec<String>,
    pub(super) subnets: Result<Vec<Subnet>, ProviderError>,
    pub(super) ports: Result<Vec<Rule>, ProviderError>,
    pub(super) quota: Result<Option<Quota>, ProviderError>,
    /// A VM of ours, whosever it is; whether VMs may be looked at.
    pub(super) ours: Result<Option<String>, ProviderError>,
    pub(super) trials: Trials,
}

/// What dry runs came to.
#[derive(Debug)]
pub(super) struct Trials {
    /// What would be made.
    pub(super) placement: Option<Placement>,
    pub(super) run: Verdict,
    pub(super) terminate: Verdict,
    pub(super) modify: Verdict,
    pub(super) open: Verdict,
    pub(super) close: Verdict,
    pub(super) volumes: Verdict,
    /// `None`: they are not needed.
    pub(super) spot_prices: Option<Verdict>,
}

/// Asks everything.
///
/// # Errors
/// When nothing can be asked: no region or place is known, EC2 is not reached, or the credentials are not taken.
pub(super) async fn observe(account: &Account, needs: &Needs) -> Result<Seen, ProviderError> {
    let site = account.site().await?;
    let site = site.as_ref();
    let ours = one_of_ours(account, site).await;
    let ours = match ours {
        Err(error) if says_nothing(&error) => return Err(error),
        ours => ours,
    };
    let config = &account.config;
    let (identity, quota, image, types, subnets, ports) = tokio::join!(
        identity::ask(site),
        quota::ask(site, config.default_type(), config.market),
        image(account, site),
        account.catalog.types(&account.api, site, config),
        subnets(account, site),
        ports::run(account, &needs.ports, &[], Errand::Check),
    );
    let types = types.map(<[MachineType]>::to_vec);
    let placement = placement(account, site, image.as_ref(), &types);
    let known = image.as_ref().and_then(|image| image.as_ref().ok());
    let trials = trials(account, site, needs, placement, known, ours.as_ref().ok().cloned().flatten()).await;
    Ok(Seen {
        region: site.region.clone(),
        identity,
        image,
        types,
        subnet_ids: site.subnets.clone(),
        subnets,
        ports,
        quota,
        ours,
        trials,
    })
}

/// Whether a failure stands for all that would follow.
fn says_nothing(error: &ProviderError) -> bool {
    let no_credentials = error.kind == ErrorKind::Denied && error.code.is_none();
    error.kind.may_pass() || no_credentials || failure::credentials_were_not_taken(error)
}

async fn one_of_ours(account: &Account, site: &Site) -> Result<Option<String>, ProviderError> {
    let filter = |name: String, value: &str| Filter::builder().name(name).values(value).build();
    let filters = vec![
        filter(format!("tag:{}", tags::MANAGED), "true"),
        filter("instance-state-name".to_owned(), "running"),
    ];
    let send = |client: aws_sdk_ec2::Client| {
        client.describe_instances().set_filters(Some(filters.clone())).max_results(5).send()
    };
    let answer = account.api.call(&site.client, Action::Describe, "look for VMs", send).await?;
    let mut instances = answer.reservations().iter().flat_map(|reservation| reservation.instances());
    Ok(instances.find_map(|instance| instance.instance_id().map(str::to_owned)))
}

async fn image(account: &Account, site: &Site) -> Option<Result<Image, ProviderError>> {
    let id = account.config.image.as_ref()?;
    Some(account.images.get(&account.api, site, id).await)
}

/// By a filter, so that those that do not exist are missing from the answer and do not spoil it.
async fn subnets(account: &Account, site: &Site) -> Result<Vec<Subnet>, ProviderError> {
    if site.subnets.is_empty() {
        return Ok(Vec::new());
    }
    let operation = format!("look at subnets {}", site.subnets.join(", "));
    let filter = Filter::builder().name("subnet-id").set_values(Some(site.subnets.clone())).build();
    let send = |client: aws_sdk_ec2::Client| client.describe_subnets().filters(filter.clone()).send();
    let answer = account.api.call(&site.client, Action::Describe, &operation, send).await?;
    Ok(answer.subnets().to_vec())
}

/// What would be made for a pod that asks for nothing; `None` where image or types are not to be had.
fn placement(
    account: &Account,
    site: &Site,
    image: Option<&Result<Image, ProviderError>>,
    types: &Result<Vec<MachineType>, ProviderError>,
) -> Option<Placement> {
    let image = match image {
        Some(image) => Some(image.as_ref().ok()?),
        None => None,
    };
    let types = judge::usable(&account.config, image, types.as_ref().ok()?).ok()?;
    let names = types.into_iter().map(|known| known.name.clone()).collect();
    placement::all(&[(account.config.market, names)], &site.subnets).into_iter().next()
}

async fn trials(
    account: &Account,
    site: &Site,
    needs: &Needs,
    placement: Option<Placement>,
    image: Option<&Image>,
    ours: Option<String>,
) -> Trials {
    let run = async {
        match &placement {
            Some(placement) => trial::run_instances(account, site, placement, image).await,
            None => Verdict::Untried,
        }
    };
    let ports = async {
        match needs.ports.first() {
            Some(port) => trial::change_ports(account, site, *port).await,
            None => (Verdict::Untried, Verdict::Untried),
        }
    };
    let spot_prices = async {
        match account.config.market {
            Market::OnDemand => None,
            Market::Spot => Some(trial::describe_spot_prices(account, site).await),
        }
    };
    let (run, terminate, modify, (open, close), volumes, spot_prices) = tokio::join!(
        run,
        trial::terminate_instances(account, site, ours.as_deref()),
        trial::modify_instance(account, site, ours.as_deref()),
        ports,
        trial::describe_volumes(account, site),
        spot_prices,
    );
    Trials { placement, run, terminate, modify, open, close, volumes, spot_prices }
}
