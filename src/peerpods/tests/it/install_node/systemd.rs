//! The program itself against a real systemd that runs a real containerd, in namespaces of their own: `make systemd-test`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use peerpods_test_require::{Need, require};

use super::{HANDLER, Node, usual};

const NEEDS: [Need; 5] = [
    Need::Root,
    Need::Program("containerd"),
    Need::Program("nsenter"),
    Need::Path("/lib/systemd/systemd"),
    Need::Path("/usr/bin/dbus-daemon"),
];

/// Becomes process 1: what a container of systemd is given, and no unit but the bus and containerd.
const BOOT: &str = r#"
    set -e
    mount --make-rprivate /
    mount -t tmpfs tmpfs /run
    umount -R /sys/fs/cgroup || umount -l /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir -p /run/systemd/system /run/dbus
    cd /run/systemd/system
    for target in sysinit shutdown; do
      printf '[Unit]\nDefaultDependencies=no\n' > $target.target
    done
    printf '[Unit]\nDefaultDependencies=no\nWants=dbus.service containerd.service\n' > basic.target
    printf '[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n' > dbus.socket
    printf '[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n[Service]\nType=notify\nNotifyAccess=main\nExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation\n' > dbus.service
    printf '[Unit]\nDefaultDependencies=no\n[Service]\nType=notify\nRestart=no\nExecStartPre=/bin/sh %s/allowed\nExecStart=/usr/bin/containerd -c %s/etc/containerd/config.toml --root %s/root --state %s/state --address %s/c.sock\n' "$ROOT" "$ROOT" "$ROOT" "$ROOT" "$ROOT" > containerd.service
    exec env -i container=other PATH="$PATH" SYSTEMD_UNIT_PATH=/run/systemd/system SYSTEMD_LOG_TARGET=null \
      /lib/systemd/systemd --system --unit=basic.target
"#;

/// A systemd in a control group that goes with it.
struct Systemd {
    group: PathBuf,
    unshare: Child,
}

impl Systemd {
    fn boot(node: &Node) -> Self {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let groups = fields.find(|field| field[2] == "cgroup2").map(|field| PathBuf::from(field[1])).unwrap();
        let group = groups.join(format!("peerpods-install-node-{}", std::process::id()));
        fs::create_dir_all(&group).unwrap();
        let enter = r#"echo 0 > "$1/cgroup.procs"
            exec unshare --pid --fork --kill-child --mount --mount-proc --cgroup --ipc --uts sh -c "$2""#;
        let mut shell = Command::new("sh");
        shell.args(["-c", enter, "sh"]).arg(&group).arg(BOOT).env("ROOT", node.root());
        let unshare = shell.stdin(Stdio::null()).spawn().unwrap();
        let systemd = Self { group, unshare };
        systemd.until_active();
        systemd
    }

    fn process(&self) -> Option<String> {
        let processes = fs::read_to_string(self.group.join("init.scope/cgroup.procs")).ok()?;
        processes.lines().next().map(str::to_owned)
    }

    /// Runs a command beside it: it talks to nobody whose process it cannot see.
    fn beside(&self, command: &[&str]) -> Output {
        let process = self.process().unwrap();
        let namespaces = ["--target", &process, "--mount", "--pid", "--cgroup", "--ipc", "--uts", "--"];
        Command::new("nsenter").args(namespaces).args(command).output().unwrap()
    }

    fn until_active(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.process().is_none() || self.shown("ActiveState") != "active" {
            assert!(Instant::now() < deadline, "containerd never ran");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn shown(&self, property: &str) -> String {
        let output =
            self.beside(&["systemctl", "show", "--value", "--property", property, "containerd.service"]);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn install_node(&self, node: &Node, more: &[&str]) -> Output {
        let root = node.root().display().to_string();
        let mut command =
            vec![env!("CARGO_BIN_EXE_peerpods"), "install-node", "--once", "--host-root", &root];
        command.extend(["--bus", "/run/dbus/system_bus_socket", "--output", "json"]);
        command.extend(more);
        self.beside(&command)
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let _ = fs::write(self.group.join("cgroup.kill"), "1");
        let _ = self.unshare.wait();
        std::thread::sleep(Duration::from_millis(200));
        let remove = ["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"];
        let _ = Command::new("find").arg(&self.group).args(remove).stderr(Stdio::null()).status();
    }
}

fn told(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn allow(node: &Node, script: &str) {
    fs::write(Path::new(node.root()).join("allowed"), script).unwrap();
}

#[test]
#[ignore = "needs a real systemd: make systemd-test"]
fn real_systemd_restarts_a_real_containerd_and_one_that_does_not_come_back_is_given_back_what_it_had() {
    if !require("real_systemd_restarts_a_real_containerd", &NEEDS) {
        return;
    }
    let node = Node::new(&usual());
    allow(&node, "true");
    let systemd = Systemd::boot(&node);
    let first = systemd.shown("InvocationID");

    let report = told(&systemd.install_node(&node, &["--class", "kata-remote-cc"]));
    assert_eq!(report["restarted"], serde_json::json!(["containerd"]), "{report}");
    assert_eq!(systemd.shown("ActiveState"), "active");
    let second = systemd.shown("InvocationID");
    assert_ne!(first, second);
    assert!(node.dump().contains(HANDLER));
    let report = told(&systemd.install_node(&node, &["--class", "kata-remote-cc"]));
    assert_eq!(report["restarted"], serde_json::json!([]), "{report}");
    assert_eq!(systemd.shown("InvocationID"), second, "nothing changed, nothing restarts");

    let report = told(&systemd.install_node(&node, &["--remove"]));
    assert_eq!(report["restarted"], serde_json::json!(["containerd"]), "{report}");
    assert_eq!(fs::read_to_string(node.main()).unwrap(), usual());

    // From now on it does not start with our handler.
    allow(&node, &format!("! grep -q kata-remote-cc {}", node.main().display()));
    let failed = systemd.install_node(&node, &["--class", "kata-remote-cc"]);
    let why = String::from_utf8(failed.stderr).unwrap();
    assert_eq!(failed.status.code(), Some(1), "{why}");
    assert!(
        why.contains("as they were before") && why.contains("containerd.service did not come back"),
        "{why}"
    );
    assert_eq!(fs::read_to_string(node.main()).unwrap(), usual());
    assert_eq!(systemd.shown("ActiveState"), "active", "with what it had it runs");
}
