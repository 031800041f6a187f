//! From what was seen of AWS to findings, each with what to do. Pure.

mod permissions;
mod place;

use peerpods_provider::{ErrorKind, ProviderError};

use super::observe::Seen;
use super::{Finding, Grade, Needs, trial};
use crate::catalog::MachineType;
use crate::choice::{self, Asked, NoType};
use crate::config::{AwsConfig, Confidential};
use crate::image::Image;
use crate::prices::Prices;

const POLICY: &str = "deploy/aws/iam-policy.json is the smallest policy";

/// Everything that was looked at, in the order in which to mend it.
pub(super) fn findings(seen: &Seen, config: &AwsConfig, needs: &Needs) -> Vec<Finding> {
    let mut all = vec![identity(seen, config), ok("aws region", &seen.region)];
    all.extend(permissions::findings(seen, config));
    all.push(image(seen, config));
    all.extend(types(seen, config));
    all.extend(place::subnets(seen, config, needs));
    all.extend(place::ports(seen, config));
    all.push(place::quota(seen, needs));
    all
}

/// Nothing else could be asked.
pub(super) fn blind(error: &ProviderError) -> Finding {
    let (check, fix) = match error.kind {
        ErrorKind::Denied => ("aws credentials", "check the credentials"),
        ErrorKind::Invalid => ("aws region", "name what is missing"),
        _ => (
            "aws region",
            "check AWS_REGION, and this node's way to EC2: its resolver, routes, a proxy, a VPC endpoint (AWS_ENDPOINT_URL_EC2)",
        ),
    };
    let found = format!("{}; nothing else was looked at", said(error));
    bad(check, Grade::Error, found, error.hint.as_deref().unwrap_or(fix))
}

/// A fault of the configuration itself.
pub(super) fn misconfigured(fault: String) -> Finding {
    bad("aws settings", Grade::Error, fault, "`peerpods config show` says where each value came from")
}

fn ok(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { check, grade: Grade::Ok, found: found.into(), fix: None }
}

fn bad(check: &'static str, grade: Grade, found: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { check, grade, found: found.into(), fix: Some(fix.into()) }
}

/// A failure without its advice, which stands beside it.
fn said(error: &ProviderError) -> String {
    let code = error.code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
    format!("{}: {}{code}", error.operation, error.message)
}

/// A question that was not answered as it should be. What is only not allowed the permissions' lines mend.
fn unanswered(check: &'static str, error: &ProviderError, fix: &str) -> Finding {
    if trial::denies(error) {
        return bad(check, Grade::Error, format!("not known: {}", said(error)), POLICY);
    }
    bad(check, Grade::Error, said(error), error.hint.as_deref().unwrap_or(fix))
}

fn identity(seen: &Seen, config: &AwsConfig) -> Finding {
    const CHECK: &str = "aws credentials";
    let from = match (&config.access_key_id, &config.profile) {
        (Some(_), _) => "by the static key that is configured".to_owned(),
        (None, Some(profile)) => format!("found by the SDK, profile {profile}"),
        (None, None) => "found by the SDK".to_owned(),
    };
    match &seen.identity {
        Ok(identity) => ok(CHECK, format!("{}, account {}, {from}", identity.arn, identity.account)),
        // EC2 took them, or nothing here would be known.
        Err(error) => bad(
            CHECK,
            Grade::Warning,
            format!("EC2 takes those {from}; whose they are is not known: {}", said(error)),
            "nothing has to be done; to see it here, let this node reach STS",
        ),
    }
}

fn image(seen: &Seen, config: &AwsConfig) -> Finding {
    const CHECK: &str = "aws image";
    let image = match &seen.image {
        None => return ok(CHECK, "the launch template's, which is not looked at"),
        Some(Err(error)) => {
            return unanswered(CHECK, error, "set PODVM_AMI_ID to an AMI that VMs can boot from");
        }
        Some(Ok(image)) => image,
    };
    let found =
        format!("{}: available, {}, root volume {} GiB", image.id, image.architecture, image.root_gib);
    match (config.confidential, image.uefi) {
        (Confidential::Required, false) => bad(
            CHECK,
            Grade::Error,
            format!("{found}; it does not boot by UEFI, which encrypted memory needs"),
            "register the AMI with boot mode uefi, or set DISABLECVM to true",
        ),
        (Confidential::WherePossible, false) => {
            ok(CHECK, format!("{found}; no encrypted memory, as it does not boot by UEFI"))
        }
        _ => ok(CHECK, found),
    }
}

/// The types for a VM that asks for none.
pub(super) fn usable<'a>(
    config: &AwsConfig,
    image: Option<&Image>,
    types: &'a [MachineType],
) -> Result<Vec<&'a MachineType>, NoType> {
    let architecture = image.map(|image| image.architecture.as_str());
    let asked = Asked { machine_type: None, size: Default::default(), architecture };
    choice::types(asked, config, types, &Prices::of_config(config))
}

fn types(seen: &Seen, config: &AwsConfig) -> Vec<Finding> {
    const CHECK: &str = "aws types";
    let types = match &seen.types {
        Err(error) => {
            let fix = "set PODVM_INSTANCE_TYPE and PODVM_INSTANCE_TYPES to types of this region";
            return vec![unanswered(CHECK, error, fix)];
        }
        Ok(types) if types.is_empty() => {
            return vec![ok(CHECK, "the launch template's, which is not looked at")];
        }
        Ok(types) => types,
    };
    let image = seen.image.as_ref().and_then(|image| image.as_ref().ok());
    let mut all = Vec::new();
    match usable(config, image, types) {
        Ok(usable) => {
            let first = usable.first().map_or("the launch template's", |known| known.name.as_str());
            let each = |known: &MachineType| {
                format!("{} ({} vCPUs, {} MiB)", known.name, known.vcpus, known.memory_mib)
            };
            let listed: Vec<String> = types.iter().map(each).collect();
            all.push(ok(CHECK, format!("{}; a pod that asks for none gets {first}", listed.join(", "))));
        }
        Err(refused) => all.push(bad(
            CHECK,
            Grade::Error,
            format!("no VM can be made for a pod that asks for no type: {refused}"),
            "set PODVM_INSTANCE_TYPE to a type that runs the image, or PODVM_AMI_ID to an image for the type",
        )),
    }
    all.extend(types.iter().filter_map(|known| never(known, image, config)));
    all
}

/// A type that is allowed and that no VM can have.
fn never(known: &MachineType, image: Option<&Image>, config: &AwsConfig) -> Option<Finding> {
    let boots = image.is_none_or(|image| known.architectures.contains(&image.architecture));
    let encrypts = config.confidential != Confidential::Required || known.sev_snp;
    let why = match (boots, encrypts) {
        (true, true) => return None,
        (false, _) => format!("runs {}, which the image is not for", known.architectures.join(" and ")),
        (true, false) => "has no AMD SEV-SNP, and DISABLECVM is false".to_owned(),
    };
    Some(bad(
        "aws types",
        Grade::Warning,
        format!("{} {why}: no VM ever gets it", known.name),
        "take it out of PODVM_INSTANCE_TYPES",
    ))
}

#[cfg(test)]
mod tests;
