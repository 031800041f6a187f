//! Ending a VM: whatever would outlive it is first told to go with it, then it is terminated. Both are EC2's to carry out from then on,
//! whoever dies; nothing is left to collect.

use aws_sdk_ec2::types::{
    EbsInstanceBlockDeviceSpecification, Filter, InstanceBlockDeviceMappingSpecification,
};
use peerpods_provider::{ErrorKind, ProviderError, VmKey};
use tokio::time::Instant;

use crate::api::Action;
use crate::failure;
use crate::found::{Found, Life};
use crate::provider::Account;
use crate::site::Site;
use crate::tags;

/// Ends every instance of `key`; returns when EC2 confirmed. Nothing to end is `Ok`.
pub(crate) async fn delete(account: &Account, key: &VmKey) -> Result<(), ProviderError> {
    let site = account.site().await?;
    let site = site.as_ref();
    let seen = account.describer.of_key(site, key).await?;
    for found in seen
        .iter()
        .filter(|found| found.life == Life::There && !account.births().is_ended(&found.instance.id))
    {
        keep_nothing(account, site, found).await?;
        terminate(account, site, key, &found.instance.id).await?;
    }
    let unseen = account.births().unseen(key, Instant::now()).map(|instance| instance.id.clone());
    if let Some(id) = unseen.filter(|id| !seen.iter().any(|found| found.instance.id == *id)) {
        terminate(account, site, key, &id).await?;
    }
    account.births().forget(key);
    Ok(())
}

async fn terminate(account: &Account, site: &Site, key: &VmKey, id: &str) -> Result<(), ProviderError> {
    let operation = format!("terminate {id} of {key}");
    let send = |client: aws_sdk_ec2::Client| client.terminate_instances().instance_ids(id).send();
    match account.api.call(&site.client, Action::Terminate, &operation, send).await {
        Ok(_) => {}
        // EC2 made it or showed it, and does not know it everywhere yet: gone it is not. One that ended is shown as that for an hour.
        Err(error) if error.code.as_deref() == Some(failure::NO_INSTANCE) => {
            return Err(ProviderError { kind: ErrorKind::Transient, ..error });
        }
        Err(error) => return Err(error),
    }
    tracing::info!(%key, id, "EC2 ends the VM");
    account.births().ended(key, id, Instant::now());
    Ok(())
}

/// Volumes of ours that would outlive the instance (a launch template can have such) go with it.
async fn keep_nothing(account: &Account, site: &Site, found: &Found) -> Result<(), ProviderError> {
    if found.outliving.is_empty() {
        return Ok(());
    }
    let ours = ours_of(account, site, found).await?;
    let stays = found.outliving.iter().filter(|(_, volume)| ours.contains(volume));
    let goes = stays.map(|(device, _)| {
        let ebs = EbsInstanceBlockDeviceSpecification::builder().delete_on_termination(true).build();
        InstanceBlockDeviceMappingSpecification::builder().device_name(device).ebs(ebs).build()
    });
    let goes: Vec<_> = goes.collect();
    if goes.is_empty() {
        return Ok(());
    }
    let id = &found.instance.id;
    let operation = format!("let the volumes of {id} go with it");
    let send = |client: aws_sdk_ec2::Client| {
        let call = client.modify_instance_attribute().instance_id(id);
        call.set_block_device_mappings(Some(goes.clone())).send()
    };
    match account.api.call(&site.client, Action::Terminate, &operation, send).await {
        Err(error) if error.code.as_deref() != Some(failure::NO_INSTANCE) => Err(error),
        _ => Ok(()),
    }
}

/// Those of its lasting volumes that were made with it. A volume somebody attached later has no tag of ours, and stays.
async fn ours_of(account: &Account, site: &Site, found: &Found) -> Result<Vec<String>, ProviderError> {
    let ids: Vec<String> = found.outliving.iter().map(|(_, volume)| volume.clone()).collect();
    let operation = format!("look at the volumes of {}", found.instance.id);
    let filters = vec![
        Filter::builder().name("volume-id").set_values(Some(ids)).build(),
        Filter::builder().name(format!("tag:{}", tags::SANDBOX)).values(found.key.sandbox.as_str()).build(),
    ];
    let send =
        |client: aws_sdk_ec2::Client| client.describe_volumes().set_filters(Some(filters.clone())).send();
    let answer = account.api.call(&site.client, Action::Describe, &operation, send).await?;
    Ok(answer.volumes().iter().filter_map(|volume| volume.volume_id().map(str::to_owned)).collect())
}
