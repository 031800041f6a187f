//! Where VMs are made: subnets, ports, and how many are allowed. Pure.

use aws_sdk_ec2::types::{Subnet, SubnetState};

use super::super::observe::Seen;
use super::super::{Finding, Grade, Needs, trial};
use super::{POLICY, bad, ok, said, unanswered};
use crate::config::{AwsConfig, PortsAtStart};
use crate::ports::{Rule, Standing, Told};

/// Free addresses that a subnet should have where the number of VMs has no limit.
const FEW_ADDRESSES: u32 = 16;

pub(super) fn subnets(seen: &Seen, config: &AwsConfig, needs: &Needs) -> Vec<Finding> {
    const CHECK: &str = "aws subnet";
    let known = match &seen.subnets {
        Err(error) => return vec![unanswered(CHECK, error, "set AWS_SUBNET_ID to subnets of this region")],
        Ok(_) if seen.subnet_ids.is_empty() => {
            return vec![ok(CHECK, "the launch template's, which is not looked at")];
        }
        Ok(known) => known,
    };
    let each = |id: &String| match known.iter().find(|subnet| subnet.subnet_id() == Some(id)) {
        Some(subnet) => self::subnet(id, subnet, config, needs),
        None => bad(
            CHECK,
            Grade::Error,
            format!("{id}: there is none in {}", seen.region),
            "set AWS_SUBNET_ID to a subnet of this region and account",
        ),
    };
    seen.subnet_ids.iter().map(each).collect()
}

fn subnet(id: &str, subnet: &Subnet, config: &AwsConfig, needs: &Needs) -> Finding {
    const CHECK: &str = "aws subnet";
    let (vpc, zone) = (subnet.vpc_id().unwrap_or("no VPC"), subnet.availability_zone().unwrap_or("no zone"));
    if let Some(wanted) = config.vpc.as_deref().filter(|wanted| *wanted != vpc) {
        let found = format!("{id} is in {vpc}, not in {wanted}");
        return bad(CHECK, Grade::Error, found, "correct AWS_SUBNET_ID or AWS_VPC_ID");
    }
    if let Some(state) = subnet.state().filter(|state| **state != SubnetState::Available) {
        let found = format!("{id} is {}", state.as_str());
        return bad(
            CHECK,
            Grade::Error,
            found,
            "wait until it is available, or set AWS_SUBNET_ID to another",
        );
    }
    let free = u32::try_from(subnet.available_ip_address_count().unwrap_or(0)).unwrap_or(0);
    let found = format!("{id} in {zone}, {vpc}: {free} free addresses");
    let more = "add a larger subnet to AWS_SUBNET_ID, or remove what uses the addresses";
    match needs.most_vms {
        _ if free == 0 => bad(CHECK, Grade::Error, found, more),
        Some(most) if free < most => {
            bad(CHECK, Grade::Warning, format!("{found}, and this node alone may have {most} VMs"), more)
        }
        None if free < FEW_ADDRESSES => bad(CHECK, Grade::Warning, found, more),
        _ => ok(CHECK, found),
    }
}

pub(super) fn ports(seen: &Seen, config: &AwsConfig) -> Vec<Finding> {
    match &seen.ports {
        Ok(rules) => rules.iter().map(|rule| port(rule, config)).collect(),
        Err(error) if trial::denies(error) => {
            vec![bad("aws ports", Grade::Warning, format!("not known: {}", said(error)), POLICY)]
        }
        Err(error) => vec![bad(
            "aws ports",
            Grade::Error,
            said(error),
            error.hint.as_deref().unwrap_or("correct the ids"),
        )],
    }
}

fn port(rule: &Rule, config: &AwsConfig) -> Finding {
    const CHECK: &str = "aws ports";
    let Rule { group, port, source, told, standing } = rule;
    let (open, guessed) = match told {
        Told::Given | Told::Configured | Told::Metadata => ("peerpods ports open aws", ""),
        // Whose group it has to be only the administrator knows here.
        Told::Opened => ("peerpods ports open aws --from GROUP", ", by an earlier `ports open`"),
        Told::Assumed => (
            "peerpods ports open aws --from GROUP",
            ", the VMs' own group; this is no instance that could tell the workers' GROUP",
        ),
    };
    match standing {
        Standing::Unknown(addresses) => bad(
            CHECK,
            Grade::Warning,
            format!(
                "{port} in {group} is open to {addresses}; whether {source} is among them was not looked into{guessed}"
            ),
            format!("make certain of it with `{open}`"),
        ),
        Standing::Missing if config.ports_at_start == PortsAtStart::Open => bad(
            CHECK,
            Grade::Warning,
            format!("{port} in {group} is closed to {source}{guessed}"),
            format!("the service opens it when it starts (open-ports); `{open}` does now"),
        ),
        Standing::Missing => {
            let grade = if *told == Told::Assumed { Grade::Warning } else { Grade::Error };
            bad(CHECK, grade, format!("{port} in {group} is closed to {source}{guessed}"), open)
        }
        _ => ok(CHECK, format!("{port} in {group} is open to {source}{guessed}")),
    }
}

pub(super) fn quota(seen: &Seen, needs: &Needs) -> Finding {
    const CHECK: &str = "aws quota";
    const ASK: &str = "ask for more in the console: Service Quotas, Amazon EC2";
    let quota = match &seen.quota {
        Ok(Some(quota)) => quota,
        Ok(None) => {
            let found = "not known: which quota counts for this type of instance is not known here";
            return bad(CHECK, Grade::Warning, found, ASK);
        }
        Err(error) => {
            let fix = if trial::denies(error) {
                format!("allow servicequotas:GetServiceQuota, which no VM needs: {POLICY}")
            } else {
                "nothing has to be done; look in the console: Service Quotas, Amazon EC2".to_owned()
            };
            return bad(CHECK, Grade::Warning, format!("not known: {}", said(error)), fix);
        }
    };
    let default = seen.types.as_ref().ok().and_then(|types| types.first());
    let vcpus = default.map_or(1, |known| known.vcpus.max(1));
    let fit = quota.vcpus / vcpus;
    let found = format!(
        "{} of {}: {} vCPUs in this account and region, that is {fit} VMs of {vcpus} vCPUs, less what else runs",
        quota.code, quota.name, quota.vcpus
    );
    match needs.most_vms {
        _ if fit == 0 => bad(CHECK, Grade::Error, found, ASK),
        Some(most) if fit < most => {
            bad(CHECK, Grade::Warning, format!("{found}; this node alone may have {most}"), ASK)
        }
        _ => ok(CHECK, found),
    }
}
