//! The guest as PID 1 of a real VM: QEMU, a Debian kernel and the image the builder makes.
//!
//! `make test` builds the image and names its directory in `PEERPODS_TEST_IMAGE`. The VM runs under TCG with user-mode networking, so
//! no root is needed and nothing of this machine's network is touched.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bed;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bed::{Worker, serves};
use peerpods_podvm::image::{DESCRIPTION, INITRAMFS, KERNEL, QemuImage};
use peerpods_podvm::network::PodNetwork;
use peerpods_podvm::user_data::FW_CFG_NAME;
use peerpods_test_require::{Need, require};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

const IMAGE: &str = "PEERPODS_TEST_IMAGE";
const NEEDS: [Need; 3] =
    [Need::Variable(IMAGE), Need::Program("qemu-system-x86_64"), Need::Program("timeout")];
/// A busy machine with an emulated guest is slow; a boot is 3 s on a quiet one.
const PATIENCE: Duration = Duration::from_secs(120);
/// One try; user-mode networking takes connections for a guest that does not listen yet and answers nothing.
const TRY: Duration = Duration::from_secs(1);
/// What QEMU's user-mode network gives its guest.
const UNDERLAY: &str = "peerpods.underlay=10.0.2.15/24,10.0.2.2,1500";

fn pod_network() -> PodNetwork {
    let text = r#"{"podip":"10.244.0.5/24","pod-hw-addr":"02:00:00:aa:bb:cc","interface":"eth0",
        "worker-node-ip":"10.0.2.2/24","tunnel-type":"vxlan","mtu":1450,"vxlan-port":9000,"vxlan-id":555001,
        "routes":[{"dst":"0.0.0.0/0","gw":"10.244.0.1","dev":"eth0","protocol":"boot"}],"neighbors":null}"#;
    serde_json::from_str(text).unwrap()
}

/// A VM; killed when dropped.
struct Vm {
    qemu: Child,
    dir: tempfile::TempDir,
    port: SocketAddr,
}

impl Vm {
    fn boot(user_data: &str, underlay: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("user-data"), user_data).unwrap();
        let port = free_port();
        // `timeout` ends the VM even when this test is killed.
        let qemu = Command::new("timeout")
            .args(["--kill-after=5", "180", "qemu-system-x86_64"])
            .args(arguments(&PathBuf::from(std::env::var_os(IMAGE).unwrap()), dir.path(), port, underlay))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { qemu, dir, port }
    }

    fn console(&self) -> String {
        let bytes = fs::read(self.dir.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for QEMU to end by itself, which is what a guest's power-off does.
    fn wait_for_power_off(&mut self) {
        let started = Instant::now();
        while self.qemu.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < PATIENCE, "the VM did not power off:\n{}", self.console());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // TERM, because `timeout` passes it on and a KILL would leave QEMU alone.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.qemu.id()).unwrap());
        if matches!(self.qemu.try_wait(), Ok(None)) {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        let _ = self.qemu.wait();
    }
}

/// Asks again and again until the agent answers that it serves; the time that took.
async fn wait_for_agent(vm: &Vm, worker: &Worker) -> Duration {
    let started = Instant::now();
    loop {
        let attempt = async { serves(&mut worker.secure(TcpStream::connect(vm.port).await?).await?).await };
        let last = match timeout(TRY, attempt).await {
            Ok(Ok(())) => return started.elapsed(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        assert!(started.elapsed() < PATIENCE, "the agent did not answer ({last}):\n{}", vm.console());
        sleep(Duration::from_millis(20)).await;
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn arguments(image: &Path, dir: &Path, port: SocketAddr, underlay: &str) -> Vec<String> {
    let description: QemuImage = serde_json::from_slice(&fs::read(image.join(DESCRIPTION)).unwrap()).unwrap();
    let append = format!("{} nokaslr mitigations=off {underlay}", description.kernel_arguments.join(" "));
    let at = |path: PathBuf| path.display().to_string();
    let fixed = "-nodefaults -no-user-config -no-reboot -display none -accel tcg -cpu max -machine q35 -m 256 \
                 -device virtio-net-pci,netdev=n0,romfile= -device virtio-rng-pci";
    let mut arguments: Vec<String> = fixed.split_ascii_whitespace().map(str::to_owned).collect();
    for (flag, value) in [
        ("-kernel", at(image.join(KERNEL))),
        ("-initrd", at(image.join(INITRAMFS))),
        ("-append", append),
        ("-serial", format!("file:{}", at(dir.join("console")))),
        ("-fw_cfg", format!("name={FW_CFG_NAME},file={}", at(dir.join("user-data")))),
        ("-netdev", format!("user,id=n0,restrict=on,hostfwd=tcp:{port}-:15150")),
    ] {
        arguments.extend([flag.to_owned(), value]);
    }
    arguments
}

#[tokio::test]
async fn a_vm_boots_and_its_agent_answers_over_the_link() {
    if !require("a_vm_boots_and_its_agent_answers_over_the_link", &NEEDS) {
        return;
    }
    let worker = Worker::new(pod_network());
    let mut vm = Vm::boot(worker.user_data(), UNDERLAY);
    let took = wait_for_agent(&vm, &worker).await;
    let console = vm.console();
    println!("the agent answered {took:?} after QEMU was started\n{console}");
    let steps = ["kernel ", "mounts ", "modules ", "network ", "service "];
    let places: Vec<_> = steps.iter().map(|step| console.find(&format!("peerpods-guest: {step}"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}\n{console}");
    assert!(console.contains("10.244.0.5/24 on eth0"), "{console}");
    assert!(vm.qemu.try_wait().unwrap().is_none(), "the VM does not run any more");
}

#[test]
fn a_broken_message_is_named_on_the_console_and_the_vm_powers_off() {
    if !require("a_broken_message_is_named_on_the_console_and_the_vm_powers_off", &NEEDS) {
        return;
    }
    let mut vm = Vm::boot("#cloud-config\nwrite_files: []\n", UNDERLAY);
    vm.wait_for_power_off();
    let console = vm.console();
    assert!(console.contains("the user data has no /run/peerpod/apf.json"), "{console}");
    assert!(console.contains("FATAL"), "{console}");
}

#[test]
fn a_vm_without_a_network_of_its_own_says_so_and_powers_off() {
    if !require("a_vm_without_a_network_of_its_own_says_so_and_powers_off", &NEEDS) {
        return;
    }
    let mut vm = Vm::boot("#cloud-config\n", "");
    vm.wait_for_power_off();
    assert!(vm.console().contains("has no peerpods.underlay="), "{}", vm.console());
}
