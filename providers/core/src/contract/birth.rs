//! Create, and create again.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::subject::{Bench, ensure, ok};
use crate::{Instance, VmState};

pub(super) async fn create_answers_a_vm_that_soon_runs_and_has_an_address(
    bench: &Bench<'_>,
) -> Result<(), String> {
    let key = bench.key("sandbox-one");
    let made = ok("create", bench.provider().create(&key, &bench.spec("podvm-one")).await)?;
    ensure(made.name == "podvm-one", || format!("made with another name: {made:?}"))?;
    ensure(made.state != VmState::Stopped, || format!("born dead: {made:?}"))?;
    let running = bench.wait_for(&key, VmState::Running).await?;
    ensure(running.id == made.id, || format!("get answers {running:?}, create answered {made:?}"))
}

pub(super) async fn create_twice_answers_the_same_vm(bench: &Bench<'_>) -> Result<(), String> {
    let (key, spec) = (bench.key("sandbox-one"), bench.spec("podvm-one"));
    let first = ok("create", bench.provider().create(&key, &spec).await)?;
    let second = ok("second create", bench.provider().create(&key, &spec).await)?;
    ensure(first.id == second.id, || format!("two VMs: {first:?} and {second:?}"))?;
    only(bench, &first).await
}

pub(super) async fn concurrent_creates_of_one_key_make_one_vm(bench: &Bench<'_>) -> Result<(), String> {
    let (key, spec) = (bench.key("sandbox-one"), bench.spec("podvm-one"));
    let (shared, other) = (bench.provider(), bench.provider());
    let creates = (0..6).map(|n| if n % 2 == 0 { &shared } else { &other }).map(|p| p.create(&key, &spec));
    let mut ids = BTreeSet::new();
    let mut last = None;
    for answer in join_all(creates).await {
        let made = ok("concurrent create", answer)?;
        ids.insert(made.id.clone());
        last = Some(made);
    }
    ensure(ids.len() == 1, || format!("several VMs: {ids:?}"))?;
    match last {
        Some(made) => only(bench, &made).await,
        None => Err("no answer".to_owned()),
    }
}

async fn only(bench: &Bench<'_>, made: &Instance) -> Result<(), String> {
    let listed = ok("list", bench.provider().list(&bench.cluster).await)?;
    let ids: Vec<&str> = listed.iter().map(|(_, i)| i.id.as_str()).collect();
    ensure(ids == [made.id.as_str()], || format!("made {}, but list has {ids:?}", made.id))
}

pub(super) async fn two_sandboxes_get_two_vms_with_addresses_of_their_own(
    bench: &Bench<'_>,
) -> Result<(), String> {
    let keys = [bench.key("sandbox-one"), bench.key("sandbox-two")];
    let provider = bench.provider();
    let spec = bench.spec("podvm-one");
    let made = join_all(keys.iter().map(|key| provider.create(key, &spec))).await;
    for answer in made {
        ok("create", answer)?;
    }
    let one = bench.wait_for(&keys[0], VmState::Running).await?;
    let two = bench.wait_for(&keys[1], VmState::Running).await?;
    ensure(one.id != two.id, || format!("one VM for both: {one:?}"))?;
    ensure(one.addresses.first() != two.addresses.first(), || format!("one address: {one:?} and {two:?}"))
}

pub(super) async fn a_name_may_be_used_twice(bench: &Bench<'_>) -> Result<(), String> {
    // Names are cut from pod names: two sandboxes of one pod have the same until their ids differ.
    let (one, two) = (bench.key("sandbox-one"), bench.key("sandbox-two"));
    let made_one = ok("create", bench.provider().create(&one, &bench.spec("podvm-same")).await)?;
    let made_two = ok("create", bench.provider().create(&two, &bench.spec("podvm-same")).await)?;
    ensure(made_one.id != made_two.id, || format!("one VM for both keys: {made_one:?}"))?;
    ok("delete", bench.provider().delete(&one).await)?;
    let found = ok("get", bench.provider().get(&two).await)?;
    ensure(found.is_some_and(|f| f.id == made_two.id), || "deleting one removed the other".to_owned())
}
