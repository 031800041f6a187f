//! A client of the node service that acts as the shim does: CreateVM, StartVM, the agent's calls, StopVM.
//!
//! It owns nothing but the network namespaces it makes, and remembers those under the client directory ([`record`]). What a VM
//! is, and whether there is one, only the node service knows.

pub mod agent;
pub mod annotations;
pub mod error;
pub mod netns;
pub mod process;
pub mod record;
pub mod rootfs;
pub mod run;
pub mod service;
pub mod spec;
pub mod terminal;
pub mod timeline;

use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;
use peerpods_podvm::SandboxId;
use peerpods_proto::grpc::admin::Sandbox;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use agent::{Agent, ProcessId};
pub use error::SandboxError;
use process::{Event, Streams};
use record::{Container, Record, Records};
use service::Service;
use spec::{CommandSpec, ContainerSpec};

/// How often the node service is asked how far it is.
const POLL: Duration = Duration::from_millis(200);

/// A sandbox to make.
#[derive(Debug, Clone)]
pub struct CreatePlan {
    /// Its id.
    pub id: SandboxId,
    /// The pod's network namespace; `None`: one is made.
    pub netns: Option<PathBuf>,
    /// Addresses of one that is made; `None`: a free subnet.
    pub pod_network: Option<Ipv4Net>,
    /// The pod's name.
    pub pod_name: String,
    /// CreateVM's annotations.
    pub annotations: std::collections::HashMap<String, String>,
}

/// The client.
#[derive(Debug, Clone)]
pub struct Client {
    /// The node service.
    pub service: Service,
    /// What was made.
    pub records: Records,
}

impl Client {
    /// Makes the sandbox: network namespace (if it brings none) and CreateVM. Answers the agent socket. What was made before an
    /// error is removed again.
    ///
    /// # Errors
    /// When the id is in use, addresses are short, or the node service refuses.
    pub async fn create(&self, plan: &CreatePlan) -> Result<PathBuf, SandboxError> {
        let record = self.reserve(plan).await?;
        let made = match self.make_netns(plan, &record).await {
            Ok(netns) => self.create_vm(plan, record, netns).await,
            Err(error) => Err(error),
        };
        if made.is_err() {
            self.forget(&plan.id).await?;
        }
        made
    }

    /// Writes down what is going to be made. From here on `stop` finds it.
    ///
    /// # Errors
    /// When the id is in use, or addresses are short.
    pub async fn reserve(&self, plan: &CreatePlan) -> Result<Record, SandboxError> {
        self.refuse_existing(&plan.id).await?;
        let _lock = self.lock().await?;
        let netns = match plan.netns {
            Some(_) => None,
            None => Some(netns::plan(&plan.id, plan.pod_network, &self.taken(&plan.id)?)?),
        };
        let record = Record::new(plan.id.clone(), plan.pod_name.clone(), netns);
        self.records.save(&record)?;
        Ok(record)
    }

    /// Makes the network namespace of a reserved sandbox, or takes the one the plan brings.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn make_netns(&self, plan: &CreatePlan, record: &Record) -> Result<PathBuf, SandboxError> {
        match (&plan.netns, &record.netns) {
            (Some(path), _) => Ok(path.clone()),
            (None, Some(owned)) => netns::make(&plan.id, owned).await,
            (None, None) => {
                let reason = "none was planned".to_owned();
                Err(SandboxError::Addresses { id: plan.id.clone(), reason })
            }
        }
    }

    /// CreateVM of a reserved sandbox.
    ///
    /// # Errors
    /// When the node service refuses.
    pub async fn create_vm(
        &self,
        plan: &CreatePlan,
        record: Record,
        netns: PathBuf,
    ) -> Result<PathBuf, SandboxError> {
        let socket = self.service.create_vm(&plan.id, &netns, plan.annotations.clone()).await?;
        self.records.save(&Record { agent_socket: Some(socket.clone()), ..record })?;
        Ok(socket)
    }

    /// StartVM. `progress` is told of every phase as the node service reports it. Dropping the future withdraws the request.
    ///
    /// # Errors
    /// When the node service refuses or `deadline` passes.
    pub async fn start(
        &self,
        id: &SandboxId,
        deadline: Duration,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<(), SandboxError> {
        let start = self.service.start_vm(id, deadline);
        tokio::pin!(start);
        let mut told = 0;
        loop {
            tokio::select! {
                answer = &mut start => return answer,
                () = sleep(POLL) => told = self.tell(id, told, progress).await,
            }
        }
    }

    /// Tells of phases that came since; answers how many were told of by now. A service that does not answer is not complained of
    /// here: StartVM itself will.
    async fn tell(&self, id: &SandboxId, told: usize, progress: &(dyn Fn(&str) + Sync)) -> usize {
        let phases = self.service.get(id).await.ok().flatten().map(|sandbox| sandbox.phases);
        let phases = phases.unwrap_or_default();
        for phase in phases.iter().skip(told) {
            let detail = if phase.detail.is_empty() { String::new() } else { format!(" ({})", phase.detail) };
            let seconds = Duration::from_micros(phase.start_us.saturating_add(phase.took_us)).as_secs_f64();
            progress(&format!("{seconds:>7.3} s  {}{detail}", phase.name));
        }
        phases.len().max(told)
    }

    /// Runs a command in a running sandbox and attends to it until it ends; answers its status. The first time, the sandbox is
    /// opened in the agent and its container made.
    ///
    /// # Errors
    /// When the sandbox is not running, the agent fails, or our own streams do.
    pub async fn exec(
        &self,
        exec: &ExecPlan,
        streams: Streams,
        events: &mut mpsc::Receiver<Event>,
    ) -> Result<i32, SandboxError> {
        let socket = self.running_agent_socket(&exec.id).await?;
        let agent = Agent::connect(&exec.id, &socket).await?;
        let container = match &exec.container {
            Some(container) => container.clone(),
            None => self.prepare(&agent, &exec.id, &exec.userland).await?,
        };
        let process = ProcessId { container, exec: uuid::Uuid::new_v4().simple().to_string() };
        agent.exec(&process, &exec.command).await?;
        process::attend(&agent, &process, exec.command.terminal, streams, events).await
    }

    /// Opens the sandbox in the agent and starts its container, unless that was done; answers the container's id. A sandbox that
    /// this client did not make has been opened by its shim, and its pause container has the same id.
    async fn prepare(&self, agent: &Agent, id: &SandboxId, userland: &str) -> Result<String, SandboxError> {
        let _lock = self.lock().await?;
        if let Some(record) = self.records.load(id)?
            && record.container == Container::None
        {
            let spec = ContainerSpec {
                id: id.clone(),
                hostname: record.pod_name.clone(),
                userland: userland.to_owned(),
                command: CommandSpec::hold(),
            };
            let process = open(agent, &spec).await?;
            agent.start_container(&process).await?;
            self.records.save(&Record { container: Container::Running, ..record })?;
        }
        Ok(id.to_string())
    }

    /// The agent socket of a sandbox that runs. While the node service is away, what this client remembers must do: links outlive it.
    async fn running_agent_socket(&self, id: &SandboxId) -> Result<PathBuf, SandboxError> {
        let away = match self.service.get(id).await {
            Ok(Some(sandbox)) => return socket_of(id, &sandbox),
            Ok(None) => return Err(SandboxError::Unknown { id: id.clone() }),
            Err(error @ SandboxError::Unreachable { .. }) => error,
            Err(error) => return Err(error),
        };
        self.records.load(id)?.and_then(|record| record.agent_socket).ok_or(away)
    }

    /// StopVM, then waits until the node service no longer knows the sandbox, then removes what is ours.
    ///
    /// # Errors
    /// [`SandboxError::StillThere`] after `timeout` (what is ours is removed even then). When the node service cannot be
    /// reached nothing is forgotten, and stopping again continues.
    pub async fn stop(&self, id: &SandboxId, timeout: Duration) -> Result<(), SandboxError> {
        self.service.stop_vm(id).await?;
        let gone = self.wait_gone(id, timeout).await;
        self.forget(id).await?;
        gone
    }

    async fn wait_gone(&self, id: &SandboxId, timeout: Duration) -> Result<(), SandboxError> {
        let until = Instant::now() + timeout;
        loop {
            let state = match self.service.get(id).await? {
                None => return Ok(()),
                Some(sandbox) if sandbox.state.eq_ignore_ascii_case("gone") => return Ok(()),
                Some(sandbox) => sandbox.state,
            };
            if Instant::now() >= until {
                return Err(SandboxError::StillThere { id: id.clone(), state, after: timeout });
            }
            sleep(POLL).await;
        }
    }

    /// Removes the network namespace we made for a sandbox, and the record of it.
    ///
    /// # Errors
    /// When something may be left; the record is kept then.
    pub async fn forget(&self, id: &SandboxId) -> Result<(), SandboxError> {
        if let Some(owned) = self.records.load(id)?.and_then(|record| record.netns) {
            netns::remove(id, &owned).await?;
        }
        self.records.remove(id)
    }

    async fn refuse_existing(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let known = self.service.get(id).await?.filter(|sandbox| !sandbox.state.eq_ignore_ascii_case("gone"));
        let state = match (known, self.records.load(id)?) {
            (None, None) => return Ok(()),
            (Some(sandbox), _) => sandbox.state,
            (None, Some(_)) => "left over from an earlier run".to_owned(),
        };
        let reason = format!("it is there already ({state}); `peerpods sandbox stop {id}` removes it");
        Err(SandboxError::Refused { call: "CreateVM", id: id.clone(), reason })
    }

    fn taken(&self, id: &SandboxId) -> Result<Vec<Ipv4Net>, SandboxError> {
        let failed = |error: std::io::Error| SandboxError::Addresses {
            id: id.clone(),
            reason: format!("this host's routes cannot be read: {error}"),
        };
        let mut taken = netns::host_networks().map_err(failed)?;
        taken.extend(self.records.networks());
        Ok(taken)
    }

    async fn lock(&self) -> Result<record::Lock, SandboxError> {
        let records = self.records.clone();
        let locked = tokio::task::spawn_blocking(move || records.lock()).await;
        locked.map_err(|error| SandboxError::Own { stream: "threads", source: error.into() })?
    }
}

/// A command for a running sandbox.
#[derive(Debug, Clone)]
pub struct ExecPlan {
    /// The sandbox.
    pub id: SandboxId,
    /// The container; `None`: the sandbox's own.
    pub container: Option<String>,
    /// Root file system of a container that has to be made first.
    pub userland: String,
    /// The command.
    pub command: CommandSpec,
}

/// Opens a sandbox in its agent and makes its container, whose process waits to be started.
async fn open(agent: &Agent, spec: &ContainerSpec) -> Result<ProcessId, SandboxError> {
    agent.create_sandbox(&spec.hostname).await?;
    agent.create_container(spec).await
}

fn socket_of(id: &SandboxId, sandbox: &Sandbox) -> Result<PathBuf, SandboxError> {
    if sandbox.state.eq_ignore_ascii_case("running") {
        return Ok(sandbox.agent_socket.clone().into());
    }
    let hint = match sandbox.state.to_ascii_lowercase().as_str() {
        "created" => format!("`peerpods sandbox start {id}` starts it"),
        "starting" => "wait for `peerpods sandbox start` to return".to_owned(),
        _ => "make a new one with `peerpods sandbox create`".to_owned(),
    };
    Err(SandboxError::NotRunning { id: id.clone(), state: sandbox.state.clone(), hint })
}
