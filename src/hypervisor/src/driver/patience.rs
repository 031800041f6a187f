//! How long to wait before a step that failed is tried again, and how loudly to say so. Nothing is ever given up.

use std::time::Duration;

use peerpods_provider::ProviderError;

use crate::backoff;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What only a person can mend need not be tried as often.
const LONGEST_PAUSE_FOR_A_PERSON: Duration = Duration::from_secs(300);

/// What a failure says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    longest: Duration,
    at_least: Option<Duration>,
    pub(super) mending: Mending,
}

/// Who has to do something before it can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mending {
    /// Nobody, as a rule.
    ByItself,
    /// A person: credentials, permissions, a request that can never succeed.
    ByAPerson,
}

impl Patience {
    /// For what is on this node.
    pub(super) const NODE: Self = Self { longest: LONGEST_PAUSE, at_least: None, mending: Mending::ByItself };

    /// For a provider's failure to delete.
    pub(super) fn of(error: &ProviderError) -> Self {
        use peerpods_provider::ErrorKind as Kind;
        let at_least = error.retry_after;
        match error.kind {
            Kind::Transient | Kind::Throttled | Kind::Capacity | Kind::Quota => {
                Self { at_least, ..Self::NODE }
            }
            Kind::Denied | Kind::Invalid | Kind::NotFound => {
                Self { longest: LONGEST_PAUSE_FOR_A_PERSON, at_least, mending: Mending::ByAPerson }
            }
        }
    }

    /// The pause after so many failures. `roll` (0 to 1) spreads those who fail together.
    pub(super) fn pause(self, tries: u32, roll: f64) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(20));
        backoff::pause(doubled.min(self.longest), self.at_least, roll)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerpods_provider::ErrorKind;

    const KINDS: [ErrorKind; 7] = [
        ErrorKind::Transient,
        ErrorKind::Throttled,
        ErrorKind::Capacity,
        ErrorKind::Quota,
        ErrorKind::Denied,
        ErrorKind::Invalid,
        ErrorKind::NotFound,
    ];

    #[test]
    fn pauses_grow_to_a_bound_that_depends_on_who_has_to_mend_it() {
        for kind in KINDS {
            let patience = Patience::of(&ProviderError::new(kind, "delete", "no"));
            assert_eq!(patience.pause(1, 1.0), FIRST_PAUSE, "{kind}: a slip is over at once");
            let pauses: Vec<_> = (1..=40).map(|tries| patience.pause(tries, 1.0)).collect();
            assert!(pauses.is_sorted(), "{kind}: {pauses:?}");
            let person = matches!(kind, ErrorKind::Denied | ErrorKind::Invalid | ErrorKind::NotFound);
            let bound = if person { LONGEST_PAUSE_FOR_A_PERSON } else { LONGEST_PAUSE };
            assert_eq!(pauses.last(), Some(&bound), "{kind}");
            assert_eq!(patience.mending == Mending::ByAPerson, person, "{kind}");
        }
    }

    #[test]
    fn a_provider_that_asks_for_time_gets_it() {
        let mut error = ProviderError::new(ErrorKind::Throttled, "delete", "slow down");
        error.retry_after = Some(Duration::from_secs(90));
        assert_eq!(Patience::of(&error).pause(1, 0.0), Duration::from_secs(90));
        assert_eq!(Patience::of(&error).pause(u32::MAX, 0.0), Duration::from_secs(90));
    }
}
