//! What can be wrong with a configuration, said so that it can be mended: key, place, value, expectation. All faults at once.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "from")]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A line of a file, counted from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// An environment variable.
    Variable {
        /// Its name.
        name: String,
    },
    /// An option of the command line, with its dashes.
    Flag {
        /// The option.
        name: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Variable { name } => write!(f, "variable {name}"),
            Origin::Flag { name } => write!(f, "flag {name}"),
        }
    }
}

/// One thing wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, as the file writes it.
    pub key: String,
    /// Where the value came from.
    pub origin: Origin,
    /// The value; `None` when it must not be shown, or when there is none.
    pub value: Option<String>,
    /// What is wrong with it, or what is expected in its place.
    pub expected: String,
}

/// The longest value a message repeats.
const SHOWN: usize = 80;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.key, self.origin)?;
        if let Some(value) = &self.value {
            let cut: String = value.chars().take(SHOWN).collect();
            let dots = if cut.len() < value.len() { "…" } else { "" };
            write!(f, " is {cut:?}{dots}")?;
        }
        write!(f, ": {}", self.expected)
    }
}

/// Everything wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "the configuration has a fault: {one}"),
            many => {
                write!(f, "the configuration has {} faults:", many.len())?;
                many.iter().try_for_each(|fault| write!(f, "\n  - {fault}"))
            }
        }
    }
}

impl std::error::Error for Faults {}
