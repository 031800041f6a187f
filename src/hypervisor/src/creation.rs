//! Whether, when and how a VM is asked for again after a creation failed. Pure: the driver counts, sleeps and calls.
//!
//! The rules: a permanent error never loops; after an error that leaves open whether the VM was made, the provider is asked for it
//! before anything is made again; one sandbox gets at most `MOST` creations in a `WINDOW`, by the times in its record; nothing
//! begins that the start's deadline does not cover. A VM that was made and stopped by itself is not made again: its console says why,
//! the sandbox is unwound, and kubelet comes back with a new one.

use std::fmt;
use std::time::Duration;

use peerpods_provider::{ErrorKind, ProviderError, Retry};

use crate::backoff;

/// Creations a sandbox gets within [`WINDOW`].
pub(crate) const MOST: usize = 3;
/// The time in which creations are counted.
pub(crate) const WINDOW: Duration = Duration::from_secs(600);
/// The first pause when the call may have worked, and when it was refused; each doubles with every attempt.
const SOON: Duration = Duration::from_secs(1);
const SLOWLY: Duration = Duration::from_secs(4);
const LONGEST: Duration = Duration::from_secs(30);

/// Where a start stands when a creation failed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing<'a> {
    /// When creations of this sandbox were begun, this one included, in milliseconds since 1970.
    pub(crate) begun: &'a [u64],
    /// Now, on the same clock.
    pub(crate) now: u64,
    /// What is left of the start's budget.
    pub(crate) left: Duration,
}

/// What comes after a failed creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait, then ask whether there is a VM; adopt it, or see whether another may be made.
    Look(Duration),
    /// Wait, then create again.
    Create(Duration),
    /// It stays failed.
    GiveUp(GaveUp),
}

/// Why there is no further attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GaveUp {
    /// The same request fails again.
    Permanent,
    /// The sandbox had all its creations.
    Spent,
    /// The next attempt would begin after the deadline.
    NoTime,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permanent => f.write_str("trying again does not help"),
            Self::Spent => write!(f, "no more than {MOST} are made in {} minutes", WINDOW.as_secs() / 60),
            Self::NoTime => f.write_str("the next would begin after the start's deadline (PROXY_TIMEOUT)"),
        }
    }
}

/// What comes after a creation failed with an error of this kind, `hint` being the pause the provider asked for.
pub(crate) fn after_failure(kind: ErrorKind, hint: Option<Duration>, at: Standing<'_>, roll: f64) -> Next {
    let step = |first: Duration| {
        let doublings = u32::try_from(at.begun.len()).unwrap_or(u32::MAX).saturating_sub(1).min(5);
        (first * 2_u32.pow(doublings)).min(LONGEST)
    };
    let within = |pause| if pause < at.left { Ok(pause) } else { Err(Next::GiveUp(GaveUp::NoTime)) };
    match kind.retry() {
        Retry::Never => Next::GiveUp(GaveUp::Permanent),
        Retry::AfterLooking => {
            within(backoff::pause(step(SOON), hint, roll)).map_or_else(|end| end, Next::Look)
        }
        Retry::Slowly => {
            let pause = backoff::pause(step(SLOWLY), hint, roll);
            match until_allowed(at) {
                Ok(wait) => within(pause.max(wait)).map_or_else(|end| end, Next::Create),
                Err(end) => Next::GiveUp(end),
            }
        }
    }
}

/// How long until the sandbox may be given another creation.
pub(crate) fn until_allowed(at: Standing<'_>) -> Result<Duration, GaveUp> {
    let window = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
    // A time in the future is one of a clock that was set back since: it counts.
    let mut counted: Vec<u64> =
        at.begun.iter().copied().filter(|begun| begun.saturating_add(window) > at.now).collect();
    counted.sort_unstable();
    let Some(leaves) = counted.len().checked_sub(MOST) else { return Ok(Duration::ZERO) };
    let wait = Duration::from_millis(counted[leaves].saturating_add(window) - at.now);
    if wait < at.left { Ok(wait) } else { Err(GaveUp::Spent) }
}

/// The attempts that failed, for an error text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempts(Vec<String>);

impl Attempts {
    /// Notes one that failed.
    pub(crate) fn note(&mut self, error: &ProviderError) {
        let code = error.code.as_deref().map(|code| format!(" code {code}")).unwrap_or_default();
        let request = error.request_id.as_deref().map(|id| format!(" request {id}")).unwrap_or_default();
        self.0.push(format!("{}{code}{request}", error.kind));
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "attempt" } else { "attempts" };
        write!(f, "{} {noun} failed ({})", self.0.len(), self.0.join("; "))
    }
}

/// What a reader can do about a creation that stays failed; nothing when the provider's own error says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice(Option<&'static str>);

impl Advice {
    pub(crate) fn on(error: &ProviderError) -> Self {
        Self(error.hint.is_none().then(|| advice(error.kind)))
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(text) => write!(f, "; try: {text}"),
            None => Ok(()),
        }
    }
}

fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Transient => "check that this node reaches the provider, and the provider's status page",
        ErrorKind::Throttled => "start fewer pods at once, or ask the provider for a higher request rate",
        ErrorKind::Capacity => "ask for another machine type or size, or run the pod in another zone",
        ErrorKind::Quota => "remove what is not needed, or ask the provider for a higher quota",
        ErrorKind::Denied => "check the credentials and their permissions with `peerpods doctor`",
        ErrorKind::Invalid => "correct the pod's annotations or the provider's configuration",
        ErrorKind::NotFound => "check the image, network and security group in the provider's configuration",
    }
}

#[cfg(test)]
mod tests;
