//! What the installer has to remember on the node: what it made, and what it owes. Written before it is begun, so that whoever comes after a
//! crash knows. There is no such file on a node without our files.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Runtime;

/// Where it is kept: a file alone, because a directory for it would itself have to be remembered.
pub const PATH: &str = "/var/lib/peerpods-installer.json";

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Directories that were not there. They go with the files, if nobody else put something there.
    pub made: BTreeSet<String>,
    /// Container runtimes that have not read the files as they are now.
    pub owed: BTreeSet<Runtime>,
    /// What changed files held before, while a restart is owed; none where there was none.
    pub before: BTreeMap<String, Option<String>>,
    /// What did not work, and is left alone for a while.
    pub failed: Option<Failed>,
}

/// Something that did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Of all that was to be written.
    pub digest: String,
    /// When, in seconds since 1970.
    pub at: u64,
    /// Why.
    pub reason: String,
}

impl State {
    /// Whether there is nothing to remember.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As the file has it; one that cannot be read is none, and what it said is found out again or lost.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// For the file.
    #[must_use]
    pub fn text(&self) -> String {
        // Maps of texts: there is nothing that could not be written.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}
