//! VMs that are network namespaces, with a shell script in the guest's place: made, reached, killed, and nothing left.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what tests share panics as tests do")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ipnet::Ipv4Net;
use peerpods_provider::contract::{self, Subject};
use peerpods_provider::fake::{FakeCloud, NetnsOptions, NetnsVm};
use peerpods_provider::{Console, Instance, Provider, UserData, VmKey, VmSize, VmSpec, VmState};
use peerpods_test_require::{Need, require};

const NEEDS: &[Need] = &[Need::Root, Need::NetworkNamespaces, Need::Program("ip"), Need::Program("unshare")];

/// Says what it was told, leaves a child behind, and stays.
const GUEST: &str = "#!/bin/sh\necho \"guest $*\"\necho \"pid $$\"\nmkdir -p /run/peerpod\nmount -t tmpfs none /mnt\n\
                     sleep 9876NUMBER &\nexec sleep 9876NUMBER\n";

/// A cloud in the network 10.203.`number`.0/24; the number also marks its guests' processes.
async fn cloud(dir: &Path, number: u8) -> Arc<FakeCloud> {
    let guest = dir.join("guest");
    std::fs::write(&guest, GUEST.replace("NUMBER", &number.to_string())).unwrap();
    std::fs::set_permissions(&guest, std::fs::Permissions::from_mode(0o755)).unwrap();
    let subnet = Ipv4Net::new([10, 203, number, 0].into(), 24).unwrap();
    let options = NetnsOptions { guest, agent: "/bin/true".into(), dir: dir.join("vms"), subnet };
    FakeCloud::new(NetnsVm::new(options).await.unwrap())
}

fn spec(name: &str) -> VmSpec {
    VmSpec {
        name: name.to_owned(),
        image: None,
        machine_type: None,
        size: VmSize::default(),
        user_data: UserData::new("#cloud-config\n"),
        tags: BTreeMap::new(),
    }
}

struct NetnsSubject(Arc<FakeCloud>);

#[async_trait]
impl Subject for NetnsSubject {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(self.0.provider())
    }

    fn spec(&self, name: &str, tags: BTreeMap<String, String>) -> VmSpec {
        VmSpec { tags, ..spec(name) }
    }

    async fn kill(&self, key: &VmKey) -> Result<(), String> {
        self.0.power_off(key).await.map_err(|e| e.to_string())
    }

    async fn tags(&self, key: &VmKey) -> Result<BTreeMap<String, String>, String> {
        let machines = self.0.machines();
        machines.into_iter().find(|m| m.key == *key).map(|m| m.spec.tags).ok_or_else(|| "none".to_owned())
    }

    async fn leftovers(&self) -> Vec<String> {
        self.0.leftovers()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn namespace_vms_keep_the_contract() {
    if !require("namespace_vms_keep_the_contract", NEEDS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let subject = NetnsSubject(cloud(dir.path(), 101).await);
    assert_eq!(contract::check(&subject).await, Ok(contract::CASES.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_vm_is_reached_by_its_address_and_ends_with_its_children() {
    if !require("a_namespace_vm_is_reached_by_its_address_and_ends_with_its_children", NEEDS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path(), 102).await;
    let provider = cloud.provider();
    let key = VmKey { cluster: "c".parse().unwrap(), sandbox: "s".parse().unwrap() };
    let vm = provider.create(&key, &spec("podvm-a")).await.unwrap();
    assert_eq!(vm.state, VmState::Running);
    let said = said(&vm).await;
    assert!(said.contains("--listen 0.0.0.0:15150 --podns /run/netns/ppvm-"), "{said}");
    assert!(!said.contains("pid 1\n"), "the guest must not think it is an init: {said}");
    let answers = tokio::net::TcpStream::connect((vm.addresses[0], 15150)).await.unwrap_err();
    assert_eq!(answers.kind(), std::io::ErrorKind::ConnectionRefused, "the VM itself must answer");

    let bridge = bridge_of(&vm);
    // It says that it is there before its child runs, and itself becomes the other.
    for _ in 0..400 {
        if sleepers(102) == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(sleepers(102), 2);
    provider.delete(&key).await.unwrap();
    assert_eq!((sleepers(102), cloud.leftovers()), (0, Vec::new()));
    assert!(Path::new("/sys/class/net").join(&bridge).exists());
    drop((provider, cloud));
    assert!(!Path::new("/sys/class/net").join(&bridge).exists(), "{bridge} outlives its cloud");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_is_dropped_with_vms_in_it_leaves_nothing() {
    if !require("a_cloud_that_is_dropped_with_vms_in_it_leaves_nothing", NEEDS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cloud = cloud(dir.path(), 103).await;
    let key = VmKey { cluster: "c".parse().unwrap(), sandbox: "s".parse().unwrap() };
    let vm = cloud.provider().create(&key, &spec("podvm-a")).await.unwrap();
    let bridge = bridge_of(&vm);
    let tag = bridge.strip_prefix("ppb").unwrap().to_owned();
    drop(cloud);
    assert!(!Path::new("/sys/class/net").join(&bridge).exists());
    let namespaces = Command::new("ip").args(["netns", "list"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&namespaces.stdout).contains(&tag));
    assert!(std::fs::read_dir(dir.path().join("vms")).unwrap().next().is_none());
}

async fn said(vm: &Instance) -> String {
    let Some(Console::File(path)) = &vm.console else { panic!("no console: {vm:?}") };
    for _ in 0..200 {
        let text = std::fs::read_to_string(path).unwrap();
        if text.contains("pid ") {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the guest never said anything");
}

/// The bridge that carries the VM, by the route to it.
fn bridge_of(vm: &Instance) -> String {
    let address = vm.addresses[0].to_string();
    let route = Command::new("ip").args(["route", "get", &address]).output().unwrap();
    let text = String::from_utf8(route.stdout).unwrap();
    text.split_whitespace().skip_while(|w| *w != "dev").nth(1).unwrap().to_owned()
}

/// Processes of the stand-in guest, wherever they are.
fn sleepers(number: u8) -> usize {
    let sleeper = format!("sleep\0{}\0", 9_876_000 + u32::from(number));
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok());
    lines.filter(|line| line == sleeper.as_bytes()).count()
}
