//! The pods' webhook in plans.

use super::*;
use crate::webhook::certificates::Source;

const OURS: &str = "MutatingWebhookConfiguration peerpods-webhook";
const UPSTREAMS: &str = "MutatingWebhookConfiguration mutating-webhook-configuration";
const DEPLOYMENT: &str = "Deployment openshift-sandboxed-containers-operator/peer-pods-webhook";
const SECRET: &str = "Secret openshift-sandboxed-containers-operator/peer-pods-webhook-svc-secret";

fn with_peer_pods() -> Cluster {
    let mut cluster = Cluster::new(1);
    cluster.spec().enable_peer_pods = true;
    cluster.install();
    cluster
}

fn turned_off() -> Cluster {
    let mut cluster = with_peer_pods();
    cluster.spec().enable_peer_pods = false;
    cluster
}

impl Cluster {
    fn deleted(&self) -> Vec<String> {
        self.plan.delete.iter().map(ToString::to_string).collect()
    }
}

fn place(objects: &[String], object: &str) -> usize {
    objects.iter().position(|one| one == object).unwrap_or_else(|| panic!("{object} in {objects:?}"))
}

#[test]
fn it_is_there_with_peer_pods_and_is_asked_before_a_class_can_be_used() {
    let cluster = with_peer_pods();
    let applied: Vec<String> = cluster.plan.apply.iter().map(|one| one.object.to_string()).collect();
    let [account, running, asked, class] = [
        "ServiceAccount openshift-sandboxed-containers-operator/peer-pods-webhook",
        DEPLOYMENT,
        OURS,
        "RuntimeClass kata-remote-cc",
    ]
    .map(|object| place(&applied, object));
    assert!(account < running && running < asked && asked < class, "{applied:?}");
    let mut without = Cluster::new(1);
    without.install();
    assert!(!without.has(OURS) && !without.has(DEPLOYMENT));
    let objects = &cluster.objects;
    assert_eq!(objects[OURS]["metadata"]["ownerReferences"][0]["kind"], "KataConfig");
    assert_eq!(objects[OURS]["webhooks"][0]["clientConfig"]["caBundle"], serde_json::Value::Null);
}

#[test]
fn it_goes_with_them_nobody_is_asked_first_and_no_certificate_is_left() {
    let mut cluster = turned_off();
    cluster.reconcile();
    let deleted = cluster.deleted();
    let order = [
        "RuntimeClass kata-remote-cc",
        OURS,
        DEPLOYMENT,
        "RoleBinding openshift-sandboxed-containers-operator/peer-pods-webhook",
        SECRET,
    ]
    .map(|object| place(&deleted, object));
    assert!(order.is_sorted(), "{deleted:?}");
    assert!(!cluster.objects.keys().any(|object| object.contains("webhook")), "{:?}", cluster.objects.keys());
}

#[test]
fn pods_that_still_run_keep_it_and_somebody_elses_secret_stays() {
    let mut cluster = turned_off();
    cluster.world.pods = vec![pod("kata-remote-cc", "b")];
    cluster.reconcile();
    assert!(cluster.has(OURS) && cluster.deleted().is_empty());
    cluster.world.pods.clear();
    cluster.world.webhook.foreign_secret = true;
    cluster.reconcile();
    assert!(!cluster.has(OURS) && !cluster.deleted().contains(&SECRET.to_owned()));
}

#[test]
fn upstreams_is_replaced_when_ours_works_and_goes_with_it() {
    let mut cluster = with_peer_pods();
    cluster.world.webhook.upstreams = true;
    cluster.reconcile();
    assert!(cluster.deleted().is_empty());
    cluster.world.webhook.trusted = true;
    cluster.reconcile();
    assert_eq!(cluster.deleted(), [UPSTREAMS]);
    cluster.delete();
    cluster.reconcile();
    let deleted = cluster.deleted();
    assert!(place(&deleted, UPSTREAMS) < place(&deleted, DEPLOYMENT));
}

#[test]
fn it_is_made_for_the_cluster_that_it_is_in() {
    let mut cluster = with_peer_pods();
    assert!(cluster.objects[OURS]["webhooks"][0]["matchConditions"].is_array());
    cluster.world.webhook.match_conditions = crate::webhook::configuration::MatchConditions::Unsupported;
    cluster.world.webhook.source = Source::ServiceCa;
    let user = |cluster: &Cluster| {
        let pod = &cluster.objects[DEPLOYMENT]["spec"]["template"]["spec"];
        pod["securityContext"]["runAsUser"].as_i64()
    };
    assert_eq!(user(&cluster), Some(65532));
    cluster.world.webhook.users_given = true;
    cluster.reconcile();
    assert_eq!(user(&cluster), None);
    let configuration = &cluster.objects[OURS];
    assert!(configuration["webhooks"][0]["matchConditions"].is_null());
    assert_eq!(configuration["metadata"]["annotations"]["service.beta.openshift.io/inject-cabundle"], "true");
}
