//! What `install-node` places, read by a real containerd.
//!
//! A host of the test's own, whose `/etc/containerd` is put in the place of this machine's in a mount namespace: containerd sees the very
//! paths it would see on a node.

mod systemd;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use peerpods::installer::Runtime;
use peerpods::installer::act::converge;
use peerpods::installer::host::Host;
use peerpods::installer::plan::{Files, Wish};
use peerpods::installer::units::{UnitError, Units};
use peerpods_test_require::{Need, require};
use tempfile::TempDir;

const NEEDS: [Need; 3] = [Need::Root, Need::Program("containerd"), Need::Program("unshare")];
const HANDLER: &str = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.kata-remote-cc]";

/// containerd, which runs, and is restarted by whoever needs it to be.
struct Containerd;

#[async_trait]
impl Units for Containerd {
    async fn runs(&self, runtime: Runtime) -> Result<bool, UnitError> {
        Ok(runtime == Runtime::Containerd)
    }

    async fn restart(&self, _: Runtime) -> Result<(), UnitError> {
        Ok(())
    }
}

struct Node(TempDir);

impl Node {
    fn new(main: &str) -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        for directory in ["etc/containerd/conf.d", "var/lib", "opt", "usr/bin"] {
            fs::create_dir_all(node.root().join(directory)).unwrap();
        }
        fs::write(node.root().join("usr/bin/containerd-shim-kata-v2"), "").unwrap();
        fs::write(node.main(), main).unwrap();
        node
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn main(&self) -> std::path::PathBuf {
        self.root().join("etc/containerd/config.toml")
    }

    async fn is(&self, wish: &Wish) {
        converge(&Host::at(self.root()).unwrap(), &Containerd, wish).await.unwrap();
    }

    /// containerd with this node's configuration where it looks for it.
    fn containerd(&self, arguments: &[&str]) -> Command {
        let script =
            "mount --make-rprivate / && mount --bind \"$0\" /etc/containerd && exec containerd \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(self.root().join("etc/containerd")).args(arguments);
        command
    }

    /// Its configuration as it understands it.
    fn dump(&self) -> String {
        let Output { status, stdout, stderr } = self.containerd(&["config", "dump"]).output().unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }
}

/// What it would have without a file, with two settings that a node needs.
fn usual() -> String {
    let default = Command::new("containerd").args(["config", "default"]).output().unwrap();
    let text = String::from_utf8(default.stdout).unwrap();
    assert!(text.contains("SystemdCgroup = false"), "{text}");
    text.replace("SystemdCgroup = false", "SystemdCgroup = true")
}

fn wish() -> Wish {
    let classes = vec!["kata-remote-cc".to_owned()];
    Wish::Files(Files { classes, hypervisor_timeout: 900, log_level: None })
}

#[tokio::test]
async fn a_real_containerd_knows_the_handler_and_keeps_what_it_had() {
    if !require("a_real_containerd_knows_the_handler_and_keeps_what_it_had", &NEEDS) {
        return;
    }
    let node = Node::new(&usual());
    let before = node.dump();
    assert!(!before.contains(HANDLER));
    node.is(&wish()).await;
    let dump = node.dump();
    assert!(dump.contains(HANDLER), "{dump}");
    assert!(dump.contains("ConfigPath = \"/opt/kata/configuration-remote.toml\""), "{dump}");
    assert!(dump.contains("SystemdCgroup = true") && dump.contains("runtimes.runc]"), "{dump}");
    node.is(&Wish::Nothing).await;
    assert_eq!((fs::read_to_string(node.main()).unwrap(), node.dump()), (usual(), before));
}

/// containerd 1 takes an imported file's section in place of the main one's: the handler has to be in the last that has one.
#[tokio::test]
async fn a_real_containerd_finds_the_handler_beside_what_others_import() {
    if !require("a_real_containerd_finds_the_handler_beside_what_others_import", &NEEDS) {
        return;
    }
    let imports = usual().replace("imports = []", "imports = [\"/etc/containerd/conf.d/*.toml\"]");
    let node = Node::new(&imports);
    let others = node.root().join("etc/containerd/conf.d/99-gpu.toml");
    let section = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"gpu/pause:1\"\n";
    fs::write(&others, section).unwrap();
    node.is(&wish()).await;
    let dump = node.dump();
    assert!(dump.contains(HANDLER) && dump.contains("sandbox_image = \"gpu/pause:1\""), "{dump}");
    node.is(&Wish::Nothing).await;
    assert_eq!(fs::read_to_string(others).unwrap(), section);
    assert_eq!(fs::read_to_string(node.main()).unwrap(), imports);
}

#[tokio::test]
async fn a_real_containerd_starts_with_what_is_placed() {
    if !require("a_real_containerd_starts_with_what_is_placed", &NEEDS) {
        return;
    }
    let node = Node::new(&usual());
    node.is(&wish()).await;
    let place = |name: &str| node.root().join(name).display().to_string();
    let (root, state, socket) = (place("root"), place("state"), place("c.sock"));
    let arguments = ["--root", &root, "--state", &state, "--address", &socket];
    // In a group of its own: it ends with the test, whatever that does.
    let mut command = node.containerd(&arguments);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    let mut running = Running(child);
    let log = wait_for(&mut running.0, "containerd successfully booted");
    assert!(log.contains("kata-remote-cc"), "the CRI plugin says which handlers it has: {log}");
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(child: &mut Child, what: &str) -> String {
    let (deadline, mut log) = (Instant::now() + Duration::from_secs(60), String::new());
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        log.push_str(&line);
        log.push('\n');
        if line.contains(what) {
            return log;
        }
        assert!(Instant::now() < deadline, "{log}");
    }
    panic!("it ended: {log}");
}

#[test]
fn the_reason_of_a_failure_is_written_where_the_kubelet_reads_it() {
    let node = Node::new("version = 2\n");
    let place = |name: &str| node.root().join(name).display().to_string();
    let (root, bus, reason, ready) = (place(""), place("bus"), place("reason"), place("ready"));
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_peerpods"))
            .arg("install-node")
            .args(arguments)
            .env_clear()
            .output()
            .unwrap()
    };
    let common = ["--host-root", &root, "--bus", &bus, "--ready-file", &ready, "--reason-file", &reason];
    let failed = run(&[&common[..], &["--class", "kata-remote-cc"]].concat());
    let said = String::from_utf8(failed.stderr).unwrap();
    assert_eq!(failed.status.code(), Some(1), "{said}");
    let reason = fs::read_to_string(reason).unwrap();
    assert!(reason.contains("systemd does not answer") && reason.contains(&bus), "{reason}");
    assert!(said.contains(&reason), "{said}");
    assert_eq!(run(&["--is-ready", "--ready-file", &ready]).status.code(), Some(1));
    fs::write(&ready, "").unwrap();
    assert_eq!(run(&["--is-ready", "--ready-file", &ready]).status.code(), Some(0));
    assert_eq!(fs::read_to_string(node.main()).unwrap(), "version = 2\n");
}
