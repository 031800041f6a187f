//! Which files are to be how, as steps in their order; or why nothing may be done. Pure.

mod changes;

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::Runtime;
use super::host::File;
use super::state::State;

/// The first line of every file that is ours.
pub const HEADER: &str =
    "# Placed by peerpods install-node: changes are undone, and the file goes with Kata Containers.\n";
/// CRI-O's drop-in.
pub const CRIO_DROP_IN: &str = "/etc/crio/crio.conf.d/50-peerpods";
/// How long something that did not work is left alone, in seconds.
pub const LEFT_ALONE: u64 = 30 * 60;

/// What is wished of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Our files.
    Files(Files),
    /// As it was.
    Nothing,
}

/// Our files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Names of the handlers for peer pods.
    pub classes: Vec<String>,
    /// How long a start of a VM may take, in seconds.
    pub hypervisor_timeout: u32,
    /// The container runtime's log level; none leaves what there is.
    pub log_level: Option<String>,
}

/// What there is of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The Kata shim.
    pub shim: Option<String>,
    /// The shim's configuration for VMs on the node itself, where Kata Containers was installed.
    pub local: Option<String>,
    /// Container runtimes that run.
    pub running: BTreeSet<Runtime>,
    /// What is at each path that matters; nothing at those that are not here.
    pub files: BTreeMap<String, File>,
    /// The files that containerd imports, in its order; our own left out.
    pub imported: Vec<String>,
    /// The other files that CRI-O reads.
    pub of_crio: Vec<String>,
    /// Directories that our files need and that are not there, the outer ones first.
    pub missing: Vec<String>,
    /// What was remembered, if anything.
    pub state: Option<State>,
    /// Seconds since 1970.
    pub now: u64,
}

impl Observed {
    /// What is at a path.
    #[must_use]
    pub fn file(&self, path: &str) -> &File {
        self.files.get(path).unwrap_or(&File::Absent)
    }

    pub(super) fn text(&self, path: &str) -> &str {
        self.file(path).text().unwrap_or_default()
    }
}

/// Why nothing may be done. Somebody has to do something first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nobody reads what would be written.
    #[error(
        "neither containerd.service nor crio.service runs on this host: no container runtime would read what is placed"
    )]
    NoRuntime,
    /// Nothing could run a pod.
    #[error(
        "there is no Kata shim on this host: install Kata Containers, so that containerd-shim-kata-v2 is in /opt/kata/bin, /usr/local/bin or /usr/bin"
    )]
    NoShim,
    /// Nothing is to be placed.
    #[error("Kata Containers on this host has no configuration.toml, and peer pods are not asked for")]
    NothingToPlace,
    /// A file of somebody else is where ours would be.
    #[error("{path} is there and was not placed by us ({what}): move it away")]
    Foreign {
        /// The file.
        path: String,
        /// What it is.
        what: String,
    },
    /// Somebody else has the name.
    #[error("{path} has a handler {handler} already: remove it there, it would be one of two")]
    Taken {
        /// The file.
        path: String,
        /// The handler.
        handler: String,
    },
    /// containerd's file makes no sense, or is of a time when handlers had another form.
    #[error("{path}: {why}")]
    Containerd {
        /// The file.
        path: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// Our part of a file was changed.
    #[error(
        "somebody changed what we added to {path}: take every line that names \"peerpods install-node\", and what is between BEGIN and END, out of it"
    )]
    Edited {
        /// The file.
        path: String,
    },
    /// The same did not work a while ago.
    #[error("not tried again before {LEFT_ALONE} s have passed: {reason}")]
    FailedBefore {
        /// Why.
        reason: String,
    },
}

/// One thing to do. Each may be done twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write down what is owed from now on.
    Remember(State),
    /// Make a directory.
    MakeDirectory(String),
    /// Make a file hold this.
    Write {
        /// Which.
        path: String,
        /// What.
        text: String,
    },
    /// Remove a file.
    Remove(String),
    /// Restart a container runtime, and see that it comes back.
    Restart(Runtime),
    /// Remove a directory, if it is empty.
    RemoveDirectory(String),
}

/// A file that is to be different.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    path: String,
    after: Option<String>,
    /// Who has to read it anew.
    reader: Option<Runtime>,
}

/// What is to be done, in this order; nothing where all is as wished.
///
/// # Errors
/// Why nothing may be done.
pub fn plan(wish: &Wish, observed: &Observed) -> Result<Vec<Step>, Fault> {
    let changes = match wish {
        Wish::Files(files) => changes::installing(files, observed)?,
        Wish::Nothing => changes::removing(observed)?,
    };
    let state = observed.state.clone().unwrap_or_default();
    let digest = digest(&changes);
    if let Some(failed) = state.failed.as_ref().filter(|failed| failed.digest == digest) {
        if observed.now < failed.at.saturating_add(LEFT_ALONE) && observed.now >= failed.at {
            return Err(Fault::FailedBefore { reason: failed.reason.clone() });
        }
    }
    Ok(steps(wish, observed, &state, changes))
}

/// What a set of changes is known by.
fn digest(changes: &[Change]) -> String {
    let mut hash = Sha256::new();
    for change in changes {
        hash.update(format!("{}\0{:?}\0", change.path, change.after));
    }
    hex(&hash.finalize()[..8])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the changes that these steps make are known by, should they not work.
#[must_use]
pub fn digest_of(steps: &[Step]) -> String {
    let change = |step: &Step| match step {
        Step::Write { path, text } => Some((path.clone(), Some(text.clone()))),
        Step::Remove(path) => Some((path.clone(), None)),
        _ => None,
    };
    let changes = steps.iter().filter_map(change).map(|(path, after)| Change { path, after, reader: None });
    digest(&changes.collect::<Vec<_>>())
}

fn steps(wish: &Wish, observed: &Observed, before: &State, changes: Vec<Change>) -> Vec<Step> {
    let installing = matches!(wish, Wish::Files(_));
    let readers = changes.iter().filter_map(|change| change.reader);
    let owed: BTreeSet<Runtime> = readers.chain(before.owed.iter().copied()).collect();
    let missing = missing(observed, &changes);
    let made: BTreeSet<String> = before.made.iter().chain(&missing).cloned().collect();
    let mut steps = Vec::new();
    let mut begun = State { made: made.clone(), owed, before: before.before.clone(), failed: None };
    for change in &changes {
        // What was there before the first of several tries is what counts.
        let text = observed.file(&change.path).text().map(str::to_owned);
        begun.before.entry(change.path.clone()).or_insert(text);
    }
    if !changes.is_empty() && begun != *before {
        steps.push(Step::Remember(begun.clone()));
    }
    steps.extend(missing.into_iter().map(Step::MakeDirectory));
    steps.extend(changes.into_iter().map(|Change { path, after, .. }| match after {
        Some(text) => Step::Write { path, text },
        None => Step::Remove(path),
    }));
    // One that does not run reads them when it starts.
    steps.extend(
        begun.owed.iter().filter(|runtime| observed.running.contains(runtime)).copied().map(Step::Restart),
    );
    let mut done = State { made, ..State::default() };
    if !installing {
        steps.extend(before.made.iter().rev().cloned().map(Step::RemoveDirectory));
        done.made.clear();
    }
    let remembered = if steps.iter().any(|step| matches!(step, Step::Remember(_))) { &begun } else { before };
    if done != *remembered || (done.is_empty() && observed.state.is_some()) {
        steps.push(Step::Remember(done));
    }
    steps
}

/// Directories to make, the outer ones first.
fn missing(observed: &Observed, changes: &[Change]) -> Vec<String> {
    let holds = |directory: &str, change: &Change| {
        change.after.is_some()
            && change.path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
    };
    let needed = |directory: &&String| changes.iter().any(|change| holds(directory, change));
    observed.missing.iter().filter(needed).cloned().collect()
}

#[cfg(test)]
mod tests;
