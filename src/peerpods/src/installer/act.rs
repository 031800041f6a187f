//! Carries a plan out, step by step. A container runtime that does not come back is given back what it had, and the reason is told.

use super::Runtime;
use super::containerd;
use super::host::{File, Host, HostError};
use super::observe::{self, ObserveError};
use super::plan::{self, Fault, HEADER, Observed, Step, Wish};
use super::state::{self, Failed, State};
use super::units::{UnitError, Units};

/// Why a host is not as wished.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// It could not be looked at.
    #[error("the host cannot be looked at")]
    Observe(#[from] ObserveError),
    /// Nothing may be done.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A file.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A container runtime did not come back, and has back what it had.
    #[error("the files are as they were before")]
    Restored(#[source] UnitError),
    /// The same, and it did not come back with what it had either.
    #[error("the files are as they were before, and {unit} does not run: {again}")]
    Broken {
        /// Which.
        unit: Runtime,
        /// What happened the second time.
        again: UnitError,
        /// The first time.
        source: UnitError,
    },
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Files that were written.
    pub written: Vec<String>,
    /// Files that were removed.
    pub removed: Vec<String>,
    /// Container runtimes that were restarted.
    pub restarted: Vec<Runtime>,
}

impl Report {
    /// Whether all was as wished.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Makes a host as wished. Nothing is written and nothing restarted where it is so.
///
/// # Errors
/// Why it is not. Whatever ended it, also a power cut: calling it again goes on from there.
pub async fn converge(host: &Host, units: &dyn Units, wish: &Wish) -> Result<Report, InstallError> {
    observe::sweep(host)?;
    let observed = observe::observe(host, units).await?;
    let steps = plan::plan(wish, &observed)?;
    let mut report = Report::default();
    for one in &steps {
        if let Err(error) = step(host, units, one).await {
            return Err(match (error, one) {
                (StepError::Unit(error), Step::Restart(runtime)) => {
                    restore(host, units, &observed, &plan::digest_of(&steps), *runtime, error).await
                }
                (StepError::Unit(error), _) => InstallError::Restored(error),
                (StepError::Host(error), _) => error.into(),
            });
        }
        report.note(one);
    }
    Ok(report)
}

impl Report {
    fn note(&mut self, step: &Step) {
        match step {
            Step::Write { path, .. } => self.written.push(path.clone()),
            Step::Remove(path) => self.removed.push(path.clone()),
            Step::Restart(runtime) => self.restarted.push(*runtime),
            Step::Remember(_) | Step::MakeDirectory(_) | Step::RemoveDirectory(_) => {}
        }
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Unit(#[from] UnitError),
}

/// One step.
pub(super) async fn step(host: &Host, units: &dyn Units, step: &Step) -> Result<(), StepError> {
    match step {
        Step::Remember(state) => remember(host, state)?,
        Step::MakeDirectory(path) => host.make_directory(path)?,
        Step::Write { path, text } => {
            host.write(path, text)?;
            tracing::info!(path, "written");
        }
        Step::Remove(path) => {
            host.remove(path)?;
            tracing::info!(path, "removed");
        }
        Step::Restart(runtime) => {
            tracing::info!(unit = %runtime, "restarting, so that it reads its configuration; pods go on");
            units.restart(*runtime).await?;
            tracing::info!(unit = %runtime, "it is back");
        }
        Step::RemoveDirectory(path) => host.remove_directory(path)?,
    }
    Ok(())
}

fn remember(host: &Host, state: &State) -> Result<(), HostError> {
    match state.is_empty() {
        true => host.remove(state::PATH),
        false => host.write(state::PATH, &state.text()),
    }
}

/// Gives back what was there. What is remembered now is what was there before the first of several tries.
async fn restore(
    host: &Host,
    units: &dyn Units,
    observed: &Observed,
    digest: &str,
    unit: Runtime,
    error: UnitError,
) -> InstallError {
    let state = match give_back(host, observed, digest, &error) {
        Ok(state) => state,
        Err(error) => return error.into(),
    };
    match units.restart(unit).await {
        Ok(()) => match remember(host, &State { owed: [].into(), ..state }) {
            Ok(()) => InstallError::Restored(error),
            Err(error) => error.into(),
        },
        Err(again) => InstallError::Broken { unit, again, source: error },
    }
}

fn give_back(host: &Host, observed: &Observed, digest: &str, error: &UnitError) -> Result<State, HostError> {
    let text = host.read(state::PATH)?;
    let state = text.text().and_then(State::read).unwrap_or_default();
    for (path, before) in &state.before {
        let now = host.read(path)?;
        match given_back(&now, before.as_deref()) {
            Some(Some(text)) => host.write(path, &text)?,
            Some(None) => host.remove(path)?,
            None => {}
        }
    }
    let failed = Failed { digest: digest.to_owned(), at: observed.now, reason: error.to_string() };
    // The restart that follows is still owed, should we end before it.
    let state = State { made: state.made, owed: state.owed, failed: Some(failed), ..State::default() };
    remember(host, &state)?;
    Ok(state)
}

/// How a file is to be again: with a text, or not there; nothing where it is as it was or somebody else's.
fn given_back(now: &File, before: Option<&str>) -> Option<Option<String>> {
    let ours = |text: &str| text.starts_with(HEADER);
    let is = now.text();
    if is == before || matches!(now, File::Linked(_) | File::Other(_)) {
        return None;
    }
    match (is, before) {
        (Some(is), None) => ours(is).then_some(None),
        (None, Some(before)) => Some(Some(before.to_owned())),
        (Some(is), Some(before)) if ours(is) || ours(before) => ours(is).then(|| Some(before.to_owned())),
        // The host's own file: what others changed in it meanwhile stays.
        (Some(is), Some(before)) => {
            let (is, was) = (containerd::without_ours(is)?, containerd::without_ours(before)?);
            Some(Some(if is == was { before.to_owned() } else { is }))
        }
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests;
