//! The operator's rights are exactly what it uses: in its lives here it is refused nothing, and what it never used is on a list with the
//! reason, by verb and name. The list has nothing that it did use.
//! That rights suffice is also shown by every other test here, whose controllers have no others.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, DeleteParams, PostParams};
use peerpods_crds::{KATACONFIG_GROUP, KataConfig, PEERPODS_GROUP};
use peerpods_operator::deploy::OPERATOR;
use peerpods_operator::deploy::rights::{HOLDERS, OPENSHIFT_CONFIG, Right, Scope};
use peerpods_operator::names;
use peerpods_operator::webhook::configuration::{
    CERTIFICATE_SECRET, OPERATOR_CERTIFICATE_SECRET, OPERATOR_SERVICE, POD_WEBHOOK,
};
use peerpods_provider::ErrorKind;
use peerpods_provider::fake::{Calls, Fault, Operation};
use peerpods_test_apiserver::Asked;
use serde_json::json;

use crate::cluster::{Cluster, create, until};
use crate::kataconfig::NAME;
use crate::lease::Replica;
use crate::peerpod::{Bench, PACE};
use crate::place;
use crate::webhook::{expiring, upstreams};

/// A part of a right that the lives below do not come by, and when it is used. One that they do come by has no place here.
struct Rare {
    scope: Scope,
    group: &'static str,
    resource: &'static str,
    /// Which of the right's names; none: the right is for all objects.
    names: &'static [&'static str],
    verbs: &'static [&'static str],
    why: &'static str,
}

const RARE: &[Rare] = &[
    Rare {
        scope: Scope::Cluster,
        group: KATACONFIG_GROUP,
        resource: "kataconfigs/finalizers",
        names: &[],
        verbs: &["update"],
        why: "asked for by an admission plugin",
    },
    Rare {
        scope: Scope::Own,
        group: PEERPODS_GROUP,
        resource: "peerpodconfigs/finalizers",
        names: &[],
        verbs: &["update"],
        why: "asked for by an admission plugin",
    },
    Rare {
        scope: Scope::Cluster,
        group: "security.openshift.io",
        resource: "securitycontextconstraints",
        names: &["nonroot-v2"],
        verbs: &["use"],
        why: "asked for by OpenShift's admission",
    },
    Rare {
        scope: Scope::Own,
        group: "",
        resource: "secrets",
        names: &[CERTIFICATE_SECRET],
        verbs: &["update"],
        why: "handed on to the webhook, which renews it",
    },
];

/// The least that can be taken from rights: a verb of one, with one of its names where it has any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    right: usize,
    verb: &'static str,
    name: Option<&'static str>,
}

impl Rare {
    fn is_of(&self, right: &Right) -> bool {
        let same = (self.scope, self.group, self.resource) == (right.scope, right.group, right.resource);
        same && self.names.is_empty() == right.names.is_empty()
            && self.names.iter().all(|name| right.names.contains(name))
    }

    /// What it takes of the right that it is about.
    fn of(&self, rights: &'static [Right]) -> BTreeSet<Use> {
        let is_meant = |one: &Use| {
            self.verbs.contains(&one.verb) && one.name.is_none_or(|name| self.names.contains(&name))
        };
        let about = (0..rights.len()).filter(|at| self.is_of(&rights[*at]));
        about.flat_map(|at| uses(at, &rights[at])).filter(is_meant).collect()
    }

    fn tell(&self) -> String {
        format!(
            "{:?} {}.{} {:?} ({:?}: {})",
            self.verbs, self.resource, self.group, self.names, self.scope, self.why
        )
    }
}

impl Use {
    fn tell(&self, rights: &[Right]) -> String {
        let Right { scope, group, resource, why, .. } = rights[self.right];
        format!("{} {resource}.{group} {:?} ({scope:?}: {why})", self.verb, self.name)
    }
}

fn uses(at: usize, right: &'static Right) -> impl Iterator<Item = Use> {
    let names: Vec<Option<&str>> = match right.names {
        [] => vec![None],
        names => names.iter().copied().map(Some).collect(),
    };
    right
        .verbs
        .iter()
        .flat_map(move |verb| names.clone().into_iter().map(move |name| Use { right: at, verb, name }))
}

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

    /// Of the right that gives it, the narrowest: a wide one beside it is not used by that.
    fn use_of(&self, rights: &[Right]) -> Use {
        let giving = (0..rights.len()).filter(|at| self.is_given_by(&rights[*at]));
        let narrowest =
            giving.min_by_key(|at| (rights[*at].scope == Scope::Cluster, rights[*at].names.is_empty()));
        let right = narrowest.unwrap_or_else(|| panic!("no right gives {self:?}"));
        let name = self.name.as_deref().and_then(|name| rights[right].names.iter().find(|one| **one == name));
        Use { right, verb: self.verb, name: name.copied() }
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
    create(&cluster.all::<MutatingWebhookConfiguration>(), upstreams(POD_WEBHOOK)).await;
    cluster.operate().await;
    let _webhook = cluster.operators_webhook().await;
    rotate(&cluster).await;
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

/// The operator's certificate is renewed.
async fn rotate(cluster: &Cluster) {
    let secrets = cluster.operators::<Secret>();
    let staged = expiring(&secrets, OPERATOR_CERTIFICATE_SECRET, OPERATOR_SERVICE).await;
    let shown = |secret: &Secret| secret.data.as_ref().unwrap()["tls.crt"].clone();
    let before = shown(&staged);
    secrets.replace(OPERATOR_CERTIFICATE_SECRET, &PostParams::default(), &staged).await.unwrap();
    until("the next certificate is shown", || async {
        shown(&secrets.get(OPERATOR_CERTIFICATE_SECRET).await.unwrap()) != before
    })
    .await;
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

/// A life of VMs: one that is made anew, one that its cloud keeps for a while; and a replica that leads and hands over.
async fn vms_life() -> Cluster {
    let bench = Bench::at(Cluster::new(1).await, PACE).await;
    let replica = Replica::start(&bench.cluster, "only").await;
    until("it leads", || async { replica.leads() }).await;
    bench.cloud.script(Operation::Delete, Calls::First(2), Fault::Fail(ErrorKind::Transient));
    let pod = bench.pod("web").await;
    for (sandbox, pause) in [("s1", 1100), ("s2", 0)] {
        let id = bench.vm(sandbox, "worker0").await;
        bench.peer_pod(sandbox, &pod, "worker0", json!({ "instanceID": id })).await;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    until("the older is gone", || async { bench.cloud.machines().len() == 1 }).await;
    bench.delete_pod("web").await;
    bench.nothing_is_left().await;
    replica.end().await;
    bench.cluster
}

#[tokio::test]
async fn the_operator_uses_every_right_it_has_and_is_refused_nothing() {
    let test = "the_operator_uses_every_right_it_has_and_is_refused_nothing";
    if !place::has_own_server(test, "only the test API server tells what it was asked") {
        return;
    }
    let lives = [life().await, plain_life().await, vms_life().await];
    let rights = HOLDERS[0].rights;
    let used: BTreeSet<Use> = lives.iter().flat_map(deeds).map(|deed| deed.use_of(rights)).collect();
    let granted: BTreeSet<Use> = (0..rights.len()).flat_map(|at| uses(at, &rights[at])).collect();
    let mut rare = BTreeSet::new();
    for one in RARE {
        let named = one.of(rights);
        let verbs: BTreeSet<&str> = named.iter().map(|one| one.verb).collect();
        assert_eq!(verbs.len(), one.verbs.len(), "on the list of rare ones and not granted: {}", one.tell());
        let came: Vec<String> = named.intersection(&used).map(|one| one.tell(rights)).collect();
        assert!(came.is_empty(), "on the list of rare ones and used: {came:#?}");
        rare.extend(named);
    }
    let unused: Vec<String> =
        granted.difference(&used).filter(|one| !rare.contains(one)).map(|one| one.tell(rights)).collect();
    assert!(unused.is_empty(), "granted and never used: {unused:#?}");
}
