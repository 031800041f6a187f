//! Who the credentials are, as STS says. Needs no permission, and no VM needs the answer.

use peerpods_provider::ProviderError;

use crate::failure;
use crate::site::Site;

/// Who asks EC2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) arn: String,
    pub(super) account: String,
}

/// Asks once: a node may have no way to STS.
pub(super) async fn ask(site: &Site) -> Result<Identity, ProviderError> {
    let sts = aws_sdk_sts::Client::new(&site.sdk);
    let answer = sts.get_caller_identity().send().await;
    let answer = answer.map_err(|error| failure::of("ask STS who the credentials are", error))?;
    Ok(Identity {
        arn: answer.arn().unwrap_or_default().to_owned(),
        account: answer.account().unwrap_or_default().to_owned(),
    })
}
