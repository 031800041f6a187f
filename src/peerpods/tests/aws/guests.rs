//! What stands behind moto's instances, which have an address and nothing there: for each a network namespace with the real guest
//! programs, started with the user data of the call. The instance is told to have the guest's address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use peerpods_provider::UserData;
use peerpods_provider::fake::{FakeVm, Launch, Launcher as _, NetnsOptions, NetnsVm};
use tokio::sync::Mutex;

use crate::form::Parameters;

/// Where `make test` and `make aws-test` say that the guest programs are.
pub(crate) const PROGRAMS: &str = "PEERPODS_TEST_GUEST_PROGRAMS";

/// The guest ends of one node, by instance.
pub(crate) struct Guests {
    launcher: NetnsVm,
    launched: AtomicU64,
    running: Mutex<BTreeMap<String, Box<dyn FakeVm>>>,
}

impl Guests {
    /// None yet. `dir` is not below `/run`, which guests do not see.
    pub(crate) async fn new(dir: &Path) -> Self {
        let programs = std::path::PathBuf::from(std::env::var_os(PROGRAMS).unwrap());
        let options = NetnsOptions {
            guest: programs.join("peerpods-guest"),
            agent: programs.join("miniagent"),
            dir: dir.join("vms"),
            subnet: "10.154.0.0/24".parse().unwrap(),
        };
        let launcher = NetnsVm::new(options).await.unwrap();
        Self { launcher, launched: AtomicU64::new(0), running: Mutex::default() }
    }

    /// The interface of this node that guests are behind.
    pub(crate) fn interface(&self) -> String {
        let address = self.launcher.worker_address().unwrap().addr().to_string();
        let listed = Command::new("ip").args(["-o", "-4", "address", "show", "to", &address]).output();
        let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
        listed.split_whitespace().nth(1).unwrap().to_owned()
    }

    /// Starts the guest of an instance, unless it has one; `run` are the parameters of the call that made it.
    pub(crate) async fn launch(&self, instance: &str, run: &Parameters) {
        let mut running = self.running.lock().await;
        if running.contains_key(instance) {
            return;
        }
        let user_data = UserData::new(STANDARD.decode(&run["UserData"]).unwrap());
        let number = self.launched.fetch_add(1, Ordering::Relaxed) + 1;
        let vm = self.launcher.launch(Launch { number, name: instance, user_data: &user_data }).await;
        running.insert(instance.to_owned(), vm.unwrap());
    }

    /// Ends the guest of an instance, if it has one.
    pub(crate) async fn end(&self, instance: &str) {
        if let Some(vm) = self.running.lock().await.remove(instance) {
            vm.remove().await.unwrap();
        }
    }

    /// Ends all guests, whatever becomes of their instances.
    pub(crate) async fn end_all(&self) {
        for (_, vm) in std::mem::take(&mut *self.running.lock().await) {
            // A test that failed is told of that, not of this.
            drop(vm.remove().await);
        }
    }

    /// An answer in which instances with a guest have its address.
    pub(crate) async fn readdress(&self, xml: &str) -> String {
        let running = self.running.lock().await;
        let address = |instance: &str| running.get(instance).and_then(|vm| vm.addresses().first().copied());
        readdressed(xml, &address)
    }
}

/// Replaces the private addresses that follow an instance's id, as far as the next instance's.
fn readdressed(xml: &str, address: &dyn Fn(&str) -> Option<IpAddr>) -> String {
    const ID: &str = "<instanceId>";
    const OPEN: &str = "<privateIpAddress>";
    let mut parts = xml.split(ID);
    let mut told = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let own = address(part.split('<').next().unwrap_or_default());
        let mut pieces = part.split(OPEN);
        told += ID;
        told += pieces.next().unwrap_or_default();
        for piece in pieces {
            let (old, rest) = piece.split_once('<').unwrap_or_default();
            let new = own.map_or_else(|| old.to_owned(), |own| own.to_string());
            told += &format!("{OPEN}{new}<{rest}");
        }
    }
    told
}

#[test]
fn an_instance_with_a_guest_is_told_to_be_where_the_guest_is() {
    let one = |id: &str, address: &str| {
        format!("<item><instanceId>{id}</instanceId><privateIpAddress>{address}</privateIpAddress></item>")
    };
    let xml = format!("<a>{}{}</a>", one("i-1", "10.0.0.1"), one("i-2", "10.0.0.2"));
    let guest = |id: &str| (id == "i-2").then(|| "10.154.0.2".parse().unwrap());
    let expected = format!("<a>{}{}</a>", one("i-1", "10.0.0.1"), one("i-2", "10.154.0.2"));
    assert_eq!(readdressed(&xml, &guest), expected);
}
