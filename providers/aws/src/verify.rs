//! Everything that can be wrong before the first VM, as far as calls that make nothing can tell.

use std::time::Duration;

use aws_sdk_ec2::types::Subnet;
use peerpods_provider::{ErrorKind, Facts, ProviderError};

use crate::api::Action;
use crate::catalog;
use crate::choice::{self, Asked};
use crate::config::{Confidential, Market, PublicAddress};
use crate::image::Image;
use crate::prices::Prices;
use crate::provider::Account;
use crate::request::USER_DATA_LIMIT;
use crate::site::Site;

/// What a VPC carries between its instances, in bytes.
const MTU_IN_VPC: u32 = 9001;
/// What the way through an internet gateway carries.
const MTU_OUTSIDE: u32 = 1500;
/// Free addresses of a subnet below which a remark is due.
const FEW_ADDRESSES: i32 = 16;

/// How long the service's start waits for spot prices at most.
const PRICES: Duration = Duration::from_secs(5);

const OPERATION: &str = "verify the AWS configuration";

/// Checks configuration, credentials, image, types, subnets and security groups.
///
/// # Errors
/// All faults that could be found, in one error.
pub(crate) async fn verify(account: &Account) -> Result<Facts, ProviderError> {
    let faults = account.config.faults();
    if !faults.is_empty() {
        return Err(ProviderError::new(ErrorKind::Invalid, OPERATION, faults.join("; ")));
    }
    let site = account.site().await?;
    let site = site.as_ref();
    let mut found = Findings::default();
    let image = found.keep(image(account, site).await)?.flatten();
    found.keep(types(account, site, image.as_ref()).await)?;
    found
        .keep(subnets(account, site).await)?
        .into_iter()
        .flatten()
        .for_each(|remark| found.remarks.push(remark));
    found.keep(security_groups(account, site).await)?;
    spot_prices(account, site).await;
    found.remarks.push(format!("region {}, subnets {}", site.region, listed(&site.subnets)));
    found.facts(account)
}

/// Faults are collected; what says nothing about the configuration ends the check.
#[derive(Default)]
struct Findings {
    faults: Vec<ProviderError>,
    remarks: Vec<String>,
}

impl Findings {
    fn keep<T>(&mut self, outcome: Result<T, ProviderError>) -> Result<Option<T>, ProviderError> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind.may_pass() => Err(error),
            Err(error) => {
                self.faults.push(error);
                Ok(None)
            }
        }
    }

    fn facts(mut self, account: &Account) -> Result<Facts, ProviderError> {
        match self.faults.len() {
            0 => Ok(Facts {
                user_data_limit: USER_DATA_LIMIT,
                worker_address: None,
                underlay_mtu: match account.config.public_address {
                    PublicAddress::None => MTU_IN_VPC,
                    PublicAddress::Assigned => MTU_OUTSIDE,
                },
                remarks: self.remarks,
            }),
            1 => Err(self.faults.remove(0)),
            _ => {
                let kind = self.faults.iter().map(|fault| fault.kind).find(|kind| *kind == ErrorKind::Denied);
                let texts: Vec<String> = self.faults.iter().map(ToString::to_string).collect();
                Err(ProviderError::new(kind.unwrap_or(ErrorKind::Invalid), OPERATION, texts.join("; ")))
            }
        }
    }
}

async fn image(account: &Account, site: &Site) -> Result<Option<Image>, ProviderError> {
    match &account.config.image {
        Some(id) => account.images.get(&account.api, site, id).await.map(Some),
        None => Ok(None),
    }
}

/// That the default type exists and boots the image.
async fn types(account: &Account, site: &Site, image: Option<&Image>) -> Result<(), ProviderError> {
    let catalog = account.catalog.types(&account.api, site, &account.config).await?;
    let architecture = image.map(|image| image.architecture.as_str());
    let asked = Asked { machine_type: None, size: Default::default(), architecture };
    choice::types(asked, &account.config, catalog, &Prices::of_config(&account.config))
        .map_err(|refused| ProviderError::new(ErrorKind::Invalid, OPERATION, refused.to_string()))?;
    if account.config.confidential == Confidential::WherePossible {
        let plain: Vec<&str> =
            catalog.iter().filter(|kind| !kind.sev_snp).map(|kind| kind.name.as_str()).collect();
        if !plain.is_empty() {
            let types = plain.join(", ");
            tracing::info!(
                types,
                "without AMD SEV-SNP: VMs of these types do not encrypt memory; DISABLECVM=false refuses them"
            );
        }
    }
    Ok(())
}

/// That the subnets exist and belong to the VPC; what is worth a remark.
async fn subnets(account: &Account, site: &Site) -> Result<Vec<String>, ProviderError> {
    if site.subnets.is_empty() {
        return Ok(Vec::new());
    }
    let operation = format!("look at subnets {}", listed(&site.subnets));
    let ids = Some(site.subnets.clone());
    let send = |client: aws_sdk_ec2::Client| client.describe_subnets().set_subnet_ids(ids.clone()).send();
    let answer = account.api.call(&site.client, Action::Describe, &operation, send).await?;
    if let Some(vpc) = &account.config.vpc
        && let Some(stray) = answer.subnets().iter().find(|subnet| subnet.vpc_id() != Some(vpc))
    {
        let (id, its) = (stray.subnet_id().unwrap_or_default(), stray.vpc_id().unwrap_or_default());
        let text = format!("subnet {id} is in {its}, not in {vpc}");
        return Err(ProviderError::new(ErrorKind::Invalid, operation, text)
            .hint("correct AWS_SUBNET_ID or AWS_VPC_ID"));
    }
    Ok(answer.subnets().iter().filter_map(crowded).collect())
}

fn crowded(subnet: &Subnet) -> Option<String> {
    let free = subnet.available_ip_address_count()?;
    (free < FEW_ADDRESSES)
        .then(|| format!("subnet {} has {free} free addresses left", subnet.subnet_id().unwrap_or_default()))
}

/// So that the first pod's VM is the cheapest, too. Nothing fails for want of it.
async fn spot_prices(account: &Account, site: &Site) {
    if account.config.market == Market::Spot {
        let types = catalog::names(&account.config);
        let _late = tokio::time::timeout(PRICES, account.spot.refresh(&account.api, site, &types)).await;
    }
}

async fn security_groups(account: &Account, site: &Site) -> Result<(), ProviderError> {
    if site.security_groups.is_empty() {
        return Ok(());
    }
    let operation = format!("look at security groups {}", listed(&site.security_groups));
    let ids = Some(site.security_groups.clone());
    let send =
        |client: aws_sdk_ec2::Client| client.describe_security_groups().set_group_ids(ids.clone()).send();
    account.api.call(&site.client, Action::Describe, &operation, send).await.map(drop)
}

fn listed(ids: &[String]) -> String {
    if ids.is_empty() { "of the launch template".to_owned() } else { ids.join(", ") }
}
