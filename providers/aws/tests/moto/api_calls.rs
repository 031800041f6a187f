//! How many calls there are, and at what pace.

use std::time::{Duration, Instant};

use futures::future::join_all;
use peerpods_provider::{Provider, VmKey};
use peerpods_test_require::require;

use crate::front::Fault;
use crate::server::NEEDS;
use crate::site::{Site, end, key, spec};

#[tokio::test]
async fn questions_for_many_vms_are_one_call() {
    if !require("questions_for_many_vms_are_one_call", NEEDS) {
        return;
    }
    let site = Site::new().await;
    let provider = site.provider();
    let keys: Vec<VmKey> = (0..150).map(|number| key("many", &format!("s{number}"))).collect();
    let made = provider.create(&keys[7], &spec("podvm-web")).await.unwrap();
    let before = site.calls("DescribeInstances").len();
    let found = join_all(keys.iter().map(|key| provider.get(key))).await;
    assert_eq!(site.calls("DescribeInstances").len() - before, 1);
    for (number, found) in found.into_iter().enumerate() {
        let id = found.unwrap().map(|found| found.id);
        assert_eq!(id, (number == 7).then(|| made.id.clone()), "{number}");
    }
    end(&site, &keys[7..8]).await;
}

#[tokio::test]
async fn who_polls_a_second_long_makes_no_more_than_a_few_calls() {
    if !require("who_polls_a_second_long_makes_no_more_than_a_few_calls", NEEDS) {
        return;
    }
    let site = Site::new().await;
    let provider = site.provider();
    let began = Instant::now();
    let poll = |number: usize| {
        let (provider, key) = (provider.clone(), key("polled", &format!("s{number}")));
        async move {
            while began.elapsed() < Duration::from_secs(1) {
                provider.get(&key).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    join_all((0..50).map(poll)).await;
    let calls = site.calls("DescribeInstances").len();
    assert!(
        calls <= 1 + began.elapsed().as_millis() as usize / 200,
        "{calls} calls in {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_vms_life_is_two_changes_and_two_questions() {
    if !require("a_vms_life_is_two_changes_and_two_questions", NEEDS) {
        return;
    }
    let (site, key) = (Site::new().await, key("life", "s1"));
    let provider = site.provider();
    provider.verify().await.unwrap();
    let before = site.actions().len();
    provider.create(&key, &spec("podvm-web")).await.unwrap();
    provider.delete(&key).await.unwrap();
    assert_eq!(
        site.actions()[before..],
        ["DescribeInstances", "RunInstances", "DescribeInstances", "TerminateInstances"]
    );
}

#[tokio::test]
async fn throttling_is_waited_out_and_no_creation_fails_of_it() {
    if !require("throttling_is_waited_out_and_no_creation_fails_of_it", NEEDS) {
        return;
    }
    let site = Site::new().await;
    let throttled = [Fault::Refuse(503, "RequestLimitExceeded"), Fault::Refuse(400, "Throttling")];
    site.next("RunInstances", &throttled);
    site.next("DescribeInstances", &throttled[..1]);
    let key = key("throttled", "s1");
    site.provider().create(&key, &spec("podvm-web")).await.unwrap();
    assert_eq!(site.calls("RunInstances").len(), 3);
    end(&site, &[key]).await;
}
