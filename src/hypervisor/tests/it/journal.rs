//! Records across programs: files that programs of their time wrote are read, what is written today is read by the first program, and
//! no file holds a key.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use peerpods_hypervisor::journal::{DiskJournal, Journal as _};
use peerpods_hypervisor::record::{GuestForm, Record, Stage};
use peerpods_provider::fake::{Calls, Fault, Operation};
use serde_json::Value;

use crate::frozen;
use crate::place::{Place, id};

/// The stage each stored file is of, and the format that had it first.
const FILES: [(&str, Stage, u32); 8] = [
    ("created", Stage::Created, 1),
    ("starting", Stage::Starting, 1),
    ("starting-instance", Stage::Starting, 1),
    ("starting-tunnel", Stage::Starting, 1),
    ("running", Stage::Running, 1),
    ("stopping", Stage::Stopping, 1),
    ("stopping-tunnel", Stage::Stopping, 1),
    ("stopping-failed", Stage::Stopping, 2),
];

fn files(format: u32) -> impl Iterator<Item = (&'static str, Stage)> {
    FILES.into_iter().filter(move |(.., since)| *since <= format).map(|(name, stage, _)| (name, stage))
}

fn fixtures(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/journal/{format}"))
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The record that today's program reads from a stored file, and the file.
async fn read(format: u32, name: &str) -> (Record, Value) {
    let dir = tempfile::tempdir().unwrap();
    let stored = fixtures(format).join(format!("{name}.json"));
    let file = json(&stored);
    let sandbox = file["sandbox"].as_str().unwrap();
    let journal = DiskJournal::open(dir.path().to_owned()).unwrap();
    fs::copy(&stored, dir.path().join(format!("{sandbox}.json"))).unwrap();
    let mut loaded = journal.load().await.unwrap();
    assert!(loaded.aside.is_empty(), "format {format}, {name}: {:?}", loaded.aside);
    (loaded.records.remove(0), file)
}

#[tokio::test]
async fn files_of_every_format_and_stage_are_read() {
    for format in 1..=4 {
        let stored = fs::read_dir(fixtures(format)).unwrap().count();
        assert_eq!(stored, files(format).count(), "every stored file of format {format} has its row");
        for (name, stage) in files(format) {
            let (record, file) = read(format, name).await;
            assert_eq!(record.stage, stage, "{name}");
            assert_eq!(file["format"].as_u64().unwrap_or(1), u64::from(format), "{name}");
            assert_eq!(Some(u64::from(record.vni)), file["vni"].as_u64(), "{name}");
            assert_eq!(record.request.memory_mib, file["request"]["memory_mib"].as_u64(), "{name}");
            let known = |there| file[there].is_object();
            assert_eq!(
                (record.instance.is_some(), record.tunnel.is_some()),
                (known("instance"), known("tunnel"))
            );
            let never_started = matches!(name, "created") || (format > 1 && name == "stopping");
            assert_eq!(record.may_have_vm(), !never_started, "format {format}, {name}");
            let key = file["guest"]["key"].as_str().map(|key| GuestForm::Token { key: key.parse().ok() });
            assert!(key.is_none() || record.guest == key, "{name}: {:?}", record.guest);
            assert_eq!(record.guest.is_some(), file["guest"].is_object(), "{name}");
        }
    }
}

#[tokio::test]
async fn the_first_program_reads_what_is_written_today() {
    let dir = tempfile::tempdir().unwrap();
    let journal = DiskJournal::open(dir.path().to_owned()).unwrap();
    for format in 1..=4 {
        for (name, _) in files(format) {
            let (record, _) = read(format, name).await;
            journal.append(&record).await.unwrap();
            let written = fs::read(dir.path().join(format!("{}.json", record.sandbox))).unwrap();
            let frozen::Version { version } = serde_json::from_slice(&written).unwrap();
            assert_eq!(version, frozen::VERSION, "{name}");
            let old: frozen::Record = serde_json::from_slice(&written).unwrap();
            let stage = match record.stage {
                Stage::Created => frozen::Stage::Created,
                Stage::Starting => frozen::Stage::Starting,
                Stage::Running => frozen::Stage::Running,
                Stage::Stopping => frozen::Stage::Stopping,
            };
            assert_eq!((old.stage, old.sandbox.as_str()), (stage, record.sandbox.as_str()));
            assert_eq!((old.vni, old.vxlan_port), (record.vni, record.vxlan_port));
            assert_eq!((old.cluster.as_str(), old.boot_id), (record.cluster.as_str(), record.boot_id));
            assert_eq!(
                old.instance.map(|i| (i.id, i.addresses)),
                record.instance.map(|i| (i.id, i.addresses))
            );
            assert_eq!(old.tunnel.map(|t| t.remote), record.tunnel.map(|t| t.remote));
            assert_eq!(old.request.memory_mib, record.request.memory_mib);
        }
    }
}

#[tokio::test]
async fn a_vm_made_under_the_id_of_an_unreadable_record_is_not_taken_for_the_new_sandboxs() {
    let place = Place::new();
    let running = place.open().await;
    running.create("one").await.unwrap();
    running.start("one").await.unwrap();
    running.end().await;
    let file = place.journal_dir().join("one.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, &text[..text.len() / 2]).unwrap();
    let running = place.open().await;
    assert!(running.service.get(&id("one")).is_none());
    assert_eq!(place.cloud.machines().len(), 1, "its VM is the sweep's affair");
    running.create("one").await.unwrap();
    running.start("one").await.unwrap();
    let ids: Vec<String> = place.cloud.machines().into_iter().map(|made| made.instance.id).collect();
    assert_eq!(ids, ["fake-2"], "the old one was removed first");
    running.end().await;
}

/// Every state of the record of sandbox `one` that is seen on the disk, until the sandbox is gone.
async fn states_of_the_record(dir: PathBuf, service: peerpods_hypervisor::Service) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    loop {
        seen.extend(fs::read_to_string(dir.join("one.json")));
        if service.get(&id("one")).is_none() && !seen.is_empty() {
            return seen;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn no_record_ever_holds_a_key() {
    let place = Place::new();
    let slow = Fault::StayPending(std::time::Duration::from_millis(300));
    place.cloud.script(Operation::Create, Calls::All, slow);
    let running = place.open().await;
    let watch = tokio::spawn(states_of_the_record(place.journal_dir(), running.service.clone()));
    running.create("one").await.unwrap();
    running.start("one").await.unwrap();
    let guest = place.cloud.machines().remove(0).spec.user_data;
    running.stop("one").await;
    running.gone("one").await;
    let records = watch.await.unwrap();
    assert!(records.len() >= 4, "only {} states of the record were seen", records.len());

    let secrets = secrets(&place, &String::from_utf8_lossy(guest.expose()));
    let canaries: Vec<&str> = secrets.iter().flat_map(|s| key_lines(s)).collect();
    assert!(canaries.len() >= 3, "the authority's, the guest's and the client's keys were found");
    for record in &records {
        assert!(!record.contains("PRIVATE KEY"), "{record}");
        assert!(!canaries.iter().any(|canary| record.contains(canary)), "{record}");
    }
    running.end().await;
}

/// Texts that hold the authority's, the guest's and the link's keys.
fn secrets(place: &Place, guest: &str) -> Vec<String> {
    let authority = fs::read_dir(place.config.state_dir.join("ca")).unwrap().flatten();
    let mut secrets: Vec<String> = authority.map(|e| fs::read_to_string(e.path()).unwrap()).collect();
    let own = secrets.len();
    secrets.extend(place.links.keys.lock().unwrap().iter().cloned());
    secrets.push(guest.replace("\\n", "\n"));
    assert!(own >= 1 && secrets.len() >= own + 2);
    secrets
}

/// The base64 lines of the private keys in a text.
fn key_lines(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for part in text.split("PRIVATE KEY-----").skip(1).step_by(2) {
        found.extend(part.lines().map(str::trim).filter(|line| line.len() > 20 && !line.starts_with('-')));
    }
    found
}
