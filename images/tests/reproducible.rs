//! Images from real Debian packages: the same inputs give the same bytes, and a wrong input is named before anything is written.
//!
//! The packages come from the cache directory `PEERPODS_TEST_IMAGE_CACHE`, which `make test` sets (it may be empty: what is missing
//! is downloaded by apt).

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use peerpods_images::{BuildError, BuildOptions, ProgramError, Step, build, verify};
use peerpods_test_require::{Need, require};

const CACHE: &str = "PEERPODS_TEST_IMAGE_CACHE";

fn needs() -> [Need; 3] {
    [Need::Variable(CACHE), Need::Program("apt-get"), Need::Program("dpkg-deb")]
}

/// A static program that is surely there once the packages are: busybox, in the part of the guest and of the agent.
fn static_program(dir: &Path, cache: &Path) -> PathBuf {
    let package = std::fs::read_dir(cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("busybox-static"))
        .expect("the package busybox-static in the cache");
    let unpacked = std::process::Command::new("dpkg-deb").arg("-x").arg(package).arg(dir).output().unwrap();
    assert!(unpacked.status.success(), "{unpacked:?}");
    dir.join("bin/busybox")
}

fn options(dir: &Path, cache: &Path, program: &Path) -> BuildOptions {
    BuildOptions {
        output: dir.join("image"),
        guest: program.to_owned(),
        miniagent: program.to_owned(),
        agent: None,
        pins: None,
        cache: cache.to_owned(),
        offline: false,
    }
}

/// Fills the cache. A build with a program that is no guest would stop before that, so packages are fetched by apt itself.
fn filled_cache() -> PathBuf {
    let cache = PathBuf::from(std::env::var_os(CACHE).unwrap());
    std::fs::create_dir_all(&cache).unwrap();
    let filled = std::fs::read_dir(&cache)
        .unwrap()
        .any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("busybox-static"));
    if !filled {
        let got = std::process::Command::new("apt-get")
            .args(["-q", "download", "busybox-static"])
            .current_dir(&cache)
            .output()
            .unwrap();
        assert!(got.status.success(), "{got:?}");
    }
    cache
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    if !require("the_same_inputs_give_the_same_bytes", &needs()) {
        return;
    }
    let cache = filled_cache();
    let programs = tempfile::tempdir().unwrap();
    let program = static_program(programs.path(), &cache);
    let mut images = Vec::new();
    for _ in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        let mut steps = Vec::new();
        let built = build(&options(dir.path(), &cache, &program), &mut |step| steps.push(step)).unwrap();
        assert!(steps.iter().any(|step| matches!(step, Step::Kernel(_))), "{steps:?}");
        assert_eq!(verify(&built.directory).unwrap(), built.image);
        let bytes = ["vmlinux", "initramfs.cpio", "image.json"]
            .map(|name| std::fs::read(built.directory.join(name)).unwrap());
        images.push(bytes);
    }
    assert!(images[0] == images[1], "two builds differ");
}

#[test]
fn a_filled_cache_needs_no_network() {
    if !require("a_filled_cache_needs_no_network", &needs()) {
        return;
    }
    let cache = filled_cache();
    let dir = tempfile::tempdir().unwrap();
    let program = static_program(dir.path(), &cache);
    build(&options(dir.path(), &cache, &program), &mut |_| ()).unwrap();
    let again = BuildOptions { offline: true, ..options(dir.path(), &cache, &program) };
    let built = build(&again, &mut |_| ()).unwrap();
    assert_eq!(built.image.agent, "miniagent");
    assert!(built.image.kernel_release.ends_with("-cloud-amd64"), "{}", built.image.kernel_release);
}

#[test]
fn the_busybox_we_take_has_every_applet_of_the_manifest() {
    if !require("the_busybox_we_take_has_every_applet_of_the_manifest", &needs()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = static_program(dir.path(), &filled_cache());
    let listed = std::process::Command::new(&program).arg("--list").output().unwrap().stdout;
    let listed = String::from_utf8(listed).unwrap();
    let known: Vec<&str> = listed.lines().collect();
    let manifest: toml::Table = toml::from_str(include_str!("../manifest/qemu.toml")).unwrap();
    let applets = manifest["userland"]["applets"].as_array().unwrap();
    let missing: Vec<_> = applets.iter().filter(|a| !known.contains(&a.as_str().unwrap())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_dynamic_guest_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = options(dir.path(), &dir.path().join("cache"), Path::new("/bin/sh"));
    let error = build(&wrong, &mut |_| ()).unwrap_err();
    assert!(matches!(error, BuildError::Program(ProgramError::Dynamic { .. })), "{error:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
