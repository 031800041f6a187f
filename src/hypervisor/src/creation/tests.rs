//! The table kind by kind, and a model: a provider that fails in any order against a start that follows the decisions.

use proptest::prelude::*;

use super::*;

const LONG: Duration = Duration::from_secs(3600);

fn at(begun: &[u64], now: u64, left: Duration) -> Standing<'_> {
    Standing { begun, now, left }
}

#[test]
fn every_kind_has_its_row() {
    for kind in ErrorKind::ALL {
        let next = after_failure(kind, None, at(&[1000], 1000, LONG), 1.0);
        let expected = match kind {
            ErrorKind::Transient => Next::Look(SOON),
            ErrorKind::Throttled | ErrorKind::Capacity => Next::Create(SLOWLY),
            _ => Next::GiveUp(GaveUp::Permanent),
        };
        assert_eq!(next, expected, "{kind}");
        assert!(!advice(kind).is_empty());
    }
}

#[test]
fn advice_is_given_once() {
    let error = ProviderError::new(ErrorKind::Capacity, "create", "none left");
    assert!(Advice::on(&error).to_string().starts_with("; try: "));
    assert_eq!(Advice::on(&error.hint("another zone")).to_string(), "");
}

#[test]
fn the_providers_pause_is_kept_unless_the_deadline_comes_first() {
    let hint = Some(Duration::from_secs(20));
    let next = |left| after_failure(ErrorKind::Throttled, hint, at(&[0], 0, left), 0.0);
    assert_eq!(next(Duration::from_secs(21)), Next::Create(Duration::from_secs(20)));
    assert_eq!(next(Duration::from_secs(20)), Next::GiveUp(GaveUp::NoTime));
}

#[test]
fn the_fourth_creation_waits_for_the_first_to_be_ten_minutes_old() {
    let begun = [0, 5_000, 9_000];
    assert_eq!(until_allowed(at(&begun[..2], 9_000, LONG)), Ok(Duration::ZERO));
    assert_eq!(until_allowed(at(&begun, 10_000, LONG)), Ok(Duration::from_secs(590)));
    assert_eq!(until_allowed(at(&begun, 10_000, Duration::from_secs(300))), Err(GaveUp::Spent));
    assert_eq!(until_allowed(at(&begun, 600_000, LONG)), Ok(Duration::ZERO));
    assert_eq!(until_allowed(at(&[90_000, 95_000, 99_000], 0, Duration::from_secs(300))), Err(GaveUp::Spent));
}

#[test]
fn after_the_last_creation_an_open_answer_is_still_looked_into() {
    let spent = [0, 1_000, 2_000];
    let next = after_failure(ErrorKind::Transient, None, at(&spent, 3_000, Duration::from_secs(100)), 0.5);
    assert!(matches!(next, Next::Look(_)), "{next:?}");
    let next = after_failure(ErrorKind::Capacity, None, at(&spent, 3_000, Duration::from_secs(100)), 0.5);
    assert_eq!(next, Next::GiveUp(GaveUp::Spent));
}

fn kind() -> impl Strategy<Value = ErrorKind> {
    (0..ErrorKind::ALL.len()).prop_map(|n| ErrorKind::ALL[n])
}

proptest! {
    /// Follows the decisions as the driver does. The provider may have made the VM whenever the answer left that open.
    #[test]
    fn a_start_creates_at_most_three_times_in_ten_minutes_never_twice_blindly_and_ends(
        failures in proptest::collection::vec((kind(), proptest::option::of(0_u64..90), 0.0_f64..=1.0), 0..40),
        before in proptest::collection::vec(0_u64..900_000, 0..4),
        budget in 1_u64..3_600,
    ) {
        let mut now = 1_000_000_u64;
        let deadline = now + budget * 1000;
        let mut begun: Vec<u64> = before.iter().map(|b| b + 100_000).collect();
        let mut open = false;
        let mut failures = failures.into_iter();
        let mut first = true;
        loop {
            let left = Duration::from_millis(deadline.saturating_sub(now));
            if left.is_zero() { break }
            match until_allowed(at(&begun, now, left)) {
                Err(_) => break,
                Ok(wait) => now += u64::try_from(wait.as_millis()).unwrap(),
            }
            prop_assert!(now < deadline);
            prop_assert!(first || !open, "created again without looking");
            first = false;
            begun.push(now);
            let in_window = begun.iter().filter(|b| **b + 600_000 > now).count();
            prop_assert!(in_window <= MOST, "{in_window} creations in ten minutes");
            let Some((kind, hint, roll)) = failures.next() else { break };
            open = kind.retry() == Retry::AfterLooking;
            let left = Duration::from_millis(deadline.saturating_sub(now));
            let hint = hint.map(Duration::from_secs);
            let next = after_failure(kind, hint, at(&begun, now, left), roll);
            if kind.retry() == Retry::Never {
                prop_assert_eq!(next, Next::GiveUp(GaveUp::Permanent));
            }
            let pause = match next {
                Next::Look(pause) => { open = false; pause }
                Next::Create(pause) => pause,
                Next::GiveUp(_) => break,
            };
            prop_assert!(pause < left && pause >= hint.unwrap_or_default());
            now += u64::try_from(pause.as_millis()).unwrap();
        }
    }
}
