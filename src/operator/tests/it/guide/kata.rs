//! Chapter 2: Kata Containers on nodes.

use peerpods_operator::names;
use serde_json::json;

use super::{Guide, kataconfig};
use crate::cluster::until;
use crate::kataconfig::NAME;

impl Guide {
    pub(super) async fn chapter_2(&self) {
        self.eligible_nodes().await;
        self.cluster.worker_is_changed("R1").await;
        self.what_was_installed().await;
        self.overhead().await;
        self.workloads().await;
        self.nodes_by_label().await;
    }

    async fn eligible_nodes(&self) {
        self.row("2.2.2", "the form: an operator that is none is refused, and nothing breaks");
        let bad =
            json!({ "kataConfigPoolSelector": { "matchExpressions": [{ "key": "a", "operator": "Like" }] } });
        let complaint = self.kubectl.refused("create", Some(&kataconfig(&bad))).await;
        assert!(
            complaint.contains("spec.kataConfigPoolSelector.matchExpressions[0].operator"),
            "{complaint}"
        );

        self.row("2.1.2", "oc get nodes --selector='feature.node.kubernetes.io/runtime.kata=true'");
        let selector = "get nodes --selector=feature.node.kubernetes.io/runtime.kata=true -o name";
        assert_eq!(self.kubectl.run(selector).await, "");
        self.row("2.1.2", "oc create -f kata-config.yaml with checkNodeEligibility: true");
        let spec = json!({ "checkNodeEligibility": true, "logLevel": "info" });
        self.kubectl.with("create", &kataconfig(&spec)).await;
        self.comes_to_say("describe kataconfig", "NoEligibleNodes").await;
        assert_eq!(
            self.field("node/worker0", ".metadata.labels.node-role\\.kubernetes\\.io/kata-oc").await,
            ""
        );
        self.kubectl.run("label node worker0 feature.node.kubernetes.io/runtime.kata=true").await;
        self.says(selector, "node/worker0").await;
        // The label is no change that a pool tells of: the next look is within a quarter of a minute.
        until("the node has the role", || self.cluster.has_role("worker0")).await;
        self.kubectl.refused("create", Some(&kataconfig(&spec))).await;
    }

    async fn what_was_installed(&self) {
        self.row("2.2.2", "nodes reboot on their own: a MachineConfig and a pool");
        self.says(&format!("get machineconfig {} -o yaml", names::EXTENSION_CONFIG), "extensions").await;
        self.says("get mcp kata-oc -o yaml", "kata-oc").await;
        self.row("2.2.2", "the YAML tab: installationStatus with the completed nodes");
        let object = format!("kataconfig/{NAME}");
        let count = self.field(&object, ".status.installationStatus.completed.completedNodesCount").await;
        let list = self.field(&object, ".status.installationStatus.completed.completedNodesList").await;
        assert_eq!((count.as_str(), list.as_str()), ("1", r#"["worker0"]"#));
        self.row(
            "2.3.2",
            "watch \"oc describe kataconfig | sed -n /^Status:/,/^Events/p\" until Is In Progress is false",
        );
        let said = self.kubectl.run("describe kataconfig").await;
        let status: Vec<&str> = said
            .lines()
            .skip_while(|line| !line.starts_with("Status:"))
            .take_while(|line| !line.starts_with("Events"))
            .collect();
        let line = status.iter().find(|line| line.contains("Is In Progress:")).unwrap();
        assert!(line.ends_with("False"), "{line}");
        assert!(said.contains("\nEvents:"), "{said}");
        self.row("2.3.2", "logLevel: info makes no ContainerRuntimeConfig");
        assert_eq!(self.kubectl.run("get containerruntimeconfig -o name").await, "");
        if self.cluster.place.server().is_none() {
            self.row("2.3.2", "oc get kataconfig: the columns");
            let said = self.kubectl.run("get kataconfig").await;
            for column in ["INPROGRESS", "COMPLETED", "TOTAL", "AGE"] {
                assert!(said.contains(column), "{said}");
            }
        }
    }

    async fn overhead(&self) {
        self.row("2.1.1", "oc describe runtimeclass kata");
        let said = self.kubectl.run("describe runtimeclass kata").await;
        for part in ["Handler:", "kata", "Overhead:", "250m", "350Mi"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        self.row("2.1.1", "the administrator edits the overhead, and it stays");
        let edit = r#"patch runtimeclass kata --type=merge -p {"overhead":{"podFixed":{"memory":"500Mi"}}}"#;
        self.kubectl.run(edit).await;
        // Another change makes the controller look at all of it.
        self.kubectl.run("label runtimeclass kata look=again").await;
        self.cluster.rests().await;
        assert_eq!(self.field("runtimeclass/kata", ".overhead.podFixed.memory").await, "500Mi");
    }

    async fn workloads(&self) {
        let labels = json!({ "app": "hello-openshift" });
        let pod = json!({
            "runtimeClassName": "kata",
            "containers": [{
                "name": "hello-openshift", "image": "quay.io/openshift/origin-hello-openshift",
                "ports": [{ "containerPort": 8888 }],
                "securityContext": {
                    "privileged": false, "allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 1001,
                    "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
                },
            }],
        });
        self.row("2.3.3", "a Pod with runtimeClassName: kata");
        let file = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "hello", "labels": labels }, "spec": pod });
        self.kubectl.with("create -n shop", &file).await;
        assert_eq!(self.field("-n shop pod/hello", ".spec.overhead.memory").await, "500Mi");
        let node = self.field("-n shop pod/hello", ".spec.nodeSelector").await;
        assert!(node.contains(names::ROLE_LABEL), "it goes where Kata Containers is: {node}");
        for kind in ["Deployment", "ReplicaSet", "StatefulSet"] {
            self.row("2.3.3", &format!("a {kind} with it, and the runtimeClassName of its template"));
            // One does not adopt the pods of another.
            let labels = json!({ "app": format!("hello-{}", kind.to_lowercase()) });
            let template = json!({ "metadata": { "labels": labels }, "spec": pod });
            let mut spec =
                json!({ "replicas": 1, "selector": { "matchLabels": labels }, "template": template });
            if kind == "StatefulSet" {
                spec["serviceName"] = "hello".into();
            }
            let file = json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": "hello" }, "spec": spec });
            self.kubectl.with("create -n shop", &file).await;
            let class =
                self.field(&format!("-n shop {kind}/hello"), ".spec.template.spec.runtimeClassName").await;
            assert_eq!(class, "kata");
            self.kubectl.run(&format!("delete -n shop {kind}/hello")).await;
        }
        self.kubectl.run("delete -n shop pod/hello").await;
        until("the workloads' pods are gone", || async {
            self.kubectl.run("get pods -n shop -o name").await.is_empty()
        })
        .await;
    }

    async fn nodes_by_label(&self) {
        self.row("2.3.2", "kataConfigPoolSelector.matchLabels: the label decides over the role");
        let edit = |value: &str| {
            format!(
                r#"patch kataconfig {NAME} --type=merge -p {{"spec":{{"kataConfigPoolSelector":{value}}}}}"#
            )
        };
        self.kubectl.run(&edit(r#"{"matchLabels":{"custom-kata1":"test"}}"#)).await;
        until("the node has lost the role", || async { !self.cluster.has_role("worker0").await }).await;
        self.kubectl.run("label node worker0 custom-kata1=test").await;
        until("the node has the role", || self.cluster.has_role("worker0")).await;
        self.cluster.worker_is_changed("R2").await;
    }
}
