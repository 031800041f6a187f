//! The two ports between workers and VMs, in the VMs' security groups: whether they are open, opening them, and closing what was opened
//! so. Observe (the groups' rules) → decide (pure, `rules`) → act.
//!
//! A rule lets in the workers' security groups, not addresses: workers come and go. Which groups those are `sources` finds out.

mod act;
mod rules;
mod sources;

use aws_sdk_ec2::types::{Filter, SecurityGroup};
use peerpods_provider::{ErrorKind, ProviderError};

use crate::api::Action;
use crate::provider::Account;
use crate::site::Site;
pub(crate) use act::permission;
use sources::Sources;
pub use sources::Told;

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

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol.name())
    }
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It was open.
    Open,
    /// It is not.
    Missing,
    /// It is open to these addresses or lists of them; whether the source's are among them was not looked into.
    Unknown(String),
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
    /// Who named it.
    pub told: Told,
    /// How it stands.
    pub standing: Standing,
}

/// Does an errand for every port in every group of the VMs. `named` are the groups to let in; empty: whatever [`sources::find`] finds.
pub(crate) async fn run(
    account: &Account,
    ports: &[Port],
    named: &[String],
    errand: Errand,
) -> Result<Vec<Rule>, ProviderError> {
    let site = account.site().await?;
    let sources = sources::find(&account.config, &site, named).await?;
    carry_out(account, &site, ports, sources, errand).await
}

/// Opens what is not open, for a service that runs on a worker: it opens nothing on a guess.
pub(crate) async fn ensure(account: &Account, ports: &[Port]) -> Result<Vec<Rule>, ProviderError> {
    let site = account.site().await?;
    let sources = sources::find(&account.config, &site, &[]).await?;
    if sources.told == Told::Assumed {
        let text = "instance metadata tells no security group of this worker";
        let hint = "set PEERPODS_AWS_WORKER_SG_IDS to the workers' groups, or run `peerpods ports open aws --from GROUP` once";
        return Err(ProviderError::new(ErrorKind::Invalid, "make sure of the ports", text).hint(hint));
    }
    carry_out(account, &site, ports, sources, Errand::Open).await
}

async fn carry_out(
    account: &Account,
    site: &Site,
    ports: &[Port],
    sources: Sources,
    errand: Errand,
) -> Result<Vec<Rule>, ProviderError> {
    let groups = groups(account, site, &sources).await?;
    let rules = rules::after(&groups, ports, &sources, errand);
    for rule in &rules {
        act::make_so(account, site, rule).await?;
    }
    Ok(rules)
}

/// The VMs' groups, with their rules.
///
/// # Errors
/// `Invalid` with every id, of the VMs' and of the sources, that is malformed or does not exist.
async fn groups(
    account: &Account,
    site: &Site,
    sources: &Sources,
) -> Result<Vec<SecurityGroup>, ProviderError> {
    let of_vms = &site.security_groups;
    // Asked for none, EC2 tells of all there are in the region.
    if of_vms.is_empty() {
        let text = "no security group of the VMs is configured; those of a launch template are not looked at";
        return Err(ProviderError::new(ErrorKind::Invalid, "look at ports", text).hint("set AWS_SG_IDS"));
    }
    let (well_formed, mut faults) = sources::judged(&sources.groups);
    let mut ids: Vec<String> = of_vms.iter().cloned().chain(well_formed).collect();
    ids.sort();
    ids.dedup();
    let operation = format!("look at security groups {}", ids.join(", "));
    // By a filter: asked by id, EC2 answers with an error that need not name all it does not know.
    let filter = Filter::builder().name("group-id").set_values(Some(ids.clone())).build();
    let send = |client: aws_sdk_ec2::Client| client.describe_security_groups().filters(filter.clone()).send();
    let answer = account.api.call(&site.client, Action::Describe, &operation, send).await?;
    let found = answer.security_groups();
    let is = |id: &String| found.iter().any(|group| group.group_id() == Some(id));
    faults.extend(ids.iter().filter(|id| !is(id)).map(|id| {
        let of = if of_vms.contains(id) { "AWS_SG_IDS" } else { sources.told.place() };
        format!("there is no security group {id} in {} ({of})", site.region)
    }));
    if !faults.is_empty() {
        return Err(ProviderError::new(ErrorKind::Invalid, operation, faults.join("; ")));
    }
    let asked =
        |group: &&SecurityGroup| group.group_id().is_some_and(|id| of_vms.iter().any(|one| one == id));
    Ok(found.iter().filter(asked).cloned().collect())
}
