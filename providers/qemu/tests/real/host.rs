//! What the provider says of this host.

use std::path::Path;
use std::time::{Duration, Instant};

use peerpods_provider::Provider;
use peerpods_provider_qemu::accel::{self, Accelerator};
use peerpods_provider_qemu::{Accel, Image};
use peerpods_test_require::{Need, require};

use crate::site::{NEEDS, Site, image, key, spec};

#[tokio::test(flavor = "multi_thread")]
async fn verify_tells_the_bridges_address_the_qemu_and_the_accelerator_and_makes_nothing() {
    if !require("verify_tells_the_bridges_address_the_qemu_and_the_accelerator", NEEDS) {
        return;
    }
    let site = Site::new();
    let facts = site.provider().verify().await.unwrap();
    let gateway = site.config.subnet.hosts().next().unwrap();
    assert_eq!(facts.worker_address.unwrap().to_string(), format!("{gateway}/24"));
    assert_eq!(facts.underlay_mtu, 1500);
    let remarks = facts.remarks.join("\n");
    assert!(remarks.contains("QEMU emulator version") && remarks.contains("TCG: configured"), "{remarks}");
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kvm_that_exists_is_not_believed_without_a_booting_guest() {
    let needs: Vec<Need> = NEEDS.iter().copied().chain([Need::Path("/dev/kvm")]).collect();
    if !require("a_kvm_that_exists_is_not_believed_without_a_booting_guest", &needs) {
        return;
    }
    let started = Instant::now();
    let choice = accel::probe(Path::new("qemu-system-x86_64"), &Image::load(&image()).unwrap()).await;
    assert!(started.elapsed() < Duration::from_secs(60), "the probe must end: {choice}");
    // On a host without the processor's help KVM can only lose; with it nearly always wins, but nested KVM may be broken too.
    if accel::hopeless_here().is_some() {
        assert_eq!(choice.accelerator, Accelerator::Tcg, "{choice}");
    }
    assert!(!choice.reason.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn automatic_choice_makes_a_vm_that_runs() {
    if !require("automatic_choice_makes_a_vm_that_runs", NEEDS) {
        return;
    }
    let mut site = Site::new();
    site.config.accel = Accel::Auto;
    let provider = site.provider();
    let facts = provider.verify().await.unwrap();
    assert!(facts.remarks.iter().any(|r| r.starts_with("guests run on")), "{:?}", facts.remarks);
    provider.create(&key("a"), &spec("podvm-a")).await.unwrap();
    provider.delete(&key("a")).await.unwrap();
    // The probe's result is kept for the next start; nothing else is.
    let left: Vec<String> = site.leftovers().into_iter().filter(|l| !l.ends_with("accel.json")).collect();
    assert_eq!(left, Vec::<String>::new());
}
