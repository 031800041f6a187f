//! `AdmissionReview` on the wire: what the API server sends, and what it is answered.
//!
//! Our own types, where kube has some: theirs give up the whole review when the object in it cannot be read, and with it the uid without
//! which no answer is accepted; and theirs write a patch as a list of numbers, at four times the size.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use json_patch::Patch;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::faults::{Fault, list, shown};

/// The one version that is spoken.
pub const API_VERSION: &str = "admission.k8s.io/v1";
/// The kind of request and answer.
pub const KIND: &str = "AdmissionReview";
/// As much text as an answer holds: it ends up in Events and on terminals.
const MAX_MESSAGE: usize = 4096;

/// What is done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Operation {
    /// It is new.
    Create,
    /// It is changed.
    Update,
    /// It is deleted.
    Delete,
    /// Somebody connects to it.
    Connect,
}

/// A kind of object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Kind {
    /// Its group; empty for the core.
    #[serde(default)]
    pub group: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Its name.
    #[serde(default)]
    pub kind: String,
}

impl Kind {
    /// A kind by its parts.
    #[must_use]
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        Self { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() }
    }

    fn told(&self) -> String {
        let group = if self.group.is_empty() { "core" } else { &self.group };
        shown(&format!("{group}/{} {}", self.version, self.kind)).trim_matches('"').to_owned()
    }
}

/// What is asked about an object of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The question's id, which the answer repeats.
    pub uid: String,
    /// The object's kind.
    pub kind: Kind,
    /// A part of the object that is dealt with apart, such as `status`.
    pub sub_resource: Option<String>,
    /// The object's name; empty when the API server will make one.
    pub name: String,
    /// The object's namespace, if it has one.
    pub namespace: Option<String>,
    /// What is done.
    pub operation: Operation,
}

/// Empty is the same as missing.
fn text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.filter(|text| !text.is_empty()))
}

/// A request with its objects.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked<T> {
    /// What is asked.
    pub request: Request,
    /// The object as it would be stored; none on DELETE.
    pub object: Option<T>,
    /// The object as it is; none on CREATE.
    pub old_object: Option<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound = "T: DeserializeOwned")]
struct Review<T> {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Envelope<T>>,
}

/// [`Asked`] as it is sent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound = "T: DeserializeOwned")]
struct Envelope<T> {
    uid: String,
    #[serde(default)]
    kind: Kind,
    #[serde(default, deserialize_with = "text")]
    sub_resource: Option<String>,
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "text")]
    namespace: Option<String>,
    operation: Operation,
    #[serde(default = "Option::default")]
    object: Option<T>,
    #[serde(default = "Option::default")]
    old_object: Option<T>,
}

impl<T> Envelope<T> {
    fn split(self) -> Asked<T> {
        let Self { uid, kind, sub_resource, name, namespace, operation, object, old_object } = self;
        Asked { request: Request { uid, kind, sub_resource, name, namespace, operation }, object, old_object }
    }
}

/// Why a body is no question that can be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {KIND} of {API_VERSION}: {0}")]
pub struct Malformed(String);

/// What a body is.
#[derive(Debug)]
pub enum Read<T> {
    /// A question about an object of the expected kind.
    Asked(Box<Asked<T>>),
    /// A question whose object cannot be read; this is the answer.
    Unreadable(Answer),
}

/// Reads a body that should ask about an object of kind `expected`.
///
/// # Errors
/// When it is no review, so that there is no uid to answer to.
pub fn read<T: DeserializeOwned>(body: &[u8], expected: &Kind) -> Result<Read<T>, Malformed> {
    if let Ok(review) = serde_json::from_slice::<Review<T>>(body)
        && is_one(&review.api_version, &review.kind)
        && let Some(envelope) = review.request
        && envelope.kind == *expected
    {
        return Ok(Read::Asked(Box::new(envelope.split())));
    }
    why_not::<T>(body, expected).map(Read::Unreadable)
}

fn is_one(api_version: &str, kind: &str) -> bool {
    api_version == API_VERSION && kind == KIND
}

/// Looks again, and slower, for what is wrong.
fn why_not<T: DeserializeOwned>(body: &[u8], expected: &Kind) -> Result<Answer, Malformed> {
    let malformed = |error: serde_path_to_error::Error<serde_json::Error>| Malformed(located(error));
    let review: Review<IgnoredAny> = with_path(body).map_err(malformed)?;
    if !is_one(&review.api_version, &review.kind) {
        let found = format!("{} {}", review.api_version, review.kind);
        return Err(Malformed(format!("apiVersion and kind are {}", shown(found.trim()))));
    }
    let Some(envelope) = review.request else { return Err(Malformed("request: is missing".to_owned())) };
    let request = envelope.split().request;
    if request.kind != *expected {
        let reason = format!(
            "this webhook decides about {}, not about {}; correct the rules of the webhook configuration that sent it here",
            expected.told(),
            request.kind.told()
        );
        return Ok(Answer::invalid(&request.uid, &[Fault::new("request.kind", reason)]));
    }
    let reason = match with_path::<Review<T>>(body) {
        Err(error) => located(error),
        Ok(_) => "request.object: cannot be read".to_owned(),
    };
    Ok(Answer::denied(&request.uid, 400, "BadRequest", reason))
}

fn with_path<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_path_to_error::Error<serde_json::Error>> {
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(body))
}

fn located(error: serde_path_to_error::Error<serde_json::Error>) -> String {
    let path = error.path().to_string();
    let field = if path == "." { "body".to_owned() } else { path };
    Fault::new(field, cut(error.into_inner().to_string(), 300)).to_string()
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The question's id.
    pub uid: String,
    /// Whether the object may be stored.
    pub allowed: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// What is changed: a JSON patch in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// `JSONPatch` when there is a patch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch_type: Option<String>,
    /// What the user should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Why an object may not be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The HTTP status its user gets.
    pub code: u16,
    /// The same as a word.
    pub reason: String,
    /// For people.
    pub message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answered<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: &'a Answer,
}

impl Answer {
    /// The object may be stored as it is.
    #[must_use]
    pub fn allowed(uid: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            allowed: true,
            status: None,
            patch: None,
            patch_type: None,
            warnings: Vec::new(),
        }
    }

    /// The object may be stored, changed. An empty patch is none.
    ///
    /// # Errors
    /// None in practice: patches can be written.
    pub fn patched(uid: &str, patch: &Patch, warnings: Vec<String>) -> Result<Self, serde_json::Error> {
        let mut answer = Self { warnings, ..Self::allowed(uid) };
        if !patch.0.is_empty() {
            answer.patch = Some(BASE64_STANDARD.encode(serde_json::to_vec(patch)?));
            answer.patch_type = Some("JSONPatch".to_owned());
        }
        Ok(answer)
    }

    /// The object may not be stored, as somebody decided.
    #[must_use]
    pub fn forbidden(uid: &str, message: String) -> Self {
        Self::denied(uid, 403, "Forbidden", message)
    }

    /// The object may not be stored because it is wrong.
    #[must_use]
    pub fn invalid(uid: &str, faults: &[Fault]) -> Self {
        Self::denied(uid, 422, "Invalid", list(faults))
    }

    /// The object may not be stored because the question cannot be answered now.
    #[must_use]
    pub fn unavailable(uid: &str, message: String) -> Self {
        Self::denied(uid, 503, "ServiceUnavailable", message)
    }

    fn denied(uid: &str, code: u16, reason: &str, message: String) -> Self {
        let status = Status { code, reason: reason.to_owned(), message: cut(message, MAX_MESSAGE) };
        Self { allowed: false, status: Some(status), ..Self::allowed(uid) }
    }

    /// As the API server reads it.
    ///
    /// # Errors
    /// None in practice: answers can be written.
    pub fn to_body(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Answered { api_version: API_VERSION, kind: KIND, response: self })
    }
}

fn cut(text: String, max: usize) -> String {
    if text.chars().count() <= max { text } else { text.chars().take(max).chain(['…']).collect() }
}

#[cfg(test)]
mod tests;
