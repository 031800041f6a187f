use k8s_openapi::jiff::Timestamp;

use super::*;

fn at(second: i64) -> MicroTime {
    MicroTime(Timestamp::from_second(second).unwrap())
}

fn held_by(holder: &str) -> LeaseSpec {
    written(None, holder, at(1))
}

#[test]
fn a_lease_is_taken_when_it_is_free_ours_or_has_not_moved_for_its_duration() {
    let since = Instant::now();
    let seen = |spec| Some(Seen { spec, since });
    for (spec, after, expected) in [
        (None, 0, Step::Create),
        (seen(held_by("other")), 0, Step::Wait),
        (seen(held_by("other")), 14, Step::Wait),
        (seen(held_by("other")), 15, Step::Write),
        (seen(held_by("me")), 0, Step::Write),
        (seen(held_by("")), 0, Step::Write),
        (seen(LeaseSpec::default()), 0, Step::Write),
        (seen(LeaseSpec { lease_duration_seconds: Some(60), ..held_by("other") }), 30, Step::Wait),
    ] {
        assert_eq!(
            decide(spec.as_ref(), "me", since + Duration::from_secs(after)),
            expected,
            "{spec:?} {after}"
        );
    }
}

#[test]
fn only_a_change_makes_a_lease_young_again() {
    let first = Instant::now();
    let later = first + Duration::from_secs(10);
    let seen = Seen::update(None, held_by("other"), first);
    assert_eq!(Seen::update(Some(seen.clone()), held_by("other"), later).since, first);
    let renewed = written(Some(&held_by("other")), "other", at(2));
    assert_eq!(Seen::update(Some(seen), renewed, later).since, later);
}

#[test]
fn a_renewal_keeps_when_it_was_acquired_and_a_change_of_hands_is_counted() {
    let first = held_by("me");
    let renewed = written(Some(&first), "me", at(5));
    assert_eq!((&renewed.acquire_time, renewed.lease_transitions), (&first.acquire_time, Some(0)));
    assert_eq!(renewed.renew_time, Some(at(5)));
    let taken = written(Some(&renewed), "you", at(30));
    assert_eq!((taken.acquire_time, taken.lease_transitions), (Some(at(30)), Some(1)));
}
