//! Who may do what, and what for: one line a right. Roles are made of it, `deploy/README.md` shows it, and a test (`tests/it/access.rs`)
//! compares the operator's with what it asks of an API server: one that it does not use, and that is not on the test's list with a reason,
//! fails it, as one that is missing does.
//!
//! Rights go by name wherever the API server can tell names apart. It can when it is asked to create by server-side apply, which has the name
//! in its path; it cannot for a plain create, and a list or watch only where it selects by name.

use peerpods_crds::{KATACONFIG_GROUP, PEERPODS_GROUP};

use super::OPERATOR;
use crate::names;
use crate::peerpodconfig::daemon_set;
use crate::webhook::configuration as webhook;

/// Where a right holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// In the whole cluster.
    Cluster,
    /// In the operator's namespace.
    Own,
    /// In a namespace of OpenShift's, which other clusters do not have.
    OpenShift(&'static str),
}

/// What somebody may do to objects of a kind.
#[derive(Debug, Clone, Copy)]
pub struct Right {
    /// Where.
    pub scope: Scope,
    /// The API group; empty for the core.
    pub group: &'static str,
    /// The resource, with its subresource.
    pub resource: &'static str,
    /// Which objects; none: all.
    pub names: &'static [&'static str],
    /// What.
    pub verbs: &'static [&'static str],
    /// What for.
    pub why: &'static str,
}

/// An account and everything it may do.
#[derive(Debug, Clone, Copy)]
pub struct Holder {
    /// Its ServiceAccount.
    pub account: &'static str,
    /// Who that is.
    pub about: &'static str,
    /// Its rights.
    pub rights: &'static [Right],
}

/// Where OpenShift keeps the registry credentials of the cluster.
pub const OPENSHIFT_CONFIG: &str = "openshift-config";
const MACHINES: &str = "machineconfiguration.openshift.io";
const SECURITY: &str = "security.openshift.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";

/// All that makes, keeps and removes an object that server-side apply makes.
const KEEP: &[&str] = &["get", "create", "patch", "delete"];
/// The same, and their changes.
const TEND: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];
/// All that shows objects of a kind as they come and go.
const FOLLOW: &[&str] = &["list", "watch"];

const fn right(
    scope: Scope,
    (group, resource): (&'static str, &'static str),
    names: &'static [&'static str],
    verbs: &'static [&'static str],
    why: &'static str,
) -> Right {
    Right { scope, group, resource, names, verbs, why }
}

use Scope::{Cluster, OpenShift, Own};

/// Everybody who has rights by what is applied. The webhook's pods are not here: the operator makes their account when peer pods are on.
pub const HOLDERS: [Holder; 3] = [
    Holder {
        account: OPERATOR,
        about: "the operator: the controllers and the webhook about their objects",
        rights: OPERATORS,
    },
    Holder {
        account: daemon_set::ACCOUNT,
        about: "the node service: makes VMs and keeps PeerPods",
        rights: NODES,
    },
    Holder {
        account: names::MONITOR_ACCOUNT,
        about: "the monitor on each node: asks the API server for nothing",
        rights: &[],
    },
];

const MACHINE_CONFIGS: &[&str] = &[names::EXTENSION_CONFIG, names::SHIM_CONFIG, names::CRIO_CONFIG];

/// The operator's.
const OPERATORS: &[Right] = &[
    right(
        Cluster,
        (KATACONFIG_GROUP, "kataconfigs"),
        &[],
        &["get", "list", "watch", "patch"],
        "reconciled; a patch sets the finalizer",
    ),
    right(Cluster, (KATACONFIG_GROUP, "kataconfigs/status"), &[], &["patch"], "tells how far it is"),
    right(
        Cluster,
        (KATACONFIG_GROUP, "kataconfigs/finalizers"),
        &[],
        &["update"],
        "owns objects that block its deletion; asked for where OwnerReferencesPermissionEnforcement is on, as on OpenShift",
    ),
    right(
        Cluster,
        (PEERPODS_GROUP, "peerpods"),
        &[],
        &["get", "list", "watch", "patch", "delete"],
        "VMs whose node is gone are deleted, and an uninstall waits for all; a patch takes the finalizer away",
    ),
    right(
        Cluster,
        (PEERPODS_GROUP, "peerpods/status"),
        &[],
        &["patch"],
        "tells why a VM could not be deleted",
    ),
    right(
        Cluster,
        ("", "pods"),
        &[],
        &["list"],
        "an uninstall is refused while a pod uses a runtime class of ours",
    ),
    right(
        Cluster,
        ("", "nodes"),
        &[],
        &["get", "list", "watch", "patch"],
        "the label of nodes with Kata Containers; whether a VM's node is still there",
    ),
    right(
        Cluster,
        ("", "namespaces"),
        &["kube-system"],
        &["get"],
        "its uid is the cluster's, which every VM is tagged with",
    ),
    right(Cluster, ("", "nodes/status"), &[], &["patch"], "how many VMs a node advertises"),
    right(
        Cluster,
        ("events.k8s.io", "events"),
        &[],
        &["create", "patch"],
        "told where the object is, PeerPods anywhere",
    ),
    right(
        Cluster,
        ("node.k8s.io", "runtimeclasses"),
        &[],
        &["get", "list", "watch", "create", "patch", "delete"],
        "the runtime classes; more names can be set for peer pods",
    ),
    right(Cluster, (MACHINES, "machineconfigs"), &[], FOLLOW, "drift is repaired"),
    right(Cluster, (MACHINES, "machineconfigs"), MACHINE_CONFIGS, KEEP, "extension, shim and CRI-O on nodes"),
    right(Cluster, (MACHINES, "machineconfigpools"), &[], FOLLOW, "how far the machine config operator is"),
    right(
        Cluster,
        (MACHINES, "machineconfigpools"),
        &[names::POOL],
        KEEP,
        "the pool of nodes with Kata Containers",
    ),
    right(Cluster, (MACHINES, "containerruntimeconfigs"), &[], FOLLOW, "drift is repaired"),
    right(Cluster, (MACHINES, "containerruntimeconfigs"), &[names::LOG_LEVEL_CONFIG], KEEP, "the log level"),
    right(Cluster, (SECURITY, "securitycontextconstraints"), &[], FOLLOW, "drift is repaired"),
    right(
        Cluster,
        (SECURITY, "securitycontextconstraints"),
        &[names::SCC],
        KEEP,
        "what the monitor may do on its node",
    ),
    right(
        Cluster,
        (SECURITY, "securitycontextconstraints"),
        &["nonroot-v2"],
        &["use"],
        "runs as the user that its Deployment names, on OpenShift as well",
    ),
    right(
        Cluster,
        (ADMISSION, "mutatingwebhookconfigurations"),
        &[webhook::CONFIGURATION],
        TEND,
        "the pods' webhook; what it needs itself is handed on to it",
    ),
    right(
        Cluster,
        (ADMISSION, "mutatingwebhookconfigurations"),
        &[webhook::UPSTREAMS],
        &["get", "list", "watch", "delete"],
        "upstream's operator had one of this name, which ours takes the place of",
    ),
    right(
        Cluster,
        (ADMISSION, "validatingwebhookconfigurations"),
        &[webhook::CONFIGURATION],
        &["get", "list", "watch", "patch"],
        "whom to trust when asked about KataConfigs",
    ),
    right(
        Cluster,
        (RBAC, "clusterroles"),
        &[webhook::DEPLOYMENT],
        TEND,
        "the webhook's rights, none that the operator has not",
    ),
    right(Cluster, (RBAC, "clusterrolebindings"), &[webhook::DEPLOYMENT], TEND, "the same"),
    right(
        Own,
        (PEERPODS_GROUP, "peerpodconfigs"),
        &[],
        &["get", "list", "watch", "create", "patch", "delete"],
        "reconciled, and made by a KataConfig with peer pods",
    ),
    right(Own, (PEERPODS_GROUP, "peerpodconfigs/status"), &[], &["patch"], "tells how far it is"),
    right(
        Own,
        (PEERPODS_GROUP, "peerpodconfigs/finalizers"),
        &[],
        &["update"],
        "owns the node service, as kataconfigs/finalizers",
    ),
    right(
        Own,
        ("", "secrets"),
        &[],
        &["get", "list", "watch"],
        "the cloud's credentials; a change restarts the node service",
    ),
    right(
        Own,
        ("", "secrets"),
        &[names::AUTH_SECRET],
        &["create", "patch", "delete"],
        "registry credentials for guests",
    ),
    right(Own, ("", "secrets"), &[], &["create"], "certificates of webhooks; handed on to the webhook"),
    right(
        Own,
        ("", "secrets"),
        &[webhook::CERTIFICATE_SECRET],
        &["delete"],
        "the webhook's, when peer pods are turned off",
    ),
    right(
        Own,
        ("", "secrets"),
        &[webhook::OPERATOR_CERTIFICATE_SECRET, webhook::CERTIFICATE_SECRET],
        &["update"],
        "rotation of certificates; the second is the webhook's, to which it is handed on",
    ),
    right(Own, ("", "configmaps"), &[], &["get", "list", "watch"], "the cloud's settings and the dashboard"),
    right(Own, ("apps", "daemonsets"), &[], FOLLOW, "drift is repaired, readiness is told"),
    right(Own, ("apps", "daemonsets"), &[names::MONITOR], KEEP, "the monitor"),
    right(
        Own,
        ("apps", "daemonsets"),
        &[names::NODE_SERVICE],
        &["get", "create", "patch"],
        "the node service; it goes with the PeerPodConfig that owns it",
    ),
    right(Own, ("apps", "deployments"), &[webhook::DEPLOYMENT], TEND, "the pods' webhook"),
    right(Own, ("policy", "poddisruptionbudgets"), &[webhook::DEPLOYMENT], TEND, "the same"),
    right(Own, ("", "services"), &[webhook::SERVICE], TEND, "the same"),
    right(Own, ("", "serviceaccounts"), &[webhook::DEPLOYMENT], TEND, "the same"),
    right(
        Own,
        ("apps", "daemonsets"),
        &[names::INSTALLER, names::REMOVER],
        KEEP,
        "places files on nodes, and removes them, where there is no machine config operator",
    ),
    right(Own, ("", "serviceaccounts"), &[names::INSTALLER_ACCOUNT], KEEP, "the same"),
    right(Own, ("", "pods"), &[], &["watch"], "how far those are"),
    right(Own, (RBAC, "roles"), &[webhook::DEPLOYMENT], TEND, "the same"),
    right(Own, (RBAC, "rolebindings"), &[webhook::DEPLOYMENT], TEND, "the same"),
    right(Own, ("coordination.k8s.io", "leases"), &[], &["create"], "one replica leads"),
    right(Own, ("coordination.k8s.io", "leases"), &[OPERATOR], &["get", "update"], "the same"),
    right(
        OpenShift(OPENSHIFT_CONFIG),
        ("", "secrets"),
        &["pull-secret"],
        &["get"],
        "registry credentials for guests",
    ),
    right(
        OpenShift(names::DASHBOARD_NAMESPACE),
        ("", "configmaps"),
        &[names::DASHBOARD],
        &["get", "list", "watch", "create", "patch", "delete"],
        "the dashboard where the console looks for it",
    ),
];

/// The node service's.
const NODES: &[Right] = &[
    right(
        Cluster,
        (PEERPODS_GROUP, "peerpods"),
        &[],
        &["get", "list", "create", "patch", "delete"],
        "one for each VM, beside its pod",
    ),
    right(Cluster, ("", "pods"), &[], &["get"], "the pod that owns a PeerPod"),
    right(
        Cluster,
        ("", "pods/finalizers"),
        &[],
        &["update"],
        "that owner blocks on it; asked for where OwnerReferencesPermissionEnforcement is on",
    ),
    right(
        Cluster,
        ("", "nodes"),
        &[],
        &["get"],
        "whether it is the node that it was told it is; the node that owns the PeerPod of a pod from one of its files",
    ),
    right(
        Cluster,
        ("", "namespaces"),
        &["kube-system"],
        &["get"],
        "its uid is the cluster's, which every VM is tagged with",
    ),
    right(
        Cluster,
        (SECURITY, "securitycontextconstraints"),
        &["privileged"],
        &["use"],
        "runs privileged on OpenShift",
    ),
];
