//! What to do next about the certificate. Pure: the Secret as it is, whether it is trusted, and the time.

use std::time::{Duration, SystemTime};

use super::held::{Held, Pair};
use super::make::{BACKDATED, LIFE};

/// A certificate with less of its life left is replaced: a third of it.
pub const ROTATE_BEFORE_END: Duration = Duration::from_secs(LIFE.as_secs() / 3);
/// How long a new authority is trusted before its certificate is shown: API servers learn of a changed configuration by watching it.
pub const TRUSTED_FIRST: Duration = Duration::from_secs(10 * 60);
/// With so little left the new certificate is shown even if not every configuration is known to trust it: the old one is as good as gone.
pub const LAST_MOMENT: Duration = Duration::from_secs(60 * 60);

/// The Secret.
#[derive(Debug)]
pub enum State {
    /// There is none.
    Missing,
    /// It is ours and cannot be used, for this reason.
    Broken(String),
    /// It is ours.
    Ours(Box<Held>),
    /// It is somebody else's.
    Foreign,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Wait,
    /// Make a certificate that is shown at once: there is none that could be.
    Make,
    /// Make the next certificate, to be trusted before it is shown.
    Stage,
    /// Show the next certificate.
    Promote,
    /// Trust authorities that have ended no longer.
    Forget,
}

/// Decides. `trusted` says that every configuration trusts all authorities of the Secret.
#[must_use]
pub fn decide(state: &State, names: &[String], trusted: bool, now: SystemTime) -> Step {
    let held = match state {
        State::Missing | State::Broken(_) => return Step::Make,
        State::Foreign => return Step::Wait,
        State::Ours(held) => held,
    };
    if !is_good(&held.serving, names, now) {
        return Step::Make;
    }
    let left = held.serving.not_after.duration_since(now).unwrap_or(Duration::ZERO);
    match &held.next {
        Some(next) if is_good(next, names, now) => {
            let made = next.not_before + BACKDATED;
            let known = now.duration_since(made).is_ok_and(|since| since >= TRUSTED_FIRST);
            if (trusted && known) || left < LAST_MOMENT { Step::Promote } else { Step::Wait }
        }
        None if left >= ROTATE_BEFORE_END
            && held.authorities.iter().any(|authority| authority.not_after <= now) =>
        {
            Step::Forget
        }
        None if left >= ROTATE_BEFORE_END => Step::Wait,
        Some(_) | None => Step::Stage,
    }
}

fn is_good(pair: &Pair, names: &[String], now: SystemTime) -> bool {
    pair.not_before <= now && now < pair.not_after && names.iter().all(|name| pair.names.contains(name))
}
