//! Calls that are dropped half-way or run into each other.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::subject::{Bench, ensure, ok};

/// Into how many parts the time of a whole call is cut; it is dropped at each cut.
const CUTS: u32 = 6;

pub(super) async fn a_dropped_create_leaves_nothing_that_delete_does_not_remove(
    bench: &Bench<'_>,
) -> Result<(), String> {
    let whole = {
        let key = bench.key("measured");
        let started = Instant::now();
        ok("create", bench.provider().create(&key, &bench.spec("podvm-one")).await)?;
        let whole = started.elapsed();
        ok("delete", bench.provider().delete(&key).await)?;
        whole
    };
    for cut in 0..=CUTS {
        let key = bench.key(&format!("dropped-{cut}"));
        let _dropped =
            timeout(whole * cut / CUTS, bench.provider().create(&key, &bench.spec("podvm-one"))).await;
        ok("get after a dropped create", bench.provider().get(&key).await)?;
        ok("delete after a dropped create", bench.provider().delete(&key).await)?;
        // Whatever the dropped call had still under way must not turn up later.
        tokio::time::sleep(whole / 4).await;
        bench.is_gone(&key).await.map_err(|e| format!("dropped at {cut}/{CUTS} of {whole:?}: {e}"))?;
        let left = bench.subject.leftovers().await;
        ensure(left.is_empty(), || format!("dropped at {cut}/{CUTS} of {whole:?}: left {left:?}"))?;
    }
    Ok(())
}

pub(super) async fn a_dropped_delete_is_continued_by_the_next(bench: &Bench<'_>) -> Result<(), String> {
    let key = bench.key("sandbox-one");
    for micros in [0, 100, 1_000, 10_000, 50_000] {
        ok("create", bench.provider().create(&key, &bench.spec("podvm-one")).await)?;
        let _dropped = timeout(Duration::from_micros(micros), bench.provider().delete(&key)).await;
        ok("delete after a dropped delete", bench.provider().delete(&key).await)?;
        bench.is_gone(&key).await.map_err(|e| format!("dropped after {micros} µs: {e}"))?;
    }
    Ok(())
}

pub(super) async fn a_delete_beside_a_create_leaves_at_most_what_the_next_removes(
    bench: &Bench<'_>,
) -> Result<(), String> {
    let (key, spec) = (bench.key("sandbox-one"), bench.spec("podvm-one"));
    let (one, two) = (bench.provider(), bench.provider());
    for _ in 0..3 {
        // Either order is right; what counts is that both end and the next delete leaves nothing.
        let (_created, deleted) = tokio::join!(one.create(&key, &spec), two.delete(&key));
        ok("delete beside a create", deleted)?;
        ok("delete after both", one.delete(&key).await)?;
        bench.is_gone(&key).await?;
    }
    Ok(())
}
