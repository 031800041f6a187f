//! A node with its daemon: started, killed and started again on what survives.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use peerpods_hypervisor::clock::WallClock;
use peerpods_hypervisor::{Config, Parts, Service};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::invariants::{self, Invariant};
use super::plan::Sabotage;
use super::world::{Incarnation, World};

/// How long a daemon is given to put everything in order after a start.
const SETTLING: Duration = Duration::from_secs(300);
/// StartVM's budget in the simulation.
pub const START_DEADLINE: Duration = Duration::from_secs(120);

/// The node.
pub struct Node {
    /// What it is in.
    pub world: Arc<World>,
    /// The certificate authority of all nodes: making one for every life would take the most time of all.
    authority: PathBuf,
    serving: Mutex<Option<(u64, Service)>>,
}

impl Node {
    /// A node without a daemon.
    #[must_use]
    pub fn new(world: Arc<World>, authority: PathBuf) -> Arc<Self> {
        Arc::new(Self { world, authority, serving: Mutex::new(None) })
    }

    /// The service that answers now, and its incarnation.
    pub fn service(&self) -> Option<(u64, Service)> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn serve(&self, service: Option<(u64, Service)>) {
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = service;
    }

    /// Starts the daemon again whenever it has died.
    pub async fn supervise(&self) {
        for number in 1.. {
            self.one_life(number).await;
            self.serve(None);
            invariants::after_a_death(&self.world);
            let mut luck = self.world.luck("node", "downtime");
            if luck.chance(self.world.plan.reboots) {
                self.reboot();
            }
            let down = if luck.chance(200) { luck.between(0, 120_000) } else { luck.between(0, 5_000) };
            sleep(Duration::from_millis(down)).await;
        }
    }

    async fn one_life(&self, number: u64) {
        let world = &self.world;
        world.begin(number);
        let opened = tokio::select! {
            biased;
            () = world.death_of(number) => return,
            opened = self.open(number) => opened,
        };
        match opened {
            Ok(service) => self.look_after(number, service).await,
            Err(text) => {
                world.violated(Invariant::Answered, &format!("the service does not start: {text}"));
                sleep(Duration::from_secs(5)).await;
            }
        }
    }

    async fn look_after(&self, number: u64, service: Service) {
        self.serve(Some((number, service.clone())));
        tokio::select! {
            biased;
            () = self.world.death_of(number) => {}
            () = self.settle(&service) => self.world.death_of(number).await,
        }
        self.serve(None);
        // Its tasks cannot do anything any more; this ends most of them.
        drop(timeout(Duration::ZERO, service.drained()).await);
    }

    async fn settle(&self, service: &Service) {
        sleep(Duration::from_secs(1)).await;
        invariants::when_started(&self.world, service);
        sleep(SETTLING).await;
        invariants::when_settled(&self.world, service);
    }

    async fn open(&self, number: u64) -> Result<Service, String> {
        let state_dir = self.world.dir.join(format!("state-{number}"));
        make_dir(&state_dir)?;
        symlink(&self.authority, state_dir.join("ca")).map_err(|e| e.to_string())?;
        let incarnation = Arc::new(Incarnation { world: self.world.clone(), number });
        let parts = Parts {
            provider: incarnation.clone(),
            tunnel: incarnation.clone(),
            link: incarnation.clone(),
            ledger: incarnation.clone(),
            journal: incarnation,
        };
        let config = configuration(&self.world, state_dir);
        peerpods_hypervisor::open(config, parts, CancellationToken::new()).await.map_err(|e| format!("{e:?}"))
    }

    /// The node goes down and comes back: what is in memory and under `/run` is gone, VMs and the disk are not.
    fn reboot(&self) {
        self.world.note("the node reboots");
        let pods: Vec<(String, PathBuf)> = {
            let mut state = self.world.state();
            state.kernel.devices.clear();
            state.links.processes.clear();
            state.links.keys.clear();
            for record in state.disk.records.values_mut() {
                "an earlier boot".clone_into(&mut record.boot_id);
            }
            for sandbox in state.pods.sandboxes.values_mut() {
                sandbox.netns_there = false;
                sandbox.shim_lives = false;
                sandbox.doomed = Some("its node went down");
            }
            state.pods.sandboxes.iter().map(|(id, sandbox)| (id.clone(), sandbox.netns.clone())).collect()
        };
        for (id, netns) in pods {
            drop(fs::remove_file(netns));
            drop(fs::remove_dir_all(self.world.dir.join("pods").join(id)));
        }
    }
}

/// The world's time of day, which goes on while no daemon lives.
fn clock(world: &Arc<World>) -> WallClock {
    const BEGAN: Duration = Duration::from_secs(1_700_000_000);
    let world = world.clone();
    WallClock::told_by(move || BEGAN + Duration::from_millis(world.now()))
}

fn configuration(world: &Arc<World>, state_dir: PathBuf) -> Config {
    let limit = u32::try_from(world.plan.limit).ok();
    Config {
        limit_per_node: limit.filter(|_| world.plan.sabotage != Some(Sabotage::NoLimit)),
        pods_dir: world.dir.join("pods"),
        state_dir,
        cluster_id: "simulation".parse().ok(),
        start_deadline: START_DEADLINE,
        sweep_interval: Duration::from_secs(15),
        clock: clock(world),
        ..Config::default()
    }
}

fn make_dir(path: &Path) -> Result<(), String> {
    fs::DirBuilder::new().mode(0o700).create(path).map_err(|e| e.to_string())
}
