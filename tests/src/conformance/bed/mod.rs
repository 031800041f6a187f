//! What the suite runs against: somebody's service on a socket, or our own with a cloud behind it that the suite controls.

mod fake;
mod foreign;
mod qemu;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_trait::async_trait;

pub use fake::FakeBed;
pub use foreign::ForeignBed;
pub use qemu::QemuBed;

use super::play::Rootfs;
use crate::node::Pod;

/// A pod's network for one sandbox. Given back when dropped.
pub struct Place {
    /// The network namespace.
    pub netns: PathBuf,
    /// The pod's address in it.
    pub address: Option<String>,
    /// What the namespace had before.
    pub devices: Vec<String>,
    /// One of the suite's own, which the suite may remove, as the CNI does when a pod is over.
    pub own: Option<Pod>,
    _lease: tokio::sync::OwnedSemaphorePermit,
    give_back: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Before its number is free for the next.
        drop(self.own.take());
        if let Some(give_back) = self.give_back.take() {
            give_back();
        }
    }
}

/// When a service that is under our control collects what nobody stopped.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// The shim's process is gone.
    pub shim_gone: Duration,
    /// Created, never started.
    pub unstarted: Duration,
    /// The pod's network is gone.
    pub netns_gone: Duration,
}

/// One implementation to try.
#[async_trait]
pub trait Bed: Send + Sync {
    /// What it is, for the report.
    fn name(&self) -> String;

    /// The hypervisor socket.
    fn socket(&self) -> PathBuf;

    /// How many sandboxes there may be at a time.
    fn places(&self) -> usize;

    /// A pod's network, as soon as one is free.
    async fn place(&self) -> Place;

    /// What containers are made of; without one there are none.
    fn rootfs(&self) -> Option<Rootfs>;

    /// When sandboxes nobody stopped go; `None` when the service is not ours to look into.
    fn times(&self) -> Option<Times>;

    /// What is left of a sandbox in places only we can see.
    fn remains(&self, id: &str) -> Vec<String>;

    /// Kills the service and starts it again, and waits until it answers.
    async fn restart(&self);

    /// How many VMs were made so far, where that can be counted.
    fn born(&self) -> Option<u64> {
        None
    }

    /// Makes the provider refuse every new VM, or stop doing so; false where it cannot be made to.
    fn refuse_creations(&self, _refuse: bool) -> bool {
        false
    }

    /// Makes the provider take so long for every new VM, until [`Bed::hurry_creations`].
    fn delay_creations(&self, _by: Duration) {}

    /// Undoes [`Bed::delay_creations`].
    fn hurry_creations(&self) {}

    /// The cases that cannot be tried here and are known to. With a service of our own any other case that is skipped has failed.
    fn untriable(&self) -> &'static [&'static str] {
        &[]
    }

    /// Ends the service; what is left of everything.
    async fn end(&self) -> Vec<String>;

    /// The file of the service's log, where it is ours.
    fn log_file(&self) -> Option<PathBuf> {
        None
    }

    /// The end of the service's log, to explain a failure.
    fn log(&self) -> String {
        let log = self.log_file().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// The network devices in a namespace, by name; none where it is gone.
#[must_use]
pub fn devices(netns: &Path) -> Vec<String> {
    let inside = format!("--net={}", netns.display());
    let Ok(listed) = Command::new("nsenter").args([&inside, "ip", "-o", "link"]).output() else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&listed.stdout);
    let name =
        |line: &str| line.split(": ").nth(1).map(|name| name.split('@').next().unwrap_or(name).to_owned());
    text.lines().filter_map(name).collect()
}

/// The first IPv4 address of a namespace that is not its loopback's.
#[must_use]
pub fn address(netns: &Path) -> Option<String> {
    let inside = format!("--net={}", netns.display());
    let listed = Command::new("nsenter").args([&inside, "ip", "-o", "-4", "address"]).output().ok()?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let address = |line: &str| line.split_whitespace().nth(3)?.split('/').next()?.parse::<Ipv4Addr>().ok();
    text.lines().filter_map(address).find(|address| !address.is_loopback()).map(|address| address.to_string())
}

/// Pods of the suite's own, so many at a time.
pub(super) struct Pods {
    free: std::sync::Arc<tokio::sync::Semaphore>,
    /// Taken in turns: the kernel takes a removed namespace's routes away some time later.
    numbers: std::sync::Arc<std::sync::Mutex<VecDeque<u8>>>,
}

impl Pods {
    fn new(at_a_time: u8) -> Self {
        let numbers = (0..=250).collect();
        Self {
            free: std::sync::Arc::new(tokio::sync::Semaphore::new(at_a_time.into())),
            numbers: std::sync::Arc::new(std::sync::Mutex::new(numbers)),
        }
    }

    async fn place(&self) -> Place {
        let lease = self.free.clone().acquire_owned().await.unwrap();
        let number = self.numbers.lock().unwrap().pop_front().unwrap();
        let pod = Pod::new(number).await;
        let numbers = self.numbers.clone();
        Place {
            netns: pod.path.clone(),
            address: Some(pod.address.to_string()),
            devices: devices(&pod.path),
            own: Some(pod),
            _lease: lease,
            give_back: Some(Box::new(move || numbers.lock().unwrap().push_back(number))),
        }
    }
}
