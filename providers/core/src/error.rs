//! What a provider's failure means, in the few kinds anyone can act on.

use std::fmt;

/// What kind of failure it was. [`ErrorKind::retry`] is the table that maps the kind to what to do next; RPC status, Event reason and
/// metric label follow from it in the hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// May succeed when tried again soon: a broken connection, a 5xx answer.
    Transient,
    /// Too many calls; wait as long as the provider says.
    Throttled,
    /// The provider has no machine of this kind now.
    Capacity,
    /// The account's limit is reached.
    Quota,
    /// Credentials or permissions do not allow it.
    Denied,
    /// The request can never succeed as it is: a bad image, size or name.
    Invalid,
    /// What was named does not exist.
    NotFound,
}

/// What to do after a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Try again soon. Whether the call did its work is not known: look before doing it again.
    AfterLooking,
    /// Try again, slowly. The call was refused before it did anything.
    Slowly,
    /// The same request fails again until somebody changes something.
    Never,
}

impl ErrorKind {
    /// Every kind there is, for tables and tests.
    pub const ALL: [Self; 7] = [
        Self::Transient,
        Self::Throttled,
        Self::Capacity,
        Self::Quota,
        Self::Denied,
        Self::Invalid,
        Self::NotFound,
    ];

    /// The one table from kind to retry. Capacity comes back within minutes as other people's machines end; a quota is somebody's
    /// decision and does not.
    #[must_use]
    pub fn retry(self) -> Retry {
        match self {
            Self::Transient => Retry::AfterLooking,
            Self::Throttled | Self::Capacity => Retry::Slowly,
            Self::Quota | Self::Denied | Self::Invalid | Self::NotFound => Retry::Never,
        }
    }

    /// Whether the same request may succeed a little later.
    #[must_use]
    pub fn may_pass(self) -> bool {
        matches!(self, ErrorKind::Transient | ErrorKind::Throttled)
    }

    /// The kind as a lower-case word: a metric label, never an error text.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            ErrorKind::Transient => "transient",
            ErrorKind::Throttled => "throttled",
            ErrorKind::Capacity => "capacity",
            ErrorKind::Quota => "quota",
            ErrorKind::Denied => "denied",
            ErrorKind::Invalid => "invalid",
            ErrorKind::NotFound => "not_found",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A provider's failure: what was tried, on what, what the provider said, and what to try.
#[derive(Debug, thiserror::Error)]
#[error(
    "{operation} failed ({kind}{}{}): {message}{}",
    Tagged(" code ", code),
    Tagged(" request ", request_id),
    Tagged("; try: ", hint)
)]
pub struct ProviderError {
    /// What the failure means.
    pub kind: ErrorKind,
    /// What was tried and on what, such as `create VM podvm-web-01234567`.
    pub operation: String,
    /// What went wrong, one sentence.
    pub message: String,
    /// The provider's own error code, when it gave one.
    pub code: Option<String>,
    /// The provider's request id, when it gave one.
    pub request_id: Option<String>,
    /// What the reader can do about it.
    pub hint: Option<String>,
    /// How long the provider asked to wait.
    pub retry_after: Option<std::time::Duration>,
    /// What caused it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

struct Tagged<'a>(&'static str, &'a Option<String>);

impl fmt::Display for Tagged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(text) => write!(f, "{}{text}", self.0),
            None => Ok(()),
        }
    }
}

impl ProviderError {
    /// A failure of `kind` while doing `operation`.
    pub fn new(kind: ErrorKind, operation: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            operation: operation.into(),
            message: message.into(),
            code: None,
            request_id: None,
            hint: None,
            retry_after: None,
            source: None,
        }
    }

    /// With advice for the reader.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With its cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// With the pause the provider asked for.
    #[must_use]
    pub fn retry_after(mut self, pause: std::time::Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// With the provider's id of the request.
    #[must_use]
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(id.into());
        self
    }

    /// With the provider's own code.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }
}
