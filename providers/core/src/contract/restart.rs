//! What a service that died left, as the next one finds it: every row of the table "if we die between two steps". Each step here is
//! done by a provider of its own, which knows nothing but what the cloud tells it.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::subject::{Bench, ensure, ok};
use crate::{Instance, VmKey};

/// Into how many parts the time of a whole call is cut; its caller dies at each cut.
const CUTS: u32 = 4;

/// How long a whole create takes, as far as anything does on a busy machine.
async fn time_of_a_create(bench: &Bench<'_>) -> Result<Duration, String> {
    let key = bench.key("measured");
    let started = Instant::now();
    ok("create", bench.provider().create(&key, &bench.spec("podvm-one")).await)?;
    let whole = started.elapsed();
    ok("delete", bench.provider().delete(&key).await)?;
    Ok(whole)
}

/// What a provider made just now says of a key: get and list must agree.
async fn found(bench: &Bench<'_>, key: &VmKey) -> Result<Option<Instance>, String> {
    let provider = bench.provider();
    let got = ok("get", provider.get(key).await)?;
    let listed = ok("list", provider.list(&key.cluster).await)?;
    let ids: Vec<&str> = listed.iter().filter(|(k, _)| k == key).map(|(_, i)| i.id.as_str()).collect();
    let expected: Vec<&str> = got.iter().map(|instance| instance.id.as_str()).collect();
    ensure(ids == expected, || format!("get answers {expected:?}, list has {ids:?}"))?;
    Ok(got)
}

pub(super) async fn a_create_repeated_after_its_caller_died_makes_no_second_vm(
    bench: &Bench<'_>,
) -> Result<(), String> {
    let whole = time_of_a_create(bench).await?;
    for cut in 0..=CUTS {
        let (key, spec) = (bench.key(&format!("died-{cut}")), bench.spec("podvm-one"));
        let _died = timeout(whole * cut / CUTS, bench.provider().create(&key, &spec)).await;
        let made = ok("create after a death", bench.provider().create(&key, &spec).await)?;
        // Whatever the dead caller had still under way must not turn up beside it.
        tokio::time::sleep(whole / 4).await;
        let there =
            found(bench, &key).await.map_err(|e| format!("died at {cut}/{CUTS} of {whole:?}: {e}"))?;
        ensure(there.as_ref().is_some_and(|there| there.id == made.id), || {
            format!("died at {cut}/{CUTS} of {whole:?}: made {made:?}, found {there:?}")
        })?;
        ok("delete", bench.provider().delete(&key).await)?;
    }
    Ok(())
}

pub(super) async fn what_a_dead_creator_made_is_found_by_get_and_list_and_deleted(
    bench: &Bench<'_>,
) -> Result<(), String> {
    let key = bench.key("sandbox-one");
    let made = ok("create", bench.provider().create(&key, &bench.spec("podvm-one")).await)?;
    let there = found(bench, &key).await?;
    ensure(there.as_ref().is_some_and(|there| there.id == made.id && there.name == made.name), || {
        format!("made {made:?}, found {there:?}")
    })?;
    ok("delete", bench.provider().delete(&key).await)?;
    ensure(found(bench, &key).await?.is_none(), || "it is still there".to_owned())
}

pub(super) async fn a_delete_goes_on_however_often_its_caller_dies(bench: &Bench<'_>) -> Result<(), String> {
    let key = bench.key("sandbox-one");
    ok("create", bench.provider().create(&key, &bench.spec("podvm-one")).await)?;
    for micros in [0, 50, 500, 5_000, 20_000] {
        let _died = timeout(Duration::from_micros(micros), bench.provider().delete(&key)).await;
        // The dead caller's work may still go on, so there is no telling what is there; but telling must work.
        ok("get between deaths", bench.provider().get(&key).await)?;
        ok("list between deaths", bench.provider().list(&key.cluster).await)?;
    }
    ok("delete after many deaths", bench.provider().delete(&key).await)?;
    bench.is_gone(&key).await
}

pub(super) async fn delete_is_ok_for_a_restarted_service_after_all_is_gone(
    bench: &Bench<'_>,
) -> Result<(), String> {
    let key = bench.key("sandbox-one");
    ok("create", bench.provider().create(&key, &bench.spec("podvm-one")).await)?;
    ok("delete", bench.provider().delete(&key).await)?;
    let left = bench.subject.leftovers().await;
    ensure(left.is_empty(), || format!("delete left {left:?}"))?;
    for _ in 0..2 {
        ok("delete by a restarted service", bench.provider().delete(&key).await)?;
        ensure(found(bench, &key).await?.is_none(), || "it came back".to_owned())?;
    }
    Ok(())
}

pub(super) async fn list_answers_a_restarted_service_with_all_that_is_there_and_nothing_else(
    bench: &Bench<'_>,
) -> Result<(), String> {
    let keys = ["one", "two", "three"].map(|name| bench.key(&format!("sandbox-{name}")));
    for key in &keys {
        ok("create", bench.provider().create(key, &bench.spec("podvm-one")).await)?;
    }
    ok("delete", bench.provider().delete(&keys[1]).await)?;
    let listed = ok("list", bench.provider().list(&bench.cluster).await)?;
    let mut seen: Vec<&VmKey> = listed.iter().map(|(key, _)| key).collect();
    seen.sort();
    let mut expected = vec![&keys[0], &keys[2]];
    expected.sort();
    ensure(seen == expected, || format!("expected {expected:?}, list has {seen:?}"))
}
