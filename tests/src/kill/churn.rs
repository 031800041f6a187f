//! Sandboxes that come and go while the service is killed: their creations, starts and stops are what kills meet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::Dice;
use crate::node::Pod;
use crate::shim::GoShim;

/// Pod networks of the main sandboxes are below this, those of the others from here to 249.
pub const FIRST_NETWORK: u8 = 200;
/// How long a shim waits for a service that is down before it calls again.
const AGAIN: Duration = Duration::from_millis(100);

/// What became of them.
#[derive(Debug, Default)]
pub struct Tally {
    /// CreateVM was called.
    pub begun: AtomicU32,
    /// StartVM succeeded.
    pub ran: AtomicU32,
    /// Some call failed, which is what kills do.
    pub cut_short: AtomicU32,
}

/// Sandboxes coming and going until stopped.
pub struct Churn {
    end: Arc<AtomicBool>,
    /// What became of them.
    pub tally: Arc<Tally>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Churn {
    /// Begins with `lanes` sandboxes at a time.
    #[must_use]
    pub fn start(shim: &GoShim, seed: u64, lanes: u8) -> Self {
        let (end, tally) = (Arc::<AtomicBool>::default(), Arc::<Tally>::default());
        let lane = |lane: u8| {
            let (shim, end, tally) = (shim.clone(), end.clone(), tally.clone());
            let mut dice = Dice::new(seed ^ (u64::from(lane) << 32));
            tokio::spawn(async move {
                let mut number = 0_u32;
                while !end.load(Ordering::SeqCst) {
                    let network = FIRST_NETWORK + lane * 10 + u8::try_from(number % 10).unwrap();
                    one(&shim, &format!("extra-{lane}-{number}"), network, &mut dice, &tally).await;
                    number += 1;
                }
            })
        };
        let tasks = (0..lanes).map(lane).collect();
        Self { end, tally, tasks }
    }

    /// Lets those that are under way come to their end. The service must be there.
    ///
    /// # Panics
    /// When one does not within two minutes.
    pub async fn stop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        for task in self.tasks.drain(..) {
            tokio::time::timeout(Duration::from_secs(120), task).await.unwrap().unwrap();
        }
    }
}

/// One sandbox's life, as a shim and kubelet lead it: whatever fails, it is stopped, again and again until that is answered.
async fn one(shim: &GoShim, id: &str, network: u8, dice: &mut Dice, tally: &Tally) {
    let pod = Pod::new(network).await;
    tally.begun.fetch_add(1, Ordering::SeqCst);
    let patience = match dice.below(2) {
        0 => dice.millis(400),
        _ => Duration::from_secs(60),
    };
    let life = async {
        shim.create(id, &pod.path).await?;
        // Giving up is a shim that was killed, or a pod that was deleted while it started.
        tokio::time::timeout(patience, shim.start(id)).await.unwrap_or(Ok(()))
    };
    match life.await {
        Ok(()) => tally.ran.fetch_add(1, Ordering::SeqCst),
        Err(_) => tally.cut_short.fetch_add(1, Ordering::SeqCst),
    };
    tokio::time::sleep(dice.millis(200)).await;
    while !matches!(tokio::time::timeout(Duration::from_secs(5), shim.stop(id)).await, Ok(Ok(()))) {
        tokio::time::sleep(AGAIN).await;
    }
}
