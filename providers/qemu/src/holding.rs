//! What the other VMs of this host hold, read as leniently as can be: a record that is damaged, or was written by a later version of
//! us, must neither keep VMs from being made nor have its address given away.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::Value;

use crate::failure::Failure;
use crate::places::{Names, Places};
use crate::provider::blocking;
use crate::record;

/// What one VM holds, as far as its record tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) bridge: Option<String>,
}

impl Holding {
    /// The holdings of every VM but that of `names`, one for each record there is.
    pub(crate) async fn of_others(places: &Places, names: &Names) -> Result<Vec<Self>, Failure> {
        let (dir, own) = (places.records(), places.record(names));
        blocking(move || of_others(&dir, &own)).await
    }

    pub(crate) fn of(path: &Path, bytes: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let text = |field| value.get(field).and_then(Value::as_str);
        let address = text("address").and_then(|address| address.parse().ok());
        if address.is_none() {
            tracing::warn!(path = %path.display(), "a VM's record tells no address: another may be given the same");
        }
        Self { address, bridge: text("bridge").map(str::to_owned) }
    }
}

fn of_others(dir: &Path, own: &Path) -> Result<Vec<Holding>, Failure> {
    let mut holdings = Vec::new();
    for path in record::files(dir)?.into_iter().filter(|path| path != own) {
        match record::bytes(&path) {
            Ok(Some(bytes)) => holdings.push(Holding::of(&path, &bytes)),
            // Deleted by somebody since.
            Ok(None) => {}
            Err(failure) => {
                failure.passed_over("another VM may be given the same address")?;
                holdings.push(Holding::default());
            }
        }
    }
    Ok(holdings)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::record::tests::{places, record};
    use crate::slow::leaves_the_thread;

    #[tokio::test]
    async fn what_another_vm_holds_is_known_however_new_or_damaged_its_record_is() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let own = record("own");
        let names = Names::of(&places, &own.key);
        own.store(&places, &names).await.unwrap();
        let write = |name: &str, text: &str| fs::write(places.records().join(name), text).unwrap();
        write("1.json", r#"{"format": 2, "address": "10.0.0.7", "bridge": "br7", "new": [1]}"#);
        write("2.json", r#"{"address": "10.0.0.8"}"#);
        write("3.json", r#"{"format": 2, "address": ["10.0.0.9"]}"#);
        write("4.json", r#"{"address": "10.0.0.1"#);
        write("5.new", r#"{"address": "10.0.0.2"}"#);
        fs::create_dir(places.records().join("6.json")).unwrap();

        let mut found = Holding::of_others(&places, &names).await.unwrap();
        found.sort_by_key(|holding| holding.address);
        let seven = Holding { address: Some([10, 0, 0, 7].into()), bridge: Some("br7".to_owned()) };
        let eight = Holding { address: Some([10, 0, 0, 8].into()), bridge: None };
        let unknown = Holding::default();
        assert_eq!(found, [unknown.clone(), unknown.clone(), unknown, seven, eight]);
    }

    #[tokio::test]
    async fn a_slow_disk_keeps_nobody_else_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let names = Names::of(&places, &record("own").key);
        fs::create_dir_all(places.records()).unwrap();
        let others = Holding::of_others(&places, &names);
        assert!(leaves_the_thread(&places.records().join("other.json"), others));
    }
}
