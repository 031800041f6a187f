//! Chapter 5: removal.

use std::time::Duration;

use peerpods_operator::names;
use serde_json::{Value, json};

use super::Guide;
use crate::kataconfig::NAME;

impl Guide {
    pub(super) async fn chapter_5(&self) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "mypod", "namespace": "shop" },
            "spec": { "runtimeClassName": "kata", "containers": [{ "name": "a", "image": "a" }] },
        });
        self.kubectl.with("create", &pod).await;
        self.row("5.2.2", "oc delete kataconfig <name>: it waits, and the pods in the way are named");
        let mut deleting = self.kubectl.begin(&format!("delete kataconfig {NAME}"));
        self.comes_to_say(&format!("get kataconfig {NAME} -o yaml"), "shop/mypod (kata)").await;

        self.row("5.2.1", "oc get pods -A -o json | jq: pods whose runtimeClassName is kata");
        let all: Value = serde_json::from_str(&self.kubectl.run("get pods -A -o json").await).unwrap();
        let using: Vec<&str> = all["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|pod| pod["spec"]["runtimeClassName"] == "kata")
            .map(|pod| pod["metadata"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(using, ["mypod"]);
        self.row("5.2.1", "oc delete pod <name>");
        self.kubectl.run("delete pod mypod -n shop").await;

        self.cluster.worker_goes_back("R3").await;
        let ended = tokio::time::timeout(Duration::from_secs(90), deleting.wait()).await;
        assert!(
            ended.is_ok_and(|ended| ended.unwrap().success()),
            "the deletion ends when the nodes are back"
        );
        self.row("5.2.2", "oc get kataconfig <name>: nothing");
        let complaint = self.kubectl.refused(&format!("get kataconfig {NAME}"), None).await;
        assert!(complaint.contains("NotFound"), "{complaint}");
        self.tidied().await;
    }

    async fn tidied(&self) {
        self.row("5.2.3", "oc delete namespace: nothing holds it");
        self.kubectl.run(&format!("delete namespace {} --timeout=90s", names::NAMESPACE)).await;
        self.row("5.2.4", "oc delete crd kataconfigs.kataconfiguration.openshift.io, and it is not there");
        let name = "kataconfigs.kataconfiguration.openshift.io";
        self.kubectl.run(&format!("delete crd {name} --timeout=90s")).await;
        let complaint = self.kubectl.refused(&format!("get crd {name}"), None).await;
        assert!(complaint.contains("NotFound"), "{complaint}");
        // What the administrator set by hand.
        self.kubectl.run("label node worker0 custom-kata1- feature.node.kubernetes.io/runtime.kata-").await;
    }
}
