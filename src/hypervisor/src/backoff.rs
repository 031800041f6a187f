//! How long to wait before the same thing is tried again: exponential steps, full jitter, and never less than the provider asked for.
//!
//! Full jitter (any time between nothing and the step) spreads those who failed together, so that two hundred sandboxes do not come
//! back in step. Here is no clock: callers sleep.

use std::error::Error;
use std::time::Duration;

use peerpods_provider::ProviderError;

/// A provider that asks for more than this is asked again all the same.
const LONGEST_HINT: Duration = Duration::from_secs(600);

/// Pauses that grow from `first` to `longest`.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    step: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { step: first, longest }
    }

    /// The next pause. `hint` is what the provider asked for.
    pub(crate) fn next(&mut self, hint: Option<Duration>) -> Duration {
        let pause = pause(self.step, hint, roll());
        self.step = (self.step * 2).min(self.longest);
        pause
    }
}

/// A point of the unit interval, another one each time.
pub(crate) fn roll() -> f64 {
    fastrand::f64()
}

/// The pause within `step` that `roll` (0 to 1) picks, after what the provider asked for: all who were told the same would otherwise
/// come back together.
pub(crate) fn pause(step: Duration, hint: Option<Duration>, roll: f64) -> Duration {
    hint.unwrap_or_default().min(LONGEST_HINT) + step.mul_f64(roll.clamp(0.0, 1.0))
}

/// Give or take a tenth, so that what is done again and again everywhere is not done in step.
pub(crate) fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// How long the provider asked to wait, when the error is one of a provider that did.
pub(crate) fn hint(error: &(dyn Error + 'static)) -> Option<Duration> {
    error.downcast_ref::<ProviderError>().and_then(|error| error.retry_after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerpods_provider::ErrorKind;
    use proptest::prelude::*;

    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);

    #[test]
    fn pauses_grow_to_the_longest_and_differ_between_those_who_fail_together() {
        let mut most = Duration::ZERO;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..64 {
            let mut backoff = Backoff::new(FIRST, LONGEST);
            assert!(backoff.next(None) <= FIRST);
            for _ in 0..10 {
                most = most.max(backoff.next(None));
            }
            seen.insert(backoff.next(None));
        }
        assert!(most <= LONGEST && most > LONGEST / 2, "{most:?}");
        assert!(seen.len() > 32, "64 who failed together came back at {} times", seen.len());
    }

    #[test]
    fn a_providers_hint_is_found_in_its_error() {
        let error = ProviderError::new(ErrorKind::Throttled, "create", "slow down").retry_after(FIRST);
        assert_eq!(hint(&error), Some(FIRST));
        assert_eq!(hint(&std::io::Error::other("no hint")), None);
    }

    proptest! {
        #[test]
        fn nobody_comes_back_before_the_provider_said_or_later_than_a_step_after(
            step in 0_u64..60_000, hint in proptest::option::of(0_u64..600_000), roll in 0.0_f64..=1.0,
        ) {
            let hint = hint.map(Duration::from_millis);
            let step = Duration::from_millis(step);
            let pause = pause(step, hint, roll);
            prop_assert!(pause >= hint.unwrap_or_default());
            prop_assert!(pause <= hint.unwrap_or_default() + step);
        }
    }
}
