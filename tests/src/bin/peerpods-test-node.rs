//! The node service as a process of its own whose cloud is in another process: `peerpods-test-node DIR CLOUD LINK [SETTING=SECONDS]…
//! [untried-tunnels]`.
//!
//! The composition of `peerpods hypervisor` with the fake cloud's client in the provider's place, so that it can be killed with
//! `kill -9` while cloud and VMs live on. A program of the tests, because the product has no fake provider.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use peerpods::roles::end_on_signals;
use peerpods_agentlink::process::LinkProcesses;
use peerpods_hypervisor::journal::DiskJournal;
use peerpods_hypervisor::ledger::NoLedger;
use peerpods_hypervisor::{Config, Lifecycle, Parts};
use peerpods_podnet::{Tunnel, VxlanTunnel};
use peerpods_provider::fake::CloudClient;
use peerpods_tests::untried::{UNTRIED_TUNNELS, UntriedTunnel};

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [dir, cloud, link, settings @ ..] = arguments.as_slice() else {
        eprintln!(
            "usage: peerpods-test-node DIR CLOUD LINK [shim-gone|unstarted|netns-gone|sweep=SECONDS]... [untried-tunnels]"
        );
        return ExitCode::from(2);
    };
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    match serve(dir, cloud, link, settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "ended");
            ExitCode::FAILURE
        }
    }
}

async fn serve(dir: &Path, cloud: &Path, link: &Path, settings: &[PathBuf]) -> Result<(), Failure> {
    let life = Lifecycle::new();
    end_on_signals(&life)?;
    let mut config = Config {
        socket: dir.join("hypervisor.sock"),
        pods_dir: dir.join("pods"),
        state_dir: dir.join("state"),
        start_deadline: Duration::from_secs(120),
        netns_gone_ttl: Duration::from_secs(5),
        sweep_interval: Duration::from_secs(1),
        limit_per_node: None,
        ..Config::default()
    };
    let mut tunnel: Arc<dyn Tunnel> = Arc::new(VxlanTunnel::new());
    for setting in settings {
        match setting.to_string_lossy().as_ref() {
            UNTRIED_TUNNELS => tunnel = Arc::new(UntriedTunnel::default()),
            other => set(&mut config, other)?,
        }
    }
    let parts = Parts {
        provider: Arc::new(CloudClient::new(cloud)?),
        tunnel,
        link: Arc::new(LinkProcesses::new(link.to_owned())),
        ledger: Arc::new(NoLedger),
        journal: Arc::new(DiskJournal::open(dir.join("state/journal"))?),
    };
    Ok(peerpods_hypervisor::run(config, parts, life).await?)
}

fn set(config: &mut Config, setting: &str) -> Result<(), Failure> {
    let (name, seconds) = setting.split_once('=').ok_or_else(|| format!("{setting:?} has no ="))?;
    let time = Duration::from_secs(seconds.parse()?);
    match name {
        "shim-gone" => config.shim_gone_ttl = time,
        "unstarted" => config.unstarted_ttl = time,
        "netns-gone" => config.netns_gone_ttl = time,
        "sweep" => config.sweep_interval = time,
        other => return Err(format!("there is no setting {other:?}").into()),
    }
    Ok(())
}
