//! `sandbox run`: create, start, run a command, stop; whatever happens, nothing is left behind.
//!
//! ```text
//!  reserve ─▶ netns ─▶ CreateVM ─▶ StartVM ─▶ container ─▶ command ─▶ StopVM ─▶ gone ─▶ netns removed
//!     │ (a signal before the command calls the rest off)      │ (signals reach the command)
//!     └───────────────────────── from here on the right half always runs ──────────────────────────▶
//! ```

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::agent::{Agent, ProcessId};
use super::error::SandboxError;
use super::process::{self, Event, Streams};
use super::record::{Container, Record};
use super::spec::{CommandSpec, ContainerSpec};
use super::timeline::Timeline;
use super::{Client, CreatePlan, open};

/// How long a node service that is away when it is time to stop may take to come back.
const SERVICE_RETURN: Duration = Duration::from_secs(10);

/// How long the removal is waited for.
const GONE: Duration = Duration::from_secs(60);

/// Whether the sandbox outlives the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// It is stopped.
    Stop,
    /// It goes on running, unless the command was never reached.
    Keep,
}

/// What to run, and in what.
#[derive(Debug, Clone)]
pub struct RunPlan {
    /// The sandbox.
    pub create: CreatePlan,
    /// How long StartVM may take.
    pub start_deadline: Duration,
    /// Root file system of the container, in the guest.
    pub userland: String,
    /// The command.
    pub command: CommandSpec,
    /// What becomes of the sandbox.
    pub afterwards: Afterwards,
}

/// How it went.
#[derive(Debug)]
pub struct Outcome {
    /// The command's status, or why it has none.
    pub command: Result<i32, SandboxError>,
    /// Whether everything was removed.
    pub cleanup: Result<(), SandboxError>,
    /// Where the time went.
    pub timeline: Timeline,
}

/// One run in progress.
struct Run<'a> {
    client: &'a Client,
    plan: &'a RunPlan,
    progress: &'a (dyn Fn(&str) + Sync),
    timeline: Timeline,
}

/// Runs the plan to its end. `progress` is told what is being done.
pub async fn run(
    client: &Client,
    plan: &RunPlan,
    streams: Streams,
    events: &mut mpsc::Receiver<Event>,
    progress: &(dyn Fn(&str) + Sync),
) -> Outcome {
    let mut run = Run { client, plan, progress, timeline: Timeline::default() };
    let record = match client.reserve(&plan.create).await {
        Ok(record) => record,
        // Nothing was made, and a sandbox of that id is somebody else's.
        Err(error) => return Outcome { command: Err(error), cleanup: Ok(()), timeline: run.timeline },
    };
    let (reached, command) = match run.boot(record, events).await {
        Ok((agent, process)) => (true, run.command(&agent, &process, streams, events).await),
        Err(error) => (false, Err(error)),
    };
    run.adopt_phases().await;
    let cleanup = match plan.afterwards {
        Afterwards::Keep if reached => Ok(()),
        Afterwards::Keep | Afterwards::Stop => run.stop().await,
    };
    Outcome { command, cleanup, timeline: run.timeline }
}

impl Run<'_> {
    /// Everything before the command. A signal calls it off.
    async fn boot(
        &mut self,
        record: Record,
        events: &mut mpsc::Receiver<Event>,
    ) -> Result<(Agent, ProcessId), SandboxError> {
        let create = &self.plan.create;
        // Not called off half-way: what is made on another thread would appear after it was removed.
        let netns = self.timeline.time("pod network", self.client.make_netns(create, &record)).await?;
        tokio::select! {
            booted = self.boot_in(record, netns) => booted,
            signal = next_signal(events) => Err(SandboxError::Interrupted { signal }),
        }
    }

    async fn boot_in(
        &mut self,
        record: Record,
        netns: std::path::PathBuf,
    ) -> Result<(Agent, ProcessId), SandboxError> {
        let Self { client, plan, progress, timeline } = self;
        let create = &plan.create;
        progress(&format!("sandbox {}", create.id));
        let created = client.create_vm(create, record.clone(), netns);
        let socket = timeline.time("CreateVM", created).await?;
        let started = client.start(&create.id, plan.start_deadline, *progress);
        timeline.time("StartVM", started).await?;
        let record = Record { agent_socket: Some(socket.clone()), container: Container::Running, ..record };
        let container = async {
            let agent = Agent::connect(&create.id, &socket).await?;
            let process = open(&agent, &plan.container()).await?;
            client.records.save(&record)?;
            Ok((agent, process))
        };
        timeline.time("container", container).await
    }

    async fn command(
        &mut self,
        agent: &Agent,
        first: &ProcessId,
        streams: Streams,
        events: &mut mpsc::Receiver<Event>,
    ) -> Result<i32, SandboxError> {
        let Self { plan, timeline, .. } = self;
        let work = async {
            agent.start_container(first).await?;
            let process = match plan.afterwards {
                Afterwards::Stop => first.clone(),
                Afterwards::Keep => {
                    let exec = uuid::Uuid::new_v4().simple().to_string();
                    let process = ProcessId { exec, ..first.clone() };
                    agent.exec(&process, &plan.command).await?;
                    process
                }
            };
            process::attend(agent, &process, plan.command.terminal, streams, events).await
        };
        timeline.time("command", work).await
    }

    /// Adds what the node service did, while it still knows. It is told for information only.
    async fn adopt_phases(&mut self) {
        match self.client.service.get(&self.plan.create.id).await {
            Ok(Some(sandbox)) => self.timeline.adopt("CreateVM", &sandbox.phases),
            Ok(None) => {}
            Err(error) => tracing::debug!(error = %error, "no phases from the node service"),
        }
    }

    /// Stops the sandbox; a node service that is being restarted is waited for.
    async fn stop(&mut self) -> Result<(), SandboxError> {
        let Self { client, plan, timeline, .. } = self;
        let id = &plan.create.id;
        let until = Instant::now() + SERVICE_RETURN;
        let work = async {
            loop {
                match client.stop(id, GONE).await {
                    Err(SandboxError::Unreachable { .. }) if Instant::now() < until => {
                        sleep(super::POLL).await;
                    }
                    other => return other,
                }
            }
        };
        timeline.time("StopVM", work).await
    }
}

impl RunPlan {
    /// The container: its first process is the command, or one that outlives it when the sandbox is kept.
    fn container(&self) -> ContainerSpec {
        let command = match self.afterwards {
            Afterwards::Stop => self.command.clone(),
            Afterwards::Keep => CommandSpec::hold(),
        };
        ContainerSpec {
            id: self.create.id.clone(),
            hostname: self.create.pod_name.clone(),
            userland: self.userland.clone(),
            command,
        }
    }
}

/// The next signal; other events before the command mean nothing.
pub async fn next_signal(events: &mut mpsc::Receiver<Event>) -> i32 {
    loop {
        match events.recv().await {
            Some(Event::Signal(signal)) => return signal,
            Some(Event::Resized(_)) => {}
            None => std::future::pending().await,
        }
    }
}
