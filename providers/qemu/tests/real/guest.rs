//! A guest that really boots: its console is kept, its network is up, its user data is no longer on the disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use peerpods_provider::{Console, Provider, VmState};
use peerpods_test_require::require;

use crate::site::{NEEDS, Site, ip, key, spec};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_boots_and_its_console_is_kept_until_it_is_deleted() {
    if !require("a_guest_boots_and_its_console_is_kept_until_it_is_deleted", NEEDS) {
        return;
    }
    let site = Site::new();
    let provider = site.provider();
    let vm = provider.create(&key("a"), &spec("podvm-a")).await.unwrap();
    let Some(Console::File(console)) = vm.console.clone() else { panic!("no console: {vm:?}") };
    let said = wait_for_output(&console).await;
    assert!(!said.is_empty());
    assert_eq!(mode(&console), 0o600);
    provider.delete(&key("a")).await.unwrap();
    assert!(!console.exists());
}

/// A kernel that panics for want of an init says so even when it is quiet; one that boots has an init that speaks.
async fn wait_for_output(console: &Path) -> String {
    for _ in 0..600 {
        let said = String::from_utf8_lossy(&fs::read(console).unwrap()).into_owned();
        if said.contains("peerpods-guest") || said.contains("Kernel panic") {
            return said;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the guest said nothing in a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_answers_at_the_address_it_was_given() {
    if !require("a_guest_answers_at_the_address_it_was_given", NEEDS) {
        return;
    }
    let site = Site::new();
    let vm = site.provider().create(&key("a"), &spec("podvm-a")).await.unwrap();
    // Without a configuration the guest powers off a moment after its network is up. So it is not asked for its Ethernet address,
    // which the kernel does once a second only: that is derived from the address, and this proves that as well.
    let std::net::IpAddr::V4(address) = vm.addresses[0] else { panic!("no IPv4: {vm:?}") };
    let [a, b, c, d] = address.octets();
    let mac = format!("02:70:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
    ip(&["neigh", "replace", &address.to_string(), "lladdr", &mac, "dev", &site.config.bridge]);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        // Nobody listens there: only the network code of a guest with this address refuses.
        let knock = tokio::net::TcpStream::connect((address, 9));
        match tokio::time::timeout(Duration::from_millis(20), knock).await {
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => break,
            _ if tokio::time::Instant::now() > deadline => {
                let Some(Console::File(console)) = vm.console else { panic!("no console") };
                panic!("no answer in a minute; the console says: {}", fs::read_to_string(console).unwrap());
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_closed_to_others_and_gone_once_qemu_has_read_them() {
    if !require("secrets_are_closed_to_others_and_gone_once_qemu_has_read_them", NEEDS) {
        return;
    }
    let site = Site::new();
    site.provider().create(&key("a"), &spec("podvm-a")).await.unwrap();
    let dir = fs::read_dir(&site.config.run_dir).unwrap().flatten().next().unwrap().path();
    assert_eq!((mode(&dir), mode(&dir.join("qmp.sock"))), (0o700, 0o600));
    assert!(!dir.join("user-data").exists(), "user data holds the guest's TLS key");
    let records = site.config.state_dir.join("records");
    assert_eq!(mode(&records), 0o700);
    for record in fs::read_dir(records).unwrap().flatten() {
        assert_eq!(mode(&record.path()), 0o600);
        assert!(!fs::read_to_string(record.path()).unwrap().contains("write_files"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vms_hang_on_one_bridge_apart_from_one_another_until_the_last_is_gone() {
    if !require("vms_hang_on_one_bridge_apart_from_one_another_until_the_last_is_gone", NEEDS) {
        return;
    }
    let site = Site::new();
    let provider = site.provider();
    let one = provider.create(&key("a"), &spec("podvm-a")).await.unwrap();
    let two = provider.create(&key("b"), &spec("podvm-b")).await.unwrap();
    assert_ne!(one.addresses, two.addresses);
    assert!(one.addresses.iter().chain(&two.addresses).all(|a| match a {
        std::net::IpAddr::V4(a) => site.config.subnet.contains(a),
        std::net::IpAddr::V6(_) => false,
    }));
    let gateway = site.config.subnet.hosts().next().unwrap().to_string();
    let addresses = ip(&["-o", "addr", "show", "dev", &site.config.bridge]);
    assert!(addresses.contains(&format!("{gateway}/24")), "{addresses}");
    let taps = site.taps();
    assert_eq!(taps.len(), 2);
    for tap in &taps {
        let seen = ip(&["-d", "link", "show", "dev", tap]);
        assert!(seen.contains("isolated on") && seen.contains("state UP"), "{seen}");
    }
    provider.delete(&key("a")).await.unwrap();
    assert_eq!(site.taps().len(), 1);
    provider.delete(&key("b")).await.unwrap();
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_guest_runs_and_one_that_ended_is_stopped() {
    if !require("a_paused_guest_runs_and_one_that_ended_is_stopped", NEEDS) {
        return;
    }
    let site = Site::new();
    let provider = site.provider();
    provider.create(&key("a"), &spec("podvm-a")).await.unwrap();
    // A QEMU that answers nobody must not be taken for a dead one, and must be removed all the same.
    let pid = site.processes()[0].to_string();
    assert!(std::process::Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
    assert_eq!(provider.get(&key("a")).await.unwrap().unwrap().state, VmState::Running);
    provider.delete(&key("a")).await.unwrap();
    assert_eq!(site.leftovers(), Vec::<String>::new());
}
