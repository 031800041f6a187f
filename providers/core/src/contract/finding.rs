//! Get and list.

use std::collections::BTreeMap;

use peerpods_podvm::ClusterId;

use super::subject::{Bench, ensure, ok};

pub(super) async fn get_of_nothing_is_none(bench: &Bench<'_>) -> Result<(), String> {
    bench.is_gone(&bench.key("never-made")).await
}

pub(super) async fn a_vm_is_listed_with_its_key_and_carries_its_tags(
    bench: &Bench<'_>,
) -> Result<(), String> {
    let key = bench.key("sandbox-one");
    let tags = BTreeMap::from([("team".to_owned(), "payments".to_owned())]);
    let spec = bench.subject.spec("podvm-one", tags);
    let made = ok("create", bench.provider().create(&key, &spec).await)?;
    let listed = ok("list", bench.provider().list(&bench.cluster).await)?;
    let found: Vec<_> = listed.iter().filter(|(k, i)| *k == key && i.id == made.id).collect();
    ensure(found.len() == 1, || format!("made {made:?}, list has {listed:?}"))?;
    let got = ok("get", bench.provider().get(&key).await)?;
    let told = found.iter().map(|(_, listed)| listed).chain(&got);
    for told in told {
        ensure(payments(&told.tags), || format!("asked for the tag team=payments, answered {told:?}"))?;
    }
    ensure(got.is_some(), || "get does not find it".to_owned())?;
    let tags = bench.subject.tags(&key).await?;
    ensure(payments(&tags), || format!("it has the tags {tags:?}"))
}

fn payments(tags: &BTreeMap<String, String>) -> bool {
    tags.get("team").map(String::as_str) == Some("payments")
}

pub(super) async fn another_clusters_vms_are_not_listed(bench: &Bench<'_>) -> Result<(), String> {
    let stranger: ClusterId = format!("{}-other", bench.cluster).parse().map_err(|e| format!("{e}"))?;
    let (ours, theirs) = (bench.key("sandbox-one"), bench.key_in(stranger.clone(), "sandbox-one"));
    ok("create", bench.provider().create(&ours, &bench.spec("podvm-one")).await)?;
    ok("create", bench.provider().create(&theirs, &bench.spec("podvm-one")).await)?;
    for key in [&ours, &theirs] {
        let listed = ok("list", bench.provider().list(&key.cluster).await)?;
        let keys: Vec<_> = listed.iter().map(|(k, _)| k).collect();
        ensure(keys == [key], || format!("cluster {} has {keys:?}", key.cluster))?;
    }
    ok("delete", bench.provider().delete(&theirs).await)?;
    let found = ok("get", bench.provider().get(&ours).await)?;
    ensure(found.is_some(), || "deleting the other cluster's VM removed ours".to_owned())
}

pub(super) async fn a_restarted_service_finds_the_vm(bench: &Bench<'_>) -> Result<(), String> {
    let key = bench.key("sandbox-one");
    let before = bench.provider();
    let made = ok("create", before.create(&key, &bench.spec("podvm-one")).await)?;
    drop(before);
    let after = bench.provider();
    let found = ok("get", after.get(&key).await)?;
    ensure(found.as_ref().is_some_and(|f| f.id == made.id), || format!("made {made:?}, found {found:?}"))?;
    let again = ok("create", after.create(&key, &bench.spec("podvm-one")).await)?;
    ensure(again.id == made.id, || format!("a second VM: {again:?}"))?;
    ok("delete", after.delete(&key).await)?;
    bench.is_gone(&key).await
}
