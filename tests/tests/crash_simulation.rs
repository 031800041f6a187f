//! The node service in a simulated world, killed at every step: `make crash-test`. Needs nothing.
//!
//! `PEERPODS_CRASH_POINTS` says how many deaths there are to be, `PEERPODS_CRASH_SEED` which history to replay (`17@230+245`) or from
//! which workload to begin (`500`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use peerpods_agentlink::ca::ClusterCa;
use peerpods_tests::crash::invariants::Invariant;
use peerpods_tests::crash::plan::{Sabotage, Seed};
use peerpods_tests::crash::report::campaign;
use peerpods_tests::crash::run::{History, play};

/// Deaths when nobody says how many: what `make test` has time for.
const POINTS: u64 = 200;

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// Runs `test` with a certificate authority that all lives of all daemons share.
fn with_authority<T>(test: impl FnOnce(&Path) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let authority = dir.path().join("ca");
    drop(ClusterCa::load_or_create(&authority).unwrap());
    test(&authority)
}

#[test]
fn no_death_of_the_daemon_breaks_an_invariant() {
    let seed = variable("PEERPODS_CRASH_SEED").unwrap_or_else(|| "1".to_owned());
    if seed.contains('@') {
        return replay(&seed.parse().unwrap_or_else(|e| panic!("{e}")));
    }
    let points = variable("PEERPODS_CRASH_POINTS").map_or(POINTS, |text| text.parse().unwrap());
    let report = with_authority(|authority| campaign(seed.parse().unwrap(), points, authority)).unwrap();
    println!("{report}");
    assert!(report.points() >= points);
    assert!(report.violations.is_empty(), "{} violations; see above", report.violations.len());
}

fn replay(seed: &Seed) {
    let history = with_authority(|authority| play(seed, None, authority)).unwrap();
    println!("{}", history.trace.join("\n"));
    for violation in &history.violations {
        println!("{violation}");
    }
    assert!(history.violations.is_empty(), "{} violations of seed {seed}", history.violations.len());
}

#[test]
fn one_seed_is_one_history() {
    with_authority(|authority| {
        for workload in 1..=30 {
            let seed = Seed::new(workload, [40, 60 + workload, 80 + 5 * workload, 300]);
            let (one, other) = (play(&seed, None, authority).unwrap(), play(&seed, None, authority).unwrap());
            let differs = one.trace.iter().zip(&other.trace).find(|(a, b)| a != b);
            assert_eq!(one.digest, other.digest, "seed {seed} had two histories, from here on: {differs:?}");
            assert!(one.points > 50 && !one.deaths.is_empty(), "{seed} has {} points", one.points);
        }
    });
}

/// Plays a few histories in a world with this defect until `invariant` is broken.
fn the_harness_notices(sabotage: Sabotage, invariant: Invariant) {
    let noticed = |history: &History| history.violations.iter().any(|v| v.invariant == invariant);
    with_authority(|authority| {
        let seeds = (1..=40).map(|workload| Seed::new(workload, [60 + 7 * workload, 150, 200]));
        let found = seeds.map(|seed| play(&seed, Some(sabotage), authority).unwrap()).find(noticed);
        assert!(found.is_some(), "{sabotage:?} does not break {invariant:?}");
    });
}

#[test]
fn the_harness_notices_two_vms_of_one_sandbox() {
    the_harness_notices(Sabotage::CloudMakesTwo, Invariant::OneVm);
}

#[test]
fn the_harness_notices_a_cloud_that_makes_a_vm_whenever_it_is_asked() {
    the_harness_notices(Sabotage::CloudNotIdempotent, Invariant::OneVm);
}

#[test]
fn the_harness_notices_a_vm_that_stays() {
    the_harness_notices(Sabotage::DeletionLies, Invariant::NoOrphan);
}

#[test]
fn the_harness_notices_the_deletion_of_a_pod_that_runs() {
    the_harness_notices(Sabotage::VmSaidToBeDead, Invariant::NoFalseDeletion);
}

#[test]
fn the_harness_notices_a_pod_the_daemon_forgot() {
    the_harness_notices(Sabotage::JournalForgets, Invariant::NoLostSandbox);
}

#[test]
fn the_harness_notices_an_identifier_given_twice() {
    the_harness_notices(Sabotage::JournalLosesOnLoad, Invariant::UniqueVni);
}

#[test]
fn the_harness_notices_a_fourth_creation() {
    the_harness_notices(Sabotage::CloudRecreates, Invariant::ThreeCreations);
}

#[test]
fn the_harness_notices_one_vm_too_many() {
    the_harness_notices(Sabotage::NoLimit, Invariant::Limit);
}

#[test]
fn the_harness_notices_what_is_left() {
    the_harness_notices(Sabotage::LinkStays, Invariant::NothingLeft);
}

#[test]
fn the_harness_notices_a_link_that_ends_with_the_daemon() {
    the_harness_notices(Sabotage::LinksDieWithTheDaemon, Invariant::NoFalseDeletion);
}

#[test]
fn the_harness_notices_a_call_without_an_answer() {
    the_harness_notices(Sabotage::JournalHangs, Invariant::Answered);
}
