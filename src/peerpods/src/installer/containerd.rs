//! containerd's configuration as text: what it says, and where our part goes. Pure.
//!
//! Our part goes where the smallest edit does no harm. Of version 2 that is a block at the end of the file that has the section of the CRI plugin:
//! containerd 1 takes an imported file's section *in place* of the main file's, and the node would lose its sandbox image and its cgroup
//! driver. From version 3 on imported files add to it; there we have a file of our own, and the main file an entry in `imports`, if it
//! has none that covers it.

use peerpods_podvm::node_files::ContainerdVersion;
use toml::{Table, Value};

/// The main file.
pub const MAIN: &str = "/etc/containerd/config.toml";
/// Our own, for version 3 and later.
pub const DROP_IN: &str = "/etc/containerd/conf.d/peerpods.toml";
/// What `imports` gets. A pattern: a name that is not there would keep containerd from starting.
const PATTERN: &str = "/etc/containerd/conf.d/peerpods*.toml";
/// In everything of ours in a file that is not.
const MARK: &str = "peerpods install-node";

const BEGIN: &str = "# BEGIN peerpods install-node, changes are undone\n";
/// The same where the last line had no end.
const BEGIN_AFTER_END: &str =
    "# BEGIN peerpods install-node, changes are undone; so is the end of the line above\n";
const END: &str = "# END peerpods install-node\n";

const CRI: [&str; 2] = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"];
/// Names by which the CRI plugin may be turned off.
const CRI_NAMES: [&str; 3] = ["cri", CRI[0], CRI[1]];

/// A line of its own for `imports`.
fn line() -> String {
    format!("imports = [\"{PATTERN}\"] # {MARK}\n")
}

/// An entry in `imports`.
fn entry() -> String {
    format!("\n  \"{PATTERN}\", # {MARK}\n")
}

/// The file without our part. None: somebody changed our part, and nobody knows any more what was there.
#[must_use]
pub fn without_ours(text: &str) -> Option<String> {
    let mut text = text.to_owned();
    if let Some(begin) = text.find(BEGIN).or_else(|| text.find(BEGIN_AFTER_END)) {
        let end = begin + text[begin..].find(END)? + END.len();
        let ended_a_line = text[begin..].starts_with(BEGIN_AFTER_END) && end == text.len();
        // What somebody wrote below needs the end of that line.
        let begin = if ended_a_line { begin.saturating_sub(1) } else { begin };
        text.replace_range(begin..end, "");
    }
    for ours in [line(), entry()] {
        if let Some(at) = text.find(&ours) {
            text.replace_range(at..at + ours.len(), "");
        }
    }
    (!text.contains(MARK)).then_some(text)
}

/// The file with a block at its end. `text` has none.
#[must_use]
pub fn with_block(text: &str, sections: &str) -> Option<String> {
    let begin = if text.is_empty() || text.ends_with('\n') { BEGIN } else { BEGIN_AFTER_END };
    let between = if begin == BEGIN { "" } else { "\n" };
    let edited = format!("{text}{between}{begin}{sections}{END}");
    edited.parse::<Table>().is_ok().then_some(edited)
}

/// The file with our own among its imports. `text` has no such entry. None where that cannot be written with certainty.
#[must_use]
pub fn with_import(text: &str) -> Option<String> {
    let before: Table = text.parse().ok()?;
    let edited = match before.get("imports") {
        Some(_) => {
            let at = imports_at(text)?;
            format!("{}{}{}", &text[..at], entry(), &text[at..])
        }
        // Before every table; a mark of the encoding stays the first.
        None => match text.strip_prefix('\u{feff}') {
            Some(rest) => format!("\u{feff}{}{rest}", line()),
            None => format!("{}{text}", line()),
        },
    };
    let after: Table = edited.parse().ok()?;
    is_same_but_for_import(&before, &after).then_some(edited)
}

/// Behind the bracket of the list.
fn imports_at(text: &str) -> Option<usize> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let rest = line.trim_start();
        if rest.starts_with('[') {
            return None;
        }
        let value = rest.strip_prefix("imports").map(str::trim_start).and_then(|rest| rest.strip_prefix('='));
        if value.is_some_and(|value| value.trim_start().starts_with('[')) {
            return line.find('[').map(|bracket| at + bracket + 1);
        }
        at += line.len();
    }
    None
}

fn is_same_but_for_import(before: &Table, after: &Table) -> bool {
    let mut wanted = before.clone();
    let mut imports = vec![Value::from(PATTERN)];
    imports.extend(before.get("imports").and_then(Value::as_array).into_iter().flatten().cloned());
    wanted.insert("imports".to_owned(), Value::Array(imports));
    wanted == *after
}

/// What a file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Config(Table);

impl Config {
    /// Reads it; the reason for people when it is no TOML.
    ///
    /// # Errors
    /// Where it makes no sense.
    pub fn read(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error| error.message().to_owned())
    }

    /// Its version; 1 where it does not say.
    #[must_use]
    pub fn version(&self) -> i64 {
        self.0.get("version").and_then(Value::as_integer).unwrap_or(1)
    }

    /// The same, if handlers can be written for it.
    #[must_use]
    pub fn written_as(&self) -> Option<ContainerdVersion> {
        u32::try_from(self.version()).ok().and_then(ContainerdVersion::new)
    }

    /// Whether kubelet is not served.
    #[must_use]
    pub fn has_no_cri(&self) -> bool {
        let disabled = self.0.get("disabled_plugins").and_then(Value::as_array);
        disabled.into_iter().flatten().filter_map(Value::as_str).any(|name| CRI_NAMES.contains(&name))
    }

    /// Which files it imports; patterns are as they are, names are made whole.
    #[must_use]
    pub fn imports(&self) -> Vec<String> {
        let all = self.0.get("imports").and_then(Value::as_array);
        let whole = |path: &str| match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/etc/containerd/{path}"),
        };
        all.into_iter().flatten().filter_map(Value::as_str).map(whole).collect()
    }

    /// Whether it imports our own file.
    #[must_use]
    pub fn imports_ours(&self) -> bool {
        self.imports().iter().any(|pattern| matches(pattern, DROP_IN))
    }

    /// Whether it has a section of the CRI plugin.
    #[must_use]
    pub fn has_cri_section(&self) -> bool {
        self.section().is_some()
    }

    fn section(&self) -> Option<&Value> {
        let plugins = self.0.get("plugins")?;
        CRI.iter().find_map(|plugin| plugins.get(plugin))
    }

    /// Whether it has a handler of this name.
    #[must_use]
    pub fn has_handler(&self, name: &str) -> bool {
        let runtimes = |section: &Value| section.get("containerd")?.get("runtimes")?.get(name).map(drop);
        self.section().and_then(runtimes).is_some()
    }
}

/// Whether a pattern of Go's `filepath.Glob` means a path. Of one with sets of characters that is not known: it does not.
#[must_use]
pub fn matches(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), parts.next()) {
            (Some(pattern), Some(part)) if part_matches(pattern, part) => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

fn part_matches(pattern: &str, part: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == part,
        Some((start, rest)) => part.strip_prefix(start).is_some_and(|left| {
            left.char_indices()
                .map(|(at, _)| at)
                .chain([left.len()])
                .any(|at| part_matches(rest, &left[at..]))
        }),
    }
}

#[cfg(test)]
mod tests;
