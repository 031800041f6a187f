//! The process dies between any two calls: before one is sent, or after it did its work and before its answer came. The next process
//! knows nothing but what EC2 shows.

use peerpods_provider::{Provider, VmKey};
use peerpods_test_require::require;

use crate::front::Fault;
use crate::server::NEEDS;
use crate::site::{Site, end, key, spec};

/// Every call of a VM's life, in order.
const CALLS: [&str; 5] =
    ["DescribeImages", "DescribeInstanceTypes", "DescribeInstances", "RunInstances", "TerminateInstances"];

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
