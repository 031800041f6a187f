//! Whose packets are let in: the groups somebody named, else those of this worker.

use peerpods_provider::{ErrorKind, ProviderError};

use crate::config::{self, AwsConfig};
use crate::site::{self, Site};

/// The groups that are let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sources {
    /// Their ids.
    pub(super) groups: Vec<String>,
    /// Who named them.
    pub(super) told: Told,
}

/// Who named the groups that are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The caller. Each of them is let in.
    Given,
    /// The configuration. Each of them is let in.
    Configured,
    /// This instance's metadata: they are its own. An instance is let in by any one of its groups, so one of them is enough.
    Metadata,
    /// A rule that `open` made.
    Opened,
    /// Nobody: the VMs' own group is taken, as on clusters whose workers are in it.
    Assumed,
}

impl Told {
    /// The reason for taking them, for people.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Self::Given => "as --from says",
            Self::Configured => "as the configuration says (PEERPODS_AWS_WORKER_SG_IDS)",
            Self::Metadata => "this instance's own, as its metadata says",
            Self::Opened => "as a rule says that was opened before",
            Self::Assumed => {
                "the VMs' own, because nothing tells the workers' here: this machine has no instance metadata; name theirs with --from"
            }
        }
    }

    /// Where a wrong id is corrected.
    pub(super) fn place(self) -> &'static str {
        match self {
            Self::Given => "--from",
            Self::Configured => "PEERPODS_AWS_WORKER_SG_IDS",
            Self::Metadata => "instance metadata",
            Self::Opened => "the VMs' groups",
            Self::Assumed => "AWS_SG_IDS",
        }
    }
}

/// Finds them.
///
/// # Errors
/// `Invalid` when neither the workers' nor the VMs' groups are known.
pub(super) async fn find(
    config: &AwsConfig,
    site: &Site,
    named: &[String],
) -> Result<Sources, ProviderError> {
    for (groups, told) in [(named, Told::Given), (&config.worker_groups, Told::Configured)] {
        if !groups.is_empty() {
            return Ok(Sources { groups: each_once(groups), told });
        }
    }
    let worker = site::look_around(&site::metadata()).await;
    if !worker.security_groups.is_empty() {
        return Ok(Sources { groups: worker.security_groups, told: Told::Metadata });
    }
    match site.security_groups.first() {
        Some(own) => Ok(Sources { groups: vec![own.clone()], told: Told::Assumed }),
        None => {
            let text = "no security group is configured, and instance metadata tells none";
            Err(ProviderError::new(ErrorKind::Invalid, "look at ports", text).hint("set AWS_SG_IDS"))
        }
    }
}

fn each_once(groups: &[String]) -> Vec<String> {
    let mut once: Vec<String> = Vec::new();
    for group in groups {
        if !once.contains(group) {
            once.push(group.clone());
        }
    }
    once
}

/// The ids that can be asked for, and a sentence for each that cannot.
pub(super) fn judged(groups: &[String]) -> (Vec<String>, Vec<String>) {
    let (good, bad): (Vec<String>, Vec<String>) =
        groups.iter().cloned().partition(|id| config::is_id("sg", id));
    let fault = |id: String| format!("{id:?} is no id: write sg- and 8 or 17 hexadecimal digits");
    (good, bad.into_iter().map(fault).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_malformed_id_is_named_and_the_others_are_asked_for() {
        let (good, bad) = judged(&["sg-01234567", "default", "sg-xyz"].map(str::to_owned));
        assert_eq!(good, ["sg-01234567"]);
        assert!(bad.len() == 2 && bad[0].contains("default") && bad[1].contains("sg-xyz"), "{bad:?}");
    }

    #[test]
    fn a_group_that_is_named_twice_is_let_in_once() {
        assert_eq!(each_once(&["a", "b", "a"].map(str::to_owned)), ["a", "b"]);
    }
}
