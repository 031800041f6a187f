//! Files → text.

use std::collections::HashSet;

use super::File;

/// What stands before each line of a content.
const INDENT: &str = "      ";

/// Why a document cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A path the guest would not take or YAML would read differently.
    #[error(
        "{path:?} is no path for a guest file; want an absolute path of letters, digits, '/', '.', '_' and '-'"
    )]
    Path {
        /// The path, cut to a length fit for a message.
        path: String,
    },
    /// Two files with one path.
    #[error("{path} would be written twice")]
    Twice {
        /// The path.
        path: String,
    },
    /// A character no YAML block can hold, or that parsers turn into another.
    #[error("line {line} of {path} has the character U+{:04X}, which cannot be written in user data without being changed", u32::from(*.character))]
    Character {
        /// The file.
        path: String,
        /// The line, counted from 1.
        line: usize,
        /// The character.
        character: char,
    },
}

pub(super) fn document(files: &[File]) -> Result<String, RenderError> {
    let mut seen = HashSet::new();
    let mut out = String::from("#cloud-config\n\nwrite_files:\n");
    for file in files {
        check_path(&file.path)?;
        if !seen.insert(&file.path) {
            return Err(RenderError::Twice { path: file.path.clone() });
        }
        check_content(file)?;
        out.push_str(&entry(file));
    }
    Ok(out)
}

/// One entry, checked or not: also used to say how large a part is.
pub(super) fn entry(file: &File) -> String {
    let mut out = format!("  - path: {}\n", file.path);
    if !file.content.is_empty() {
        out.push_str("    content: ");
        out.push_str(&block_header(&file.content));
        out.push('\n');
        // The last line's end is the block's own; what the header says about trailing line feeds does the rest.
        for line in file.content.strip_suffix('\n').unwrap_or(&file.content).split('\n') {
            out.push_str(INDENT);
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// `|`, with the depth where the first character would mislead a parser that guesses it, and how the block ends.
fn block_header(content: &str) -> String {
    // The depth is relative to the entry's keys, which stand four deep.
    let depth = if content.starts_with([' ', '\t', '\n']) { "2" } else { "" };
    let end = match content.strip_suffix('\n') {
        None => "-",
        Some(rest) if rest.is_empty() || rest.ends_with('\n') => "+",
        Some(_) => "",
    };
    format!("|{depth}{end}")
}

fn check_path(path: &str) -> Result<(), RenderError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    let climbs = path.split('/').any(|part| part == "..");
    if path.starts_with('/') && !path.ends_with('/') && !climbs && path.chars().all(allowed) {
        Ok(())
    } else {
        Err(RenderError::Path { path: path.chars().take(60).collect() })
    }
}

fn check_content(file: &File) -> Result<(), RenderError> {
    for (number, line) in file.content.split('\n').enumerate() {
        if let Some(character) = line.chars().find(|c| !is_printable(*c)) {
            return Err(RenderError::Character { path: file.path.clone(), line: number + 1, character });
        }
    }
    Ok(())
}

/// What YAML 1.1 and 1.2 both take inside a line and leave as it is. Not so: other line ends (CR, NEL, LS, PS, which 1.1 parsers
/// such as the stock guest's normalise), the byte order mark, controls and non-characters.
fn is_printable(c: char) -> bool {
    match c {
        '\t' | ' '..='~' => true,
        '\u{2028}' | '\u{2029}' | '\u{FEFF}' => false,
        '\u{A0}'..='\u{FFFD}' => true,
        _ => c >= '\u{10000}',
    }
}
