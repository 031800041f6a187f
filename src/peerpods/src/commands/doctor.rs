//! `peerpods doctor`.

use super::{Failure, configured};
use crate::cli::{DoctorArgs, Global};
use crate::config::Settings;
use crate::doctor::{Finding, Level, checks, observe};
use crate::exit;
use crate::logging::Verbosity;
use crate::output;

/// Looks, judges, prints; fails when anything is an error.
pub(super) async fn run(global: &Global, asked: &DoctorArgs) -> Result<u8, Failure> {
    let settings = configured(global, &asked.flags, Verbosity::Command)?;
    let findings = findings(asked, &settings).await?;
    output::answer(global.output, &findings, |findings| findings.iter().map(line).collect())?;
    let failed = findings.iter().any(|finding| finding.level == Level::Error);
    Ok(if failed { exit::FAILURE } else { exit::OK })
}

#[cfg(feature = "aws")]
async fn findings(asked: &DoctorArgs, settings: &Settings) -> Result<Vec<Finding>, Failure> {
    match asked.cloud {
        Some(cloud) => {
            let config = super::ports::aws(cloud, settings)?;
            Ok(crate::doctor::aws::findings(config, settings).await)
        }
        None => Ok(checks::findings(&observe::observe(settings).await?)),
    }
}

#[cfg(not(feature = "aws"))]
async fn findings(_asked: &DoctorArgs, settings: &Settings) -> Result<Vec<Finding>, Failure> {
    Ok(checks::findings(&observe::observe(settings).await?))
}

fn line(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Error => "ERROR",
    };
    let fix = finding.fix.as_ref().map(|fix| format!("\n{:25}→ {fix}", "")).unwrap_or_default();
    format!("{level:<8} {:<15} {}{fix}\n", finding.check, finding.found)
}
