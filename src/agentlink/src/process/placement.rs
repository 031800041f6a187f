//! Where a link's process is put: under the host's systemd as a unit of its own, or detached from us.
//!
//! A detached process leaves our session and not our control group, so that what ends the group (a container's removal, a unit's stop with
//! systemd's default `KillMode`) ends every link with it. As a transient unit it is in a group of its own, also when we run in a container,
//! given the host's system bus and the same paths for agent sockets and state. Wherever a link was put, it is found by its control
//! socket, so both kinds live side by side and a successor takes over either.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use peerpods_podvm::causes::chain;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::host_binary::{self, PlaceError};
use super::systemd::{Systemd, is_error};
use super::unit::{NotUtf8, State, Step, Unit, is_over, on_exists};
use super::{LinkProcesses, START_PATIENCE};
use crate::link::{LinkError, LinkSpec};

/// The system bus.
pub const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// How long the manager may take to answer at all.
const REACH_PATIENCE: Duration = Duration::from_secs(2);
/// The same when a sandbox is stopped, which the shim waits for.
const STOP_REACH_PATIENCE: Duration = Duration::from_millis(500);
/// How long a unit that was asked to end may take, `TimeoutStopSec` and its removal included.
const GONE_PATIENCE: Duration = Duration::from_secs(4);
/// How often a unit that is in the way is dealt with before that is given up.
const ATTEMPTS: usize = 5;
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How many looks at the control socket there are to one at the unit.
const LOOKS_A_STATE: u32 = 5;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A unit where the host's systemd answers, else detached.
    Auto,
    /// A unit, or no link.
    Systemd,
    /// Detached from us, in our control group.
    Detached,
}

/// Where links are put, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// What is wanted.
    pub wanted: Wanted,
    /// The socket of the host's system bus, on which systemd is asked.
    pub bus: PathBuf,
    /// Where the link program is placed, a directory a version; the same path on the host and for us.
    pub bin_dir: PathBuf,
}

/// Where a link goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Into a unit.
    Systemd,
    /// Detached.
    Detached,
}

/// A decision, and its reason for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Where.
    pub way: Way,
    /// Why there.
    pub why: String,
}

/// Where links go, given who we are and what the manager answered: who it is, or why it does not answer.
///
/// # Errors
/// Why there can be none, when a unit is wanted and nothing else.
pub fn choose(wanted: Wanted, euid: u32, answer: &Result<String, String>) -> Result<Choice, String> {
    let detached = |why: String| Choice { way: Way::Detached, why };
    let reason = match (wanted, answer) {
        (Wanted::Detached, _) => return Ok(detached("as configured".to_owned())),
        (_, _) if euid != 0 => format!("only root may start units, and this is user {euid}"),
        (_, Ok(who)) => return Ok(Choice { way: Way::Systemd, why: format!("{who} answers") }),
        (_, Err(reason)) => format!("no systemd answers: {reason}"),
    };
    if wanted == Wanted::Auto { Ok(detached(reason)) } else { Err(reason) }
}

/// Why there is no unit.
#[derive(Debug, thiserror::Error)]
enum UnitError {
    #[error("{0}")]
    Unavailable(String),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Path(#[from] NotUtf8),
    #[error("systemd refused")]
    Refused(#[from] zbus::Error),
    #[error("a unit of that name is another daemon's ({0})")]
    Taken(String),
    #[error(
        "it ended before its link listened; does the host see the program and the agent socket's directory at our paths?"
    )]
    Ended,
    #[error("it runs, and its link does not listen at our path")]
    Silent,
    #[error("the link does not answer as it should")]
    Link(#[source] Box<LinkError>),
    #[error("a unit of that name is there and does not go away")]
    Stuck,
}

impl Placement {
    /// The usual bus, and the program below `state_dir`.
    #[must_use]
    pub fn new(wanted: Wanted, state_dir: &Path) -> Self {
        Self { wanted, bus: SYSTEM_BUS.into(), bin_dir: state_dir.join("bin") }
    }

    /// Asks the manager, when it matters, and decides. Takes at most two seconds.
    ///
    /// # Errors
    /// As [`choose`].
    pub async fn decide(&self) -> Result<Choice, String> {
        self.reach(REACH_PATIENCE).await.map(|(choice, _)| choice)
    }

    async fn reach(&self, patience: Duration) -> Result<(Choice, Option<Systemd>), String> {
        let euid = nix::unistd::geteuid().as_raw();
        let found = if self.wanted == Wanted::Detached || euid != 0 {
            Err("not asked".to_owned())
        } else {
            Systemd::reach(&self.bus, patience).await
        };
        let answer = found.as_ref().map(|s| format!("systemd {} at {}", s.version, s.socket.display()));
        let choice = choose(self.wanted, euid, &answer.map_err(Clone::clone))?;
        Ok((choice, found.ok()))
    }
}

/// Links as units.
pub(super) struct Units {
    placement: Placement,
    /// The program on the host, and the inode it had when it was compared.
    placed: Mutex<Option<(PathBuf, u64)>>,
    told: AtomicBool,
}

impl fmt::Debug for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.placement.fmt(f)
    }
}

impl Units {
    pub(super) fn new(placement: Placement) -> Self {
        Self { placement, placed: Mutex::new(None), told: AtomicBool::new(false) }
    }

    /// Starts the sandbox's link as a unit and waits until it answers. False: it is to be started detached.
    pub(super) async fn start(&self, links: &LinkProcesses, spec: &LinkSpec) -> Result<bool, LinkError> {
        let failed = match self.placement.reach(REACH_PATIENCE).await {
            Ok((_, Some(systemd))) => match self.run(&systemd, links, spec).await {
                Ok(()) => return Ok(true),
                Err(error) => error,
            },
            Ok((choice, None)) => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    tracing::info!("links are started detached: {}", choice.why);
                }
                return Ok(false);
            }
            Err(reason) => UnitError::Unavailable(reason),
        };
        let sandbox = spec.sandbox.clone();
        let unit = Unit::name_of(&sandbox);
        let error = LinkError::Unit { sandbox, unit, source: Box::new(failed) };
        if self.placement.wanted == Wanted::Systemd {
            return Err(error);
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            let error = chain(&error);
            tracing::warn!(error, "links are started detached: what ends our control group ends them");
        }
        Ok(false)
    }

    async fn run(&self, systemd: &Systemd, links: &LinkProcesses, spec: &LinkSpec) -> Result<(), UnitError> {
        let program = self.on_host(systemd, &links.program).await?;
        let unit = Unit::of(&spec.sandbox, &spec.agent_socket, &program)?;
        for _ in 0..ATTEMPTS {
            match systemd.start(&unit).await {
                Ok(()) => {
                    let up = until_it_answers(systemd, links, spec, &unit).await;
                    if up.is_err() {
                        // Also so that a link that comes late does not stand in a detached one's way.
                        let _ = end(systemd, &unit.name).await;
                    }
                    return up;
                }
                Err(error) if is_error(&error, "org.freedesktop.systemd1.UnitExists") => {
                    if clear(systemd, links, spec, &unit).await? == Way::Systemd {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(UnitError::Stuck)
    }

    /// The program's path on the host; it is compared once in our life, and again when it is another file.
    async fn on_host(&self, systemd: &Systemd, program: &Path) -> Result<PathBuf, UnitError> {
        const VERSION: &str = env!("CARGO_PKG_VERSION");
        let inode = |path: &Path| std::fs::symlink_metadata(path).map_or(0, |found| found.ino());
        let mut placed = self.placed.lock().await;
        if let Some((path, compared)) = &*placed
            && inode(path) == *compared
        {
            return Ok(path.clone());
        }
        let (program, bin_dir) = (program.to_owned(), self.placement.bin_dir.clone());
        // Without knowing what runs, nothing is removed.
        let in_use = systemd.programs().await.ok();
        let work = move || {
            let path = host_binary::place(&program, &bin_dir, VERSION)?;
            match in_use.map(|in_use| host_binary::sweep(&bin_dir, VERSION, &in_use)) {
                Some(Ok(removed)) if !removed.is_empty() => {
                    tracing::info!(?removed, "link programs that no unit runs were removed");
                }
                Some(Err(error)) => tracing::warn!(error = chain(&error), "old link programs stay"),
                _ => {}
            }
            Ok::<_, PlaceError>(path)
        };
        let path = tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| UnitError::Unavailable(format!("placing the program failed: {error}")))??;
        *placed = Some((path.clone(), inode(&path)));
        Ok(path)
    }

    /// Ends a unit of this sandbox's that its sockets do not lead to. True when there was one and it is gone.
    pub(super) async fn stop(&self, spec: &LinkSpec) -> bool {
        let Ok((_, Some(systemd))) = self.placement.reach(STOP_REACH_PATIENCE).await else { return false };
        let name = Unit::name_of(&spec.sandbox);
        let ours = |state: &State| state.description == Unit::description_of(&spec.agent_socket);
        match systemd.state(&name).await {
            Ok(Some(state)) if ours(&state) => end(&systemd, &name).await.is_ok(),
            _ => false,
        }
    }
}

/// Deals with a unit that is in the way. [`Way::Systemd`]: it is our link and answers; else the start is to be tried again.
async fn clear(
    systemd: &Systemd,
    links: &LinkProcesses,
    spec: &LinkSpec,
    unit: &Unit,
) -> Result<Way, UnitError> {
    let found = systemd.state(&unit.name).await?;
    match on_exists(found.as_ref(), &unit.description) {
        Step::Join => match until_it_answers(systemd, links, spec, unit).await {
            Ok(()) => return Ok(Way::Systemd),
            Err(_) => end(systemd, &unit.name).await?,
        },
        Step::Reset => systemd.reset_failed(&unit.name).await?,
        Step::Retry => {
            sleep(LOOK_EVERY).await;
            until_gone(systemd, &unit.name).await?;
        }
        Step::Refuse => return Err(UnitError::Taken(found.map(|s| s.description).unwrap_or_default())),
    }
    Ok(Way::Detached)
}

async fn end(systemd: &Systemd, name: &str) -> Result<(), UnitError> {
    systemd.stop(name).await?;
    systemd.reset_failed(name).await?;
    until_gone(systemd, name).await
}

async fn until_gone(systemd: &Systemd, name: &str) -> Result<(), UnitError> {
    let until = Instant::now() + GONE_PATIENCE;
    while !is_over(systemd.state(name).await?.as_ref()) {
        if Instant::now() >= until {
            return Err(UnitError::Stuck);
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn until_it_answers(
    systemd: &Systemd,
    links: &LinkProcesses,
    spec: &LinkSpec,
    unit: &Unit,
) -> Result<(), UnitError> {
    let until = Instant::now() + START_PATIENCE;
    for look in 1.. {
        if links.status(spec).await.map_err(|error| UnitError::Link(Box::new(error)))?.is_some() {
            return Ok(());
        }
        if look % LOOKS_A_STATE == 0 && is_over(systemd.state(&unit.name).await?.as_ref()) {
            return Err(UnitError::Ended);
        }
        if Instant::now() >= until {
            break;
        }
        sleep(LOOK_EVERY).await;
    }
    Err(UnitError::Silent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_follows_what_is_wanted_who_asks_and_who_answers() {
        let (who, silence) = (Ok("systemd 252".to_owned()), Err("silence".to_owned()));
        for (wanted, euid, answer, way, part) in [
            (Wanted::Auto, 0, &who, Some(Way::Systemd), "systemd 252 answers"),
            (Wanted::Auto, 0, &silence, Some(Way::Detached), "silence"),
            (Wanted::Auto, 1000, &who, Some(Way::Detached), "user 1000"),
            (Wanted::Systemd, 0, &who, Some(Way::Systemd), "systemd 252 answers"),
            (Wanted::Systemd, 0, &silence, None, "silence"),
            (Wanted::Systemd, 1000, &who, None, "only root"),
            (Wanted::Detached, 0, &who, Some(Way::Detached), "as configured"),
            (Wanted::Detached, 1000, &silence, Some(Way::Detached), "as configured"),
        ] {
            let chosen = choose(wanted, euid, answer);
            let said = chosen.as_ref().map_or_else(Clone::clone, |choice| choice.why.clone());
            assert_eq!(chosen.ok().map(|choice| choice.way), way, "{wanted:?} {euid} {answer:?}");
            assert!(said.contains(part), "{said}");
        }
    }
}
