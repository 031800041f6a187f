//! Whether an action is allowed, found out by a dry run: EC2 checks the permission and the parameters, and answers `DryRunOperation`
//! where it would have gone on.

use std::collections::BTreeMap;

use peerpods_provider::{ProviderError, UserData, VmKey, VmSize, VmSpec};

use crate::api::Action;
use crate::image::Image;
use crate::placement::Placement;
use crate::ports::{self, Port};
use crate::provider::Account;
use crate::request::{self, Memory, Order};
use crate::site::Site;
use crate::tags;

/// An instance that is not there.
const NO_INSTANCE: &str = "i-00000000000000000";
const WOULD_HAVE: &str = "DryRunOperation";
const DENIALS: [&str; 3] = ["UnauthorizedOperation", "AccessDenied", "AccessDeniedException"];

/// What a dry run came to.
#[derive(Debug)]
pub(super) enum Verdict {
    Allowed,
    /// With the action that was denied.
    Denied(String),
    /// Whether it is allowed was not told, because something else is wrong.
    Refused(ProviderError),
    /// It could not be tried.
    Untried,
}

/// Whether an answer denies the action.
pub(super) fn denies(error: &ProviderError) -> bool {
    error.code.as_deref().is_some_and(|code| DENIALS.contains(&code))
}

/// What the answer to a dry run of `action` means. The SDK calls every answer to it an error.
fn verdict(action: &str, answer: Result<(), ProviderError>) -> Verdict {
    match answer {
        Ok(()) => Verdict::Allowed,
        Err(error) if error.code.as_deref() == Some(WOULD_HAVE) => Verdict::Allowed,
        Err(error) if denies(&error) => Verdict::Denied(denied(&error.message).unwrap_or(action).to_owned()),
        Err(error) => Verdict::Refused(error),
    }
}

/// The action EC2 names when it denies one: making a VM takes several, and it is not always the first that is missing.
fn denied(message: &str) -> Option<&str> {
    let rest = message.split_once("to perform: ")?.1;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != ':').unwrap_or(rest.len());
    Some(&rest[..end]).filter(|action| action.contains(':'))
}

/// Making the VM of a pod that asks for nothing, with its tags.
pub(super) async fn run_instances(
    account: &Account,
    site: &Site,
    placement: &Placement,
    image: Option<&Image>,
) -> Verdict {
    let Ok(key) = trial_key() else { return Verdict::Untried };
    let order = Order {
        config: &account.config,
        security_groups: &site.security_groups,
        placement,
        image,
        memory: Memory::Plain,
        user_data: &UserData::new("#cloud-config\n"),
        tags: tags::of_vm(&key, &trial_spec(), 0, &account.config.tags),
        token: format!("doctor-{:016x}", fastrand::u64(..)),
    };
    let input = request::run(&order).dry_run(true);
    let send = |client: aws_sdk_ec2::Client| {
        let input = input.clone();
        async move { input.send_with(&client).await }
    };
    let answer = account.api.call(&site.client, Action::Run, "try to make a VM", send).await;
    verdict("ec2:RunInstances", answer.map(drop))
}

fn trial_key() -> Result<VmKey, peerpods_podvm::IdError> {
    Ok(VmKey { cluster: "doctor".parse()?, sandbox: "doctor".parse()? })
}

fn trial_spec() -> VmSpec {
    VmSpec {
        name: "podvm-doctor".to_owned(),
        image: None,
        machine_type: None,
        size: VmSize::default(),
        user_data: UserData::new(""),
        tags: BTreeMap::new(),
    }
}

/// Ending `ours`, a VM of ours; without one nothing certain can be said, as a policy may allow it for such only.
pub(super) async fn terminate_instances(account: &Account, site: &Site, ours: Option<&str>) -> Verdict {
    let id = ours.unwrap_or(NO_INSTANCE);
    let send =
        |client: aws_sdk_ec2::Client| client.terminate_instances().instance_ids(id).dry_run(true).send();
    let answer = account.api.call(&site.client, Action::Terminate, "try to end a VM", send).await;
    certain(ours, verdict("ec2:TerminateInstances", answer.map(drop)))
}

/// Letting the volumes of `ours` go with it.
pub(super) async fn modify_instance(account: &Account, site: &Site, ours: Option<&str>) -> Verdict {
    let id = ours.unwrap_or(NO_INSTANCE);
    let send = |client: aws_sdk_ec2::Client| {
        let call = client.modify_instance_attribute().instance_id(id).dry_run(true);
        call.block_device_mappings(
            aws_sdk_ec2::types::InstanceBlockDeviceMappingSpecification::builder()
                .device_name("/dev/sda1")
                .ebs(
                    aws_sdk_ec2::types::EbsInstanceBlockDeviceSpecification::builder()
                        .delete_on_termination(true)
                        .build(),
                )
                .build(),
        )
        .send()
    };
    let answer = account.api.call(&site.client, Action::Terminate, "try to change a VM", send).await;
    certain(ours, verdict("ec2:ModifyInstanceAttribute", answer.map(drop)))
}

fn certain(ours: Option<&str>, verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Denied(_) | Verdict::Refused(_) if ours.is_none() => Verdict::Untried,
        verdict => verdict,
    }
}

/// Opening a port for the group itself, and closing it.
pub(super) async fn change_ports(account: &Account, site: &Site, port: Port) -> (Verdict, Verdict) {
    let Some(group) = site.security_groups.first() else { return (Verdict::Untried, Verdict::Untried) };
    let permission = ports::permission(port, group);
    let open = |client: aws_sdk_ec2::Client| {
        let call = client.authorize_security_group_ingress().group_id(group).dry_run(true);
        call.ip_permissions(permission.clone()).send()
    };
    let close = |client: aws_sdk_ec2::Client| {
        let call = client.revoke_security_group_ingress().group_id(group).dry_run(true);
        call.ip_permissions(permission.clone()).send()
    };
    let (api, client) = (&account.api, &site.client);
    let opened = api.call(client, Action::Terminate, "try to open a port", open).await;
    let closed = api.call(client, Action::Terminate, "try to close a port", close).await;
    (
        verdict("ec2:AuthorizeSecurityGroupIngress", opened.map(drop)),
        verdict("ec2:RevokeSecurityGroupIngress", closed.map(drop)),
    )
}

/// Looking at volumes, which only the end of some VMs needs.
pub(super) async fn describe_volumes(account: &Account, site: &Site) -> Verdict {
    let send = |client: aws_sdk_ec2::Client| client.describe_volumes().dry_run(true).send();
    let answer = account.api.call(&site.client, Action::Describe, "try to look at volumes", send).await;
    verdict("ec2:DescribeVolumes", answer.map(drop))
}

/// Asking for spot prices.
pub(super) async fn describe_spot_prices(account: &Account, site: &Site) -> Verdict {
    let send = |client: aws_sdk_ec2::Client| client.describe_spot_price_history().dry_run(true).send();
    let answer = account.api.call(&site.client, Action::Describe, "try to look at spot prices", send).await;
    verdict("ec2:DescribeSpotPriceHistory", answer.map(drop))
}

#[cfg(test)]
mod tests {
    use peerpods_provider::ErrorKind;

    use super::*;

    fn told(code: &str, message: &str) -> Result<(), ProviderError> {
        Err(ProviderError::new(ErrorKind::Invalid, "try", message).code(code))
    }

    #[test]
    fn a_dry_run_that_would_have_succeeded_is_allowed() {
        let would = verdict("ec2:RunInstances", told(WOULD_HAVE, "Request would have succeeded"));
        assert!(matches!(would, Verdict::Allowed));
        let bad = verdict("ec2:RunInstances", told("InvalidParameterValue", "x"));
        assert!(matches!(bad, Verdict::Refused(_)));
    }

    #[test]
    fn a_denial_names_the_action_that_is_missing() {
        let texts = [
            (
                "You are not authorized to perform this operation. User: arn:aws:iam::111122223333:user/pp is not authorized \
                 to perform: ec2:CreateTags on resource: arn:aws:ec2:us-east-1:111122223333:instance/*",
                "ec2:CreateTags",
            ),
            ("You are not authorized to perform this operation.", "ec2:RunInstances"),
            ("not authorized to perform: ", "ec2:RunInstances"),
        ];
        for (text, action) in texts {
            let Verdict::Denied(named) = verdict("ec2:RunInstances", told("UnauthorizedOperation", text))
            else {
                panic!("{text}");
            };
            assert_eq!(named, action);
        }
    }

    #[test]
    fn without_a_vm_of_ours_a_denial_says_nothing() {
        let denied = || Verdict::Denied("ec2:TerminateInstances".to_owned());
        assert!(matches!(certain(None, denied()), Verdict::Untried));
        assert!(matches!(certain(Some("i-1"), denied()), Verdict::Denied(_)));
        assert!(matches!(certain(None, Verdict::Allowed), Verdict::Allowed));
    }
}
