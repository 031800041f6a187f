//! Removing a VM: the process, then what it used, the record last. Every step takes what is gone for done, so that a removal that
//! was cut off is continued by the next.

use std::fs;
use std::io;
use std::time::Duration;

use ipnet::Ipv4Net;
use peerpods_provider::VmKey;

use crate::caller::Caller;
use crate::failure::Failure;
use crate::holding::Holding;
use crate::lock::{self, Scope};
use crate::net::Network;
use crate::places::Names;
use crate::process::Process;
use crate::provider::{Node, blocking};
use crate::qmp::Qmp;
use crate::record::{Record, private_dir, remove_file};

/// How long QEMU may take to quit by itself before it is signalled.
const QUIT: Duration = Duration::from_secs(2);

pub(crate) async fn delete(node: &Node, key: &VmKey, caller: &Caller) -> Result<(), Failure> {
    let names = Names::of(&node.places, key);
    if !node.places.state().exists() && !node.places.vm(&names).exists() {
        // Nothing was ever made here; in particular no directory for a lock.
        return Ok(());
    }
    private_dir(node.places.state())?;
    let _turn = lock::take(&node.places.lock(), Scope::Vm(&names)).await?;
    caller.still_waits()?;
    remove(node, key, &names).await
}

/// Removes everything of `key`; the caller holds its lock.
pub(crate) async fn remove(node: &Node, key: &VmKey, names: &Names) -> Result<(), Failure> {
    let record = match Record::load(&node.places, names, key).await {
        // What cannot be read is removed by the names, which need no record.
        Err(Failure::Record { .. }) => None,
        other => other?,
    };
    stop(node, names).await?;
    let network = Network::open()?;
    network.remove_tap(&names.tap).await?;
    let (places, gone) = (node.places.clone(), names.clone());
    blocking(move || {
        remove_file(&places.console(&gone))?;
        let dir = places.vm(&gone);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::file("remove", &dir)(error))
            }
            _ => Ok(()),
        }
    })
    .await?;
    let (bridge, subnet) = match &record {
        Some(record) => (record.bridge.as_str(), record.subnet),
        None => (node.config.bridge.as_str(), node.config.subnet),
    };
    forget(node, names, &network, bridge, subnet).await
}

/// Ends the VM's process, gently if it listens.
async fn stop(node: &Node, names: &Names) -> Result<(), Failure> {
    let mut found = Process::find(&names.uuid).await?;
    if !found.is_empty() && quit(node, names).await.is_ok() {
        for process in &found {
            process.ended(QUIT).await?;
        }
        found = Process::find(&names.uuid).await?;
    }
    while !found.is_empty() {
        for process in &found {
            process.end().await?;
        }
        // One that was just detaching had a child we did not see.
        found = Process::find(&names.uuid).await?;
    }
    Ok(())
}

async fn quit(node: &Node, names: &Names) -> Result<(), crate::qmp::QmpError> {
    Qmp::connect(&node.places.qmp(names), QUIT).await?.command("quit").await.map(drop)
}

/// Removes the bridge if this was the last VM on it, and then the record: cut off in between, the removal is repeated whole.
async fn forget(
    node: &Node,
    names: &Names,
    network: &Network,
    bridge: &str,
    subnet: Ipv4Net,
) -> Result<(), Failure> {
    let _turn = lock::take(&node.places.lock(), Scope::Host).await?;
    // Whoever does not tell which bridge it needs has its tap there if it runs, and then the bridge is not removed.
    let needed = Holding::of_others(&node.places, names)
        .await
        .map_or(true, |others| others.iter().any(|other| other.bridge.as_deref() == Some(bridge)));
    if !needed {
        network.remove_bridge(bridge, subnet).await?;
    }
    Record::remove(&node.places, names).await
}
