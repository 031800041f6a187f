//! What the AWS provider finds, as findings of `doctor`.

use std::time::Duration;

use peerpods_provider_aws::examine::{self, Grade, Needs};
use peerpods_provider_aws::{AwsConfig, AwsProvider};

use super::{Finding, Level};
use crate::config::Settings;
use crate::ports;

/// How long AWS may take to answer everything.
const ANSWER: Duration = Duration::from_secs(60);

/// Asks AWS about everything that can be wrong before the first VM. Changes nothing.
pub async fn findings(config: &AwsConfig, settings: &Settings) -> Vec<Finding> {
    let needs =
        Needs { ports: ports::needed(settings).to_vec(), most_vms: settings.hypervisor.limit_per_node };
    let provider = AwsProvider::new(config.clone());
    match tokio::time::timeout(ANSWER, provider.examine(&needs)).await {
        Ok(found) => found.into_iter().map(finding).collect(),
        Err(_) => vec![Finding {
            check: "aws region",
            level: Level::Error,
            found: format!("no answer to everything within {} s", ANSWER.as_secs()),
            fix: Some("try again; EC2 may throttle this account, or answer slowly".to_owned()),
        }],
    }
}

fn finding(found: examine::Finding) -> Finding {
    let level = match found.grade {
        Grade::Ok => Level::Ok,
        Grade::Warning => Level::Warning,
        Grade::Error => Level::Error,
    };
    Finding { check: found.check, level, found: found.found, fix: found.fix }
}
