//! What a VM is told at birth: a cloud-config document that writes files.
//!
//! The wire form is stock's: `write_files` with `path` and `content` and no other key, because the stock guest parses strictly. So
//! extensions go into the files (`apf.json` ignores unknown keys), never into this document. How the document reaches the VM is the
//! provider's business, what is done with the files the guest's.

mod limit;
mod parse;
mod render;

use std::fmt;

pub use limit::{Encoding, Limit, TooLarge, limit_of};
pub use parse::{ParseError, Parsed};
pub use render::RenderError;

/// The guest's configuration, [`crate::guest_config::ApfConfig`].
pub const APF_PATH: &str = "/run/peerpod/apf.json";
/// Registry credentials, `{"auths": …}`.
pub const AUTH_PATH: &str = "/run/peerpod/auth.json";
/// base64(gzip(TOML)), [`crate::initdata::InitData::encode`].
pub const INITDATA_PATH: &str = "/run/peerpod/initdata";
/// Attestation agent configuration; stock daemons send it inside initdata only.
pub const AA_PATH: &str = "/run/peerpod/aa.toml";
/// Confidential data hub configuration; stock daemons send it inside initdata only.
pub const CDH_PATH: &str = "/run/peerpod/cdh.toml";
/// An empty file that asks for scratch space.
pub const SCRATCH_PATH: &str = "/run/peerpod/scratch-space.marker";

/// The only paths a guest writes; exact text.
pub const ALLOWED_PATHS: [&str; 6] = [APF_PATH, AUTH_PATH, INITDATA_PATH, AA_PATH, CDH_PATH, SCRATCH_PATH];

/// The name under which QEMU's `fw_cfg` device shows the document; our own convention.
pub const FW_CFG_NAME: &str = "opt/org.peerpods/user-data";

/// The largest document a guest reads, in bytes; no provider takes more.
pub const MAX_DOCUMENT: usize = 1 << 20;

/// A file for the guest. May hold secrets, so Debug shows its size only.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Absolute path in the guest.
    pub path: String,
    /// The whole content, exactly.
    pub content: String,
}

impl File {
    /// A file with exactly this content.
    #[must_use]
    pub fn new(path: impl Into<String>, content: impl Into<String>) -> Self {
        Self { path: path.into(), content: content.into() }
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({:?}, {} bytes)", self.path, self.content.len())
    }
}

/// The document, as the files it writes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CloudConfig {
    files: Vec<File>,
}

impl CloudConfig {
    /// A document that writes these files, in this order.
    #[must_use]
    pub fn new(files: Vec<File>) -> Self {
        Self { files }
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// The document as text, the same bytes for the same files.
    ///
    /// A content that ends in one line feed looks exactly as stock writes it (`content: |`). Stock adds a line feed to whatever has
    /// none; we keep every byte, with YAML's other block forms (`|-`, `|+`, `|2`), which every YAML parser reads.
    ///
    /// # Errors
    /// When a path is unfit or comes twice, or a content cannot be written in a YAML block without being changed.
    pub fn render(&self) -> Result<String, RenderError> {
        render::document(&self.files)
    }

    /// Whether a rendered document of `len` bytes fits into `limit` bytes (before any encoding the provider does itself).
    ///
    /// # Errors
    /// Says the size of each part, the limit, and what to shorten.
    pub fn check_size(&self, len: usize, limit: usize) -> Result<(), TooLarge> {
        limit::check(&self.files, len, limit)
    }

    /// Reads a document as strictly as the stock guest does: `write_files` entries with `path` and `content`, nothing else.
    ///
    /// # Errors
    /// When it is too large, no YAML, has any other key, or a path twice.
    pub fn parse(text: &str) -> Result<Parsed, ParseError> {
        parse::document(text)
    }
}

#[cfg(test)]
mod tests;
