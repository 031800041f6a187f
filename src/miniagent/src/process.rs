//! One process of a container, as the agent sees it: started in two steps, watched, signalled, waited for any number of times.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::{Mutex, watch};

use crate::cgroup::{Cgroup, CgroupError};
use crate::child;
use crate::control::{Failure, FailureKind, Report, START};
use crate::plan::{Place, Plan, ProcessPlan};
use crate::stdio::{EndsTold, Output, ProcessEnds, Stdio, StdioError};

/// How long a child may take to set a process up; nothing it does waits for anything but the kernel.
const SETUP_LIMIT: Duration = Duration::from_secs(30);

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The streams could not be made.
    #[error("streams")]
    Stdio(#[from] StdioError),
    /// The child could not be started.
    #[error("cannot start a child")]
    Spawn(#[source] io::Error),
    /// The child's pipe broke.
    #[error("cannot talk to the child")]
    Control(#[source] io::Error),
    /// The child said why.
    #[error("cannot set up")]
    Failed(#[from] Failure),
    /// The child ended without a word.
    #[error("the child ended before the process was ready")]
    Silent,
    /// The child took too long.
    #[error("the child was not ready after {} s", SETUP_LIMIT.as_secs())]
    Slow,
    /// The process could not be put in its cgroup.
    #[error("cgroup")]
    Cgroup(#[from] CgroupError),
    /// The process was started before.
    #[error("the process was started before")]
    Started,
    /// The process could not be signalled.
    #[error("cannot send a signal")]
    Signal(#[source] io::Error),
}

impl ProcessError {
    /// Whether the container has no such program.
    #[must_use]
    pub fn is_program_not_found(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.kind == FailureKind::ProgramNotFound)
    }
}

/// Where a process runs: in a container it begins, or in one that is there.
#[derive(Debug)]
pub enum Target<'a> {
    /// Begins this container.
    New(Box<crate::plan::ContainerPlan>),
    /// Joins the container of this process.
    Join(&'a Process),
}

/// A process that has been set up.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
    streams: Stdio,
    told: EndsTold,
    exit: watch::Receiver<Option<i32>>,
    /// The child's control stream, until the process is started.
    control: Mutex<Option<BufReader<UnixStream>>>,
}

impl Process {
    /// Sets a process up to the point where only its program is missing.
    ///
    /// # Errors
    /// [`ProcessError`]. Nothing is left running then.
    pub async fn prepare(
        target: Target<'_>,
        process: ProcessPlan,
        cgroup: Option<&Cgroup>,
    ) -> Result<Self, ProcessError> {
        let made = if process.terminal { Stdio::terminal(process.size)? } else { Stdio::pipes()? };
        let (streams, ends) = made;
        let (ours, theirs) = StdUnixStream::pair().map_err(ProcessError::Control)?;
        let (place, passed) = match target {
            Target::New(container) => (Place::New(container), None),
            Target::Join(init) => {
                let pidfd = init.pidfd.try_clone().map_err(ProcessError::Spawn)?;
                (Place::Join { pidfd: pidfd.as_raw_fd() }, Some(pidfd))
            }
        };
        let child = spawn(ends, theirs.into(), passed)?;
        if let (Some(cgroup), Some(pid)) = (cgroup, child.id()) {
            cgroup.add(pid)?;
        }
        let exit = watch_exit(child);
        let mut control = open_control(ours).map_err(ProcessError::Control)?;
        send_plan(&mut control, &Plan { place, process }).await.map_err(ProcessError::Control)?;
        let (pid, pidfd) = match tokio::time::timeout(SETUP_LIMIT, until_ready(&mut control)).await {
            Ok(ready) => ready?,
            Err(_) => return Err(ProcessError::Slow),
        };
        let (told, control) = (EndsTold::default(), Mutex::new(Some(control)));
        Ok(Self { pid, pidfd, streams, told, exit, control })
    }

    /// Executes the program. Answers when it runs.
    ///
    /// # Errors
    /// [`ProcessError`], also when it was started before.
    pub async fn start(&self) -> Result<(), ProcessError> {
        let mut control = self.control.lock().await.take().ok_or(ProcessError::Started)?;
        control.get_mut().write_all(&[START]).await.map_err(ProcessError::Control)?;
        match next_report(&mut control).await? {
            None => Ok(()),
            Some(Report::Failed(failure)) => Err(failure.into()),
            Some(Report::Ready | Report::Forked { .. }) => Err(ProcessError::Silent),
        }
    }

    /// Sends a signal. Ok when the process has ended.
    ///
    /// # Errors
    /// [`ProcessError::Signal`].
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(ProcessError::Signal(error.into())),
        }
    }

    /// Waits for the end, and answers the exit code, or 128 plus the signal that ended the process. Any number of times.
    pub async fn wait(&self) -> i32 {
        let mut exit = self.exit.clone();
        // The sender goes only after it has sent; the fallback is what a lost child means.
        exit.wait_for(Option::is_some).await.ok().and_then(|status| *status).unwrap_or(255)
    }

    /// Its process id in the agent's namespace.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its streams.
    #[must_use]
    pub fn streams(&self) -> &Stdio {
        &self.streams
    }

    /// At most `len` bytes of output as soon as there are any, and once none at its end.
    ///
    /// # Errors
    /// [`StdioError::Broken`], and [`StdioError::End`] after the end.
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped.
    pub async fn read(&self, output: Output, len: usize) -> Result<Vec<u8>, StdioError> {
        let data = self.streams.read(output, len, self.exit()).await?;
        if data.is_empty() {
            self.told.tell(output)?;
        }
        Ok(data)
    }

    /// Changes when the process ends, to its status.
    #[must_use]
    pub fn exit(&self) -> watch::Receiver<Option<i32>> {
        self.exit.clone()
    }
}

/// Starts the child; `control` and `passed` are the only descriptors it inherits besides the streams.
fn spawn(
    ends: ProcessEnds,
    control: OwnedFd,
    passed: Option<OwnedFd>,
) -> Result<tokio::process::Child, ProcessError> {
    // The agent has one thread that starts programs, so nobody else inherits these in between.
    for fd in [Some(&control), passed.as_ref()].into_iter().flatten() {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|e| ProcessError::Spawn(e.into()))?;
    }
    Command::new("/proc/self/exe")
        .arg(child::SUBCOMMAND)
        .arg("--control")
        .arg(control.as_raw_fd().to_string())
        .env_clear()
        .stdin(ends.stdin)
        .stdout(ends.stdout)
        .stderr(ends.stderr)
        .process_group(0)
        .spawn()
        .map_err(ProcessError::Spawn)
}

/// Collects the child when it ends, whoever else is interested.
fn watch_exit(mut child: tokio::process::Child) -> watch::Receiver<Option<i32>> {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let status = child.wait().await.map_or(255, code);
        sender.send_replace(Some(status));
    });
    receiver
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255)
}

fn open_control(stream: StdUnixStream) -> io::Result<BufReader<UnixStream>> {
    stream.set_nonblocking(true)?;
    Ok(BufReader::new(UnixStream::from_std(stream)?))
}

async fn send_plan(control: &mut BufReader<UnixStream>, plan: &Plan) -> io::Result<()> {
    let mut line = serde_json::to_vec(plan)?;
    line.push(b'\n');
    control.get_mut().write_all(&line).await
}

async fn next_report(control: &mut BufReader<UnixStream>) -> Result<Option<Report>, ProcessError> {
    let mut line = String::new();
    if control.read_line(&mut line).await.map_err(ProcessError::Control)? == 0 {
        return Ok(None);
    }
    serde_json::from_str(&line).map(Some).map_err(|error| ProcessError::Control(error.into()))
}

/// The two reports come from two processes, in any order.
async fn until_ready(control: &mut BufReader<UnixStream>) -> Result<(i32, OwnedFd), ProcessError> {
    let (mut forked, mut ready) = (None, false);
    loop {
        match next_report(control).await? {
            Some(Report::Forked { pid }) => forked = open_process(pid).map(|fd| (pid, fd)),
            Some(Report::Ready) => ready = true,
            Some(Report::Failed(failure)) => return Err(failure.into()),
            None => return Err(ProcessError::Silent),
        }
        if ready && let Some(found) = forked.take() {
            return Ok(found);
        }
    }
}

/// None where the process is gone already; it has then said, or will say, why.
fn open_process(pid: i32) -> Option<OwnedFd> {
    // The process is waiting for our start byte, so the id cannot have passed to another.
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}
