//! What is written down of a VM before anything of it is made: one file each, replaced whole, on disk before it counts.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use peerpods_provider::VmKey;
use serde::{Deserialize, Serialize};

use crate::config::Size;
use crate::failure::Failure;
use crate::places::{Names, Places};

/// How far a VM's birth has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Its process was not seen running yet; a `create` begins anew.
    Making,
    /// Its process ran; if there is none now, the VM stopped.
    Started,
}

/// The VM of one key. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// Version of this form; [`Record::FORMAT`].
    pub(crate) format: u32,
    pub(crate) key: VmKey,
    pub(crate) name: String,
    pub(crate) phase: Phase,
    pub(crate) address: Ipv4Addr,
    pub(crate) subnet: Ipv4Net,
    pub(crate) bridge: String,
    pub(crate) image: PathBuf,
    pub(crate) size: Size,
    pub(crate) tags: BTreeMap<String, String>,
}

impl Record {
    pub(crate) const FORMAT: u32 = 1;

    /// The record of `names`, if there is one.
    pub(crate) fn load(places: &Places, names: &Names, key: &VmKey) -> Result<Option<Self>, Failure> {
        let path = places.record(names);
        let Some(record) = read(&path)? else { return Ok(None) };
        if record.key == *key {
            return Ok(Some(record));
        }
        Err(Failure::RecordTaken { path, owner: record.key.to_string() })
    }

    /// Every record of this host.
    pub(crate) fn load_all(places: &Places) -> Result<Vec<Self>, Failure> {
        Self::load_where(places, |_| true)
    }

    /// Every record but that of `names`, which need not be readable.
    pub(crate) fn load_others(places: &Places, names: &Names) -> Result<Vec<Self>, Failure> {
        let own = places.record(names);
        Self::load_where(places, |path| path != own)
    }

    fn load_where(places: &Places, wanted: impl Fn(&Path) -> bool) -> Result<Vec<Self>, Failure> {
        let dir = places.records();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Failure::file("list", &dir)(error)),
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.map_err(Failure::file("list", &dir))?.path();
            if path.extension().is_some_and(|e| e == "json") && wanted(&path) {
                // One that vanished since was deleted by somebody.
                records.extend(read(&path)?);
            }
        }
        records.sort_by(|a: &Self, b| a.key.cmp(&b.key));
        Ok(records)
    }

    /// Writes the record; it is on disk when this returns.
    pub(crate) fn store(&self, places: &Places, names: &Names) -> Result<(), Failure> {
        private_dir(&places.records())?;
        let path = places.record(names);
        let beside = path.with_extension("new");
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|source| Failure::Record { path: path.clone(), source })?;
        let write = || {
            let mut file = private_file(&beside)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            sync_dir(&places.records())
        };
        write().map_err(Failure::file("write", &path))
    }

    /// Removes the record of `names`, last of all things of the VM.
    pub(crate) fn remove(places: &Places, names: &Names) -> Result<(), Failure> {
        let path = places.record(names);
        for file in [path.with_extension("new"), path] {
            remove_file(&file)?;
        }
        match sync_dir(&places.records()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::file("sync", &places.records())(error))
            }
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<Option<Record>, Failure> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::file("read", path)(error)),
    };
    let unreadable = |source| Failure::Record { path: path.to_owned(), source };
    let record: Record = serde_json::from_slice(&bytes).map_err(unreadable)?;
    if record.format != Record::FORMAT {
        let text = format!("format {} is not {}", record.format, Record::FORMAT);
        return Err(unreadable(serde::de::Error::custom(text)));
    }
    Ok(Some(record))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes a directory and those above it, readable for us only.
pub(crate) fn private_dir(path: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Failure::file("make the directory", path))
}

/// Opens an empty file for writing, readable for us only.
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Removes a file; absence is fine.
pub(crate) fn remove_file(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::file("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::QemuConfig;

    fn record(sandbox: &str) -> Record {
        Record {
            format: Record::FORMAT,
            key: VmKey { cluster: "c".parse().unwrap(), sandbox: sandbox.parse().unwrap() },
            name: "podvm-a".to_owned(),
            phase: Phase::Making,
            address: [10, 0, 0, 2].into(),
            subnet: "10.0.0.0/24".parse().unwrap(),
            bridge: "ppbr0".to_owned(),
            image: "/image".into(),
            size: Size { vcpus: 1, memory_mib: 256 },
            tags: BTreeMap::new(),
        }
    }

    fn places(dir: &Path) -> Places {
        Places::of(&QemuConfig {
            state_dir: dir.join("state"),
            run_dir: dir.join("run"),
            ..QemuConfig::default()
        })
    }

    #[test]
    fn what_is_stored_is_loaded_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let record = record("a");
        let names = Names::of(&places, &record.key);
        assert!(Record::load_all(&places).unwrap().is_empty());
        record.store(&places, &names).unwrap();
        assert_eq!(Record::load(&places, &names, &record.key).unwrap().as_ref(), Some(&record));
        assert_eq!(Record::load_all(&places).unwrap(), std::slice::from_ref(&record));
        Record::remove(&places, &names).unwrap();
        Record::remove(&places, &names).unwrap();
        assert_eq!(Record::load(&places, &names, &record.key).unwrap(), None);
    }

    #[test]
    fn a_write_that_was_cut_short_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let names = Names::of(&places, &record("a").key);
        private_dir(&places.records()).unwrap();
        fs::write(places.record(&names).with_extension("new"), "{\"for").unwrap();
        assert!(Record::load_all(&places).unwrap().is_empty());
        Record::remove(&places, &names).unwrap();
        assert!(fs::read_dir(places.records()).unwrap().next().is_none());
    }

    #[test]
    fn a_record_of_another_form_or_key_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let names = Names::of(&places, &record("a").key);
        record("b").store(&places, &names).unwrap();
        assert!(matches!(Record::load(&places, &names, &record("a").key), Err(Failure::RecordTaken { .. })));
        Record { format: 2, ..record("a") }.store(&places, &names).unwrap();
        let error = Record::load(&places, &names, &record("a").key).unwrap_err();
        assert!(error.to_string().contains(&names.stem), "{error}");
    }
}
