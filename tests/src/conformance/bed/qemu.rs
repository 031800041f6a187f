//! The real programs with real VMs: `peerpods hypervisor` and QEMU.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::task::block_in_place;

use super::{Bed, Place, Pods, Times};
use crate::conformance::play::Rootfs;
use crate::daemon::Daemon;
use crate::node::{processes_naming, settled};

/// VMs at a time: booting one takes all of a processor.
const PODS: u8 = 3;
const TIMES: Times = Times {
    shim_gone: Duration::from_secs(3),
    unstarted: Duration::from_secs(20),
    netns_gone: Duration::from_secs(5),
};
/// How many digits of a sandbox's id a VM's name has.
const IN_NAMES: usize = 8;

/// The service.
pub struct QemuBed {
    daemon: Mutex<Daemon>,
    socket: PathBuf,
    userland: PathBuf,
    pods: Pods,
}

impl QemuBed {
    /// Starts the service on this image.
    #[must_use]
    pub fn start(image: PathBuf) -> Self {
        let userland = peerpods::sandbox::spec::userland(&image).unwrap();
        let ttl = |name: &str, time: Duration| format!("{name}-ttl = \"{}s\"\n", time.as_secs());
        let lines = [
            ttl("shim-gone", TIMES.shim_gone),
            ttl("unstarted", TIMES.unstarted),
            ttl("netns-gone", TIMES.netns_gone),
        ];
        let daemon = Daemon::start_configured(image, &lines.concat());
        let socket = daemon.socket();
        Self { daemon: Mutex::new(daemon), socket, userland: userland.into(), pods: Pods::new(PODS) }
    }

    fn dir(&self) -> PathBuf {
        self.socket.parent().unwrap().to_owned()
    }
}

#[async_trait]
impl Bed for QemuBed {
    fn name(&self) -> String {
        "peerpods, QEMU (software emulation)".to_owned()
    }

    fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    fn places(&self) -> usize {
        PODS.into()
    }

    async fn place(&self) -> Place {
        self.pods.place().await
    }

    fn rootfs(&self) -> Option<Rootfs> {
        Some(Rootfs::Directory(self.userland.clone()))
    }

    fn times(&self) -> Option<Times> {
        Some(TIMES)
    }

    fn remains(&self, id: &str) -> Vec<String> {
        let name = id.get(..IN_NAMES).unwrap_or(id);
        let mut left = processes_naming(name);
        for place in ["pods", "state/journal", "vms", "qemu"] {
            let entries = std::fs::read_dir(self.dir().join(place)).into_iter().flatten().flatten();
            let paths = entries.map(|entry| entry.path().display().to_string());
            left.extend(paths.filter(|path| path.contains(name) && !path.ends_with("lock")));
        }
        left
    }

    async fn restart(&self) {
        let mut daemon = self.daemon.lock().await;
        block_in_place(|| {
            daemon.kill_9();
            daemon.boot();
        });
    }

    fn untriable(&self) -> &'static [&'static str] {
        // QEMU neither counts the VMs it made nor can be told to fail.
        &["own/createvm-makes-no-vm", "own/three-starts-one-vm", "own/start-fails-at-the-provider"]
    }

    async fn end(&self) -> Vec<String> {
        let mut daemon = self.daemon.lock().await;
        block_in_place(|| {
            daemon.signal(nix::sys::signal::Signal::SIGTERM);
            daemon.ended();
        });
        // The bridge is the node's, and goes with the last VM; what the kernel removes goes a little later.
        settled(|| daemon.leftovers()).await
    }

    fn log_file(&self) -> Option<PathBuf> {
        Some(self.dir().join("log"))
    }
}
