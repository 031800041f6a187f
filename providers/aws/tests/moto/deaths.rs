//! The process dies between any two calls: before one is sent, or after it did its work and before its answer came. The next process
//! knows nothing but what EC2 shows.

use std::time::Duration;

use peerpods_provider::{Provider, VmKey};
use peerpods_test_require::require;

use crate::front::Fault;
use crate::server::NEEDS;
use crate::site::{Site, end, key, spec};

/// Every call of a VM's life, in order.
const CALLS: [&str; 5] =
    ["DescribeInstances", "DescribeImages", "DescribeInstanceTypes", "RunInstances", "TerminateInstances"];

/// How often a call without an answer is sent before the provider gives up.
const SENT: usize = 3;

/// A life that is cut off at a call: everything after it is not done any more.
async fn cut_off(site: &Site, key: &VmKey, call: &'static str, fault: Fault) {
    site.next(call, &vec![fault; SENT]);
    let provider = site.provider();
    if provider.create(key, &spec("podvm-web")).await.is_ok() {
        let _cut_off = provider.delete(key).await;
    }
    site.proxy.front().faults.clear();
}

#[tokio::test]
async fn wherever_a_process_dies_the_next_makes_one_vm_and_leaves_none() {
    if !require("wherever_a_process_dies_the_next_makes_one_vm_and_leaves_none", NEEDS) {
        return;
    }
    let site = Site::new().await;
    for (number, call) in CALLS.into_iter().enumerate() {
        for fault in [Fault::LoseRequest, Fault::LoseAnswer] {
            let key = key(&format!("deaths-{number}-{fault:?}"), "s1");
            cut_off(&site, &key, call, fault.clone()).await;
            let left = site.instances(&key).await;
            assert!(left.len() <= 1, "{call} {fault:?}: {left:?}");
            let made = site.provider().create(&key, &spec("podvm-web")).await.unwrap();
            assert_eq!(site.instances(&key).await, [made.id], "{call} {fault:?}");
            end(&site, &[key]).await;
        }
    }
}

#[tokio::test]
async fn wherever_a_process_dies_the_next_removes_everything() {
    if !require("wherever_a_process_dies_the_next_removes_everything", NEEDS) {
        return;
    }
    let site = Site::new().await;
    for (number, call) in CALLS.into_iter().enumerate() {
        for fault in [Fault::LoseRequest, Fault::LoseAnswer] {
            let key = key(&format!("removed-{number}-{fault:?}"), "s1");
            cut_off(&site, &key, call, fault).await;
            end(&site, &[key]).await;
        }
    }
}

/// Longer than any test.
const UNSEEN: Duration = Duration::from_secs(600);

#[tokio::test]
async fn the_next_process_makes_no_second_vm_while_ec2_does_not_show_the_first() {
    if !require("the_next_process_makes_no_second_vm_while_ec2_does_not_show_the_first", NEEDS) {
        return;
    }
    let site = Site::new().await;
    for fault in [Fault::LoseRequest, Fault::LoseAnswer] {
        let key = key(&format!("unseen-death-{fault:?}"), "s1");
        site.hide_for(UNSEEN);
        cut_off(&site, &key, "RunInstances", fault.clone()).await;
        let made = site.provider().create(&key, &spec("podvm-web")).await.unwrap();
        assert_eq!(site.instances(&key).await, [made.id], "{fault:?}");
        end(&site, &[key]).await;
    }
}

/// What the service does with a start it did not survive: it deletes until whatever was asked for would have been seen.
#[tokio::test]
async fn what_the_next_process_does_not_see_yet_is_removed_once_ec2_shows_it() {
    if !require("what_the_next_process_does_not_see_yet_is_removed_once_ec2_shows_it", NEEDS) {
        return;
    }
    let (site, key) = (Site::new().await, key("unseen-removed", "s1"));
    site.hide_for(UNSEEN);
    cut_off(&site, &key, "RunInstances", Fault::LoseAnswer).await;
    let next = site.provider();
    assert_eq!(next.get(&key).await.unwrap(), None);
    next.delete(&key).await.unwrap();
    assert_eq!(
        site.instances(&key).await.len(),
        1,
        "nobody knows of it, which is why a deletion is repeated"
    );
    assert!(next.visible_within() > Duration::ZERO);
    site.hide_for(Duration::ZERO);
    next.delete(&key).await.unwrap();
    assert_eq!(site.instances(&key).await, Vec::<String>::new());
}

/// The number of the first attempt is spent, so that a process that knows nothing would ask for another VM: the service never does
/// (it deletes what a start it did not survive may have left), and what it deletes is all there is.
#[tokio::test]
async fn a_second_attempt_that_nobody_saw_is_removed_as_well() {
    if !require("a_second_attempt_that_nobody_saw_is_removed_as_well", NEEDS) {
        return;
    }
    let (site, key) = (Site::new().await, key("unseen-second", "s1"));
    site.hide_for(UNSEEN);
    let refused = [Fault::Refuse(500, "InsufficientInstanceCapacity")];
    site.next("RunInstances", &[&refused[..], &[const { Fault::LoseAnswer }; SENT]].concat());
    site.provider().create(&key, &spec("podvm-web")).await.unwrap_err();
    let next = site.provider();
    next.delete(&key).await.unwrap();
    site.hide_for(Duration::ZERO);
    next.delete(&key).await.unwrap();
    assert_eq!(site.instances(&key).await, Vec::<String>::new());
}
