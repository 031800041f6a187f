//! An instance as EC2 tells of it, as the service sees it. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use aws_sdk_ec2::types::{self, InstanceStateName};
use peerpods_provider::{Instance, VmKey, VmState};

use crate::config::PublicAddress;
use crate::tags;

/// How much is passed on of a reason whose code is not known, in characters.
const LONGEST_REASON: usize = 200;

/// Whether an instance is there or has ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// It is there, also when it stopped.
    There,
    /// It ends, or has ended: nothing brings it back, nothing is paid for it.
    Ended,
}

/// An instance that carries our tags.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) key: VmKey,
    pub(crate) attempt: u32,
    pub(crate) life: Life,
    pub(crate) launched_ms: i64,
    pub(crate) instance: Instance,
    /// Volumes that would outlive the instance: (device, volume).
    pub(crate) outliving: Vec<(String, String)>,
    /// Why it does not run, where EC2 says so.
    pub(crate) why: Option<String>,
}

/// Reads an instance; `None` when its tags are not ours.
pub(crate) fn read(told: &types::Instance, public: PublicAddress) -> Option<Found> {
    let tags = tags::from_ec2(told.tags());
    let key = tags::key_of(&tags)?;
    let state = told.state().and_then(types::InstanceState::name);
    Some(Found {
        attempt: tags::attempt_of(&tags),
        key,
        life: life(state),
        launched_ms: told.launch_time().and_then(|at| at.to_millis().ok()).unwrap_or(i64::MAX),
        outliving: outliving(told),
        why: told.state_reason().and_then(why),
        instance: instance(told, tags, public),
    })
}

/// What `RunInstances` answered, whatever EC2 tells of its tags yet.
pub(crate) fn instance(
    told: &types::Instance,
    tags: BTreeMap<String, String>,
    public: PublicAddress,
) -> Instance {
    Instance {
        id: told.instance_id().unwrap_or_default().to_owned(),
        name: tags.get(tags::NAME).cloned().unwrap_or_default(),
        addresses: addresses(told, public),
        state: state(told.state().and_then(types::InstanceState::name)),
        console: None,
        tags,
    }
}

/// Whether the instance is there.
pub(crate) fn life(state: Option<&InstanceStateName>) -> Life {
    match state {
        Some(InstanceStateName::ShuttingDown | InstanceStateName::Terminated) => Life::Ended,
        _ => Life::There,
    }
}

fn state(state: Option<&InstanceStateName>) -> VmState {
    match state {
        Some(InstanceStateName::Running) => VmState::Running,
        Some(
            InstanceStateName::Stopping
            | InstanceStateName::Stopped
            | InstanceStateName::ShuttingDown
            | InstanceStateName::Terminated,
        ) => VmState::Stopped,
        _ => VmState::Pending,
    }
}

/// The addresses the worker can use. Where VMs get a public one it comes first, and until it is known there is none: a worker
/// outside the VPC cannot use the other.
fn addresses(told: &types::Instance, public: PublicAddress) -> Vec<IpAddr> {
    let private = told.private_ip_address().and_then(|text| text.parse::<Ipv4Addr>().ok());
    let six = told.network_interfaces().iter().flat_map(|interface| interface.ipv6_addresses());
    let six = six.filter_map(|address| address.ipv6_address()?.parse().ok()).map(IpAddr::V6);
    let private = private.map(IpAddr::V4).into_iter().chain(six);
    match public {
        PublicAddress::None => private.collect(),
        PublicAddress::Assigned => match told.public_ip_address().and_then(|text| text.parse().ok()) {
            Some(first) => std::iter::once(IpAddr::V4(first)).chain(private).collect(),
            None => Vec::new(),
        },
    }
}

/// A state reason in words. The codes are those of EC2's `StateReason`.
fn why(reason: &types::StateReason) -> Option<String> {
    let code = reason.code().filter(|code| !code.is_empty())?;
    let words = match code {
        "Server.SpotInstanceTermination" | "Server.SpotInstanceShutdown" => {
            "EC2 took the spot instance back".to_owned()
        }
        "Server.InternalError" => "EC2 ended it because of a fault of its own".to_owned(),
        "Server.ScheduledStop" => "EC2 stopped it for scheduled maintenance".to_owned(),
        "Server.InsufficientInstanceCapacity" => "EC2 had no capacity to start it".to_owned(),
        "Client.UserInitiatedShutdown" | "Client.UserInitiatedHibernate" => {
            "somebody ended it at EC2".to_owned()
        }
        "Client.InstanceInitiatedShutdown" => "it shut itself down".to_owned(),
        "Client.VolumeLimitExceeded" => "the account's limit of volumes was reached".to_owned(),
        _ => {
            let message = reason.message().unwrap_or_default();
            // EC2 begins most of them with the code.
            let message = message.strip_prefix(code).unwrap_or(message).trim_start_matches([':', ' ']);
            format!("EC2 says {:?}", message.chars().take(LONGEST_REASON).collect::<String>())
        }
    };
    Some(format!("{words} ({code})"))
}

fn outliving(told: &types::Instance) -> Vec<(String, String)> {
    let one = |mapping: &types::InstanceBlockDeviceMapping| {
        let ebs = mapping.ebs()?;
        let stays = ebs.delete_on_termination() == Some(false);
        stays.then(|| Some((mapping.device_name()?.to_owned(), ebs.volume_id()?.to_owned())))?
    };
    told.block_device_mappings().iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::builders::InstanceBuilder;

    use super::*;

    fn told(state: InstanceStateName) -> InstanceBuilder {
        let pairs =
            [(tags::CLUSTER, "c"), (tags::SANDBOX, "s"), (tags::ATTEMPT, "2"), (tags::NAME, "podvm-x")];
        let tags = pairs.map(|(key, value)| types::Tag::builder().key(key).value(value).build());
        types::Instance::builder()
            .instance_id("i-1")
            .private_ip_address("10.0.0.7")
            .state(types::InstanceState::builder().name(state).build())
            .set_tags(Some(tags.to_vec()))
    }

    #[test]
    fn every_state_of_ec2_has_its_meaning() {
        for (name, state, life) in [
            (InstanceStateName::Pending, VmState::Pending, Life::There),
            (InstanceStateName::Running, VmState::Running, Life::There),
            (InstanceStateName::Stopping, VmState::Stopped, Life::There),
            (InstanceStateName::Stopped, VmState::Stopped, Life::There),
            (InstanceStateName::ShuttingDown, VmState::Stopped, Life::Ended),
            (InstanceStateName::Terminated, VmState::Stopped, Life::Ended),
        ] {
            let found = read(&told(name).build(), PublicAddress::None).unwrap();
            assert_eq!((found.instance.state, found.life), (state, life));
            assert_eq!((found.attempt, found.instance.name.as_str()), (2, "podvm-x"));
        }
    }

    #[test]
    fn a_public_address_comes_first_and_nothing_is_told_before_it() {
        let waiting = read(&told(InstanceStateName::Pending).build(), PublicAddress::Assigned).unwrap();
        assert_eq!(waiting.instance.addresses, Vec::<IpAddr>::new());
        let known = told(InstanceStateName::Running).public_ip_address("3.4.5.6").build();
        let shown = |public| {
            read(&known, public)
                .unwrap()
                .instance
                .addresses
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(PublicAddress::Assigned), ["3.4.5.6", "10.0.0.7"]);
        assert_eq!(shown(PublicAddress::None), ["10.0.0.7"]);
    }

    #[test]
    fn a_foreign_instance_is_not_read() {
        assert_eq!(read(&types::Instance::builder().instance_id("i-1").build(), PublicAddress::None), None);
    }

    #[test]
    fn what_ended_it_is_told_in_words_with_the_code() {
        for (code, message, words) in [
            (
                "Server.SpotInstanceTermination",
                "Server.SpotInstanceTermination: Spot instance termination",
                "EC2 took the spot instance back (Server.SpotInstanceTermination)",
            ),
            ("Client.UserInitiatedShutdown", "", "somebody ended it at EC2 (Client.UserInitiatedShutdown)"),
            ("Client.New", "Client.New: because", "EC2 says \"because\" (Client.New)"),
        ] {
            let reason = types::StateReason::builder().code(code).message(message).build();
            let told = told(InstanceStateName::Terminated).state_reason(reason).build();
            assert_eq!(read(&told, PublicAddress::None).unwrap().why.as_deref(), Some(words));
        }
        let silent = told(InstanceStateName::Terminated).state_reason(types::StateReason::builder().build());
        assert_eq!(read(&silent.build(), PublicAddress::None).unwrap().why, None);
    }

    #[test]
    fn volumes_that_would_stay_are_told() {
        let disk = |device: &str, goes| {
            let ebs = types::EbsInstanceBlockDevice::builder()
                .volume_id(format!("vol{device}"))
                .delete_on_termination(goes);
            types::InstanceBlockDeviceMapping::builder().device_name(device).ebs(ebs.build()).build()
        };
        let told = told(InstanceStateName::Running)
            .block_device_mappings(disk("a", true))
            .block_device_mappings(disk("b", false));
        let found = read(&told.build(), PublicAddress::None).unwrap();
        assert_eq!(found.outliving, [("b".to_owned(), "volb".to_owned())]);
    }
}
