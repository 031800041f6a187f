//! Text → files, as strictly as the stock guest.

use std::collections::HashSet;

use serde::Deserialize;
use serde_saphyr::options::MergeKeyPolicy;

use super::{ALLOWED_PATHS, File, MAX_DOCUMENT};

/// As much of a parser's message as is shown: it may quote the document, which holds secrets further down.
const SHOWN: usize = 120;

/// What a document says to write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    /// Files at allowed paths, in the document's order.
    pub files: Vec<File>,
    /// Paths that are not among [`ALLOWED_PATHS`]; not to be written, worth a log line.
    pub skipped: Vec<String>,
}

impl Parsed {
    /// The content for a path, if the document writes it.
    #[must_use]
    pub fn content(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path).map(|file| file.content.as_str())
    }
}

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Larger than [`MAX_DOCUMENT`].
    #[error("the user data has {len} bytes; at most {MAX_DOCUMENT} are read")]
    TooLarge {
        /// Its size in bytes.
        len: usize,
    },
    /// No YAML, or keys or types other than the few allowed.
    #[error("the user data is no cloud-config with only write_files[].path and .content: {reason}")]
    Yaml {
        /// What the parser says, shortened.
        reason: String,
    },
    /// Two files with one path.
    #[error("the user data writes {path:?} twice")]
    Twice {
        /// The path, shortened.
        path: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    write_files: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    path: String,
    content: Option<String>,
}

pub(super) fn document(text: &str) -> Result<Parsed, ParseError> {
    if text.len() > MAX_DOCUMENT {
        return Err(ParseError::TooLarge { len: text.len() });
    }
    let document: Document = serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
        let reason = error.to_string().replace('\n', " ").chars().take(SHOWN).collect();
        ParseError::Yaml { reason }
    })?;
    let mut seen = HashSet::new();
    let mut parsed = Parsed::default();
    for Entry { path, content } in document.write_files.unwrap_or_default() {
        if !seen.insert(path.clone()) {
            return Err(ParseError::Twice { path: path.chars().take(SHOWN).collect() });
        }
        if ALLOWED_PATHS.contains(&path.as_str()) {
            parsed.files.push(File { path, content: content.unwrap_or_default() });
        } else {
            parsed.skipped.push(path.chars().take(SHOWN).collect());
        }
    }
    Ok(parsed)
}

/// Nothing clever: no anchors, merges or tags (nobody writes them), no second document, no quoting of the text in errors.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        emit_comments: false,
        merge_keys: MergeKeyPolicy::Error,
        reject_unsupported_tags: true,
        reject_tagged_field_names: true,
        budget: serde_saphyr::budget! {
            max_anchors: 0,
            max_aliases: 0,
            max_depth: 8,
            max_nodes: 4_096,
        },
    }
}
