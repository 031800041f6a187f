//! Delete, and VMs that stop by themselves.

use futures::future::join_all;

use super::subject::{Bench, ensure, ok};
use crate::VmState;

pub(super) async fn delete_of_nothing_is_ok(bench: &Bench<'_>) -> Result<(), String> {
    let key = bench.key("never-made");
    ok("delete", bench.provider().delete(&key).await)?;
    bench.is_gone(&key).await
}

pub(super) async fn delete_removes_the_vm_and_may_be_repeated(bench: &Bench<'_>) -> Result<(), String> {
    let key = bench.key("sandbox-one");
    ok("create", bench.provider().create(&key, &bench.spec("podvm-one")).await)?;
    bench.wait_for(&key, VmState::Running).await?;
    ok("delete", bench.provider().delete(&key).await)?;
    bench.is_gone(&key).await?;
    let left = bench.subject.leftovers().await;
    ensure(left.is_empty(), || format!("delete left {left:?}"))?;
    ok("second delete", bench.provider().delete(&key).await)
}

pub(super) async fn concurrent_deletes_are_all_ok(bench: &Bench<'_>) -> Result<(), String> {
    let key = bench.key("sandbox-one");
    ok("create", bench.provider().create(&key, &bench.spec("podvm-one")).await)?;
    let (shared, other) = (bench.provider(), bench.provider());
    let deletes = (0..4).map(|n| if n % 2 == 0 { &shared } else { &other }).map(|p| p.delete(&key));
    for answer in join_all(deletes).await {
        ok("concurrent delete", answer)?;
    }
    bench.is_gone(&key).await
}

pub(super) async fn a_vm_that_stopped_by_itself_is_still_there_and_stopped(
    bench: &Bench<'_>,
) -> Result<(), String> {
    let key = bench.key("sandbox-one");
    let made = ok("create", bench.provider().create(&key, &bench.spec("podvm-one")).await)?;
    bench.wait_for(&key, VmState::Running).await?;
    bench.subject.kill(&key).await?;
    let stopped = bench.wait_for(&key, VmState::Stopped).await?;
    ensure(stopped.id == made.id, || format!("made {made:?}, but {stopped:?} stopped"))?;
    let listed = ok("list", bench.provider().list(&bench.cluster).await)?;
    let seen = listed.iter().find(|(k, _)| *k == key).map(|(_, i)| i.state);
    ensure(seen == Some(VmState::Stopped), || format!("list says {seen:?}"))?;
    let again = ok("create", bench.provider().create(&key, &bench.spec("podvm-one")).await)?;
    ensure(again.id == made.id && again.state == VmState::Stopped, || format!("create answers {again:?}"))?;
    ok("delete", bench.provider().delete(&key).await)?;
    bench.is_gone(&key).await
}

pub(super) async fn create_after_delete_makes_another_vm(bench: &Bench<'_>) -> Result<(), String> {
    let (key, spec) = (bench.key("sandbox-one"), bench.spec("podvm-one"));
    ok("create", bench.provider().create(&key, &spec).await)?;
    ok("delete", bench.provider().delete(&key).await)?;
    ok("create after delete", bench.provider().create(&key, &spec).await)?;
    bench.wait_for(&key, VmState::Running).await.map(drop)
}
