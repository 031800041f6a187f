//! The suite every provider is held to, the fake as well as the clouds.
//!
//! A [`Subject`] says how to get a provider and how to look behind its back; [`check`] runs every case of [`CASES`] on it, one
//! after the other, and after each makes sure that nothing is left. The cases use only the trait's own promises.

mod birth;
mod cancel;
mod death;
mod finding;
mod limits;
mod restart;
mod subject;

use futures::future::BoxFuture;

pub use subject::{Bench, Subject};

/// One promise of [`Provider`](crate::Provider), as a sentence, and the code that tries to break it.
pub struct Case {
    /// The promise.
    pub name: &'static str,
    run: for<'a> fn(&'a Bench<'a>) -> BoxFuture<'a, Result<(), String>>,
}

macro_rules! cases {
    ($($path:path),+ $(,)?) => {
        /// Every case, in the order they run.
        pub const CASES: &[Case] = &[$(Case {
            name: stringify!($path),
            run: |bench| Box::pin($path(bench)),
        }),+];
    };
}

cases![
    limits::verify_answers_and_makes_nothing,
    limits::an_impossible_size_is_refused_and_leaves_nothing,
    limits::user_data_beyond_the_limit_is_refused,
    limits::the_longest_names_are_taken,
    birth::create_answers_a_vm_that_soon_runs_and_has_an_address,
    birth::create_twice_answers_the_same_vm,
    birth::concurrent_creates_of_one_key_make_one_vm,
    birth::two_sandboxes_get_two_vms_with_addresses_of_their_own,
    birth::a_name_may_be_used_twice,
    finding::get_of_nothing_is_none,
    finding::a_vm_is_listed_with_its_key_and_carries_its_tags,
    finding::another_clusters_vms_are_not_listed,
    finding::a_restarted_service_finds_the_vm,
    death::delete_of_nothing_is_ok,
    death::delete_removes_the_vm_and_may_be_repeated,
    death::concurrent_deletes_are_all_ok,
    death::a_vm_that_stopped_by_itself_is_still_there_and_stopped,
    death::create_after_delete_makes_another_vm,
    cancel::a_dropped_create_leaves_nothing_that_delete_does_not_remove,
    cancel::a_dropped_delete_is_continued_by_the_next,
    cancel::a_delete_beside_a_create_leaves_at_most_what_the_next_removes,
    restart::a_create_repeated_after_its_caller_died_makes_no_second_vm,
    restart::what_a_dead_creator_made_is_found_by_get_and_list_and_deleted,
    restart::a_delete_goes_on_however_often_its_caller_dies,
    restart::delete_is_ok_for_a_restarted_service_after_all_is_gone,
    restart::list_answers_a_restarted_service_with_all_that_is_there_and_nothing_else,
];

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The case.
    pub case: &'static str,
    /// What was seen instead.
    pub seen: String,
}

/// Runs every case on the subject; the error holds every promise that was broken.
///
/// # Errors
/// When any case fails or leaves something behind.
pub async fn check(subject: &dyn Subject) -> Result<usize, Vec<Broken>> {
    let mut broken = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        let bench = Bench::new(subject, number);
        let started = std::time::Instant::now();
        let outcome = (case.run)(&bench).await;
        let seen = [outcome.err(), bench.clean_up().await.err()];
        tracing::info!(case = case.name, elapsed = ?started.elapsed(), "contract case ran");
        broken.extend(seen.into_iter().flatten().map(|seen| Broken { case: case.name, seen }));
    }
    if broken.is_empty() { Ok(CASES.len()) } else { Err(broken) }
}
