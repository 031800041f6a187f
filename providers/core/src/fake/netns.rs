//! VMs that are network namespaces: the real guest program and agent behind a real port, and no hypervisor.
//!
//! ```text
//!   this network namespace          ppvm-<tag>-<n>
//!   bridge ppb<tag>  ── veth ──     eth0   peerpods-guest, 15150
//!   first address of the subnet     next addresses
//! ```
//!
//! The guest runs in mount and process namespaces of its own with an empty `/run`: what it mounts and starts ends with it, and
//! what it writes below `/run` is not seen by the host. It has no control groups. Everything on the host carries a tag that is
//! unique on this machine.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ipnet::{IpNet, Ipv4Net};
use peerpods_podvm::image::GuestAdmission;
use tokio::process::{Child, Command};

use super::launcher::{FakeVm, Launch, Launcher};
use super::shell::{ip, ip_batch, kill_all};

/// Prepares the guest's namespaces and stays as their process 1, so that the guest is an ordinary service there and everything
/// ends with it.
const PROCESS_ONE: &str = "set -e; mount -t proc proc /proc; mount -t tmpfs -o mode=755 tmpfs /run; \
                           mkdir /run/netns; \"$@\" & wait $!";

/// How long the guest's namespaces may take to die after SIGKILL.
const DEATH: Duration = Duration::from_secs(5);

/// What [`NetnsVm`] needs to know.
#[derive(Debug, Clone)]
pub struct NetnsOptions {
    /// The program `peerpods-guest`.
    pub guest: PathBuf,
    /// The agent it is to start, such as `miniagent`.
    pub agent: PathBuf,
    /// Where each VM gets a directory for its user data and console. Not below `/run`, which VMs do not see.
    pub dir: PathBuf,
    /// The VMs' network; its first address is the bridge's. Must not be in use on this host.
    pub subnet: Ipv4Net,
}

/// Brings up VMs that are network namespaces. Needs root, iproute2 and util-linux.
pub struct NetnsVm {
    options: NetnsOptions,
    wire: Arc<Wire>,
}

/// The bridge, and the tag of everything this launcher makes. The bridge goes when the last VM and the launcher are gone.
struct Wire {
    tag: String,
    taken: Mutex<BTreeSet<Ipv4Addr>>,
}

impl Wire {
    fn bridge(&self) -> String {
        format!("ppb{}", self.tag)
    }

    fn take(&self, subnet: Ipv4Net) -> Option<Ipv4Addr> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let free = subnet.hosts().skip(1).find(|address| !taken.contains(address))?;
        taken.insert(free);
        Some(free)
    }

    fn give_back(&self, address: Ipv4Addr) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Nobody can be told here; `NetnsVm::leftovers` of another launcher would not see it, `ip link` would.
        let _ = ip(&["link", "del", &self.bridge()]);
    }
}

impl NetnsVm {
    /// Makes the bridge.
    ///
    /// # Errors
    /// When the subnet has no room or the bridge cannot be made.
    pub async fn new(options: NetnsOptions) -> io::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let tag = format!("{:x}{:x}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let gateway = options.subnet.hosts().next().ok_or_else(|| no_room(options.subnet))?;
        let wire = Arc::new(Wire { tag, taken: Mutex::default() });
        let (bridge, length) = (wire.bridge(), options.subnet.prefix_len());
        let commands = [
            format!("link add {bridge} type bridge"),
            format!("addr add {gateway}/{length} dev {bridge}"),
            format!("link set {bridge} up"),
        ];
        ip_batch(None, &commands).await?;
        Ok(Self { options, wire })
    }

    /// The name of the network namespace of the cloud's VM `number`.
    #[must_use]
    pub fn netns(&self, number: u64) -> String {
        format!("ppvm-{}-{number}", self.wire.tag)
    }

    fn gateway(&self) -> Option<Ipv4Addr> {
        self.options.subnet.hosts().next()
    }

    async fn connect(&self, vm: &NetnsGuest) -> io::Result<()> {
        let gateway = self.gateway().ok_or_else(|| no_room(self.options.subnet))?;
        let (netns, veth, bridge) = (&vm.netns, &vm.veth, self.wire.bridge());
        let outside = [
            format!("netns add {netns}"),
            format!("link add {veth} type veth peer name eth0 netns {netns}"),
            format!("link set {veth} master {bridge} up"),
        ];
        ip_batch(None, &outside).await?;
        let inside = [
            "link set lo up".to_owned(),
            format!("addr add {}/{} dev eth0", vm.address, self.options.subnet.prefix_len()),
            "link set eth0 up".to_owned(),
            format!("route add default via {gateway}"),
        ];
        ip_batch(Some(netns), &inside).await
    }

    fn start(&self, vm: &NetnsGuest, launch: &Launch<'_>) -> io::Result<Child> {
        DirBuilder::new().recursive(true).mode(0o700).create(&vm.dir)?;
        let user_data = vm.dir.join("user-data");
        private_file(&user_data)?.write_all(launch.user_data.expose())?;
        let console = private_file(&vm.console())?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &vm.netns]);
        command.args(["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"]);
        command.args(["sh", "-c", PROCESS_ONE, "vm"]).arg(&self.options.guest);
        command.arg("--user-data").arg(&user_data).args(["--listen", "0.0.0.0:15150"]);
        command.arg("--podns").arg(format!("/run/netns/{}-podns", vm.netns));
        command.arg("--run-dir").arg("/run/peerpod").arg("--agent").arg(&self.options.agent);
        command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console).kill_on_drop(true);
        command.spawn().map_err(|e| io::Error::new(e.kind(), format!("cannot start {}: {e}", vm.netns)))
    }
}

#[async_trait]
impl Launcher for NetnsVm {
    async fn launch(&self, launch: Launch<'_>) -> io::Result<Box<dyn FakeVm>> {
        let address = self.wire.take(self.options.subnet).ok_or_else(|| no_room(self.options.subnet))?;
        let netns = self.netns(launch.number);
        let guest = NetnsGuest {
            dir: self.options.dir.join(&netns),
            veth: format!("ppv{}n{}", self.wire.tag, launch.number),
            netns,
            address,
            wire: self.wire.clone(),
            process: Mutex::new(None),
        };
        // From here on dropping `guest` undoes everything.
        self.connect(&guest).await?;
        let child = self.start(&guest, &launch)?;
        *guest.process() = Some(child);
        Ok(Box::new(guest))
    }

    fn worker_address(&self) -> Option<IpNet> {
        Ipv4Net::new(self.gateway()?, self.options.subnet.prefix_len()).ok().map(IpNet::V4)
    }

    /// The guest is the one of this workspace.
    fn guest_admission(&self) -> GuestAdmission {
        GuestAdmission::Token
    }

    fn leftovers(&self) -> Vec<String> {
        let (netns, veth) = (format!("ppvm-{}-", self.wire.tag), format!("ppv{}n", self.wire.tag));
        let namespaces = ip(&["netns", "list"]).unwrap_or_default();
        let links = ip(&["-o", "link", "show"]).unwrap_or_default();
        let mut left = Vec::new();
        left.extend(namespaces.lines().filter(|l| l.starts_with(&netns)).map(|l| format!("namespace {l}")));
        left.extend(links.lines().filter(|l| l.contains(&veth)).map(|l| format!("link {l}")));
        let entries = std::fs::read_dir(&self.options.dir).into_iter().flatten().flatten();
        let files = entries.map(|e| e.file_name().to_string_lossy().into_owned());
        left.extend(files.filter(|name| name.starts_with(&netns)).map(|name| format!("directory {name}")));
        left
    }
}

/// One VM: a namespace and the guest's process tree.
struct NetnsGuest {
    netns: String,
    veth: String,
    dir: PathBuf,
    address: Ipv4Addr,
    wire: Arc<Wire>,
    /// The outermost process; everything else dies with it.
    process: Mutex<Option<Child>>,
}

impl NetnsGuest {
    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    /// Removes namespace, link and files; says what could not be removed. Absence is fine.
    fn clear(&self) -> io::Result<()> {
        // The link first: with the namespace it would go too, but only some time later.
        // Looked for by netlink: /sys shows the network namespace it was mounted in.
        if ip(&["-o", "link", "show"])?.contains(&format!(" {}@", self.veth)) {
            ip(&["link", "del", &self.veth])?;
        }
        if Path::new("/run/netns").join(&self.netns).exists() {
            ip(&["netns", "del", &self.netns])?;
        }
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl FakeVm for NetnsGuest {
    fn addresses(&self) -> Vec<IpAddr> {
        vec![IpAddr::V4(self.address)]
    }

    fn console(&self) -> Option<PathBuf> {
        Some(NetnsGuest::console(self))
    }

    fn running(&self) -> bool {
        self.process().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    async fn power_off(&self) -> io::Result<()> {
        // Dropped half-way, the child is killed all the same.
        let child = self.process().take();
        if let Some(mut child) = child {
            child.kill().await?;
        }
        wait_until_empty(&self.netns).await
    }

    async fn remove(&self) -> io::Result<()> {
        self.power_off().await?;
        self.clear()
    }
}

impl Drop for NetnsGuest {
    fn drop(&mut self) {
        if let Some(child) = self.process().as_mut() {
            // Already dead is fine.
            let _ = child.start_kill();
        }
        let _ = self.clear();
        self.wire.give_back(self.address);
    }
}

/// The guest's children die a moment after the process that was killed. One that was born in that very moment is not tied to its
/// parent's death yet (`unshare` asks for it after the fork), so whoever is still there is killed too.
async fn wait_until_empty(netns: &str) -> io::Result<()> {
    let deadline = tokio::time::Instant::now() + DEATH;
    while Path::new("/run/netns").join(netns).exists() {
        let left = ip(&["netns", "pids", netns])?;
        if left.trim().is_empty() {
            return Ok(());
        }
        kill_all(left.split_whitespace())?;
        if tokio::time::Instant::now() >= deadline {
            return Err(io::Error::other(format!("processes in {netns} outlive SIGKILL")));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn no_room(subnet: Ipv4Net) -> io::Error {
    io::Error::other(format!("no address is free in {subnet}"))
}
