//! One container: its first process, those that joined it, and what was made for it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;

use crate::cgroup::Cgroup;
use crate::error::AgentError;
use crate::process::Process;
use crate::sandbox::lock;
use crate::storage::{self, Made};

/// How long the kernel may take to empty a cgroup whose processes were killed.
const CGROUP_PATIENCE: Duration = Duration::from_secs(2);

/// A container.
#[derive(Debug)]
pub struct Container {
    id: String,
    init: Arc<Process>,
    execs: Mutex<HashMap<String, Arc<Process>>>,
    cgroup: Option<Cgroup>,
    /// What was set up for this container alone.
    storages: Vec<Made>,
}

impl Container {
    /// A container of a process that was prepared for it.
    #[must_use]
    pub fn new(id: String, init: Process, cgroup: Option<Cgroup>, storages: Vec<Made>) -> Self {
        Self { id, init: Arc::new(init), execs: Mutex::default(), cgroup, storages }
    }

    /// Its first process.
    #[must_use]
    pub fn init(&self) -> &Process {
        &self.init
    }

    /// Its cgroup, where the VM has any.
    #[must_use]
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// A process: the first one for an empty `exec` or one that is the container's id.
    #[must_use]
    pub fn process(&self, exec: &str) -> Option<Arc<Process>> {
        if exec.is_empty() || exec == self.id {
            return Some(Arc::clone(&self.init));
        }
        lock(&self.execs).get(exec).cloned()
    }

    /// Takes in a process that has joined.
    ///
    /// # Errors
    /// [`AgentError::Exists`] when the name was taken meanwhile; the process is killed then.
    pub fn add(&self, exec: String, process: Process) -> Result<(), AgentError> {
        let mut execs = lock(&self.execs);
        if execs.contains_key(&exec) {
            process.signal(Signal::KILL)?;
            return Err(AgentError::Exists { what: "process", id: exec });
        }
        execs.insert(exec, Arc::new(process));
        Ok(())
    }

    /// Refuses the name of a process that is there.
    ///
    /// # Errors
    /// [`AgentError::Exists`].
    pub fn check_free(&self, exec: &str) -> Result<(), AgentError> {
        match self.process(exec) {
            Some(_) => Err(AgentError::Exists { what: "process", id: exec.to_owned() }),
            None => Ok(()),
        }
    }

    /// Kills every process we started in it. What they started in turn dies with the first one, the head of their namespace, or
    /// at the latest in [`clean_up`](Self::clean_up).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill_all(&self) -> Result<(), AgentError> {
        self.processes().iter().try_for_each(|process| Ok(process.signal(Signal::KILL)?))
    }

    /// Returns when every process we started in it has ended.
    pub async fn all_over(&self) {
        for process in self.processes() {
            process.wait().await;
        }
    }

    /// Removes what was made for it. Its processes must have ended.
    pub async fn clean_up(&self) {
        remove_cgroup(self.cgroup.as_ref()).await;
        undo(&self.id, &self.storages);
    }

    fn processes(&self) -> Vec<Arc<Process>> {
        let mut all: Vec<_> = lock(&self.execs).values().cloned().collect();
        all.push(Arc::clone(&self.init));
        all
    }
}

/// Kills what is left in a cgroup and removes it, which the kernel allows only when it is empty.
pub(crate) async fn remove_cgroup(cgroup: Option<&Cgroup>) {
    let Some(cgroup) = cgroup else { return };
    cgroup.kill();
    let emptied = async {
        while let Err(error) = cgroup.remove() {
            tracing::debug!(%error, "cgroup not empty yet");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(CGROUP_PATIENCE, emptied).await.is_err() {
        tracing::warn!(?cgroup, "cgroup not removed");
    }
}

/// Unmounts a container's storages, and removes its directory with the writable layer.
pub(crate) fn undo(id: &str, storages: &[Made]) {
    storages.iter().rev().for_each(Made::undo);
    let own = Path::new(storage::BASE).join(id);
    if let Err(error) = std::fs::remove_dir_all(&own)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(?own, %error, "directory of the container not removed");
    }
}
