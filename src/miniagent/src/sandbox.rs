//! The sandbox: its containers, their processes, and what was set up for them.
//!
//! Calls come in any order and at the same time. The table of containers is locked only to look something up or to put it in; a
//! container that is being made holds its place there, so that no id is made twice.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peerpods_proto::ttrpc::{agent, oci};
use tokio_util::sync::CancellationToken;

use crate::cgroup::{self, Cgroup};
use crate::container::{Container, remove_cgroup, undo};
use crate::convert::{self, Surroundings};
use crate::error::{AgentError, check_id};
use crate::image::{self, Userland};
use crate::namespaces::SharedNamespaces;
use crate::process::{Process, Target};
use crate::storage::{self, Made};

/// How long each container may take to end when the sandbox does.
const LAST_SECONDS: u32 = 10;

/// The one sandbox of this agent.
#[derive(Debug, Default)]
pub struct Sandbox {
    state: Mutex<State>,
    /// What containers of images are made of.
    userland: Userland,
    /// The sandbox is being destroyed: nothing new begins, long polls end.
    ending: CancellationToken,
    /// The sandbox is gone.
    over: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    id: String,
    namespaces: Option<SharedNamespaces>,
    containers: HashMap<String, Slot>,
    /// What was set up for the sandbox, or is shared by containers; undone when the sandbox ends.
    storages: Vec<Made>,
}

#[derive(Debug)]
enum Slot {
    Making,
    Made(Arc<Container>),
}

impl Sandbox {
    /// A sandbox that was not begun yet, in a VM with this userland.
    #[must_use]
    pub fn new(userland: Userland) -> Self {
        Self { userland, ..Self::default() }
    }

    /// Begins the sandbox: an empty base directory, its namespaces, its storages.
    ///
    /// # Errors
    /// [`AgentError`].
    pub fn create(&self, request: &agent::CreateSandboxRequest) -> Result<(), AgentError> {
        empty_directory(Path::new(storage::BASE))
            .map_err(|source| AgentError::Guest { what: "empty /run/kata-containers", source })?;
        let namespaces = SharedNamespaces::make(&request.hostname)?;
        let mut state = self.state();
        state.id.clone_from(&request.sandbox_id);
        state.namespaces = Some(namespaces);
        for asked in &request.storages {
            let made = storage::set_up(asked, None, &self.userland)?;
            state.storages.push(made);
        }
        Ok(())
    }

    /// Makes a container, up to the point where only its program is missing.
    ///
    /// # Errors
    /// [`AgentError`]; nothing of the container is left then.
    ///
    /// # Cancel safety
    /// None: run it in a task of its own.
    pub async fn create_container(&self, request: agent::CreateContainerRequest) -> Result<(), AgentError> {
        let id = request.container_id.clone();
        check_id(&id)?;
        self.reserve(&id)?;
        let made = self.make_container(&request).await;
        let mut state = self.state();
        match made {
            Ok(container) => {
                state.containers.insert(id, Slot::Made(Arc::new(container)));
                Ok(())
            }
            Err(error) => {
                state.containers.remove(&id);
                Err(error)
            }
        }
    }

    fn reserve(&self, id: &str) -> Result<(), AgentError> {
        let mut state = self.state();
        if self.ending.is_cancelled() {
            return Err(AgentError::Ending);
        }
        if state.containers.contains_key(id) {
            return Err(AgentError::Exists { what: "container", id: id.to_owned() });
        }
        state.containers.insert(id.to_owned(), Slot::Making);
        Ok(())
    }

    async fn make_container(&self, request: &agent::CreateContainerRequest) -> Result<Container, AgentError> {
        let id = &request.container_id;
        let spec = request.OCI.as_ref().ok_or(AgentError::Missing { what: "OCI description" })?;
        let plan = convert::container(spec, &self.surroundings(request.sandbox_pidns))?;
        let mut process = convert::process(&spec.Process)?;
        if request.storages.iter().any(image::is_pause) {
            process.args = image::pause();
        }
        let storages = self.set_up_storages(id, &request.storages)?;
        let made = async {
            if !plan.rootfs.is_dir() {
                return Err(AgentError::NoRootfs { id: id.clone(), path: plan.rootfs.clone() });
            }
            let cgroup = Cgroup::make(id, resources(spec))?;
            let target = Target::New(Box::new(plan));
            match Process::prepare(target, process, cgroup.as_ref()).await {
                Ok(init) => Ok((cgroup, init)),
                Err(error) => {
                    remove_cgroup(cgroup.as_ref()).await;
                    Err(error.into())
                }
            }
        };
        match made.await {
            Ok((cgroup, init)) => Ok(Container::new(id.clone(), init, cgroup, storages)),
            Err(error) => {
                undo(id, &storages);
                Err(error)
            }
        }
    }

    fn surroundings(&self, share_processes: bool) -> Surroundings {
        let state = self.state();
        let first = match state.containers.get(&state.id) {
            Some(Slot::Made(container)) if share_processes => Some(container.init().pid()),
            _ => None,
        };
        Surroundings {
            uts: state.namespaces.as_ref().map(SharedNamespaces::uts),
            ipc: state.namespaces.as_ref().map(SharedNamespaces::ipc),
            pid: first.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/pid"))),
            cgroups: cgroup::available(),
        }
    }

    /// The storages of a container. One that several containers use is set up once, and stays until the sandbox ends.
    fn set_up_storages(&self, id: &str, asked: &[agent::Storage]) -> Result<Vec<Made>, AgentError> {
        let mut made = Vec::new();
        for storage in asked {
            let mut state = self.state();
            if state.storages.iter().any(|shared| shared.is_at(Path::new(&storage.mount_point))) {
                continue;
            }
            match storage::set_up(storage, Some(id), &self.userland) {
                // Volumes of the pod, as opposed to a container's root directory, are shared.
                Ok(volume) if storage.shared || !storage::is_root(storage) => state.storages.push(volume),
                Ok(own) => made.push(own),
                Err(error) => {
                    undo(id, &made);
                    return Err(error.into());
                }
            }
        }
        Ok(made)
    }

    /// Starts another process in a container.
    ///
    /// # Errors
    /// [`AgentError`].
    ///
    /// # Cancel safety
    /// None: run it in a task of its own.
    pub async fn exec(&self, request: agent::ExecProcessRequest) -> Result<(), AgentError> {
        let container = self.container(&request.container_id)?;
        check_id(&request.exec_id)?;
        let asked = request.process.as_ref().ok_or(AgentError::Missing { what: "process" })?;
        let plan = convert::process(asked)?;
        container.check_free(&request.exec_id)?;
        let target = Target::Join(container.init());
        let process = Process::prepare(target, plan, container.cgroup()).await?;
        process.start().await?;
        container.add(request.exec_id, process)
    }

    /// Kills what is left of a container and removes everything made for it. `limit` zero waits for as long as it takes.
    ///
    /// # Errors
    /// [`AgentError::StillRunning`] after `limit` seconds: the container is still there then.
    ///
    /// # Cancel safety
    /// None: run it in a task of its own.
    pub async fn remove_container(&self, id: &str, limit: u32) -> Result<(), AgentError> {
        let container = self.container(id)?;
        container.kill_all()?;
        let over = container.all_over();
        if limit == 0 {
            over.await;
        } else if tokio::time::timeout(Duration::from_secs(limit.into()), over).await.is_err() {
            return Err(AgentError::StillRunning { id: id.to_owned(), seconds: limit });
        }
        container.clean_up().await;
        self.state().containers.remove(id);
        Ok(())
    }

    /// Ends the sandbox: removes every container and storage, and makes the agent exit.
    pub async fn destroy(&self) {
        self.ending.cancel();
        let ids: Vec<String> = self.state().containers.keys().cloned().collect();
        for id in ids {
            if let Err(error) = self.remove_container(&id, LAST_SECONDS).await {
                tracing::warn!(%id, %error, "container not removed");
            }
        }
        let storages = std::mem::take(&mut self.state().storages);
        storages.iter().rev().for_each(Made::undo);
        cgroup::remove_parent();
        self.over.cancel();
    }

    /// Returns when the sandbox begins to end.
    pub async fn ending(&self) {
        self.ending.cancelled().await;
    }

    /// Returns when the sandbox is gone.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// A container by id.
    ///
    /// # Errors
    /// [`AgentError::UnknownContainer`], also while it is being made.
    pub fn container(&self, id: &str) -> Result<Arc<Container>, AgentError> {
        match self.state().containers.get(id) {
            Some(Slot::Made(container)) => Ok(Arc::clone(container)),
            Some(Slot::Making) | None => Err(AgentError::UnknownContainer { id: id.to_owned() }),
        }
    }

    /// A process: the container's first one for an empty `exec` or one that is the container's id.
    ///
    /// # Errors
    /// [`AgentError::UnknownContainer`], [`AgentError::UnknownProcess`].
    pub fn process(&self, id: &str, exec: &str) -> Result<Arc<Process>, AgentError> {
        let container = self.container(id)?;
        container
            .process(exec)
            .ok_or_else(|| AgentError::UnknownProcess { id: id.to_owned(), exec: exec.to_owned() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Empties a directory, which may be a mount point and so cannot be removed, or makes it.
fn empty_directory(path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path)?;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn resources(spec: &oci::Spec) -> &oci::LinuxResources {
    &spec.Linux.Resources
}

/// A panic elsewhere leaves the tables here whole: every change is one insert or remove.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
