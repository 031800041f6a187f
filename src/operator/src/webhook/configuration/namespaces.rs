//! Namespaces whose pods are never asked about: the cluster's own. The list is that of OpenShift sandboxed containers 1.4 with what it
//! forgot. `default` is not in it: users' pods run there.

/// What the namespaces of OpenShift begin with.
const OPENSHIFT: &str = "openshift-";

/// Namespaces by their whole names.
const WHOLE: [&str; 6] = [
    "peer-pods-webhook-system",
    "openshift-sandboxed-containers-operator",
    "kube-system",
    "kube-node-lease",
    "openshift",
    "kube-public",
];

/// Namespaces behind `openshift-`. The last two are not in upstream's list.
const BEHIND: [&str; 63] = [
    "apiserver",
    "apiserver-operator",
    "authentication",
    "authentication-operator",
    "cloud-controller-manager",
    "cloud-controller-manager-operator",
    "cloud-credential-operator",
    "cloud-network-config-controller",
    "cluster-csi-drivers",
    "cluster-machine-approver",
    "cluster-node-tuning-operator",
    "cluster-samples-operator",
    "cluster-storage-operator",
    "cluster-version",
    "config",
    "config-managed",
    "config-operator",
    "console",
    "console-operator",
    "console-user-settings",
    "controller-manager",
    "controller-manager-operator",
    "dns",
    "dns-operator",
    "etcd",
    "etcd-operator",
    "host-network",
    "image-registry",
    "infra",
    "ingress",
    "ingress-canary",
    "ingress-operator",
    "insights",
    "kni-infra",
    "kube-apiserver",
    "kube-apiserver-operator",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-scheduler-operator",
    "kube-storage-version-migrator",
    "kube-storage-version-migrator-operator",
    "machine-api",
    "machine-config-operator",
    "marketplace",
    "monitoring",
    "multus",
    "network-diagnostics",
    "network-operator",
    "node",
    "nutanix-infra",
    "oauth-apiserver",
    "openstack-infra",
    "operator-lifecycle-manager",
    "operators",
    "ovirt-infra",
    "ovn-kubernetes",
    "route-controller-manager",
    "service-ca",
    "service-ca-operator",
    "user-workload-monitoring",
    "vsphere-infra",
    "nfd",
    "storage",
];

/// All of them and `own`, sorted.
#[must_use]
pub fn excluded(own: &str) -> Vec<String> {
    let mut all: Vec<String> = WHOLE.iter().map(|name| (*name).to_owned()).collect();
    all.extend(BEHIND.iter().map(|name| format!("{OPENSHIFT}{name}")));
    all.push(own.to_owned());
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_list_is_whole_and_what_it_forgot_is_there() {
        // 66 of upstream's, three that it forgot, and our own.
        assert_eq!(excluded("own").len(), 66 + 3 + 1);
        for name in
            ["kube-system", "openshift-etcd", "kube-public", "openshift-nfd", "openshift-storage", "own"]
        {
            assert!(excluded("own").contains(&name.to_owned()), "{name}");
        }
        assert!(!excluded("own").contains(&"default".to_owned()));
        assert_eq!(excluded("kube-system").len(), 66 + 3);
    }
}
