//! The two ports between workers and VMs, in the VMs' security groups: whether they are open, opening them, and closing what was opened
//! so. Observe (the groups' rules) → decide (pure) → act.
//!
//! A rule lets in the worker's own security group, not addresses: workers come and go. Where the worker is no instance of this account
//! the VMs' groups let in themselves.

use aws_sdk_ec2::types::{IpPermission, SecurityGroup, UserIdGroupPair};
use peerpods_provider::{ErrorKind, ProviderError};

use crate::api::Action;
use crate::provider::Account;
use crate::site::{self, Site};

/// What a rule of ours is described as; only such rules are closed again.
const DESCRIPTION: &str = "peerpods";
const DUPLICATE: &str = "InvalidPermission.Duplicate";
const NO_RULE: &str = "InvalidPermission.NotFound";

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP: the agent link.
    Tcp,
    /// UDP: the tunnel.
    Udp,
}

impl Protocol {
    /// As EC2 writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port that workers and VMs need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// What it speaks.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

/// What is to be done about ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Look.
    Check,
    /// Say what `Open` would do.
    PlanOpen,
    /// Open what is not.
    Open,
    /// Say what `Close` would do.
    PlanClose,
    /// Close what was opened by us.
    Close,
}

/// How a port of a group stands, after what was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It was open.
    Open,
    /// It is not.
    Missing,
    /// It would be opened.
    WouldOpen,
    /// It was opened.
    Opened,
    /// It is open by a rule that is not ours, and stays.
    Kept,
    /// It would be closed.
    WouldClose,
    /// It was closed.
    Closed,
}

/// A port of a security group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The group.
    pub group: String,
    /// The port.
    pub port: Port,
    /// The group that is let in.
    pub source: String,
    /// How it stands.
    pub standing: Standing,
}

/// How open a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Closed,
    ByOthers,
    ByUs,
}

/// Does an errand for every port in every group of the VMs.
pub(crate) async fn run(
    account: &Account,
    ports: &[Port],
    errand: Errand,
) -> Result<Vec<Rule>, ProviderError> {
    let site = account.site().await?;
    let groups = groups(account, &site).await?;
    let source = source(&site).await?;
    let mut rules = Vec::new();
    for group in groups {
        for port in ports {
            let standing = decide(found(&group, *port, &source), errand);
            let group = group.group_id().unwrap_or_default().to_owned();
            let rule = Rule { group, port: *port, source: source.clone(), standing };
            act(account, &site, &rule).await?;
            rules.push(rule);
        }
    }
    Ok(rules)
}

/// The group workers are in.
async fn source(site: &Site) -> Result<String, ProviderError> {
    let worker = site::look_around(&site::metadata()).await;
    let own = worker.security_groups.into_iter().next();
    own.or_else(|| site.security_groups.first().cloned()).ok_or_else(|| {
        let text = "no security group is configured, and instance metadata tells none";
        ProviderError::new(ErrorKind::Invalid, "look at ports", text).hint("set AWS_SG_IDS")
    })
}

async fn groups(account: &Account, site: &Site) -> Result<Vec<SecurityGroup>, ProviderError> {
    // Asked for none, EC2 tells of all there are in the region.
    if site.security_groups.is_empty() {
        let text = "no security group of the VMs is configured; those of a launch template are not looked at";
        return Err(ProviderError::new(ErrorKind::Invalid, "look at ports", text).hint("set AWS_SG_IDS"));
    }
    let ids = Some(site.security_groups.clone());
    let operation = format!("look at security groups {}", site.security_groups.join(", "));
    let send =
        |client: aws_sdk_ec2::Client| client.describe_security_groups().set_group_ids(ids.clone()).send();
    let answer = account.api.call(&site.client, Action::Describe, &operation, send).await?;
    let asked = |group: &&SecurityGroup| {
        group.group_id().is_some_and(|id| site.security_groups.iter().any(|asked| asked == id))
    };
    Ok(answer.security_groups().iter().filter(asked).cloned().collect())
}

/// Whether a group lets a port in from the source: by a rule for it, or for everybody.
fn found(group: &SecurityGroup, port: Port, source: &str) -> Found {
    let number = i32::from(port.number);
    let covers = |rule: &&IpPermission| match rule.ip_protocol() {
        Some("-1") => true,
        Some(protocol) => {
            protocol == port.protocol.name()
                && rule.from_port().is_some_and(|from| from <= number)
                && rule.to_port().is_some_and(|to| to >= number)
        }
        None => false,
    };
    let mut found = Found::Closed;
    for rule in group.ip_permissions().iter().filter(covers) {
        let exact = rule.from_port() == Some(number) && rule.to_port() == Some(number);
        let pair = rule.user_id_group_pairs().iter().find(|pair| pair.group_id() == Some(source));
        let ours = pair.is_some_and(|pair| pair.description() == Some(DESCRIPTION));
        let everybody = rule.ip_ranges().iter().any(|range| range.cidr_ip() == Some("0.0.0.0/0"));
        if (pair.is_some() && !(exact && ours)) || everybody {
            return Found::ByOthers;
        }
        if pair.is_some() {
            found = Found::ByUs;
        }
    }
    found
}

/// How a port stands after an errand.
fn decide(found: Found, errand: Errand) -> Standing {
    match (errand, found) {
        (Errand::Check, Found::Closed) => Standing::Missing,
        (Errand::PlanOpen, Found::Closed) => Standing::WouldOpen,
        (Errand::Open, Found::Closed) => Standing::Opened,
        (Errand::PlanClose | Errand::Close, Found::Closed) => Standing::Missing,
        (Errand::PlanClose, Found::ByUs) => Standing::WouldClose,
        (Errand::Close, Found::ByUs) => Standing::Closed,
        (Errand::PlanClose | Errand::Close, Found::ByOthers) => Standing::Kept,
        (Errand::Check | Errand::PlanOpen | Errand::Open, Found::ByUs | Found::ByOthers) => Standing::Open,
    }
}

/// Makes it so. What somebody else did meanwhile is as good.
async fn act(account: &Account, site: &Site, rule: &Rule) -> Result<(), ProviderError> {
    let (port, group) = (rule.port, rule.group.as_str());
    let pair = UserIdGroupPair::builder().group_id(&rule.source).description(DESCRIPTION).build();
    let number = i32::from(port.number);
    let permission = IpPermission::builder()
        .ip_protocol(port.protocol.name())
        .from_port(number)
        .to_port(number)
        .user_id_group_pairs(pair)
        .build();
    let what = format!("{}/{} in {group}", port.number, port.protocol.name());
    let api = &account.api;
    match rule.standing {
        Standing::Opened => {
            let send = |client: aws_sdk_ec2::Client| {
                client
                    .authorize_security_group_ingress()
                    .group_id(group)
                    .ip_permissions(permission.clone())
                    .send()
            };
            let done =
                api.call(&site.client, Action::Terminate, &format!("open {what}"), send).await.map(drop);
            unless(done, DUPLICATE)
        }
        Standing::Closed => {
            let send = |client: aws_sdk_ec2::Client| {
                client
                    .revoke_security_group_ingress()
                    .group_id(group)
                    .ip_permissions(permission.clone())
                    .send()
            };
            let done =
                api.call(&site.client, Action::Terminate, &format!("close {what}"), send).await.map(drop);
            unless(done, NO_RULE)
        }
        _ => Ok(()),
    }
}

fn unless(done: Result<(), ProviderError>, code: &str) -> Result<(), ProviderError> {
    match done {
        Err(error) if error.code.as_deref() == Some(code) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::IpRange;

    use super::*;

    const TUNNEL: Port = Port { protocol: Protocol::Udp, number: 9000 };

    fn group(
        protocol: &str,
        from: i32,
        to: i32,
        pair: Option<(&str, &str)>,
        cidr: Option<&str>,
    ) -> SecurityGroup {
        let pair =
            pair.map(|(group, text)| UserIdGroupPair::builder().group_id(group).description(text).build());
        let range = cidr.map(|cidr| IpRange::builder().cidr_ip(cidr).build());
        let rule = IpPermission::builder()
            .ip_protocol(protocol)
            .from_port(from)
            .to_port(to)
            .set_user_id_group_pairs(Some(pair.into_iter().collect()))
            .set_ip_ranges(Some(range.into_iter().collect()))
            .build();
        SecurityGroup::builder().ip_permissions(rule).build()
    }

    #[test]
    fn a_port_is_open_by_its_own_rule_a_wider_one_or_everybodys() {
        let ours = Some(("sg-1", DESCRIPTION));
        for (group, expected) in [
            (group("udp", 9000, 9000, ours, None), Found::ByUs),
            (group("udp", 9000, 9000, Some(("sg-1", "the admin's")), None), Found::ByOthers),
            (group("udp", 1, 65535, Some(("sg-1", "")), None), Found::ByOthers),
            (group("-1", -1, -1, Some(("sg-1", "")), None), Found::ByOthers),
            (group("udp", 9000, 9000, None, Some("0.0.0.0/0")), Found::ByOthers),
            // The guide's own mistake: the tunnel is UDP.
            (group("tcp", 9000, 9000, ours, None), Found::Closed),
            (group("udp", 9001, 9001, ours, None), Found::Closed),
            (group("udp", 9000, 9000, Some(("sg-2", DESCRIPTION)), None), Found::Closed),
            (group("udp", 9000, 9000, None, Some("10.0.0.0/8")), Found::Closed),
        ] {
            assert_eq!(found(&group, TUNNEL, "sg-1"), expected, "{group:?}");
        }
    }

    #[test]
    fn a_plan_changes_nothing_and_others_rules_stay() {
        for (found, errand, standing) in [
            (Found::Closed, Errand::Check, Standing::Missing),
            (Found::Closed, Errand::PlanOpen, Standing::WouldOpen),
            (Found::Closed, Errand::Open, Standing::Opened),
            (Found::ByUs, Errand::Open, Standing::Open),
            (Found::ByUs, Errand::PlanClose, Standing::WouldClose),
            (Found::ByOthers, Errand::Close, Standing::Kept),
        ] {
            assert_eq!(decide(found, errand), standing);
        }
    }
}
