//! The container image of our programs, built and run: what `images/container` makes is what `deploy/` runs.
//!
//! The programs are those of this build, without their symbols. `make container` does the same with released ones.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use peerpods_test_require::{Need, require};
use peerpods_tests::node::{built, guest_program};

const NEEDS: &[Need] = &[
    Need::Root,
    Need::Program("apt-get"),
    Need::Program("dpkg-deb"),
    Need::Program("readelf"),
    Need::Program("strip"),
    Need::Program("umoci"),
    Need::Program("runc"),
    Need::Program("jq"),
    Need::Variable("PEERPODS_TEST_GUEST_PROGRAMS"),
];

/// The image, made once for all tests here, where the next run makes its own: a static is never dropped.
static MADE: LazyLock<Made> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("container");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    let program = dir.join("peerpods");
    let stripped = Command::new("strip").arg("-o").arg(&program).arg(built("peerpods")).status().unwrap();
    assert!(stripped.success());
    let archive = dir.join("made/peerpods.tar");
    let output = build(&archive, &program, &guest_program("miniagent"));
    assert!(output.status.success(), "{}", said(&output));
    Made { dir, program, archive }
});

struct Made {
    dir: PathBuf,
    program: PathBuf,
    archive: PathBuf,
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/container").join(name)
}

/// Any static program can be the link's place-holder: what is looked at here is where it goes.
fn build(archive: &Path, program: &Path, link: &Path) -> Output {
    Command::new(script("build"))
        .args([archive, program, link])
        .env("SOURCE_DATE_EPOCH", "1")
        .output()
        .unwrap()
}

fn run(arguments: &[&str]) -> Output {
    Command::new(script("try")).arg(&MADE.archive).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_link_that_needs_libraries_of_the_host_is_refused() {
    if !require("a_link_that_needs_libraries_of_the_host_is_refused", NEEDS) {
        return;
    }
    let archive = MADE.dir.join("refused.tar");
    let output = build(&archive, &MADE.program, &built("peerpods-link"));
    assert!(!output.status.success() && !archive.exists());
    assert!(said(&output).contains("is linked dynamically"), "{}", said(&output));
}

#[test]
fn the_same_programs_make_the_same_image() {
    if !require("the_same_programs_make_the_same_image", NEEDS) {
        return;
    }
    let again = MADE.dir.join("again.tar");
    assert!(build(&again, &MADE.program, &guest_program("miniagent")).status.success());
    assert!(fs::read(&again).unwrap() == fs::read(&MADE.archive).unwrap(), "the archives differ");
}

#[test]
fn it_runs_as_deploy_says() {
    if !require("it_runs_as_deploy_says", NEEDS) {
        return;
    }
    // The operator and the webhook have arguments and no command.
    let version = run(&["--version"]);
    assert!(said(&version).starts_with("peerpods 0."), "{}", said(&version));
    let manifests = Command::new(&MADE.program).arg("manifests").output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&run(&["manifests"]).stdout),
        String::from_utf8_lossy(&manifests.stdout)
    );
    // The others have a command without a path, and are root.
    let ready = run(&["--user", "0", "--exec", "peerpods", "install-node", "--is-ready"]);
    assert_eq!((ready.status.code(), said(&ready).as_str()), (Some(1), ""));
    let config = run(&["--user", "0", "--exec", "peerpods", "config", "show", "--output", "json"]);
    assert!(config.status.success(), "{}", said(&config));
    // A role of its own user, which gets as far as it can without a cluster.
    let operator = run(&["operator"]);
    assert!(!operator.status.success() && said(&operator).contains("cluster"), "{}", said(&operator));
}

#[test]
fn what_is_in_it_is_what_our_pods_need() {
    if !require("what_is_in_it_is_what_our_pods_need", NEEDS) {
        return;
    }
    let (layout, bundle) = (MADE.dir.join("layout"), MADE.dir.join("bundle"));
    fs::create_dir(&layout).unwrap();
    let tar = Command::new("tar").arg("-xf").arg(&MADE.archive).arg("-C").arg(&layout).status().unwrap();
    let image = format!("{}:latest", layout.display());
    let umoci = Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle).status().unwrap();
    assert!(tar.success() && umoci.success());
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["process"]["user"], serde_json::json!({ "uid": 65532, "gid": 65532 }));
    let root = bundle.join("rootfs");
    // CRI-O and containerd name network namespaces below it.
    assert_eq!(fs::read_link(root.join("var/run")).unwrap(), Path::new("/run"));
    let link = fs::metadata(root.join("usr/bin/peerpods-link")).unwrap();
    assert_eq!((link.mode() & 0o7777, link.uid()), (0o755, 0));
    let authorities = fs::read_to_string(root.join("etc/ssl/certs/ca-certificates.crt")).unwrap();
    assert!(authorities.matches("BEGIN CERTIFICATE").count() > 50);
    let programs: Vec<_> = ["bin", "sbin", "usr/bin", "usr/sbin"]
        .iter()
        // Debian 13 has the first two as links to the others.
        .filter(|dir| fs::symlink_metadata(root.join(dir)).is_ok_and(|found| found.is_dir()))
        .flat_map(|dir| fs::read_dir(root.join(dir)).into_iter().flatten())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(programs.len() == 2, "only our two: {programs:?}");
}
