//! `peerpods ports`: the agent link's and the tunnel's port in the cloud's network.

use peerpods_provider_aws::AwsProvider;
use peerpods_provider_aws::ports::{Errand, Port, Protocol, Rule, Standing};
use serde::Serialize;

use super::{Failure, configured};
use crate::cli::Global;
use crate::cli::ports::{Cloud, Place, PortsCommand};
use crate::config::{ProviderSettings, Settings};
use crate::exit;
use crate::logging::Verbosity;
use crate::output;

/// A rule as it is printed.
#[derive(Debug, Serialize)]
struct Shown {
    group: String,
    port: String,
    from: String,
    standing: &'static str,
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
    let provider = provider(place, &settings)?;
    let rules = provider.ports(&needed(&settings), errand).await?;
    let missing = errand == Errand::Check && rules.iter().any(|rule| rule.standing == Standing::Missing);
    let shown: Vec<Shown> = rules.iter().map(shown).collect();
    output::answer(global.output, &shown, |shown| {
        let row = |rule: &Shown| {
            vec![rule.group.clone(), rule.port.clone(), rule.from.clone(), rule.standing.to_owned()]
        };
        output::table(&["GROUP", "PORT", "FROM", "STANDING"], &shown.iter().map(row).collect::<Vec<_>>())
    })?;
    Ok(if missing { exit::FAILURE } else { exit::OK })
}

fn provider(place: &Place, settings: &Settings) -> Result<AwsProvider, Failure> {
    match (place.cloud, &settings.provider) {
        (Cloud::Aws, ProviderSettings::Aws(config)) => Ok(AwsProvider::new((**config).clone())),
        (Cloud::Aws, _) => {
            Err("the provider configured is not aws: set provider (CLOUD_PROVIDER) to aws".into())
        }
    }
}

/// What workers and VMs talk on.
fn needed(settings: &Settings) -> [Port; 2] {
    [
        Port { protocol: Protocol::Tcp, number: settings.hypervisor.agent_port },
        Port { protocol: Protocol::Udp, number: settings.hypervisor.vxlan_port },
    ]
}

fn shown(rule: &Rule) -> Shown {
    Shown {
        group: rule.group.clone(),
        port: format!("{}/{}", rule.port.number, rule.port.protocol.name()),
        from: rule.source.clone(),
        standing: match rule.standing {
            Standing::Open => "open",
            Standing::Missing => "missing",
            Standing::WouldOpen => "would be opened",
            Standing::Opened => "opened",
            Standing::Kept => "open by another rule, kept",
            Standing::WouldClose => "would be closed",
            Standing::Closed => "closed",
        },
    }
}
