//! What the agent and its child say to each other over their socket pair.
//!
//! Agent to child: one line of JSON, the [`Plan`], then one byte, [`START`]. Child to agent: lines of JSON, each a [`Report`]; the
//! end of the stream after the start byte means that the program runs, because the child's end closes when it is executed.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// Tells a child that is ready to execute its program.
pub const START: u8 = b'S';

/// What a child tells the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The container's process exists.
    Forked {
        /// Its process id, in the agent's namespace.
        pid: i32,
    },
    /// All is set up; the process waits for [`START`].
    Ready,
    /// The process will not run.
    Failed(Failure),
}

/// Why a process will not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}: {cause}")]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// What was being done, with names.
    pub what: String,
    /// The answer of the kernel.
    pub cause: String,
}

/// The kinds of failure a caller can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// There is no such program in the container.
    ProgramNotFound,
    /// Anything else.
    Setup,
}

impl Failure {
    /// A failure while setting up.
    pub fn setup(what: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self { kind: FailureKind::Setup, what: what.into(), cause: cause.to_string() }
    }
}

/// The child's end.
#[derive(Debug)]
pub struct ChildEnd {
    stream: UnixStream,
}

impl ChildEnd {
    /// Takes the stream the agent passed.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    /// Reads the plan.
    ///
    /// # Errors
    /// When the agent is gone or the line is no plan.
    pub fn plan(&mut self) -> io::Result<Plan> {
        let mut line = String::new();
        // The agent sends nothing more before it has heard Ready, so buffering loses nothing.
        BufReader::new(&self.stream).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Tells the agent something.
    ///
    /// # Errors
    /// When the agent is gone.
    pub fn report(&mut self, report: &Report) -> io::Result<()> {
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        self.stream.write_all(&line)
    }

    /// Waits for the agent's word to start.
    ///
    /// # Errors
    /// When the agent is gone: then nothing is to be started.
    pub fn wait_for_start(&mut self) -> io::Result<()> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)
    }
}
