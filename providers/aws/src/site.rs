//! Where VMs are made: credentials, region, subnets and security groups, from configuration and, where that is silent, from the
//! instance metadata of this worker.
//!
//! Credentials are the SDK's own providers: they are asked again before they expire, so that rotated tokens and roles are picked up
//! without a restart. Static keys of the configuration are as static as it.

use std::time::Duration;

use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, ConfigLoader, Region, SdkConfig, imds};
use aws_credential_types::Credentials;
use aws_sdk_ec2::Client;
use peerpods_provider::{ErrorKind, ProviderError};

use crate::config::AwsConfig;

/// How long one request may take, so that a lost packet does not cost a start.
const ATTEMPT: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);
/// Instance metadata is on this machine's own link, or nowhere.
const IMDS: Duration = Duration::from_secs(2);

/// Everything a VM needs to be placed, and the client for it.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) client: Client,
    /// For what is not EC2's to answer.
    pub(crate) sdk: SdkConfig,
    pub(crate) region: String,
    /// Never empty, except where a launch template says it.
    pub(crate) subnets: Vec<String>,
    /// May be empty: the VPC's default group then.
    pub(crate) security_groups: Vec<String>,
}

/// What instance metadata told of this worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Worker {
    pub(crate) subnet: Option<String>,
    pub(crate) security_groups: Vec<String>,
}

/// Finds the site.
///
/// # Errors
/// `Invalid` when something is neither configured nor found; names the key.
pub(crate) async fn find(config: &AwsConfig) -> Result<Site, ProviderError> {
    let sdk = loader(config).load().await;
    let Some(region) = sdk.region().map(|region| region.as_ref().to_owned()) else {
        return Err(absent("region", "AWS_REGION"));
    };
    let by_template = config.launch_template.is_some();
    let needed = config.subnets.is_empty() || config.security_groups.is_empty();
    let worker = match needed && !by_template {
        true => look_around(&metadata()).await,
        false => Worker::default(),
    };
    let subnets = or(&config.subnets, worker.subnet.into_iter().collect());
    if subnets.is_empty() && !by_template {
        return Err(absent("subnet", "AWS_SUBNET_ID"));
    }
    let security_groups = or(&config.security_groups, worker.security_groups);
    // EC2 would take the VPC's default group, which as a rule lets no worker in.
    if security_groups.is_empty() && !by_template {
        return Err(absent("security group", "AWS_SG_IDS"));
    }
    Ok(Site { client: Client::new(&sdk), sdk: beside_ec2(sdk, config), region, subnets, security_groups })
}

fn or(configured: &[String], found: Vec<String>) -> Vec<String> {
    if configured.is_empty() { found } else { configured.to_vec() }
}

fn absent(what: &str, variable: &str) -> ProviderError {
    let text = format!("no {what} is configured, and instance metadata tells none");
    ProviderError::new(ErrorKind::Invalid, format!("find the {what} of VMs"), text)
        .hint(format!("set {variable} in the ConfigMap peer-pods-cm or the Secret peer-pods-secret"))
}

fn loader(config: &AwsConfig) -> ConfigLoader {
    let timeouts =
        TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        // `api` repeats calls, at the pace all callers share.
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts);
    if let Ok(name) = AppName::new("peerpods") {
        loader = loader.app_name(name);
    }
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &config.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(url) = &config.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    if let (Some(id), Some(secret)) = (&config.access_key_id, &config.secret_access_key) {
        let token = config.session_token.as_ref().map(|token| token.expose().to_owned());
        let credentials = Credentials::new(id.expose(), secret.expose(), token, None, "peer-pods-secret");
        loader = loader.credentials_provider(credentials);
    }
    loader
}

/// The same for other services of AWS. The configured address is EC2's: an endpoint in a VPC serves nothing else. Another's than
/// Amazon's is that of a stand-in, and serves all.
fn beside_ec2(sdk: SdkConfig, config: &AwsConfig) -> SdkConfig {
    let of_amazon = |url: &String| url.contains(".amazonaws.com");
    if !config.endpoint_url.as_ref().is_some_and(of_amazon) {
        return sdk;
    }
    let mut builder = sdk.into_builder();
    builder.set_endpoint_url(None);
    builder.build()
}

/// This instance's metadata, if it is one. Its address is the SDK's to configure.
pub(crate) fn metadata() -> imds::Client {
    imds::Client::builder().configure(&ProviderConfig::without_region()).build()
}

/// What instance metadata tells; what it does not, stays unknown.
pub(crate) async fn look_around(client: &imds::Client) -> Worker {
    let Some(mac) = told(client, "/latest/meta-data/mac").await else { return Worker::default() };
    let of_interface =
        |name: &str| format!("/latest/meta-data/network/interfaces/macs/{}/{name}", mac.trim());
    let subnet = told(client, &of_interface("subnet-id")).await;
    let groups = told(client, &of_interface("security-group-ids")).await.unwrap_or_default();
    Worker {
        subnet: subnet.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()),
        security_groups: groups.split_whitespace().map(str::to_owned).collect(),
    }
}

async fn told(client: &imds::Client, path: &str) -> Option<String> {
    match tokio::time::timeout(IMDS, client.get(path)).await {
        Ok(Ok(text)) => Some(String::from(text.as_ref())),
        Ok(Err(error)) => {
            tracing::debug!(path, %error, "instance metadata does not tell");
            None
        }
        Err(_) => {
            tracing::debug!(path, "instance metadata does not answer");
            None
        }
    }
}

#[cfg(test)]
mod tests;
