//! Looks for secrets where none may be: in files, logs, process arguments and environments, in every form somebody might write them.
//!
//! What is searched for is the secret's own bytes (the 32 of a private key or a token), raw, in hexadecimal, and in base64 wherever in a text
//! they begin, line breaks or not. It owns no opinion on where a secret may be; that is the test's.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// Something that must be found nowhere.
pub struct Secret {
    /// What it is, for the failure's text.
    pub name: String,
    bytes: Vec<u8>,
}

impl Secret {
    /// A secret that is these bytes.
    #[must_use]
    pub fn new(name: &str, bytes: Vec<u8>) -> Self {
        assert!(bytes.len() >= 16, "{name} is too short to be told from chance");
        Self { name: name.to_owned(), bytes }
    }

    /// The private number in a P-256 key (PKCS#8, PEM).
    ///
    /// # Panics
    /// When that is no such key.
    #[must_use]
    pub fn of_key(name: &str, pem: &str) -> Self {
        let body = pem.split("-----").nth(2).unwrap_or_else(|| panic!("{name} is no PEM text"));
        let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
        let der = STANDARD.decode(body).unwrap();
        // ECPrivateKey (RFC 5915): version 1, then an octet string of 32 bytes.
        let at = der.windows(5).position(|bytes| bytes == [2, 1, 1, 4, 32]).unwrap() + 5;
        Self::new(name, der[at..at + 32].to_vec())
    }

    /// Whether a text holds it, in any form.
    #[must_use]
    pub fn is_in(&self, text: &[u8]) -> bool {
        Search::new(std::slice::from_ref(self)).held_by(text).contains(&0)
    }

    fn needles(&self) -> Vec<Vec<u8>> {
        let hex = hex::encode(&self.bytes);
        let mut needles = vec![self.bytes.clone(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
        for engine in [STANDARD, URL_SAFE] {
            for before in 0..3 {
                // Base64 looks different depending on where in a triple the bytes begin. Characters that also say something of
                // the neighbours are left out.
                let shifted = [&vec![0; before][..], &self.bytes].concat();
                let text = engine.encode(&shifted);
                let first = (before * 8).div_ceil(6);
                let last = shifted.len() * 8 / 6;
                needles.push(text.as_bytes()[first..last].to_vec());
            }
        }
        needles
    }
}

/// All forms of some secrets, searched for in one go: the logs are long.
struct Search {
    /// Whether a form begins with these two bytes.
    begins: Vec<bool>,
    /// With the secret's number.
    forms: Vec<(usize, Vec<u8>)>,
}

impl Search {
    fn new(secrets: &[Secret]) -> Self {
        let numbered = secrets.iter().enumerate();
        let forms: Vec<_> =
            numbered.flat_map(|(n, s)| s.needles().into_iter().map(move |form| (n, form))).collect();
        let mut begins = vec![false; 1 << 16];
        for (_, form) in &forms {
            begins[usize::from(u16::from_be_bytes([form[0], form[1]]))] = true;
        }
        Self { begins, forms }
    }

    /// The numbers of the secrets a text holds.
    fn held_by(&self, text: &[u8]) -> BTreeSet<usize> {
        let mut held = BTreeSet::new();
        for text in [text, &without_breaks(text)] {
            for at in 1..text.len() {
                if self.begins[usize::from(u16::from_be_bytes([text[at - 1], text[at]]))] {
                    let rest = &text[at - 1..];
                    held.extend(
                        self.forms.iter().filter(|(_, form)| rest.starts_with(form)).map(|(n, _)| *n),
                    );
                }
            }
        }
        held
    }
}

/// A text without white space and without the escaped line breaks of JSON.
fn without_breaks(text: &[u8]) -> Vec<u8> {
    let mut dense = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = match tail {
            [b'n' | b'r', after @ ..] if *first == b'\\' => after,
            _ => {
                if !first.is_ascii_whitespace() {
                    dense.push(*first);
                }
                tail
            }
        };
    }
    dense
}

/// Runs of 32 and more hexadecimal digits, the size of a session's name or a key: nothing of that size is for a log.
#[must_use]
pub fn long_hexadecimal(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_ascii_hexdigit()).filter(|run| run.len() >= 32).collect()
}

/// Every file below a directory, whatever it is.
#[must_use]
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// A place with a secret in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which secret.
    pub secret: String,
    /// Where.
    pub place: String,
    /// The file's permission bits.
    pub mode: u32,
}

/// Which of the secrets lie in files below these directories.
#[must_use]
pub fn in_files(secrets: &[Secret], dirs: &[&Path]) -> Vec<Finding> {
    in_places(secrets, dirs.iter().flat_map(|dir| files_below(dir)))
}

/// Which of the secrets lie in arguments or environment of any process of this machine that we may look at.
#[must_use]
pub fn in_processes(secrets: &[Secret]) -> Vec<Finding> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered =
        processes.filter(|p| p.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()));
    in_places(secrets, numbered.flat_map(|p| ["cmdline", "environ"].map(|part| p.path().join(part))))
}

/// Which of the secrets lie in these files.
#[must_use]
pub fn in_places(secrets: &[Secret], paths: impl Iterator<Item = PathBuf>) -> Vec<Finding> {
    let search = Search::new(secrets);
    let mut found = Vec::new();
    for path in paths {
        let Ok(text) = fs::read(&path) else { continue };
        let mode = fs::metadata(&path).map_or(0, |meta| meta.permissions().mode() & 0o777);
        for n in search.held_by(&text) {
            found.push(Finding { secret: secrets[n].name.clone(), place: path.display().to_string(), mode });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new("s", (0..32).map(|i| i * 7 + 3).collect())
    }

    #[test]
    fn a_secret_is_found_in_every_form_and_at_every_place() {
        let secret = secret();
        let pem = |before: usize| {
            let text = STANDARD.encode([&vec![0x55; before][..], &secret.bytes, b"tail"].concat());
            text.as_bytes()
                .chunks(64)
                .map(|line| String::from_utf8_lossy(line).into_owned())
                .collect::<Vec<_>>()
        };
        let mut texts = vec![secret.bytes.clone(), hex::encode(&secret.bytes).into_bytes()];
        texts.push(hex::encode_upper(&secret.bytes).into_bytes());
        for before in 0..70 {
            texts.push(pem(before).join("\n").into_bytes());
            texts.push(format!("{{\"key\":\"{}\"}}", pem(before).join("\\n")).into_bytes());
            texts.push(URL_SAFE.encode([&vec![0x55; before][..], &secret.bytes].concat()).into_bytes());
        }
        for (n, text) in texts.iter().enumerate() {
            let amid = [&b"before "[..], text, b" after"].concat();
            assert!(secret.is_in(&amid), "form {n}: {}", String::from_utf8_lossy(&amid));
        }
        assert!(!secret.is_in(b"nothing of it") && !secret.is_in(&secret.bytes[..31]));
    }

    #[test]
    fn a_private_key_is_taken_out_of_its_pem_text() {
        let dir = tempfile::tempdir().unwrap();
        let ca = peerpods_agentlink::ca::ClusterCa::load_or_create(dir.path()).unwrap();
        let pair = ca.issue_client("x").unwrap();
        let secret = Secret::of_key("client", pair.expose_key());
        assert!(secret.is_in(pair.expose_key().as_bytes()) && !secret.is_in(pair.certificate.as_bytes()));
        let found = in_files(&[secret], &[dir.path()]);
        assert_eq!(found, [], "the authority's file holds another key");
    }

    #[test]
    fn long_runs_of_digits_are_seen_and_sandbox_ids_with_dashes_are_not() {
        let text =
            "id=0123456789abcdef0123456789abcdef uuid 01234567-89ab-cdef-0123-456789abcdef session=ab12..";
        assert_eq!(long_hexadecimal(text), ["0123456789abcdef0123456789abcdef"]);
    }
}
