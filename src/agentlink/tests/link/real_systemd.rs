//! The same client against a real systemd, process 1 of namespaces of its own below a control group of its own: `make systemd-test`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::unistd::Pid;
use peerpods_agentlink::process::LinkProcesses;
use peerpods_agentlink::process::placement::Wanted;
use peerpods_agentlink::{Link, LinkSpec};
use peerpods_test_require::{Need, require};

use super::detach::{is_gone, pid_of};
use super::support::{Guest, Sandbox, eventually, healthy, program};
use super::units::placement;

const SYSTEMD: &str = "/lib/systemd/systemd";
/// Where a test, started again as the daemon, finds what it needs: its control group, the agent socket, and what is wanted.
const AS_DAEMON: &str = "PEERPODS_TEST_AS_DAEMON";

/// Becomes process 1: what a container of systemd is given, and no unit but the bus.
const BOOT: &str = r#"
    set -e
    mount --make-rprivate /
    mount -t tmpfs tmpfs /run
    umount -R /sys/fs/cgroup || umount -l /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir -p /run/systemd/system
    mkdir -p /run/dbus
    for target in sysinit shutdown; do
      printf '[Unit]\nDefaultDependencies=no\n' > /run/systemd/system/$target.target
    done
    printf '[Unit]\nDefaultDependencies=no\nWants=dbus.service\n' > /run/systemd/system/basic.target
    printf '[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n' > /run/systemd/system/dbus.socket
    printf '[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n[Service]\nType=notify\nNotifyAccess=main\nExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation\n' > /run/systemd/system/dbus.service
    exec env -i container=other PATH="$PATH" SYSTEMD_UNIT_PATH=/run/systemd/system SYSTEMD_LOG_TARGET=null \
      /lib/systemd/systemd --system --unit=basic.target
"#;

/// Where the test is run again, beside systemd: it talks to nobody whose process it cannot see.
const INSIDE: &str = "PEERPODS_TEST_BESIDE_SYSTEMD";
const SOCKET: &str = "/run/dbus/system_bus_socket";
const GROUPS: &str = "/sys/fs/cgroup";

/// A systemd in a control group that goes with it.
struct RealSystemd {
    group: PathBuf,
    unshare: Child,
}

fn top_of_groups() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.find(|field| field[2] == "cgroup2").map(|field| field[1].into()).unwrap()
}

impl RealSystemd {
    async fn boot() -> Self {
        let group = top_of_groups().join(format!("peerpods-test-{}", uuid()));
        fs::create_dir_all(&group).unwrap();
        // The new control group namespace begins where its maker is.
        let enter = r#"echo 0 > "$1/cgroup.procs"
            exec unshare --pid --fork --kill-child --mount --mount-proc --cgroup --ipc --uts sh -c "$2""#;
        let mut shell = Command::new("sh");
        let unshare =
            shell.args(["-c", enter, "sh"]).arg(&group).arg(BOOT).stdin(Stdio::null()).spawn().unwrap();
        let systemd = Self { group, unshare };
        for _ in 0..1000 {
            if systemd.process().is_some_and(|pid| Path::new(&format!("/proc/{pid}/root{SOCKET}")).exists()) {
                return systemd;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("systemd never listened");
    }

    fn process(&self) -> Option<String> {
        let processes = fs::read_to_string(self.group.join("init.scope/cgroup.procs")).ok()?;
        processes.lines().next().map(str::to_owned)
    }

    /// Runs the test again in its namespaces, all but the network's, which is ours.
    fn run_inside(&self, test: &str) {
        let output = Command::new("nsenter")
            .args([
                "--target",
                &self.process().unwrap(),
                "--mount",
                "--pid",
                "--cgroup",
                "--ipc",
                "--uts",
                "--",
            ])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success() && said[0].contains("1 passed"), "{}", said.join("\n"));
    }
}

impl Drop for RealSystemd {
    fn drop(&mut self) {
        let _ = fs::write(self.group.join("cgroup.kill"), "1");
        let _ = self.unshare.wait();
        // What was in it is reaped a little later.
        std::thread::sleep(Duration::from_millis(200));
        let _ = Command::new("find")
            .arg(&self.group)
            .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"])
            .stderr(Stdio::null())
            .status();
    }
}

fn uuid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap().trim().to_owned()
}

/// True in the process beside systemd; the first one runs that and has no more to do.
async fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        be_the_daemon().await;
        return true;
    }
    let needs = [
        Need::Root,
        Need::Program("unshare"),
        Need::Program("nsenter"),
        Need::Path(SYSTEMD),
        Need::Program("dbus-daemon"),
    ];
    if require(test, &needs) {
        RealSystemd::boot().await.run_inside(test);
    }
    false
}

fn links() -> LinkProcesses {
    LinkProcesses::placed(program(), placement(Wanted::Systemd, SOCKET.into()))
}

/// Control groups of units of links.
fn units() -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(GROUPS).join("peerpods.slice")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
}

/// The daemon: a process in a control group of its own that opens the link and stays. Everything it left in the group ends with it.
struct Daemon {
    child: Child,
    group: PathBuf,
}

impl Daemon {
    fn start(test: &str, sandbox: &Sandbox, wanted: &str) -> Self {
        let group = Path::new(GROUPS).join("daemon");
        fs::create_dir(&group).unwrap();
        let socket = sandbox.spec.agent_socket.display();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(AS_DAEMON, format!("{}\n{socket}\n{wanted}", group.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("link is up")), "the daemon opened no link");
        Self { child, group }
    }

    /// As a container's removal does.
    fn end_with_its_control_group(mut self) {
        fs::write(self.group.join("cgroup.kill"), "1").unwrap();
        self.child.wait().unwrap();
    }
}

/// When this process is the daemon: opens the link and stays.
async fn be_the_daemon() {
    let Ok(told) = std::env::var(AS_DAEMON) else { return };
    let told: Vec<&str> = told.lines().collect();
    fs::write(Path::new(told[0]).join("cgroup.procs"), "0").unwrap();
    let spec = LinkSpec { sandbox: "s1".parse().unwrap(), agent_socket: told[1].into() };
    let wanted = if told[2] == "systemd" { Wanted::Systemd } else { Wanted::Detached };
    LinkProcesses::placed(program(), placement(wanted, SOCKET.into())).open(&spec).await.unwrap();
    println!("link is up");
    std::future::pending().await
}

fn group_of(pid: Pid) -> String {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "boots a systemd in a control group of its own: make systemd-test"]
async fn a_link_in_a_unit_outlives_the_daemons_control_group_and_close_removes_the_unit() {
    const NAME: &str =
        "real_systemd::a_link_in_a_unit_outlives_the_daemons_control_group_and_close_removes_the_unit";
    if !inside(NAME).await {
        return;
    }
    let (guest, sandbox) = (Guest::on().await, Sandbox::new());
    let _agent = guest.agent().await;
    let daemon = Daemon::start(NAME, &sandbox, "systemd");
    let pid = pid_of(&sandbox).await;
    assert!(group_of(pid).ends_with("/peerpods.slice/peerpods-link-s1.service"), "{}", group_of(pid));
    sandbox.links.connect(&sandbox.spec, &guest.target()).await.unwrap();
    let shim = sandbox.shim().await;
    healthy(&shim).await.unwrap();
    daemon.end_with_its_control_group();
    tokio::time::sleep(Duration::from_millis(300)).await;
    healthy(&shim).await.unwrap();
    let successor = links();
    successor.open(&sandbox.spec).await.unwrap();
    assert_eq!(pid_of(&sandbox).await, pid);
    successor.close(&sandbox.spec).await.unwrap();
    assert!(is_gone(pid) && !sandbox.dir.exists());
    eventually("the unit is gone", || units().is_empty()).await;
    // The name is free again, at once and more than once.
    for _ in 0..3 {
        successor.open(&sandbox.spec).await.unwrap();
        successor.close(&sandbox.spec).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "boots a systemd in a control group of its own: make systemd-test"]
async fn a_detached_link_ends_with_the_daemons_control_group() {
    const NAME: &str = "real_systemd::a_detached_link_ends_with_the_daemons_control_group";
    if !inside(NAME).await {
        return;
    }
    let sandbox = Sandbox::new();
    let daemon = Daemon::start(NAME, &sandbox, "detached");
    let pid = pid_of(&sandbox).await;
    daemon.end_with_its_control_group();
    eventually("the link is gone", || is_gone(pid)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "boots a systemd in a control group of its own: make systemd-test"]
async fn a_link_that_hangs_is_ended_and_a_unit_without_sockets_is_found() {
    const NAME: &str = "real_systemd::a_link_that_hangs_is_ended_and_a_unit_without_sockets_is_found";
    if !inside(NAME).await {
        return;
    }
    let sandbox = Sandbox::new();
    let links = links();
    links.open(&sandbox.spec).await.unwrap();
    let pid = pid_of(&sandbox).await;
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    links.close(&sandbox.spec).await.unwrap();
    assert!(is_gone(pid));
    links.open(&sandbox.spec).await.unwrap();
    let pid = pid_of(&sandbox).await;
    for socket in ["link.sock", "agent.ttrpc"] {
        fs::remove_file(sandbox.dir.join(socket)).unwrap();
    }
    links.close(&sandbox.spec).await.unwrap();
    assert!(is_gone(pid));
    eventually("the unit is gone", || units().is_empty()).await;
}
