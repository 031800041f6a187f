//! What a provider says of itself, and what it refuses.

use super::subject::{Bench, ensure, ok};
use crate::{ErrorKind, UserData, VmSize, VmSpec};

pub(super) async fn verify_answers_and_makes_nothing(bench: &Bench<'_>) -> Result<(), String> {
    let facts = ok("verify", bench.provider().verify().await)?;
    ensure(facts.user_data_limit >= 4096, || format!("user data limit {} is no use", facts.user_data_limit))?;
    ensure(facts.underlay_mtu >= 1280, || format!("an MTU of {} carries no IPv6", facts.underlay_mtu))?;
    let left = bench.subject.leftovers().await;
    ensure(left.is_empty(), || format!("verify made {left:?}"))
}

pub(super) async fn an_impossible_size_is_refused_and_leaves_nothing(
    bench: &Bench<'_>,
) -> Result<(), String> {
    let size = VmSize { vcpus: 1_000_000, ..VmSize::default() };
    refused(bench, VmSpec { size, ..bench.spec("podvm-huge") }).await
}

pub(super) async fn user_data_beyond_the_limit_is_refused(bench: &Bench<'_>) -> Result<(), String> {
    let facts = ok("verify", bench.provider().verify().await)?;
    let user_data = UserData::new(vec![b'#'; facts.user_data_limit + 1]);
    refused(bench, VmSpec { user_data, ..bench.spec("podvm-verbose") }).await
}

async fn refused(bench: &Bench<'_>, spec: VmSpec) -> Result<(), String> {
    let key = bench.key("refused");
    match bench.provider().create(&key, &spec).await {
        Ok(made) => Err(format!("it was made: {made:?}")),
        Err(error) => {
            ensure(error.kind == ErrorKind::Invalid, || format!("refused, but not as invalid: {error}"))?;
            bench.is_gone(&key).await?;
            let left = bench.subject.leftovers().await;
            ensure(left.is_empty(), || format!("the refusal left {left:?}"))
        }
    }
}

pub(super) async fn the_longest_names_are_taken(bench: &Bench<'_>) -> Result<(), String> {
    let key = bench.key(&format!("_.-{}", "aZ9".repeat(21).split_at(61).0));
    let name = format!("podvm-{}", "x".repeat(57));
    let made = ok("create", bench.provider().create(&key, &bench.spec(&name)).await)?;
    ensure(made.name == name, || format!("asked for {name:?}, got {:?}", made.name))?;
    let found = ok("get", bench.provider().get(&key).await)?;
    ensure(found.is_some_and(|f| f.name == name), || "get does not find it".to_owned())
}
