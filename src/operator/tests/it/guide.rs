//! The product guide's chapters 2, 3 and 5, command by command, with the effect that each is said to have. The rows are those of its
//! table; a row that is nothing of ours is listed with the reason why nothing is run. The machine config operator is played.
//!
//! The objects are those of `deploy/`, as files: applied before, deleted at the end, and then the cluster has what it had.

mod kata;
mod peer_pods;
mod removal;

use std::path::Path;

use peerpods_test_require::{Need, require};
use serde_json::{Value, json};

use crate::cluster::{Cluster, until};
use crate::kataconfig::NAME;
use crate::kubectl::Kubectl;
use crate::tidy::MADE;

/// Rows of which nothing is run: section, what it says, why.
const NOT_RUN: &[(&str, &str, &str)] = &[
    ("2.1.1", "memory of a VM and its shim", "the shim's and QEMU's own"),
    (
        "2.1.2",
        "oc create -f nfd.yaml",
        "Node Feature Discovery is the platform's; the label is set by hand here",
    ),
    ("2.2.1", "OperatorHub: install the operator", "the console and OLM; needs the bundle"),
    ("2.2.1", "Installed Operators", "the console and OLM; needs the bundle"),
    ("2.3.1", "oc create -f OperatorGroup.yaml, Subscription.yaml", "OLM; needs the bundle"),
    ("2.3.1", "oc get csv", "OLM; needs the bundle"),
    ("2.3.3", "a DeploymentConfig with runtimeClassName", "OpenShift's apps API; its pods are pods"),
    ("3.1.2.1", "oc get infrastructure/cluster, aws ec2 …", "the platform's and the cloud's"),
    ("3.1.3.1", "az group, network, nsg …", "the cloud's"),
    (
        "3.2.2.2, 3.3.2.2",
        "the image Job aws-image-creation and oc wait for it",
        "images are made by `peerpods image`, in the cloud",
    ),
    ("3.3.2.3", "aws ec2 describe-images", "the cloud's"),
    ("3.2.3.2, 3.3.3.2", "the image Job azure-image-creation", "images are made in the cloud"),
    ("3.2.3.4", "ssh-keygen", "the administrator's; the key's content does not matter here"),
    ("3.2.5", "the pod's VM", "the node service's suites run VMs; here there are no nodes"),
    ("5.1.3", "oc delete subscription, csv, operatorgroup", "OLM; needs the bundle"),
];

pub(crate) struct Guide {
    pub(crate) cluster: Cluster,
    pub(crate) kubectl: Kubectl,
}

impl Guide {
    /// Says which row is next.
    pub(crate) fn row(&self, section: &str, what: &str) {
        println!("{section:<10} {what}");
    }

    pub(crate) async fn says(&self, line: &str, expected: &str) {
        let said = self.kubectl.run(line).await;
        assert!(said.contains(expected), "kubectl {line} does not say {expected:?}:\n{said}");
    }

    /// Waits until a command says something.
    pub(crate) async fn comes_to_say(&self, line: &str, expected: &str) {
        until(&format!("kubectl {line} says {expected:?}"), || async {
            self.kubectl.run(line).await.contains(expected)
        })
        .await;
    }

    /// The field of an object, as `-o jsonpath` prints it.
    pub(crate) async fn field(&self, object: &str, path: &str) -> String {
        self.kubectl.run(&format!("get {object} -o jsonpath={{{path}}}")).await
    }
}

/// A KataConfig as a file.
pub(crate) fn kataconfig(spec: &Value) -> Value {
    json!({
        "apiVersion": "kataconfiguration.openshift.io/v1", "kind": "KataConfig",
        "metadata": { "name": NAME, "labels": { MADE: "" } }, "spec": spec,
    })
}

/// What is applied of `deploy/`: all but the operator's pods, in whose place the controllers run in this process, and what asks them.
fn files() -> Vec<String> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").canonicalize().unwrap();
    [
        "crds",
        "operator/00-namespace.yaml",
        "operator/10-access.yaml",
        "operator/30-monitoring.yaml",
        "openshift",
    ]
    .map(|file| deploy.join(file).display().to_string())
    .into()
}

#[tokio::test]
async fn the_guides_chapters_command_by_command() {
    if !require("the_guides_chapters_command_by_command", &[Need::Program("kubectl")]) {
        return;
    }
    let cluster = Cluster::new(1).await;
    let kubectl = Kubectl::new(&cluster.place);
    for file in files().iter().rev() {
        kubectl.run(&format!("delete --ignore-not-found -f {file}")).await;
    }
    let before = cluster.everything().await;
    for file in files() {
        kubectl.run(&format!("apply --server-side -f {file}")).await;
        // The suite's, should this end halfway.
        kubectl.run(&format!("label -f {file} {MADE}=")).await;
    }
    kubectl
        .run("wait --for=condition=Established --timeout=60s crd/kataconfigs.kataconfiguration.openshift.io")
        .await;
    let mut guide = Guide { cluster, kubectl };
    guide.cluster.operate().await;
    guide.chapter_2().await;
    guide.chapter_3().await;
    guide.chapter_5().await;
    for file in files().iter().rev() {
        guide.kubectl.run(&format!("delete --ignore-not-found -f {file}")).await;
    }
    guide.cluster.is_as_before(&before).await;
    for (section, what, why) in NOT_RUN {
        println!("{section:<10} not run: {what}: {why}");
    }
}
