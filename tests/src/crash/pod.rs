//! What kubelet and the shims know of the pods: the truth that the daemon's doings are held against.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::world::State;

/// The pods' sandboxes, by id.
#[derive(Default)]
pub struct Pods {
    /// All that ever were.
    pub sandboxes: BTreeMap<String, Sandbox>,
}

/// One sandbox as its shim sees it.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// Its network namespace.
    pub netns: PathBuf,
    lane: u64,
    /// The namespace is there.
    pub netns_there: bool,
    /// The shim's process lives.
    pub shim_lives: bool,
    /// StartVM was answered with success.
    pub running: bool,
    /// StopVM was called.
    pub stop_asked: bool,
    /// StopVM was answered with success.
    pub stop_answered: bool,
    /// Why it is over although nobody stopped it: its link ended, or its node.
    pub doomed: Option<&'static str>,
}

impl Pods {
    /// A new sandbox with its namespace and shim.
    pub fn add(&mut self, id: &str, netns: PathBuf) {
        let lane = u64::try_from(self.sandboxes.len()).unwrap_or(u64::MAX) + 1;
        let sandbox = Sandbox {
            netns,
            lane,
            netns_there: true,
            shim_lives: true,
            running: false,
            stop_asked: false,
            stop_answered: false,
            doomed: None,
        };
        self.sandboxes.insert(id.to_owned(), sandbox);
    }

    /// The sandbox's lane; 0 when it is nobody's.
    pub fn lane(&self, id: &str) -> u64 {
        self.sandboxes.get(id).map_or(0, |sandbox| sandbox.lane)
    }

    /// Whose namespace this is, when it is there.
    pub fn at(&self, netns: &Path) -> Option<String> {
        let mut found = self.sandboxes.iter().filter(|(_, s)| s.netns_there && s.netns == netns);
        found.next().map(|(id, _)| id.clone())
    }

    /// Whether the shim's process lives.
    pub fn shim_lives(&self, id: &str) -> bool {
        self.sandboxes.get(id).is_some_and(|sandbox| sandbox.shim_lives)
    }

    /// Changes what is known of a sandbox.
    pub fn update(&mut self, id: &str, change: impl FnOnce(&mut Sandbox)) {
        if let Some(sandbox) = self.sandboxes.get_mut(id) {
            change(sandbox);
        }
    }
}

impl State {
    /// Whether the pod of this sandbox runs, and nothing that has happened may end it.
    pub fn lives(&self, id: &str, now: u64) -> bool {
        let well = self.pods.sandboxes.get(id).is_some_and(|sandbox| {
            sandbox.running
                && sandbox.netns_there
                && sandbox.shim_lives
                && !sandbox.stop_asked
                && sandbox.doomed.is_none()
        });
        well && !self.cloud.of(id).any(|machine| machine.dead(now))
    }
}
