//! The real daemon as a process, killed at its system calls. Needs root, network namespaces, ptrace and the guest programs; part of
//! `make crash-test`. `PEERPODS_CRASH_CALLS` says at how many calls (0: at every one, before and after it).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use peerpods_test_require::{Need, require};
use peerpods_tests::crash::process::tracer::Death;
use peerpods_tests::crash::process::{Bed, GiveUp};
use peerpods_tests::node::in_private_network;

const NEEDS: &[Need] = &[
    Need::Root,
    Need::NetworkNamespaces,
    Need::Program("ip"),
    Need::Variable("PEERPODS_TEST_GUEST_PROGRAMS"),
];

/// Deaths when nobody says how many: what `make test` has time for.
const CALLS: u64 = 6;

/// Every death there is in a life of so many calls, or this many of them, evenly.
fn deaths(calls: u64, wanted: u64) -> Vec<Death> {
    let all = 2 * calls;
    let step = all.checked_div(wanted).unwrap_or(1);
    let of = |index: u64| {
        if index.is_multiple_of(2) { Death::Before(index / 2 + 1) } else { Death::After(index / 2 + 1) }
    };
    // An odd step, or all would be of one kind.
    (0..all).step_by(usize::try_from(step | 1).unwrap()).map(of).collect()
}

#[test]
fn a_death_at_any_system_call_loses_no_pod_and_leaks_nothing() {
    if !require("a_death_at_any_system_call_loses_no_pod_and_leaks_nothing", NEEDS) {
        return;
    }
    let wanted = std::env::var("PEERPODS_CRASH_CALLS").map_or(CALLS, |text| text.parse().unwrap());
    in_private_network(move || async move {
        let mut bed = Bed::new().await;
        let whole = bed.one_life(Death::Never, GiveUp::Stop).await;
        let calls = whole.seen.calls.values().sum();
        println!("one life has {calls} calls: {:?}", whole.seen.calls);
        assert!(calls > 30, "the tracer sees nothing");
        let (mut died, mut reached) = (BTreeMap::<_, u64>::new(), BTreeMap::<_, u64>::new());
        for (number, death) in deaths(calls, wanted).into_iter().enumerate() {
            let give_up = if number % 4 == 0 { GiveUp::Silently } else { GiveUp::Stop };
            println!("{death:?}, then {give_up:?}");
            let life = bed.one_life(death, give_up).await;
            *died.entry(life.seen.died_at.unwrap_or("(it lived)")).or_default() += 1;
            *reached.entry(life.reached).or_default() += 1;
        }
        println!("deaths by call: {died:?}\ndeaths by what the shim had reached: {reached:?}");
        assert!(died.keys().any(|call| *call != "(it lived)"), "nothing ever died");
    });
}
