//! The operator's rights are exactly what it uses: in a whole life it is refused nothing, and what it never used is on a list with the reason.
//! That rights suffice is also shown by every other test here, whose controllers have no others.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, DeleteParams};
use peerpods_crds::{KataConfig, PEERPODS_GROUP};
use peerpods_operator::deploy::OPERATOR;
use peerpods_operator::deploy::rights::{HOLDERS, OPENSHIFT_CONFIG, Right, Scope};
use peerpods_operator::names;
use peerpods_test_apiserver::Asked;
use serde_json::json;

use crate::cluster::{Cluster, create, until};
use crate::kataconfig::NAME;
use crate::place;

/// What the life below does not come by: group, resource, verbs, and when it is used.
const RARE: &[(&str, &str, &[&str], &str)] = &[
    (
        "kataconfiguration.openshift.io",
        "kataconfigs/finalizers",
        &["update"],
        "asked for by an admission plugin",
    ),
    (PEERPODS_GROUP, "peerpodconfigs/finalizers", &["update"], "asked for by an admission plugin"),
    (PEERPODS_GROUP, "peerpods", &["get", "watch", "patch", "delete"], "the PeerPod controller"),
    (PEERPODS_GROUP, "peerpods/status", &["patch"], "the PeerPod controller"),
    ("", "nodes", &["get"], "the PeerPod controller"),
    ("", "namespaces", &["get"], "the PeerPod controller"),
    ("events.k8s.io", "events", &["patch"], "an Event that comes again"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", &["delete"], "upstream's, where it is"),
    ("security.openshift.io", "securitycontextconstraints", &["use"], "asked for by OpenShift's admission"),
    ("", "secrets", &["update"], "the rotation of a certificate"),
    ("coordination.k8s.io", "leases", &["get", "create", "update", "patch"], "the process that leads"),
];

/// What was asked for, as RBAC sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Deed {
    verb: &'static str,
    group: String,
    resource: String,
    /// None: in the whole cluster.
    namespace: Option<String>,
    name: Option<String>,
}

impl Deed {
    fn of(asked: &Asked) -> Option<Self> {
        let mut parts = asked.path.split('/').filter(|part| !part.is_empty());
        let group = match parts.next()? {
            "api" => String::new(),
            "apis" => parts.next()?.to_owned(),
            _ => return None,
        };
        // The version.
        parts.next()?;
        let mut rest: Vec<&str> = parts.collect();
        let namespace = (rest.first() == Some(&"namespaces") && rest.len() > 2).then(|| rest[1].to_owned());
        rest.drain(..if namespace.is_some() { 2 } else { 0 });
        let resource = match rest.get(2) {
            Some(sub) => format!("{}/{sub}", rest[0]),
            None => (*rest.first()?).to_owned(),
        };
        let selected =
            asked.query.split('&').find_map(|one| one.strip_prefix("fieldSelector=metadata.name%3D"));
        let name = rest.get(1).copied().or(selected).map(str::to_owned);
        Some(Self { verb: asked.verb, group, resource, namespace, name })
    }

    fn is_given_by(&self, right: &Right) -> bool {
        let place = match right.scope {
            Scope::Cluster => true,
            Scope::Own => self.namespace.as_deref() == Some(names::NAMESPACE),
            Scope::OpenShift(namespace) => self.namespace.as_deref() == Some(namespace),
        };
        let name = self.name.as_deref().is_some_and(|name| right.names.contains(&name));
        place
            && right.group == self.group
            && right.resource == self.resource
            && right.verbs.contains(&self.verb)
            && (right.names.is_empty() || name)
    }
}

/// What the operator asked for. An apply that creates is a patch and a creation.
fn deeds(cluster: &Cluster) -> BTreeSet<Deed> {
    let requests = cluster.place.server().unwrap().requests();
    let mut deeds = BTreeSet::new();
    for asked in requests.iter().filter(|asked| asked.agent == OPERATOR) {
        assert_ne!(asked.code, 403, "{asked:?}");
        let Some(deed) = Deed::of(asked) else { continue };
        if asked.verb == "patch" && asked.code == 201 {
            deeds.insert(Deed { verb: "create", ..deed.clone() });
        }
        deeds.insert(deed);
    }
    deeds
}

/// A life with everything: peer pods, a log level, the cluster's registry credentials, the dashboard, and the end.
async fn life() -> Cluster {
    let mut cluster = Cluster::new(1).await;
    let pulls: Api<Secret> = Api::namespaced(cluster.client.clone(), OPENSHIFT_CONFIG);
    let data = json!({ ".dockerconfigjson": "e30=" });
    let kind = "kubernetes.io/dockerconfigjson";
    create(&pulls, json!({ "metadata": { "name": "pull-secret" }, "type": kind, "data": data })).await;
    let board = json!({ "metadata": { "name": names::DASHBOARD }, "data": { "kata-resources.json": "{}" } });
    create(&cluster.operators::<ConfigMap>(), board).await;
    cluster.keys().await;
    cluster.operate().await;
    let _webhook = cluster.operators_webhook().await;
    cluster.ask_for(json!({ "enablePeerPods": true, "logLevel": "debug" })).await;
    cluster.worker_is_changed("R1").await;
    // It makes its certificate, which goes at the end.
    let _pods_webhook = cluster.webhook().await;
    cluster.advertises("worker0", Some("10")).await;
    until("the guests' credentials", || async {
        cluster.operators::<Secret>().get_opt(names::AUTH_SECRET).await.unwrap().is_some()
    })
    .await;
    let configs = cluster.all::<KataConfig>();
    configs.delete(NAME, &DeleteParams::default()).await.unwrap();
    cluster.worker_goes_back("R1").await;
    until("the KataConfig is gone", || async { configs.get_opt(NAME).await.unwrap().is_none() }).await;
    cluster
}

/// A life on a cluster that has none of OpenShift's kinds.
async fn plain_life() -> Cluster {
    let cluster = Cluster::plainly_installed(json!({}), 1).await;
    cluster.all::<KataConfig>().delete(NAME, &DeleteParams::default()).await.unwrap();
    cluster.label_is("n0", Some("removed")).await;
    cluster.pod_is_ready(names::REMOVER, "n0").await;
    cluster.is_gone().await;
    cluster
}

#[tokio::test]
async fn the_operator_uses_every_right_it_has_and_is_refused_nothing() {
    let test = "the_operator_uses_every_right_it_has_and_is_refused_nothing";
    if !place::has_own_server(test, "only the test API server tells what it was asked") {
        return;
    }
    let lives = [life().await, plain_life().await];
    let rights = HOLDERS[0].rights;
    let mut used = BTreeSet::new();
    for deed in lives.iter().flat_map(deeds) {
        // The narrowest that gives it: a wide one beside it is not used by that.
        let mut giving: Vec<usize> = (0..rights.len()).filter(|at| deed.is_given_by(&rights[*at])).collect();
        giving.sort_by_key(|at| (rights[*at].scope == Scope::Cluster, rights[*at].names.is_empty()));
        let first = giving.first().unwrap_or_else(|| panic!("no right gives {deed:?}"));
        used.insert((*first, deed.verb));
    }
    let is_rare = |right: &Right, verb: &str| {
        RARE.iter().any(|(group, resource, verbs, _)| {
            (*group, *resource) == (right.group, right.resource) && verbs.contains(&verb)
        })
    };
    let unused: Vec<String> = rights
        .iter()
        .enumerate()
        .flat_map(|(at, right)| right.verbs.iter().map(move |verb| (at, right, *verb)))
        .filter(|(at, right, verb)| !used.contains(&(*at, *verb)) && !is_rare(right, verb))
        .map(|(_, right, verb)| format!("{verb} {:?}", right))
        .collect();
    assert!(unused.is_empty(), "granted and never used: {unused:#?}");
    for (group, resource, verbs, why) in RARE {
        let given = |verb: &&str| {
            rights.iter().any(|right| {
                (right.group, right.resource) == (*group, *resource) && right.verbs.contains(verb)
            })
        };
        assert!(verbs.iter().all(given), "on the list of rare ones and not granted: {resource}, {why}");
    }
}
