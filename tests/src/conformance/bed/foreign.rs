//! Somebody's service, of which nothing is known but its socket, and pods' networks that somebody made.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::{Bed, Place, Times, address, devices};
use crate::conformance::play::Rootfs;

/// A service that is there.
pub struct ForeignBed {
    socket: PathBuf,
    networks: Arc<Mutex<Vec<PathBuf>>>,
    free: Arc<Semaphore>,
    count: usize,
    rootfs: Option<Rootfs>,
}

impl ForeignBed {
    /// The service behind `socket`, with one sandbox at a time in each network namespace.
    #[must_use]
    pub fn new(socket: PathBuf, networks: Vec<PathBuf>, rootfs: Option<Rootfs>) -> Self {
        let count = networks.len();
        let free = Arc::new(Semaphore::new(count));
        Self { socket, networks: Arc::new(Mutex::new(networks)), free, count, rootfs }
    }
}

#[async_trait]
impl Bed for ForeignBed {
    fn name(&self) -> String {
        format!("the service behind {}", self.socket.display())
    }

    fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    fn places(&self) -> usize {
        self.count
    }

    async fn place(&self) -> Place {
        let lease = self.free.clone().acquire_owned().await.unwrap();
        let netns = self.networks.lock().unwrap().pop().unwrap();
        let (networks, path) = (self.networks.clone(), netns.clone());
        Place {
            address: address(&netns),
            devices: devices(&netns),
            own: None,
            netns,
            _lease: lease,
            give_back: Some(Box::new(move || networks.lock().unwrap().push(path))),
        }
    }

    fn rootfs(&self) -> Option<Rootfs> {
        self.rootfs.clone()
    }

    fn times(&self) -> Option<Times> {
        None
    }

    fn remains(&self, _: &str) -> Vec<String> {
        Vec::new()
    }

    async fn restart(&self) {}

    async fn end(&self) -> Vec<String> {
        Vec::new()
    }
}
