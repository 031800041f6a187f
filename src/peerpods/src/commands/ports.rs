//! `peerpods ports`: the agent link's and the tunnel's port in the cloud's network.

use std::collections::BTreeSet;

use peerpods_provider_aws::ports::{Errand, Rule, Standing};
use peerpods_provider_aws::{AwsConfig, AwsProvider};
use serde::Serialize;

use super::{Failure, configured};
use crate::cli::Global;
use crate::cli::ports::{Cloud, PortsCommand};
use crate::config::{ProviderSettings, Settings};
use crate::exit;
use crate::logging::Verbosity;
use crate::output::{self, Output};
use crate::ports::needed;

/// A rule as it is printed.
#[derive(Debug, Serialize)]
struct Shown {
    group: String,
    port: String,
    from: String,
    standing: String,
    /// Why `from` is let in.
    because: &'static str,
}

/// Does it, and says how each port of each group stands; fails when one is missing.
pub(super) async fn run(global: &Global, command: PortsCommand) -> Result<u8, Failure> {
    let (place, errand) = match &command {
        PortsCommand::Check(place) => (place, Errand::Check),
        PortsCommand::Open(change) if change.dry_run => (&change.place, Errand::PlanOpen),
        PortsCommand::Open(change) => (&change.place, Errand::Open),
        PortsCommand::Close(change) if change.dry_run => (&change.place, Errand::PlanClose),
        PortsCommand::Close(change) => (&change.place, Errand::Close),
    };
    let settings = configured(global, &place.flags, Verbosity::Command)?;
    let provider = AwsProvider::new(aws(place.cloud, &settings)?.clone());
    let from: Vec<String> = place.from.iter().map(|group| group.trim().to_owned()).collect();
    let rules = provider.ports(&needed(&settings), &from, errand).await?;
    let missing = errand == Errand::Check && rules.iter().any(|rule| rule.standing == Standing::Missing);
    if global.output == Output::Text {
        let why = |rule: &Rule| format!("peerpods: from {}: {}", rule.source, rule.told.why());
        rules.iter().map(why).collect::<BTreeSet<_>>().iter().for_each(|line| eprintln!("{line}"));
    }
    let shown: Vec<Shown> = rules.iter().map(shown).collect();
    output::answer(global.output, &shown, |shown| {
        let row = |rule: &Shown| {
            vec![rule.group.clone(), rule.port.clone(), rule.from.clone(), rule.standing.clone()]
        };
        output::table(&["GROUP", "PORT", "FROM", "STANDING"], &shown.iter().map(row).collect::<Vec<_>>())
    })?;
    Ok(if missing { exit::FAILURE } else { exit::OK })
}

/// The configuration of the cloud that is asked about.
pub(super) fn aws(cloud: Cloud, settings: &Settings) -> Result<&AwsConfig, Failure> {
    match (cloud, &settings.provider) {
        (Cloud::Aws, ProviderSettings::Aws(config)) => Ok(config),
        (Cloud::Aws, _) => {
            Err("the provider configured is not aws: set provider (CLOUD_PROVIDER) to aws".into())
        }
    }
}

fn shown(rule: &Rule) -> Shown {
    Shown {
        group: rule.group.clone(),
        port: rule.port.to_string(),
        from: rule.source.clone(),
        standing: match &rule.standing {
            Standing::Open => "open".to_owned(),
            Standing::Missing => "missing".to_owned(),
            Standing::Unknown(addresses) => format!("unknown: open to {addresses}"),
            Standing::WouldOpen => "would be opened".to_owned(),
            Standing::Opened => "opened".to_owned(),
            Standing::Kept => "open by another rule, kept".to_owned(),
            Standing::WouldClose => "would be closed".to_owned(),
            Standing::Closed => "closed".to_owned(),
        },
        because: rule.told.why(),
    }
}
