use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::installer::Runtime;
use crate::installer::containerd::MAIN;
use crate::installer::plan::Files;
use crate::installer::units::UnitError;

/// containerd, counting its restarts.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

#[async_trait::async_trait]
impl Units for Counting {
    async fn runs(&self, runtime: Runtime) -> Result<bool, UnitError> {
        Ok(runtime == Runtime::Containerd)
    }

    async fn restart(&self, _: Runtime) -> Result<(), UnitError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

struct Node(tempfile::TempDir);

impl Node {
    fn new() -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        for directory in ["etc/containerd", "var/lib", "opt", "usr/bin"] {
            fs::create_dir_all(node.0.path().join(directory)).unwrap();
        }
        fs::write(node.0.path().join("usr/bin/containerd-shim-kata-v2"), "").unwrap();
        node.put("version = 2\n");
        node
    }

    fn put(&self, text: &str) {
        fs::write(self.0.path().join(&MAIN[1..]), text).unwrap();
    }

    fn get(&self) -> String {
        fs::read_to_string(self.0.path().join(&MAIN[1..])).unwrap()
    }

    /// Stays on it, with a file for its readiness.
    fn stay(
        &self,
        wish: Wish,
        units: &Counting,
    ) -> (ReadyFile, tokio::task::JoinHandle<Result<(), StayError>>) {
        let ready = ReadyFile::at(&self.0.path().join(match wish {
            Wish::Nothing => "removed",
            Wish::Files(_) => "installed",
        }));
        let (host, units, file) = (Host::at(self.0.path()).unwrap(), units.clone(), ready.clone());
        let staying = tokio::spawn(async move {
            stay(&host, &units, &wish, &file, Duration::from_millis(50), |_| {}).await
        });
        (ready, staying)
    }
}

fn files() -> Wish {
    let classes = vec!["kata-remote-cc".to_owned()];
    Wish::Files(Files { classes, hypervisor_timeout: 900, log_level: None })
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1500 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn it_is_ready_when_done_and_puts_right_what_somebody_changes() {
    let (node, units) = (Node::new(), Counting::default());
    let (ready, staying) = node.stay(files(), &units);
    until("ready", || ready.is_there()).await;
    let good = node.get();
    assert_eq!((good.contains("kata-remote-cc"), units.0.load(Ordering::SeqCst)), (true, 1));
    sleep(Duration::from_millis(1200)).await;
    assert_eq!(units.0.load(Ordering::SeqCst), 1, "looking restarts nothing");
    node.put("version = 2\n");
    until("put right", || node.get() == good).await;
    assert_eq!(units.0.load(Ordering::SeqCst), 2);
    node.put("version = 1\n");
    let ended = staying.await.unwrap().unwrap_err().to_string();
    assert!(ended.contains("containerd config migrate") && !ready.is_there(), "{ended}");
}

#[tokio::test]
async fn whoever_removes_waits_for_whoever_places() {
    let (node, units) = (Node::new(), Counting::default());
    let (placed, placing) = node.stay(files(), &units);
    until("placed", || placed.is_there()).await;
    let (removed, removing) = node.stay(Wish::Nothing, &units);
    sleep(Duration::from_millis(1200)).await;
    assert!(!removed.is_there() && node.get().contains("kata-remote-cc"), "the other one still works here");
    placing.abort();
    until("removed", || removed.is_there()).await;
    assert_eq!(node.get(), "version = 2\n");
    removing.abort();
}
