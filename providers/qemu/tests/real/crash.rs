//! A service that dies at any step of a birth or a death: what it left is found, finished or removed by the next.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ipnet::Ipv4Net;
use peerpods_provider::{ErrorKind, Provider, VmState};
use peerpods_test_require::require;

use crate::site::{NEEDS, Site, ip, key, spec};

fn record_of(site: &Site) -> PathBuf {
    let mut records = fs::read_dir(site.dir().join("state/records")).unwrap().flatten();
    records.next().unwrap().path()
}

/// Turns the record back to what it is before QEMU was started.
fn cut_off_before_start(record: &Path) {
    let text = fs::read_to_string(record).unwrap();
    let cut = text.replace("\"started\"", "\"making\"");
    assert_ne!(text, cut);
    fs::write(record, cut).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_birth_cut_off_after_the_record_is_finished_by_the_next_create() {
    if !require("a_birth_cut_off_after_the_record_is_finished_by_the_next_create", NEEDS) {
        return;
    }
    let site = Site::new();
    let provider = site.provider();
    let made = provider.create(&key("a"), &spec("podvm-a")).await.unwrap();
    // Everything but the record is lost, as after a reboot in the middle of it.
    site.kill();
    for tap in site.taps() {
        ip(&["link", "del", &tap]);
    }
    ip(&["link", "del", &site.config.bridge]);
    fs::remove_dir_all(site.dir().join("run")).unwrap();
    cut_off_before_start(&record_of(&site));

    let restarted = site.provider();
    assert_eq!(restarted.get(&key("a")).await.unwrap().unwrap().state, VmState::Pending);
    let finished = restarted.create(&key("a"), &spec("podvm-a")).await.unwrap();
    assert_eq!((finished.id, finished.state), (made.id, VmState::Running));
    assert_eq!((site.processes().len(), site.taps().len()), (1, 1));
    restarted.delete(&key("a")).await.unwrap();
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_birth_cut_off_after_qemu_started_leaves_one_process_whether_created_again_or_deleted() {
    if !require("a_birth_cut_off_after_qemu_started_leaves_one_process", NEEDS) {
        return;
    }
    let site = Site::new();
    site.provider().create(&key("a"), &spec("podvm-a")).await.unwrap();
    let before = site.processes();
    cut_off_before_start(&record_of(&site));
    site.provider().create(&key("a"), &spec("podvm-a")).await.unwrap();
    let after = site.processes();
    assert!(after.len() == 1 && after != before, "{before:?} {after:?}");

    // Deleted without pid file, socket or readable record: the key alone leads to the process.
    fs::remove_dir_all(site.dir().join("run")).unwrap();
    fs::write(record_of(&site), "{").unwrap();
    site.provider().delete(&key("a")).await.unwrap();
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

fn signal(processes: &[i32], name: &str) {
    for pid in processes {
        let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
        assert!(sent.unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_stops_no_other_vm_and_no_bridge_is_lost() {
    if !require("a_record_that_cannot_be_read_stops_no_other_vm_and_no_bridge_is_lost", NEEDS) {
        return;
    }
    let site = Site::new();
    let provider = site.provider();
    provider.create(&key("a"), &spec("podvm-a")).await.unwrap();
    // Its guest has no work and goes down after a few seconds, on a busy machine before this test is done.
    let held = site.processes();
    signal(&held, "STOP");
    let unreadable = record_of(&site);
    let whole = fs::read_to_string(&unreadable).unwrap();
    let newer = whole.replace("\"format\": 1", "\"format\": 2");
    assert_ne!(newer, whole);
    for text in [newer.as_str(), "{"] {
        fs::write(&unreadable, text).unwrap();
        provider.create(&key("b"), &spec("podvm-b")).await.unwrap();
        let listed = provider.list(&key("a").cluster).await.unwrap();
        assert_eq!(listed.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), [key("b")]);
        provider.delete(&key("b")).await.unwrap();
        assert_eq!((site.processes().len(), site.taps().len()), (1, 1), "the VM that runs keeps its bridge");
        let error = provider.create(&key("a"), &spec("podvm-a")).await.unwrap_err();
        let named = error.message.contains(&unreadable.display().to_string());
        assert!(named && error.hint.is_some(), "{error}");
    }
    signal(&held, "CONT");
    provider.delete(&key("a")).await.unwrap();
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bridge_goes_with_the_last_vm_whatever_lies_among_the_records() {
    if !require("the_bridge_goes_with_the_last_vm_whatever_lies_among_the_records", NEEDS) {
        return;
    }
    let site = Site::new();
    site.provider().create(&key("a"), &spec("podvm-a")).await.unwrap();
    let damaged = record_of(&site).with_file_name("damaged.json");
    fs::write(&damaged, "{").unwrap();
    site.provider().delete(&key("a")).await.unwrap();
    assert_eq!(site.leftovers(), [damaged.display().to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_in_a_record_of_a_newer_version_is_given_to_nobody() {
    if !require("the_address_in_a_record_of_a_newer_version_is_given_to_nobody", NEEDS) {
        return;
    }
    let mut site = Site::new();
    // Room for one VM.
    site.config.subnet = Ipv4Net::new(site.config.subnet.addr(), 30).unwrap();
    let provider = site.provider();
    provider.create(&key("a"), &spec("podvm-a")).await.unwrap();
    let record = record_of(&site);
    let newer = fs::read_to_string(&record).unwrap().replace("\"format\": 1", "\"format\": 2");
    fs::write(&record, newer).unwrap();
    let error = provider.create(&key("b"), &spec("podvm-b")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Quota, "{error}");
    provider.delete(&key("a")).await.unwrap();
    provider.create(&key("b"), &spec("podvm-b")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_cut_off_at_any_step_is_continued() {
    if !require("a_death_cut_off_at_any_step_is_continued", NEEDS) {
        return;
    }
    let site = Site::new();
    let steps: [fn(&Site); 4] = [
        Site::kill,
        |site| site.taps().iter().for_each(|tap| drop(ip(&["link", "del", tap]))),
        |site| fs::remove_dir_all(site.dir().join("run")).unwrap(),
        |site| drop(ip(&["link", "del", &site.config.bridge])),
    ];
    for done in 1..=steps.len() {
        site.provider().create(&key("a"), &spec("podvm-a")).await.unwrap();
        for step in &steps[..done] {
            step(&site);
        }
        let provider = site.provider();
        assert_eq!(provider.get(&key("a")).await.unwrap().unwrap().state, VmState::Stopped);
        provider.delete(&key("a")).await.unwrap();
        assert_eq!(site.leftovers(), Vec::<String>::new(), "after {done} steps");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_outlives_the_runtime_of_its_service() {
    if !require("a_vm_outlives_the_runtime_of_its_service", NEEDS) {
        return;
    }
    let site = Site::new();
    let provider = site.provider();
    let service = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { provider.create(&key("a"), &spec("podvm-a")).await.unwrap() })
    });
    let made = service.join().unwrap();
    assert_ne!(session(site.processes()[0]), session(std::process::id().cast_signed()));
    let found = site.provider().get(&key("a")).await.unwrap().unwrap();
    assert_eq!((found.id, found.state), (made.id, VmState::Running));
}

/// The session a process belongs to.
fn session(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    status.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().parse().unwrap()
}
