//! How many vCPUs may run at once, as Service Quotas says. EC2 itself does not: what it tells of an account is older than these quotas,
//! and a dry run does not look at them.

use aws_sdk_servicequotas::Client;
use peerpods_provider::{ErrorKind, ProviderError};

use crate::config::Market;
use crate::failure;
use crate::site::Site;

/// Families whose quota is that of "standard" instances, by their first letter.
const STANDARD: &str = "acdhimrtz";
/// Families with such a letter that have quotas of their own.
const APART: [&str; 6] = ["hpc", "inf", "mac", "trn", "dl", "hs"];

/// A quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quota {
    pub(super) code: &'static str,
    pub(super) name: String,
    pub(super) vcpus: u32,
}

/// The quota that counts for a type; `None` where that is not known. Asks once: a node may have no way to it.
pub(super) async fn ask(
    site: &Site,
    machine: Option<&str>,
    market: Market,
) -> Result<Option<Quota>, ProviderError> {
    let Some(code) = machine.and_then(|name| code(name, market)) else { return Ok(None) };
    let operation = format!("look at quota {code}");
    let quotas = Client::new(&site.sdk);
    let answer = quotas.get_service_quota().service_code("ec2").quota_code(code).send().await;
    let answer = answer.map_err(|error| failure::of(&operation, error))?;
    let told =
        answer.quota().and_then(|quota| Some((quota.value()?, quota.quota_name().unwrap_or("its quota"))));
    let Some((value, name)) = told else {
        return Err(ProviderError::new(ErrorKind::Transient, operation, "the answer has no value"));
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is cut to what fits first"
    )]
    let vcpus = value.clamp(0.0, f64::from(u32::MAX)) as u32;
    Ok(Some(Quota { code, name: name.to_owned(), vcpus }))
}

/// The code of the quota of running vCPUs of a type.
fn code(machine: &str, market: Market) -> Option<&'static str> {
    let family: String = machine.chars().take_while(char::is_ascii_lowercase).collect();
    let standard = !APART.contains(&family.as_str()) && family.starts_with(|c| STANDARD.contains(c));
    let graphics = matches!(family.as_str(), "g" | "gr" | "vt");
    match (standard, graphics, market) {
        (true, _, Market::OnDemand) => Some("L-1216C47A"),
        (true, _, Market::Spot) => Some("L-34B43A08"),
        (_, true, Market::OnDemand) => Some("L-DB2E81BA"),
        (_, true, Market::Spot) => Some("L-3819A6DF"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quota_is_that_of_the_family_and_market() {
        for (name, market, expected) in [
            ("m6a.large", Market::OnDemand, Some("L-1216C47A")),
            ("t3.medium", Market::Spot, Some("L-34B43A08")),
            ("im4gn.large", Market::OnDemand, Some("L-1216C47A")),
            ("g4dn.xlarge", Market::OnDemand, Some("L-DB2E81BA")),
            ("hpc7g.16xlarge", Market::OnDemand, None),
            ("inf2.xlarge", Market::OnDemand, None),
            ("p5.48xlarge", Market::OnDemand, None),
        ] {
            assert_eq!(code(name, market), expected, "{name}");
        }
    }
}
