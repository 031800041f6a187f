//! The two ports between workers and VMs: which they are, and opening them when the service starts.

use std::time::Duration;

use peerpods_provider::ProviderError;
use peerpods_provider_aws::ports::{Port, Protocol, Rule, Standing};
use peerpods_provider_aws::{AwsConfig, AwsProvider, PortsAtStart};

use crate::config::{ProviderSettings, Settings};

/// The pause before they are tried again after a failure that may pass.
const AGAIN: Duration = Duration::from_secs(30);

/// What workers and VMs talk on.
#[must_use]
pub fn needed(settings: &Settings) -> [Port; 2] {
    [
        Port { protocol: Protocol::Tcp, number: settings.hypervisor.agent_port },
        Port { protocol: Protocol::Udp, number: settings.hypervisor.vxlan_port },
    ]
}

/// Opens them, where the configuration says so, and logs what it did. No failure is the service's: pods whose VMs are not reached say
/// which port it was, and somebody else may open it.
///
/// # Cancel safety
/// May be dropped at any await; done again, it does what is left.
pub async fn at_start(settings: &Settings) {
    let ProviderSettings::Aws(config) = &settings.provider else { return };
    if config.ports_at_start == PortsAtStart::Open {
        ensure(config, &needed(settings)).await;
    }
}

async fn ensure(config: &AwsConfig, ports: &[Port]) {
    let provider = AwsProvider::new(config.clone());
    loop {
        match provider.ensure_ports(ports).await {
            Ok(rules) => return tell(&rules),
            Err(error) if error.kind.may_pass() => {
                warn(&error);
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return warn(&error),
        }
    }
}

fn tell(rules: &[Rule]) {
    for rule in rules {
        let (port, group, from) = (rule.port, &rule.group, &rule.source);
        match rule.standing {
            Standing::Opened => tracing::info!(%port, group, from, "port opened"),
            _ => tracing::info!(%port, group, from, "port is open"),
        }
    }
}

fn warn(error: &ProviderError) {
    tracing::warn!(
        %error,
        "the ports between this worker and VMs could not be made sure of; open them with `peerpods ports open aws`, or set open-ports to false"
    );
}
