//! What cannot be made is refused by kind, and leaves nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use ipnet::Ipv4Net;
use peerpods_provider::{ErrorKind, Provider, VmSize, VmSpec};
use peerpods_provider_qemu::{QemuConfig, QemuProvider};
use peerpods_test_require::require;

use crate::site::{NEEDS, Site, ip, key, spec};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_subnet_is_a_quota_error() {
    if !require("a_full_subnet_is_a_quota_error", NEEDS) {
        return;
    }
    let mut site = Site::new();
    site.config.subnet = Ipv4Net::new(site.config.subnet.addr(), 29).unwrap();
    let provider = site.provider();
    provider.create(&key("a"), &spec("podvm-a")).await.unwrap();
    // Four more VMs, as far as records go.
    let records = site.config.state_dir.join("records");
    let first = fs::read_dir(&records).unwrap().flatten().next().unwrap().path();
    let text = fs::read_to_string(first).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (number, address) in site.config.subnet.hosts().skip(1).enumerate() {
        let mut other = record.clone();
        other["address"] = serde_json::to_value(address).unwrap();
        other["key"]["sandbox"] = format!("other-{number}").into();
        fs::write(records.join(format!("other-{number}.json")), other.to_string()).unwrap();
    }
    let error = provider.create(&key("b"), &spec("podvm-b")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Quota, "{error}");
    assert!(error.message.contains("all 5 addresses of"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_images_and_machine_types_that_are_not_there_are_invalid() {
    if !require("sizes_images_and_machine_types_that_are_not_there_are_invalid", NEEDS) {
        return;
    }
    let site = Site::new();
    let provider = site.provider();
    let base = spec("podvm-a");
    let bad = [
        VmSpec { size: VmSize { vcpus: 10_000, ..VmSize::default() }, ..base.clone() },
        VmSpec { size: VmSize { gpus: 1, ..VmSize::default() }, ..base.clone() },
        VmSpec { image: Some("../../etc".to_owned()), ..base.clone() },
        VmSpec { machine_type: Some("m5.large".to_owned()), ..base.clone() },
    ];
    for spec in bad {
        let error = provider.create(&key("a"), &spec).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    }
    let hungry = VmSpec { size: VmSize { memory_mib: 256 * 1024, ..VmSize::default() }, ..base };
    let error = provider.create(&key("a"), &hungry).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Capacity, "{error}");
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qemu_that_does_not_start_is_quoted_and_unwound() {
    if !require("a_qemu_that_does_not_start_is_quoted_and_unwound", NEEDS) {
        return;
    }
    let mut site = Site::new();
    let program = site.dir().join("qemu");
    fs::write(&program, "#!/bin/sh\necho 'qemu: could not set up host network' >&2\nexit 1\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    site.config.program = program;
    let error = site.provider().create(&key("a"), &spec("podvm-a")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient, "{error}");
    assert!(error.message.contains("could not set up host network"), "{error}");
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_bridge_is_neither_used_nor_removed() {
    if !require("a_strangers_bridge_is_neither_used_nor_removed", NEEDS) {
        return;
    }
    let site = Site::new();
    let provider = site.provider();
    ip(&["link", "add", &site.config.bridge, "type", "bridge"]);
    let error = provider.create(&key("a"), &spec("podvm-a")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    provider.delete(&key("a")).await.unwrap();
    assert_eq!(site.leftovers(), [format!("bridge {}", site.config.bridge)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_is_refused_before_anything_is_made() {
    if !require("a_damaged_image_is_refused_before_anything_is_made", NEEDS) {
        return;
    }
    let mut site = Site::new();
    let copy = site.dir().join("image");
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(&site.config.image).unwrap().flatten().filter(|f| f.path().is_file()) {
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    fs::write(copy.join("initramfs.cpio"), "cut off").unwrap();
    site.config.image = copy;
    let error = site.provider().create(&key("a"), &spec("podvm-a")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("initramfs.cpio"));
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_named_by_the_pod_comes_from_the_directory_of_images() {
    if !require("an_image_named_by_the_pod_comes_from_the_directory_of_images", NEEDS) {
        return;
    }
    let mut site = Site::new();
    let image = site.config.image.canonicalize().unwrap();
    site.config.images_dir = Some(image.parent().unwrap().to_owned());
    let name = image.file_name().unwrap().to_string_lossy().into_owned();
    site.config.image = "/nowhere".into();
    let provider = site.provider();
    let named = VmSpec { image: Some(name), tags: BTreeMap::new(), ..spec("podvm-a") };
    provider.create(&key("a"), &named).await.unwrap();
    provider.delete(&key("a")).await.unwrap();
    assert_eq!(site.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_every_fault_at_once() {
    if !require("verify_names_every_fault_at_once", NEEDS) {
        return;
    }
    let config = QemuConfig {
        program: "/nowhere/qemu".into(),
        image: "/nowhere/image".into(),
        bridge: "a-name-that-is-too-long".to_owned(),
        subnet: "127.0.0.0/24".parse().unwrap(),
        ..QemuConfig::default()
    };
    let error = QemuProvider::new(config).verify().await.unwrap_err();
    for word in ["/nowhere/qemu", "/nowhere/image", "a-name-that-is-too-long", "127.0.0.0/24"] {
        assert!(error.message.contains(word), "{word} is not in: {error}");
    }
}
