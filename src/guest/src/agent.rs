//! The agent: which program it is, what it is told, and its one life as our child.
//!
//! It runs in the namespaces we run in, the VM's own, and not in the pod's: containers join the pod's network because the link's far
//! end names it in their specification.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Serialize;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long an agent may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where a real agent is found, in order.
const KATA_AGENT: [&str; 2] = ["/usr/bin/kata-agent", "/usr/local/bin/kata-agent"];
/// The stand-in's name beside our own program, and its place in an image.
const MINIAGENT: &str = "miniagent";
const MINIAGENT_PLACE: &str = "/usr/bin/miniagent";
/// Variables that are not for the agent: one would override its configuration, the other is our own service manager's.
const NOT_FOR_THE_AGENT: [&str; 2] = ["KATA_AGENT_SERVER_ADDR", "NOTIFY_SOCKET"];

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No program was found.
    #[error("there is no agent; looked for {}", looked_for.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    NoProgram {
        /// Every place that was looked at.
        looked_for: Vec<PathBuf>,
    },
    /// The agent's files cannot be made.
    #[error("cannot prepare {} for the agent", path.display())]
    Prepare {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The program does not start.
    #[error("cannot start the agent {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The program ended before anybody could have called it.
    #[error("the agent {} ended before it made its socket ({status}); its own words are above", program.display())]
    EndedAtOnce {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },
}

/// An agent to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSpec {
    /// The program.
    pub program: PathBuf,
    /// Where it serves.
    pub socket: PathBuf,
    /// Where its configuration is written.
    pub config: PathBuf,
    /// The policy it has to enforce.
    pub policy: Option<PathBuf>,
}

/// The kata-agent's configuration file; keys an agent does not know are ignored by it.
#[derive(Serialize)]
struct Config<'a> {
    server_addr: String,
    // Attestation parts are services of the image, never children of the agent.
    guest_components_procs: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_file: Option<&'a Path>,
}

/// Finds the program: the named one, else a real agent, else the stand-in beside `own` program or in its place in an image.
///
/// # Errors
/// When there is none; all places are named.
pub fn find(named: Option<&Path>, own: Option<&Path>) -> Result<PathBuf, AgentError> {
    let looked_for = candidates(named, own);
    match looked_for.iter().find(|path| path.is_file()) {
        Some(found) => Ok(found.clone()),
        None => Err(AgentError::NoProgram { looked_for }),
    }
}

/// Where an agent may be, best first. Pure.
fn candidates(named: Option<&Path>, own: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = named {
        return vec![path.to_owned()];
    }
    let beside = own.and_then(Path::parent).map(|dir| dir.join(MINIAGENT));
    KATA_AGENT.into_iter().map(PathBuf::from).chain(beside).chain([PathBuf::from(MINIAGENT_PLACE)]).collect()
}

impl AgentSpec {
    fn config_text(&self) -> Result<String, AgentError> {
        let config = Config {
            server_addr: format!("unix://{}", self.socket.display()),
            guest_components_procs: "none",
            policy_file: self.policy.as_deref(),
        };
        toml::to_string(&config).map_err(|error| self.prepare(&self.config)(io::Error::other(error)))
    }

    fn prepare(&self, path: &Path) -> impl FnOnce(io::Error) -> AgentError {
        let path = path.to_owned();
        move |source| AgentError::Prepare { path, source }
    }

    /// Starts the agent as a child in a process group of its own. A socket of an earlier life is removed first; the agent makes a new
    /// one when it is ready to be called.
    ///
    /// # Errors
    /// When it does not start; the message names the step.
    pub fn start(&self) -> Result<Agent, AgentError> {
        for directory in [self.socket.parent(), self.config.parent()].into_iter().flatten() {
            fs::create_dir_all(directory).map_err(self.prepare(directory))?;
        }
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.prepare(&self.socket)(error));
            }
            _ => {}
        }
        fs::write(&self.config, self.config_text()?).map_err(self.prepare(&self.config))?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        for variable in NOT_FOR_THE_AGENT {
            command.env_remove(variable);
        }
        let child =
            command.spawn().map_err(|source| AgentError::Start { program: self.program.clone(), source })?;
        Ok(Agent { child, program: self.program.clone(), socket: self.socket.clone() })
    }
}

/// How often a starting agent's socket is looked for.
const SOCKET_POLL: Duration = Duration::from_millis(50);

/// A running agent. Dropped, it is killed.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    program: PathBuf,
    socket: PathBuf,
}

impl Agent {
    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Returns when its socket is there, or when it has ended after that.
    ///
    /// # Errors
    /// [`AgentError::EndedAtOnce`] when it ended without ever having been reachable.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn reachable(&mut self) -> Result<(), AgentError> {
        while !self.socket.exists() {
            let Ok(ended) = timeout(SOCKET_POLL, self.child.wait()).await else { continue };
            return match ended {
                Ok(status) if !self.socket.exists() => {
                    Err(AgentError::EndedAtOnce { program: self.program.clone(), status })
                }
                _ => Ok(()),
            };
        }
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When the system cannot tell.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends it and its process group: SIGTERM, and SIGKILL after two seconds. Ok when it has ended already.
    pub async fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        if timeout(PATIENCE, self.child.wait()).await.is_err() {
            tracing::warn!(after = ?PATIENCE, "the agent does not end; killing it");
            self.signal(Signal::SIGKILL);
            if let Err(error) = self.child.wait().await {
                tracing::error!(%error, "cannot wait for the agent");
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let group = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        // It may have ended this moment; then there is nobody to tell.
        let _ = group.map(|group| killpg(Pid::from_raw(group), signal));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dir: &Path, script: &str) -> AgentSpec {
        let program = dir.join("agent");
        // Written by another process: a program this one has open for writing, if only in a fork of a parallel test, cannot be run.
        let write = "printf '%s' \"$1\" > \"$2\" && chmod 755 \"$2\"";
        let text = format!("#!/bin/sh\n{script}\n");
        let written =
            std::process::Command::new("sh").args(["-c", write, "sh", &text]).arg(&program).status();
        assert!(written.unwrap().success());
        AgentSpec {
            program,
            socket: dir.join("sock/agent.sock"),
            config: dir.join("agent.toml"),
            policy: Some(dir.join("policy.rego")),
        }
    }

    #[test]
    fn a_real_agent_comes_before_the_stand_in() {
        let found = candidates(None, Some(Path::new("/opt/bin/peerpods-guest")));
        let expected =
            ["/usr/bin/kata-agent", "/usr/local/bin/kata-agent", "/opt/bin/miniagent", "/usr/bin/miniagent"];
        assert_eq!(found, expected.map(PathBuf::from));
        assert_eq!(candidates(Some(Path::new("x")), None), [PathBuf::from("x")]);
        let missing = find(Some(Path::new("/nonexistent/agent")), None).unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/agent"), "{missing}");
    }

    #[tokio::test]
    async fn an_agent_gets_its_configuration_and_a_place_without_a_stale_socket() {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(dir.path(), "cat \"$2\" > \"$0.seen\"; test ! -e \"$0.sock\"; exit 7");
        fs::create_dir_all(dir.path().join("sock")).unwrap();
        fs::write(&spec.socket, "stale").unwrap();
        let mut agent = spec.start().unwrap();
        assert_eq!(agent.ended().await.unwrap().code(), Some(7));
        assert!(!spec.socket.exists());
        let seen: toml::Table = fs::read_to_string(dir.path().join("agent.seen")).unwrap().parse().unwrap();
        assert_eq!(seen["server_addr"].as_str(), Some(&*format!("unix://{}", spec.socket.display())));
        assert_eq!(seen["guest_components_procs"].as_str(), Some("none"));
        assert!(seen["policy_file"].as_str().unwrap().ends_with("policy.rego"));
    }

    #[tokio::test]
    async fn an_agent_that_ignores_sigterm_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(dir.path(), "trap '' TERM; sleep 300 & echo $! > \"$0.pid\"; while :; do wait; done");
        let agent = spec.start().unwrap();
        let pid_file = dir.path().join("agent.pid");
        while fs::read_to_string(&pid_file).map_or(true, |text| text.is_empty()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let started = std::time::Instant::now();
        agent.stop().await;
        assert!(started.elapsed() < Duration::from_secs(30));
        let pid = fs::read_to_string(&pid_file).unwrap();
        let state = || fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        // A signal that has been sent is not yet one that was delivered: a busy machine lets the child wait for its last turn.
        let ended = || state().is_empty() || state().contains(" Z ");
        while !ended() && started.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(ended(), "its child still runs: {}", state());
    }

    #[test]
    fn a_program_that_does_not_start_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let spec = AgentSpec { program: dir.path().join("gone"), ..spec(dir.path(), "") };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _guard = runtime.enter();
        let error = spec.start().unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
    }
}
