//! `peerpods doctor`.

use super::Failure;
use crate::config::Settings;
use crate::doctor::{Finding, Level, checks, observe};
use crate::exit;
use crate::output::{self, Output};

/// Looks, judges, prints; fails when anything is an error.
pub(super) async fn run(output: Output, settings: &Settings) -> Result<u8, Failure> {
    let findings = checks::findings(&observe::observe(settings).await?);
    output::answer(output, &findings, |findings| findings.iter().map(line).collect())?;
    let failed = findings.iter().any(|finding| finding.level == Level::Error);
    Ok(if failed { exit::FAILURE } else { exit::OK })
}

fn line(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Error => "ERROR",
    };
    let fix = finding.fix.as_ref().map(|fix| format!("\n{:24}→ {fix}", "")).unwrap_or_default();
    format!("{level:<8} {:<14} {}{fix}\n", finding.check, finding.found)
}
