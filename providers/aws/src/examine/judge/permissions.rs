//! A line for what is allowed, and one for each action that is not. Pure.

use peerpods_provider::ProviderError;

use super::super::observe::Seen;
use super::super::trial::{self, Verdict};
use super::super::{Finding, Grade};
use super::{POLICY, bad, ok, said};
use crate::config::{AwsConfig, PortsAtStart};

const CHECK: &str = "aws permission";

pub(super) fn findings(seen: &Seen, config: &AwsConfig) -> Vec<Finding> {
    let mut all = looking(seen);
    let trials = &seen.trials;
    let what = trials.placement.as_ref().map_or_else(|| "a VM".to_owned(), ToString::to_string);
    let from = config.image.as_deref().unwrap_or("the launch template's image");
    all.push(making(&trials.run, &format!("{what} from {from}")));
    all.push(needed("ec2:TerminateInstances", &trials.terminate, Grade::Error, "no VM is ever removed"));
    // Only a launch template can bring volumes that would outlive a VM.
    let outlive = if config.launch_template.is_some() { Grade::Error } else { Grade::Warning };
    let stays = "a volume that a launch template lets outlive its VM keeps the VM from being removed";
    // Without one, and without a VM to try it on, there is nothing to tell.
    if config.launch_template.is_some() || !matches!(trials.modify, Verdict::Untried) {
        all.push(needed("ec2:ModifyInstanceAttribute", &trials.modify, outlive, stays));
    }
    all.push(needed("ec2:DescribeVolumes", &trials.volumes, outlive, stays));
    if let Some(prices) = &trials.spot_prices {
        let blind = "spot instances are chosen by their size and not by their price";
        all.push(needed("ec2:DescribeSpotPriceHistory", prices, Grade::Warning, blind));
    }
    let opens = if config.ports_at_start == PortsAtStart::Open { Grade::Error } else { Grade::Warning };
    let by_hand = "`peerpods ports` and open-ports cannot change security groups";
    all.push(needed("ec2:AuthorizeSecurityGroupIngress", &trials.open, opens, by_hand));
    all.push(needed("ec2:RevokeSecurityGroupIngress", &trials.close, Grade::Warning, by_hand));
    all
}

/// What was allowed or denied on the way to the other lines.
fn looking(seen: &Seen) -> Vec<Finding> {
    let image = seen.image.as_ref().map(|image| image.as_ref().err());
    let asked: [(&str, Option<Option<&ProviderError>>); 5] = [
        ("ec2:DescribeInstances", Some(seen.ours.as_ref().err())),
        ("ec2:DescribeImages", image),
        ("ec2:DescribeInstanceTypes", Some(seen.types.as_ref().err())),
        ("ec2:DescribeSubnets", Some(seen.subnets.as_ref().err())),
        ("ec2:DescribeSecurityGroups", Some(seen.ports.as_ref().err())),
    ];
    let (mut allowed, mut denied) = (Vec::new(), Vec::new());
    for (action, failed) in asked.into_iter().filter_map(|(action, failed)| Some((action, failed?))) {
        match failed {
            Some(error) if trial::denies(error) => {
                denied.push(missing(action, Grade::Error, "no VM is made"))
            }
            _ => allowed.push(action),
        }
    }
    if !allowed.is_empty() {
        denied.insert(0, ok(CHECK, format!("{}: allowed", allowed.join(", "))));
    }
    denied
}

fn making(verdict: &Verdict, what: &str) -> Finding {
    match verdict {
        Verdict::Allowed => ok(CHECK, format!("ec2:RunInstances and ec2:CreateTags: allowed ({what})")),
        Verdict::Denied(action) => missing(action, Grade::Error, "no VM is made"),
        Verdict::Refused(error) => bad(
            CHECK,
            Grade::Error,
            format!("ec2:RunInstances: EC2 would not make {what}: {}", said(error)),
            error.hint.as_deref().unwrap_or("correct what it names"),
        ),
        Verdict::Untried => bad(
            CHECK,
            Grade::Warning,
            "ec2:RunInstances and ec2:CreateTags: not tried, as image or types are not to be had",
            "mend these first",
        ),
    }
}

fn needed(action: &str, verdict: &Verdict, grade: Grade, without: &str) -> Finding {
    match verdict {
        Verdict::Allowed => ok(CHECK, format!("{action}: allowed")),
        Verdict::Denied(named) => missing(named, grade, without),
        Verdict::Refused(error) => bad(
            CHECK,
            Grade::Warning,
            format!("{action}: not known: {}", said(error)),
            error.hint.as_deref().unwrap_or(POLICY),
        ),
        Verdict::Untried => bad(
            CHECK,
            Grade::Warning,
            format!(
                "{action}: not known: a policy may allow it for VMs of ours alone, and there is none to try it on"
            ),
            "run doctor again while a pod runs",
        ),
    }
}

fn missing(action: &str, grade: Grade, without: &str) -> Finding {
    bad(
        CHECK,
        grade,
        format!("{action}: denied; without it {without}"),
        format!("allow the credentials {action}: {POLICY}"),
    )
}
