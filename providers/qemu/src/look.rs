//! What there is: records, and whether their processes live.

use std::fs::OpenOptions;
use std::time::Duration;

use futures::future::try_join_all;
use peerpods_podvm::ClusterId;
use peerpods_provider::{Console, Instance, VmKey, VmState};

use crate::failure::Failure;
use crate::places::Names;
use crate::process::Process;
use crate::provider::{Node, blocking};
use crate::qmp::{self, Qmp};
use crate::record::{Phase, Record};

/// How long QEMU may take to say how its guest does. One that is too busy to answer runs.
const PATIENCE: Duration = Duration::from_millis(500);

pub(crate) async fn get(node: &Node, key: &VmKey) -> Result<Option<Instance>, Failure> {
    match Record::load(&node.places, &Names::of(&node.places, key), key).await? {
        Some(record) => observe(node, &record).await.map(Some),
        None => Ok(None),
    }
}

pub(crate) async fn list(node: &Node, cluster: &ClusterId) -> Result<Vec<(VmKey, Instance)>, Failure> {
    let mut records = Record::load_all(&node.places).await?;
    records.retain(|record| record.key.cluster == *cluster);
    let seen = records.iter().map(|record| async {
        let instance = observe(node, record).await?;
        Ok((record.key.clone(), instance))
    });
    try_join_all(seen).await
}

/// The VM of a record as it is now.
pub(crate) async fn observe(node: &Node, record: &Record) -> Result<Instance, Failure> {
    let names = Names::of(&node.places, &record.key);
    let state = state(node, record, &names).await?;
    let (path, limit_mib) = (node.places.console(&names), node.config.console_limit_mib);
    let console = blocking(move || {
        bound(&path, limit_mib);
        Ok(path.exists().then_some(Console::File(path)))
    })
    .await?;
    Ok(Instance {
        id: names.uuid,
        name: record.name.clone(),
        addresses: vec![record.address.into()],
        state,
        console,
        tags: record.tags.clone(),
    })
}

async fn state(node: &Node, record: &Record, names: &Names) -> Result<VmState, Failure> {
    if record.phase == Phase::Making {
        return Ok(VmState::Pending);
    }
    let named = Process::from_pid_file(&node.places.pid_file(names), &names.uuid).await?;
    if named.is_none() && Process::find(&names.uuid).await?.is_empty() {
        return Ok(VmState::Stopped);
    }
    let asked =
        async { Qmp::connect(&node.places.qmp(names), PATIENCE).await?.command("query-status").await };
    match asked.await {
        Ok(answer) if !qmp::lives(&answer) => Ok(VmState::Stopped),
        Ok(_) | Err(_) => Ok(VmState::Running),
    }
}

/// Empties a console file that has grown too large: QEMU appends, so it goes on at the start.
fn bound(console: &std::path::Path, limit_mib: u64) {
    let too_large = std::fs::metadata(console).is_ok_and(|m| m.len() > limit_mib.saturating_mul(1 << 20));
    if too_large && OpenOptions::new().write(true).truncate(true).open(console).is_ok() {
        tracing::warn!(console = %console.display(), limit_mib, "console file was full and is emptied");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_emptied_only_when_it_is_too_large() {
        let dir = tempfile::tempdir().unwrap();
        let console = dir.path().join("console.log");
        bound(&console, 1);
        std::fs::write(&console, vec![b'x'; 1 << 20]).unwrap();
        bound(&console, 1);
        assert_eq!(std::fs::metadata(&console).unwrap().len(), 1 << 20);
        std::fs::write(&console, vec![b'x'; (1 << 20) + 1]).unwrap();
        bound(&console, 1);
        assert_eq!(std::fs::metadata(&console).unwrap().len(), 0);
    }
}
