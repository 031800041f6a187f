//! One sandbox as the journal keeps it: enough to go on after a crash, and nothing secret.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use peerpods_podvm::annotations::PodRequest;
use peerpods_podvm::token::GuestKey;
use peerpods_podvm::{ClusterId, SandboxId};
use peerpods_provider::{Provider, VmKey};
use serde::{Deserialize, Serialize};

use crate::ledger::Claim;

/// Where the sandbox was when the record was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The agent socket exists; nothing that costs money does.
    Created,
    /// A VM may exist.
    Starting,
    /// The agent answered.
    Running,
    /// Everything is being removed; nothing may be left when the record goes.
    Stopping,
}

/// The tunnel that may exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelRecord {
    /// The pod interface it joins.
    pub pod_interface: String,
    /// The VM's address.
    pub remote: IpAddr,
    /// This node's address that the VM was told; `None` where an older program laid the tunnel, and where it is not on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
}

/// A further interface of the pod, which has a VXLAN of its own beside the primary's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondaryRecord {
    /// The pod interface.
    pub pod_interface: String,
    /// Its VXLAN network identifier, kept for the sandbox's life.
    pub vni: u32,
}

/// The VM that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// The provider's id.
    pub id: String,
    /// Addresses, the tunnel's first.
    pub addresses: Vec<IpAddr>,
}

/// Which provider a VM was asked for, and where that was set to make it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whereabouts {
    /// The provider's name.
    pub provider: String,
    /// The region, where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

impl Whereabouts {
    /// Where a provider makes VMs now.
    pub async fn of(provider: &dyn Provider) -> Self {
        Self { provider: provider.name().to_owned(), location: provider.location().await }
    }

    /// Whether one who is set to `other` cannot see these VMs. What is not known is no other place.
    #[must_use]
    pub fn is_elsewhere(&self, other: &Self) -> bool {
        let regions = self.location.as_ref().zip(other.location.as_ref());
        self.provider != other.provider || regions.is_some_and(|(one, another)| one != another)
    }
}

impl std::fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.provider)?;
        self.location.iter().try_for_each(|location| write!(f, " in {location}"))
    }
}

/// How the VM proves itself to the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "lowercase")]
pub enum GuestForm {
    /// By a certificate whose key is in its user data.
    Stock,
    /// By a key it made itself. Which, is known once it was admitted by its token; it is no secret.
    Token {
        /// The key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<GuestKey>,
    },
}

/// The VM's tag that says its [`GuestForm`], for when there is no record.
pub const GUEST_TAG: &str = "guest-identity";

impl GuestForm {
    /// The word for it in lists.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Token { .. } => "token",
        }
    }
}

/// What this node remembers of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The cluster whose VM it is: half of the key it can be found by, whatever the configuration says later.
    pub cluster: ClusterId,
    /// Where it was.
    pub stage: Stage,
    /// What CreateVM asked for.
    pub request: PodRequest,
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// Where the shim looks for the agent.
    pub agent_socket: PathBuf,
    /// The VM's name, also in its certificate.
    pub vm_name: String,
    /// The tunnel's VXLAN network identifier, kept for the sandbox's life.
    pub vni: u32,
    /// The tunnel's UDP port: a later change of the configuration does not touch it.
    pub vxlan_port: u16,
    /// The pod's further interfaces, in the order of their devices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secondary: Vec<SecondaryRecord>,
    /// The tunnel, once it is about to be laid.
    pub tunnel: Option<TunnelRecord>,
    /// The VM, once it is known.
    pub instance: Option<InstanceRecord>,
    /// Where the VM was asked for; nothing before that, and in records of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whereabouts: Option<Whereabouts>,
    /// How the VM proves itself, once that is decided. A record of an older program has no word for the stock form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestForm>,
    /// When the provider was asked to make a VM, in milliseconds since 1970; written before each time. The last one is when it answered,
    /// where `instance` is what it answered with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub creations_unix_ms: Vec<u64>,
    /// When CreateVM was taken, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// The boot of this node it was made in; network namespaces and link processes do not outlive it.
    pub boot_id: String,
    /// Why it is being removed, when that was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Record {
    /// The key the sandbox's VM was made under.
    #[must_use]
    pub fn key(&self) -> VmKey {
        VmKey { cluster: self.cluster.clone(), sandbox: self.sandbox.clone() }
    }

    /// Whether its provider shows a VM of it, or will: one that is known; one that was asked for within `lag`; or one that was asked for when
    /// the service ended, of which nobody has looked yet whether it came to be.
    #[must_use]
    pub fn may_be_shown(&self, lag: Duration, now_unix_ms: u64) -> bool {
        let asked = self.creations_unix_ms.last();
        let since = asked.map(|asked| Duration::from_millis(now_unix_ms.saturating_sub(*asked)));
        let given_up = self.stage == Stage::Stopping;
        self.instance.is_some() || since.is_some_and(|since| !given_up || since < lag)
    }

    /// The pod as the cluster's record of its VM has it.
    #[must_use]
    pub fn claim(&self) -> Claim<'_> {
        let request = &self.request;
        Claim {
            pod_namespace: &request.pod_namespace,
            pod_name: &request.pod_name,
            location: self.whereabouts.as_ref().and_then(|at| at.location.as_deref()),
            since_unix_ms: self.created_unix_ms,
        }
    }

    /// Every VXLAN network identifier it has.
    pub fn vnis(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::once(self.vni).chain(self.secondary.iter().map(|one| one.vni))
    }

    /// Whether there may be a VM under its key.
    #[must_use]
    pub fn may_have_vm(&self) -> bool {
        match self.stage {
            Stage::Created => false,
            Stage::Starting | Stage::Running => true,
            Stage::Stopping => self.instance.is_some() || !self.creations_unix_ms.is_empty(),
        }
    }

    /// Why a restarted daemon removes the sandbox, when that was not asked for.
    #[must_use]
    pub fn why_after_restart(&self, boot_id: &str) -> Option<String> {
        let why = match self.stage {
            Stage::Stopping => return self.why.clone(),
            _ if self.boot_id != boot_id => "the node was restarted, which ended the pod",
            Stage::Starting => "the service ended while the sandbox was starting",
            Stage::Created | Stage::Running => return None,
        };
        Some(why.to_owned())
    }

    /// The stage from which a restarted daemon goes on: a start in flight has failed (its caller saw EOF), and a reboot ended the pod.
    #[must_use]
    pub fn stage_after_restart(&self, boot_id: &str) -> Stage {
        match self.stage {
            _ if self.boot_id != boot_id => Stage::Stopping,
            Stage::Starting | Stage::Stopping => Stage::Stopping,
            Stage::Created => Stage::Created,
            Stage::Running => Stage::Running,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::HashMap;

    pub(crate) fn a_record(id: &str) -> Record {
        let annotations = HashMap::from([
            ("io.kubernetes.cri.sandbox-name".to_owned(), "web".to_owned()),
            ("io.kubernetes.cri.sandbox-namespace".to_owned(), "default".to_owned()),
        ]);
        Record {
            sandbox: id.parse().unwrap(),
            cluster: "test".parse().unwrap(),
            stage: Stage::Created,
            request: PodRequest::from_annotations(&annotations).unwrap(),
            netns: "/run/netns/x".into(),
            agent_socket: "/run/peerpod/pods/x/agent.ttrpc".into(),
            vm_name: "podvm-web-x".into(),
            vni: 555_000,
            vxlan_port: 9000,
            secondary: Vec::new(),
            tunnel: None,
            instance: None,
            guest: None,
            whereabouts: None,
            creations_unix_ms: Vec::new(),
            created_unix_ms: 1,
            boot_id: "b1".into(),
            why: None,
        }
    }

    #[test]
    fn after_a_restart_a_start_in_flight_is_unwound_and_a_running_pod_goes_on() {
        let mut record = a_record("a");
        for (stage, then) in [
            (Stage::Created, Stage::Created),
            (Stage::Starting, Stage::Stopping),
            (Stage::Running, Stage::Running),
            (Stage::Stopping, Stage::Stopping),
        ] {
            record.stage = stage;
            assert_eq!(record.stage_after_restart("b1"), then);
            assert_eq!(record.stage_after_restart("b2"), Stage::Stopping, "a reboot ends every pod");
            let unasked = stage == Stage::Starting;
            assert_eq!(record.why_after_restart("b1").is_some(), unasked, "{stage:?}");
        }
    }

    #[test]
    fn a_start_that_failed_long_ago_left_nothing_that_a_provider_will_show() {
        let lag = Duration::from_secs(60);
        let mut record = a_record("a");
        record.instance = Some(InstanceRecord { id: "i-1".to_owned(), addresses: Vec::new() });
        assert!(record.may_be_shown(lag, 9_000_000), "there is a VM");
        (record.instance, record.stage) = (None, Stage::Starting);
        assert!(!record.may_be_shown(lag, 9_000_000), "nothing was asked for");
        record.creations_unix_ms = vec![1_000_000];
        assert!(record.may_be_shown(lag, 9_000_000), "nobody has looked");
        record.stage = Stage::Stopping;
        assert!(record.may_be_shown(lag, 1_059_999) && !record.may_be_shown(lag, 1_060_000));
    }
}
