//! The daemon's view of links: starting the process, asking it, ending it.
//!
//! Nothing is remembered here. What runs is found by its control socket, so a restarted daemon, or two callers, see the same. The link
//! process is told its keys over that socket only, after its owner was checked.

mod ask;
#[cfg(feature = "systemd")]
mod host_binary;
#[cfg(feature = "systemd")]
pub mod placement;
#[cfg(feature = "systemd")]
mod systemd;
#[cfg(feature = "systemd")]
mod unit;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::control::{Ask, Body, GUEST_TRUST};
pub use crate::control::{GuestState, Speaks, Status};
use crate::link::{Connected, Link, LinkError, LinkSpec, LinkTarget, Opened, Shims};
use crate::living::Process;
use crate::near::Places;
use ask::{Conversation, Failure};

/// How long a link process may take to answer on its control socket.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// How long a link process that was asked to close may take.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// How much later than its deadline a `connect` is given up, should the process hang.
const ANSWER_SLACK: Duration = Duration::from_secs(5);

/// Links as processes of the program `peerpods-link`.
#[derive(Debug, Clone)]
pub struct LinkProcesses {
    program: PathBuf,
    #[cfg(feature = "systemd")]
    units: Option<std::sync::Arc<placement::Units>>,
}

impl LinkProcesses {
    /// Detached processes. `program` is the path of `peerpods-link`; nothing is started.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            #[cfg(feature = "systemd")]
            units: None,
        }
    }

    /// Processes where `placement` says. Links that run already are found wherever they are.
    #[cfg(feature = "systemd")]
    #[must_use]
    pub fn placed(program: PathBuf, placement: placement::Placement) -> Self {
        Self { program, units: Some(std::sync::Arc::new(placement::Units::new(placement))) }
    }

    /// What the sandbox's link is doing; none when there is no link.
    ///
    /// # Errors
    /// When a process is there and does not answer.
    pub async fn status(&self, spec: &LinkSpec) -> Result<Option<Status>, LinkError> {
        let Ok(places) = Places::beside(&spec.agent_socket) else { return Ok(None) };
        let mut conversation = match Conversation::begin(&places.control).await {
            Ok(conversation) => conversation,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(source) => return Err(unreachable(spec, source)),
        };
        match conversation.ask(&Ask::status(), START_PATIENCE).await {
            Ok(Body::Status(status)) if status.sandbox == spec.sandbox.as_str() => Ok(Some(status)),
            Ok(other) => Err(unexpected(spec, &other)),
            Err(failure) => Err(failure.of(spec)),
        }
    }

    async fn start(&self, spec: &LinkSpec, places: &Places) -> Result<(), LinkError> {
        let failed = |source| self.not_started(spec, source);
        DirBuilder::new().recursive(true).mode(0o700).create(&places.dir).map_err(failed)?;
        #[cfg(feature = "systemd")]
        if let Some(units) = &self.units
            && units.start(self, spec).await?
        {
            return Ok(());
        }
        self.detach(spec).await
    }

    /// Starts it detached, and returns when it listens.
    async fn detach(&self, spec: &LinkSpec) -> Result<(), LinkError> {
        let failed = |source| self.not_started(spec, source);
        let launcher = Command::new(&self.program)
            .args(["--sandbox", spec.sandbox.as_str(), "--agent-socket"])
            .arg(&spec.agent_socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let ended = timeout(START_PATIENCE, launcher.wait_with_output()).await;
        let output = ended.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let said: String = String::from_utf8_lossy(&output.stderr).trim().chars().take(1000).collect();
        Err(failed(io::Error::other(format!("{} ({said})", output.status))))
    }

    fn not_started(&self, spec: &LinkSpec, source: io::Error) -> LinkError {
        LinkError::Start { sandbox: spec.sandbox.clone(), program: self.program.clone(), source }
    }

    /// Ends the sandbox's unit, where its sockets do not help. True when there was one and it is gone.
    async fn stop_unit(&self, spec: &LinkSpec) -> bool {
        #[cfg(feature = "systemd")]
        if let Some(units) = &self.units {
            return units.stop(spec).await;
        }
        let _ = spec;
        false
    }

    /// Waits for the process that was started, by us or by somebody at the same time.
    async fn wait_until_it_answers(&self, spec: &LinkSpec) -> Result<Status, LinkError> {
        let until = Instant::now() + START_PATIENCE;
        loop {
            match self.status(spec).await {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() < until => sleep(Duration::from_millis(20)).await,
                Ok(None) => return Err(unreachable(spec, io::ErrorKind::TimedOut.into())),
                Err(error) => return Err(error),
            }
        }
    }
}

#[async_trait]
impl Link for LinkProcesses {
    async fn open(&self, spec: &LinkSpec) -> Result<Opened, LinkError> {
        let places = Places::beside(&spec.agent_socket)
            .map_err(|e| self.not_started(spec, io::Error::new(io::ErrorKind::InvalidInput, e)))?;
        if let Some(status) = self.status(spec).await? {
            return Ok(opened(&status));
        }
        let started = match self.start(spec, &places).await {
            Ok(()) => self.wait_until_it_answers(spec).await,
            // Somebody else's start may have won; then theirs answers.
            Err(error) => match self.status(spec).await {
                Ok(Some(status)) => Ok(status),
                _ => Err(error),
            },
        };
        if started.is_err() {
            let _ = self.close(spec).await;
        }
        started.map(|status| opened(&status))
    }

    async fn connect(&self, spec: &LinkSpec, target: &LinkTarget) -> Result<Connected, LinkError> {
        let places = Places::beside(&spec.agent_socket)
            .map_err(|e| unreachable(spec, io::Error::new(io::ErrorKind::InvalidInput, e)))?;
        let begun = Conversation::begin(&places.control).await;
        let mut conversation = begun.map_err(|source| unreachable(spec, source))?;
        let patience = target.deadline.saturating_add(ANSWER_SLACK);
        let sandbox = spec.sandbox.clone();
        match conversation.ask(&Ask::connect(target), patience).await.map_err(|f| f.of(spec))? {
            Body::Connected(connected) => Ok(connected),
            Body::Deadline { address, after, last } => {
                Err(LinkError::Deadline { sandbox, address, after, last })
            }
            Body::Untrusted { address, reason } => Err(LinkError::Untrusted { sandbox, address, reason }),
            other => Err(unexpected(spec, &other)),
        }
    }

    async fn shims(&self, spec: &LinkSpec) -> Result<Option<Shims>, LinkError> {
        let status = self.status(spec).await?;
        Ok(status.map(|status| Shims { connections: status.shims, last: status.shim }))
    }

    async fn close(&self, spec: &LinkSpec) -> Result<(), LinkError> {
        // Where no link can be, none is.
        let Ok(places) = Places::beside(&spec.agent_socket) else { return Ok(()) };
        match running(&places).await.map_err(|source| unreachable(spec, source))? {
            Some(conversation) => {
                if let Err(source) = end(conversation).await
                    && !self.stop_unit(spec).await
                {
                    return Err(unreachable(spec, source));
                }
            }
            // Its sockets may have been removed under it.
            None => _ = self.stop_unit(spec).await,
        }
        for path in [&places.control, &places.agent, &places.log] {
            remove(path).map_err(|source| unreachable(spec, source))?;
        }
        // The directory may have been made by `open`; whoever keeps something else there keeps it.
        let _ = fs::remove_dir(&places.dir);
        Ok(())
    }
}

fn opened(status: &Status) -> Opened {
    Opened { admits_by_token: status.speaks.includes(GUEST_TRUST) }
}

/// Who listens on the control socket, or on the agent socket when the other was removed. An error when there may be somebody.
async fn running(places: &Places) -> io::Result<Option<Conversation>> {
    for socket in [&places.control, &places.agent] {
        match Conversation::begin(socket).await {
            Ok(found) => return Ok(Some(found)),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Asks the process to close, and kills it when it does not.
async fn end(mut conversation: Conversation) -> io::Result<()> {
    if conversation.peer == 0 {
        return end_unseen(conversation).await;
    }
    let Some(process) = Process::find(conversation.peer)? else { return Ok(()) };
    let asked = conversation.ask(&Ask::close(), CLOSE_PATIENCE).await;
    if asked.is_err() || !process.ends_within(CLOSE_PATIENCE).await {
        process.kill();
    }
    if process.ends_within(CLOSE_PATIENCE).await {
        Ok(())
    } else {
        Err(io::Error::other("it cannot be killed"))
    }
}

/// A process outside our pid namespace has no number here: it cannot be killed, but its end hangs up.
async fn end_unseen(mut conversation: Conversation) -> io::Result<()> {
    let asked = conversation.ask(&Ask::close(), CLOSE_PATIENCE).await;
    match (asked, timeout(CLOSE_PATIENCE, conversation.hung_up()).await) {
        (Ok(Body::Closing), Ok(Ok(()))) => Ok(()),
        _ => Err(io::Error::other("it does not close, and cannot be killed from this pid namespace")),
    }
}

fn remove(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a failed connection proves that nobody listens: a full queue, or no descriptor left to us, does not.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn unreachable(spec: &LinkSpec, source: io::Error) -> LinkError {
    LinkError::Unreachable { sandbox: spec.sandbox.clone(), source }
}

fn unexpected(spec: &LinkSpec, body: &Body) -> LinkError {
    let answer = match body {
        Body::Error { message } => message.clone(),
        other => format!("{other:?}"),
    };
    LinkError::Protocol { sandbox: spec.sandbox.clone(), answer }
}

impl Failure {
    fn of(self, spec: &LinkSpec) -> LinkError {
        match self {
            Failure::Io(source) => unreachable(spec, source),
            Failure::Answer(answer) => LinkError::Protocol { sandbox: spec.sandbox.clone(), answer },
            Failure::Unsupported(needed) => LinkError::Unsupported { sandbox: spec.sandbox.clone(), needed },
        }
    }
}
