//! EC2 shows what it made only some time later.

use std::time::Duration;

use peerpods_provider::{ErrorKind, Provider};
use peerpods_test_require::require;

use crate::server::NEEDS;
use crate::site::{Site, end, key, spec};

#[tokio::test]
async fn a_vm_that_is_not_shown_yet_is_answered_by_who_made_it() {
    if !require("a_vm_that_is_not_shown_yet_is_answered_by_who_made_it", NEEDS) {
        return;
    }
    let (site, key) = (Site::new().await, key("unseen", "s1"));
    site.hide_for(Duration::from_secs(600));
    let provider = site.provider();
    let made = provider.create(&key, &spec("podvm-web")).await.unwrap();
    assert!(!made.addresses.is_empty(), "an address is told at once: {made:?}");
    assert_eq!(provider.get(&key).await.unwrap().map(|found| found.id), Some(made.id.clone()));
    let listed = provider.list(&key.cluster).await.unwrap();
    assert_eq!(listed.iter().map(|(of, found)| (of, &found.id)).collect::<Vec<_>>(), [(&key, &made.id)]);
    // Another process cannot know; the service waits for as long as that may be.
    assert_eq!(site.provider().get(&key).await.unwrap(), None);
    assert!(provider.visible_within() >= Duration::from_secs(30));
    end(&site, &[key]).await;
}

#[tokio::test]
async fn a_delete_of_what_is_not_shown_yet_is_not_done_until_ec2_confirms() {
    if !require("a_delete_of_what_is_not_shown_yet_is_not_done_until_ec2_confirms", NEEDS) {
        return;
    }
    let (site, key) = (Site::new().await, key("unseen-delete", "s1"));
    site.hide_for(Duration::from_secs(600));
    let provider = site.provider();
    provider.create(&key, &spec("podvm-web")).await.unwrap();
    let error = provider.delete(&key).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient, "{error}");
    site.hide_for(Duration::ZERO);
    provider.delete(&key).await.unwrap();
    assert_eq!(site.instances(&key).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_delete_of_what_somebody_else_ended_is_ok() {
    if !require("a_delete_of_what_somebody_else_ended_is_ok", NEEDS) {
        return;
    }
    let (site, key) = (Site::new().await, key("gone", "s1"));
    let provider = site.provider();
    let made = provider.create(&key, &spec("podvm-web")).await.unwrap();
    site.proxy.moto("TerminateInstances", &[("InstanceId.1", &made.id)]).await;
    assert_eq!(provider.get(&key).await.unwrap(), None);
    provider.delete(&key).await.unwrap();
    provider.delete(&key).await.unwrap();
}
