//! Our service as a process, with the fake cloud in this one: VMs are network namespaces with the real guest and miniagent in them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use peerpods_provider::ErrorKind;
use peerpods_provider::fake::{Calls, FakeCloud, Fault, Operation};
use tokio::sync::Mutex;

use super::{Bed, Place, Pods, Times};
use crate::conformance::play::Rootfs;
use crate::kill::node::KilledNode;
use crate::node::{processes_naming, settled};

/// Sandboxes at a time.
const PODS: u8 = 32;
const TIMES: Times = Times {
    shim_gone: Duration::from_secs(3),
    unstarted: Duration::from_secs(20),
    netns_gone: Duration::from_secs(5),
};

/// The service and its cloud.
pub struct FakeBed {
    node: Mutex<KilledNode>,
    cloud: Arc<FakeCloud>,
    dir: PathBuf,
    userland: PathBuf,
    pods: Pods,
}

impl FakeBed {
    /// Starts the service. The thread must be in a network namespace of its own.
    pub async fn start() -> Self {
        let mut node = KilledNode::new().await;
        let seconds = |time: Duration| time.as_secs();
        node.configure(&[
            format!("shim-gone={}", seconds(TIMES.shim_gone)),
            format!("unstarted={}", seconds(TIMES.unstarted)),
            format!("netns-gone={}", seconds(TIMES.netns_gone)),
        ]);
        node.boot();
        node.ready().await;
        let (cloud, userland) = (node.cloud.clone(), node.userland());
        let dir = node.socket().parent().unwrap().to_owned();
        Self { node: Mutex::new(node), cloud, dir, userland, pods: Pods::new(PODS) }
    }
}

#[async_trait]
impl Bed for FakeBed {
    fn name(&self) -> String {
        "peerpods, fake provider (VMs are network namespaces)".to_owned()
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("hypervisor.sock")
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
        let machines = self.cloud.machines();
        let own = machines.iter().filter(|made| made.key.sandbox.as_str() == id);
        let mut left: Vec<String> = own.map(|made| format!("VM {}", made.instance.id)).collect();
        for place in [format!("pods/{id}"), format!("state/journal/{id}.json")] {
            left.extend(Some(self.dir.join(place)).filter(|p| p.exists()).map(|p| p.display().to_string()));
        }
        left.extend(processes_naming(id));
        left
    }

    async fn restart(&self) {
        let mut node = self.node.lock().await;
        node.kill_9();
        node.boot();
        node.ready().await;
    }

    fn born(&self) -> Option<u64> {
        Some(self.cloud.born())
    }

    fn refuse_creations(&self, refuse: bool) -> bool {
        if refuse {
            self.cloud.script(Operation::Create, Calls::All, Fault::Fail(ErrorKind::Denied));
        } else {
            self.cloud.heal();
        }
        true
    }

    fn delay_creations(&self, by: Duration) {
        self.cloud.script(Operation::Create, Calls::All, Fault::Delay(by));
    }

    fn hurry_creations(&self) {
        self.cloud.heal();
    }

    fn untriable(&self) -> &'static [&'static str] {
        // Where a network namespace is made and its guest answers sooner than that.
        &["request/start-with-50-ms"]
    }

    async fn end(&self) -> Vec<String> {
        let mut node = self.node.lock().await;
        node.terminate().await;
        settled(|| node.leftovers()).await
    }

    fn log_file(&self) -> Option<PathBuf> {
        Some(self.dir.join("log"))
    }
}
