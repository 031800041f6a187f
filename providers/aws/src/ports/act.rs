//! Adding and taking away a rule. What somebody else did meanwhile is as good.

use aws_sdk_ec2::types::{IpPermission, UserIdGroupPair};
use peerpods_provider::ProviderError;

use super::rules::DESCRIPTION;
use super::{Port, Rule, Standing};
use crate::api::Action;
use crate::provider::Account;
use crate::site::Site;

const DUPLICATE: &str = "InvalidPermission.Duplicate";
const NO_RULE: &str = "InvalidPermission.NotFound";

/// Makes it so.
pub(super) async fn make_so(account: &Account, site: &Site, rule: &Rule) -> Result<(), ProviderError> {
    let (group, permission) = (rule.group.as_str(), permission(rule.port, &rule.source));
    let what = format!("{} in {group} for {}", rule.port, rule.source);
    let api = &account.api;
    match rule.standing {
        Standing::Opened => {
            let send = |client: aws_sdk_ec2::Client| {
                let call = client.authorize_security_group_ingress().group_id(group);
                call.ip_permissions(permission.clone()).send()
            };
            let done =
                api.call(&site.client, Action::Terminate, &format!("open {what}"), send).await.map(drop);
            unless(done, DUPLICATE)
        }
        Standing::Closed => {
            let send = |client: aws_sdk_ec2::Client| {
                let call = client.revoke_security_group_ingress().group_id(group);
                call.ip_permissions(permission.clone()).send()
            };
            let done =
                api.call(&site.client, Action::Terminate, &format!("close {what}"), send).await.map(drop);
            unless(done, NO_RULE)
        }
        _ => Ok(()),
    }
}

/// The rule that lets a group in on one port, described as ours.
pub(crate) fn permission(port: Port, source: &str) -> IpPermission {
    let pair = UserIdGroupPair::builder().group_id(source).description(DESCRIPTION).build();
    let number = i32::from(port.number);
    IpPermission::builder()
        .ip_protocol(port.protocol.name())
        .from_port(number)
        .to_port(number)
        .user_id_group_pairs(pair)
        .build()
}

fn unless(done: Result<(), ProviderError>, code: &str) -> Result<(), ProviderError> {
    match done {
        Err(error) if error.code.as_deref() == Some(code) => Ok(()),
        other => other,
    }
}
