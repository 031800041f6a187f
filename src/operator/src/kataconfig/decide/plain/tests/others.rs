//! Runtime classes that another installer made.

use super::*;
use crate::kataconfig::world::Class;
use crate::objects::Whose;

impl Cluster {
    fn other_installers(&mut self, class: &str, handler: &str) {
        let class_there = Class { handler: handler.to_owned(), ..Class::default() };
        self.world.classes.insert(class.to_owned(), class_there);
    }
}

#[test]
fn one_that_leads_to_our_handler_counts_as_there_and_is_left_alone() {
    let mut cluster = Cluster::new(1);
    cluster.world.config.spec.enable_peer_pods = true;
    cluster.other_installers("kata", "kata");
    let status = cluster.install();
    assert_eq!(status.runtime_classes, ["kata", "kata-remote-cc"]);
    assert!(!cluster.has("RuntimeClass kata") && cluster.has("RuntimeClass kata-remote-cc"));
    assert_eq!(cluster.condition().1, "");
}

#[test]
fn one_that_leads_elsewhere_is_named_and_its_pods_are_not_waited_for() {
    let mut cluster = Cluster::new(1);
    cluster.world.config.spec.enable_peer_pods = true;
    cluster.other_installers("kata-remote-cc", "kata-qemu");
    let status = cluster.install();
    assert_eq!(status.runtime_classes, ["kata"]);
    assert!(!cluster.has("RuntimeClass kata-remote-cc") && cluster.has("peerpodconfig-openshift"));
    let (word, reason, message) = cluster.condition();
    assert_eq!((word.as_str(), reason.as_str()), ("False", "ForeignRuntimeClass"));
    assert!(message.contains("RuntimeClass kata-remote-cc") && message.contains("kata-qemu"), "{message}");
    assert!(message.contains("delete it"), "{message}");
    cluster.world.pods = vec![pod("kata-remote-cc", "theirs", "w0")];
    cluster.delete();
    cluster.reconcile();
    assert_eq!(cluster.condition().1, "Uninstalling");
}

#[test]
fn one_that_is_ours_is_tended() {
    let mut cluster = Cluster::new(1);
    cluster.install();
    let ours = Class { handler: "kata".to_owned(), ours: true, ..Class::default() };
    cluster.world.classes.insert("kata".to_owned(), ours);
    cluster.reconcile();
    assert!(cluster.plan.apply.iter().any(|one| one.object.to_string() == "RuntimeClass kata"));
}

#[test]
fn nothing_is_deleted_by_its_name_alone_but_what_the_webhook_is_known_by() {
    let mut cluster = Cluster::new(1);
    cluster.install();
    let anybodys = |cluster: &Cluster| {
        let all = cluster.plan.delete.iter().filter(|one| one.whose == Whose::Anybodys);
        all.map(|one| one.object.name.clone()).collect::<Vec<_>>()
    };
    assert!(cluster.plan.delete.iter().any(|one| one.object.name == names::AUTH_SECRET));
    assert_eq!(anybodys(&cluster), ["peer-pods-webhook-svc-secret"]);
    cluster.delete();
    cluster.reconcile();
    cluster.reconcile();
    assert_eq!(anybodys(&cluster), ["peer-pods-webhook-svc-secret"]);
}
