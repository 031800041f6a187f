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
use crate::provider::blocking;

/// How far a VM's birth has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Its process was not seen running yet; a `create` begins anew.
    Making,
    /// Its process ran; if there is none now, the VM stopped.
    Started,
}

/// The VM of one key. Holds no secret. What a later version adds within this format is passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    pub(crate) async fn load(places: &Places, names: &Names, key: &VmKey) -> Result<Option<Self>, Failure> {
        let path = places.record(names);
        let file = path.clone();
        let Some(record) = blocking(move || read(&file)).await? else { return Ok(None) };
        if record.key == *key {
            return Ok(Some(record));
        }
        Err(Failure::RecordTaken { path, owner: record.key.to_string() })
    }

    /// Every record of this host that can be read. One that cannot is left out with a warning: it must not hide the others.
    pub(crate) async fn load_all(places: &Places) -> Result<Vec<Self>, Failure> {
        let dir = places.records();
        blocking(move || load_all(&dir)).await
    }

    /// Writes the record; it is on disk when this returns.
    pub(crate) async fn store(&self, places: &Places, names: &Names) -> Result<(), Failure> {
        let (record, dir, path) = (self.clone(), places.records(), places.record(names));
        blocking(move || record.write(&dir, &path)).await
    }

    fn write(&self, dir: &Path, path: &Path) -> Result<(), Failure> {
        private_dir(dir)?;
        let beside = path.with_extension("new");
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|source| Failure::Record { path: path.to_owned(), source })?;
        let write = || {
            let mut file = private_file(&beside)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&beside, path)?;
            sync_dir(dir)
        };
        write().map_err(Failure::file("write", path))
    }

    /// Removes the record of `names`, last of all things of the VM.
    pub(crate) async fn remove(places: &Places, names: &Names) -> Result<(), Failure> {
        let (dir, path) = (places.records(), places.record(names));
        blocking(move || {
            for file in [path.with_extension("new"), path] {
                remove_file(&file)?;
            }
            match sync_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(Failure::file("sync", &dir)(error))
                }
                _ => Ok(()),
            }
        })
        .await
    }
}

fn load_all(dir: &Path) -> Result<Vec<Record>, Failure> {
    let mut records = Vec::new();
    for path in files(dir)? {
        match read(&path) {
            // One that vanished since was deleted by somebody.
            Ok(found) => records.extend(found),
            Err(failure) => failure.passed_over("it is left out of the list")?,
        }
    }
    records.sort_by(|a: &Record, b| a.key.cmp(&b.key));
    Ok(records)
}

/// The paths of all records in `dir`.
pub(crate) fn files(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::file("list", dir)(error)),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<_> = paths.collect::<Result<_, _>>().map_err(Failure::file("list", dir))?;
    paths.retain(|path| path.extension().is_some_and(|e| e == "json"));
    Ok(paths)
}

/// What a record's file holds; none when there is no such file.
pub(crate) fn bytes(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::file("read", path)(error)),
    }
}

/// What tells whether the rest can be understood.
#[derive(Deserialize)]
struct Form {
    format: u32,
}

fn read(path: &Path) -> Result<Option<Record>, Failure> {
    let Some(bytes) = bytes(path)? else { return Ok(None) };
    parse(&bytes).map(Some).map_err(|source| Failure::Record { path: path.to_owned(), source })
}

/// What a record's bytes say. Pure.
pub(crate) fn parse(bytes: &[u8]) -> Result<Record, serde_json::Error> {
    // Before the rest, which may be anything in another format.
    let Form { format } = serde_json::from_slice(bytes)?;
    if format != Record::FORMAT {
        let text = format!("it has format {format}; this program reads {}", Record::FORMAT);
        return Err(serde::de::Error::custom(text));
    }
    serde_json::from_slice(bytes)
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
pub(crate) mod tests {
    use super::*;
    use crate::config::QemuConfig;
    use crate::slow::leaves_the_thread;

    pub(crate) fn record(sandbox: &str) -> Record {
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

    pub(crate) fn places(dir: &Path) -> Places {
        Places::of(&QemuConfig {
            state_dir: dir.join("state"),
            run_dir: dir.join("run"),
            ..QemuConfig::default()
        })
    }

    #[tokio::test]
    async fn what_is_stored_is_loaded_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let record = record("a");
        let names = Names::of(&places, &record.key);
        assert!(Record::load_all(&places).await.unwrap().is_empty());
        record.store(&places, &names).await.unwrap();
        assert_eq!(Record::load(&places, &names, &record.key).await.unwrap().as_ref(), Some(&record));
        assert_eq!(Record::load_all(&places).await.unwrap(), std::slice::from_ref(&record));
        Record::remove(&places, &names).await.unwrap();
        Record::remove(&places, &names).await.unwrap();
        assert_eq!(Record::load(&places, &names, &record.key).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_write_that_was_cut_short_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let names = Names::of(&places, &record("a").key);
        private_dir(&places.records()).unwrap();
        fs::write(places.record(&names).with_extension("new"), "{\"for").unwrap();
        assert!(Record::load_all(&places).await.unwrap().is_empty());
        Record::remove(&places, &names).await.unwrap();
        assert!(fs::read_dir(places.records()).unwrap().next().is_none());
    }

    #[tokio::test]
    async fn a_record_of_another_format_or_key_is_an_error_that_names_the_file_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let key = record("a").key;
        let names = Names::of(&places, &key);
        record("b").store(&places, &names).await.unwrap();
        let taken = Record::load(&places, &names, &key).await;
        assert!(matches!(taken, Err(Failure::RecordTaken { .. })));
        // Another format may have no field of ours but the one that says so.
        for (text, why) in [("{\"format\": 2}", "format 2"), ("{\"for", "EOF"), ("{\"format\": 1}", "key")] {
            fs::write(places.record(&names), text).unwrap();
            let error = Record::load(&places, &names, &key).await.unwrap_err().into_provider("get");
            let cause = error.source.unwrap().to_string();
            assert!(error.message.contains(&names.stem) && cause.contains(why), "{} {cause}", error.message);
            assert!(error.hint.unwrap().contains("delete"));
        }
    }

    #[tokio::test]
    async fn a_field_that_a_later_version_added_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let record = record("a");
        let names = Names::of(&places, &record.key);
        let mut value = serde_json::to_value(&record).unwrap();
        value["zone"] = "z1".into();
        private_dir(&places.records()).unwrap();
        fs::write(places.record(&names), value.to_string()).unwrap();
        assert_eq!(Record::load(&places, &names, &record.key).await.unwrap(), Some(record));
    }

    #[tokio::test]
    async fn records_that_cannot_be_read_do_not_hide_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let good = record("a");
        good.store(&places, &Names::of(&places, &good.key)).await.unwrap();
        fs::write(places.records().join("damaged.json"), "{").unwrap();
        fs::write(places.records().join("newer.json"), "{\"format\": 2}").unwrap();
        fs::create_dir(places.records().join("no-file.json")).unwrap();
        assert_eq!(Record::load_all(&places).await.unwrap(), [good]);
    }

    #[tokio::test]
    async fn a_slow_disk_keeps_nobody_else_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let key = record("a").key;
        let names = Names::of(&places, &key);
        private_dir(&places.records()).unwrap();
        let file = places.record(&names);
        assert!(leaves_the_thread(&file, Record::load(&places, &names, &key)));
        assert!(leaves_the_thread(&file, Record::load_all(&places)));
    }
}
