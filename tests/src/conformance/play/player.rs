//! The shim's state during a life: its connections, its long polls, what is to go wrong, and the lines to and from whoever ordered it.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peerpods_proto::ttrpc::health::{CheckRequest, HealthCheckResponse};
use protobuf::Message;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::steps::Line;
use super::{Kind, Order, Said, Wrong};
use crate::conformance::Model;
use crate::shim::wire::{CallError, Connection, InFlight, Method, Unread};
use crate::shim::{CHECK, GoShim, go};

/// How long an answer that is not going to be read is waited for: as long as a VM boots on a slow machine.
const UNREAD: Duration = Duration::from_secs(120);
/// A deadline that has passed when the request arrives.
const TOO_SHORT: Duration = Duration::from_millis(1);

/// Why a life does not go on.
pub(super) enum Ended {
    /// Something was not as it must be.
    Wrong(Wrong),
    /// What was ordered to go wrong did, at this step.
    Played(&'static str),
}

/// The shim.
pub(super) struct Player {
    order: Order,
    lines: Lines<BufReader<Stdin>>,
    /// Where the service said the agent is.
    pub(super) agent_socket: PathBuf,
    agent: Option<Arc<Connection>>,
    /// runtime-rs' one connection to the service.
    cached: Option<Arc<Connection>>,
    /// runtime-rs' second connection to the agent: it reads lines that never come, and never writes.
    forwarder: Option<UnixStream>,
    monitor: Option<(JoinHandle<()>, oneshot::Receiver<CallError>)>,
    /// Health checks of the monitor's that were answered.
    checks: Arc<AtomicU32>,
    /// The long polls of the pause container: they end when it does.
    pub(super) polls: Polls,
    /// The service was restarted: runtime-rs' connection to it is dead.
    pub(super) restarted: bool,
    /// What was ordered to go wrong has.
    played: bool,
}

/// Calls that wait for something to happen.
#[derive(Default)]
pub(super) struct Polls {
    pub(super) oom: Option<InFlight>,
    pub(super) pause: Option<InFlight>,
    pub(super) app: Option<InFlight>,
}

impl Player {
    /// Reads the order.
    pub(super) async fn ordered() -> Result<Self, String> {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        let line = lines.next_line().await.map_err(|e| e.to_string())?.ok_or("no order came on stdin")?;
        let order = serde_json::from_str(&line).map_err(|e| format!("the order makes no sense: {e}"))?;
        Ok(Self {
            order,
            lines,
            agent_socket: PathBuf::new(),
            agent: None,
            cached: None,
            forwarder: None,
            monitor: None,
            checks: Arc::default(),
            polls: Polls::default(),
            restarted: false,
            played: false,
        })
    }

    pub(super) fn order(&self) -> &Order {
        &self.order
    }

    pub(super) fn model(&self) -> Model {
        self.order.model
    }

    pub(super) fn tell(&self, said: &Said) {
        println!("{}", serde_json::to_string(said).unwrap_or_default());
    }

    /// Says that it waits, and waits for a line.
    pub(super) async fn hold(&mut self, step: &str) {
        self.tell(&Said::Holding(step.to_owned()));
        drop(self.lines.next_line().await);
    }

    /// Lets go of everything and stays until stdin ends.
    pub(super) async fn wait_for_the_end(&mut self) {
        self.hang_up().await;
        self.cached = None;
        while let Ok(Some(_)) = self.lines.next_line().await {}
    }

    /// What is wrong at a step, and which fact says so.
    pub(super) fn wrong<T>(
        step: &str,
        rule: &str,
        expected: impl Into<String>,
        came: impl Into<String>,
    ) -> Result<T, Ended> {
        let (step, rule) = (step.to_owned(), rule.to_owned());
        Err(Ended::Wrong(Wrong { step, expected: expected.into(), came: came.into(), rule }))
    }

    /// The connection for a call to the service: a new one (Go; for StartVM from inside the pod), or the one there is.
    async fn hypervisor(&mut self, step: &str) -> Result<Arc<Connection>, CallError> {
        match (self.order.model, &self.cached) {
            (Model::Go, _) if step == "StartVM" => {
                Ok(Arc::new(go::dial_from(&self.order.netns, &self.order.socket).await?))
            }
            (Model::Go, _) => Ok(Arc::new(GoShim::new(self.order.socket.clone()).dial().await?)),
            (Model::Rs, Some(cached)) => Ok(cached.clone()),
            (Model::Rs, None) if step == "CreateVM" => {
                Ok(self.cached.insert(Arc::new(Connection::dial(&self.order.socket).await?)).clone())
            }
            (Model::Rs, None) => Err(CallError::Closed("a connection that is not dialled again".to_owned())),
        }
    }

    /// A call to the service.
    pub(super) async fn ask<A: Message>(
        &mut self,
        step: &'static str,
        method: Method,
        request: &impl Message,
        deadline: Option<Duration>,
    ) -> Result<Result<A, CallError>, Ended> {
        self.tell(&Said::Step(step.to_owned()));
        let connection = match self.hypervisor(step).await {
            Ok(connection) => connection,
            Err(error) => return Ok(Err(error)),
        };
        let sent = self.send(step, Line::Hypervisor, &connection, method, request, deadline).await?;
        let answer = match sent {
            Ok(in_flight) => in_flight.answer().await,
            Err(error) => Err(error),
        };
        Ok(answer)
    }

    /// A call to the agent that has to succeed.
    pub(super) async fn tell_agent<A: Message>(
        &mut self,
        step: &'static str,
        method: Method,
        request: &impl Message,
        deadline: Option<Duration>,
    ) -> Result<A, Ended> {
        let answer = self.ask_agent(step, method, request, deadline).await?;
        answer.or_else(|error| {
            let expected = format!("an answer to {}", method.1);
            Self::wrong(step, "facts/kata.md 2.1: the RPC sequence", expected, error.to_string())
        })
    }

    /// A call to the agent.
    pub(super) async fn ask_agent<A: Message>(
        &mut self,
        step: &'static str,
        method: Method,
        request: &impl Message,
        deadline: Option<Duration>,
    ) -> Result<Result<A, CallError>, Ended> {
        match self.begin(step, method, request, deadline).await? {
            Ok(in_flight) => Ok(in_flight.answer().await),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Begins a call to the agent, such as a long poll.
    pub(super) async fn begin(
        &mut self,
        step: &'static str,
        method: Method,
        request: &impl Message,
        deadline: Option<Duration>,
    ) -> Result<Result<InFlight, CallError>, Ended> {
        self.tell(&Said::Step(step.to_owned()));
        let Some(connection) = self.agent.clone() else {
            return Ok(Err(CallError::Closed("there is no connection to the agent".to_owned())));
        };
        self.send(step, Line::Agent, &connection, method, request, deadline).await
    }

    /// Begins a long poll that has to be taken.
    pub(super) async fn poll(
        &mut self,
        step: &'static str,
        method: Method,
        request: &impl Message,
    ) -> Result<InFlight, Ended> {
        let sent = self.begin(step, method, request, None).await?;
        sent.or_else(|error| {
            Self::wrong(step, "facts/kata.md 2.1: long polls", "the call to be taken", error.to_string())
        })
    }

    /// Sends a request, and plays what is to go wrong here.
    async fn send(
        &mut self,
        step: &'static str,
        line: Line,
        connection: &Arc<Connection>,
        method: Method,
        request: &impl Message,
        deadline: Option<Duration>,
    ) -> Result<Result<InFlight, CallError>, Ended> {
        let here = self.order.fault.as_ref().filter(|fault| fault.step == step && !self.played);
        let fault = here.map(|fault| fault.kind);
        // A step may take several calls.
        self.played |= fault.is_some();
        match fault {
            None => return Ok(connection.begin(method, request, deadline).await),
            Some(Kind::Held) => {
                let sent = connection.begin(method, request, deadline).await;
                self.hold(step).await;
                self.restarted = true;
                return Ok(sent);
            }
            Some(Kind::Killed) => {
                drop(connection.begin(method, request, deadline).await);
                let _ = kill(Pid::this(), Signal::SIGKILL);
            }
            Some(Kind::Closed) => drop(connection.begin(method, request, deadline).await),
            Some(Kind::Reset) => {
                if connection.reset(method, request, UNREAD).await == Unread::Nothing {
                    let rule = "the suite itself: only an answer that nobody read makes a close a reset";
                    return Self::wrong(step, rule, format!("an answer within {UNREAD:?}"), "none");
                }
            }
            Some(Kind::TimedOut) => {
                if let Ok(sent) = connection.begin(method, request, Some(TOO_SHORT)).await {
                    drop(sent.answer::<protobuf::well_known_types::empty::Empty>().await);
                }
                return Err(Ended::Played(step));
            }
        }
        match line {
            Line::Agent => self.hang_up().await,
            Line::Hypervisor => self.cached = None,
        }
        Err(Ended::Played(step))
    }

    /// Takes the connections to the agent into use. Go checks on it every five seconds, with 30 s; runtime-rs every 30 s, with 90 s.
    pub(super) fn attach(&mut self, agent: Connection, forwarder: Option<UnixStream>) {
        let agent = Arc::new(agent);
        let (pause, deadline) = match self.order.model {
            Model::Go => (Duration::from_secs(5), Duration::from_secs(30)),
            Model::Rs => (Duration::from_secs(30), Duration::from_secs(90)),
        };
        let (tell, failed) = oneshot::channel();
        let (watched, checks) = (agent.clone(), self.checks.clone());
        let monitor = tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                let request = CheckRequest::new();
                let checked = watched.call::<HealthCheckResponse>(CHECK, &request, Some(deadline)).await;
                if let Err(error) = checked {
                    drop(tell.send(error));
                    return;
                }
                checks.fetch_add(1, Ordering::Relaxed);
            }
        });
        self.monitor = Some((monitor, failed));
        self.agent = Some(agent);
        self.forwarder = forwarder;
    }

    /// What a shim that watches over its agent would have died of.
    pub(super) fn monitored(&mut self) -> Option<String> {
        let (_, failed) = self.monitor.as_mut()?;
        if let Ok(error) = failed.try_recv() {
            return Some(format!("the health check failed: {error}"));
        }
        if self.agent.as_ref().is_some_and(|agent| agent.is_over()) {
            return Some("the agent's connection was closed".to_owned());
        }
        let mut byte = [0];
        match self.forwarder.as_ref().map(|stream| stream.try_read(&mut byte)) {
            None => None,
            Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => None,
            Some(Ok(0)) => Some("the log forwarder's silent connection was closed".to_owned()),
            Some(other) => Some(format!("the log forwarder's silent connection is not silent: {other:?}")),
        }
    }

    /// How many health checks were answered so far.
    pub(super) fn checks(&self) -> u32 {
        self.checks.load(Ordering::Relaxed)
    }

    /// Stops watching over the agent.
    pub(super) async fn dismiss_monitor(&mut self) {
        if let Some((monitor, _)) = self.monitor.take() {
            monitor.abort();
            drop(monitor.await);
        }
    }

    /// Closes the connections to the agent, with whatever is under way on them.
    pub(super) async fn hang_up(&mut self) {
        self.dismiss_monitor().await;
        self.polls = Polls::default();
        self.agent = None;
        self.forwarder = None;
    }

    /// Whether there is a connection to the agent.
    pub(super) fn is_attached(&self) -> bool {
        self.agent.is_some()
    }
}
