//! Chapter 3: peer pods.

use peerpods_operator::names;
use serde_json::{Value, json};

use super::Guide;
use crate::cluster::until;
use crate::kataconfig::NAME;

const NAMESPACE: &str = names::NAMESPACE;

fn of_cloud(kind: &str, name: &str, data: &Value) -> Value {
    let data = if kind == "Secret" {
        json!({ "stringData": data, "type": "Opaque" })
    } else {
        json!({ "data": data })
    };
    let mut file =
        json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name, "namespace": NAMESPACE } });
    json_patch::merge(&mut file, &data);
    file
}

impl Guide {
    pub(super) async fn chapter_3(&self) {
        self.turned_on().await;
        self.aws().await;
        self.limit().await;
        self.azure().await;
        self.class().await;
    }

    async fn turned_on(&self) {
        self.row("3.2.4", "enablePeerPods: true");
        self.kubectl
            .run(&format!(r#"patch kataconfig {NAME} --type=merge -p {{"spec":{{"enablePeerPods":true}}}}"#))
            .await;
        self.cluster.worker_is_changed("R3").await;
        for config in [names::SHIM_CONFIG, names::CRIO_CONFIG] {
            self.says("get machineconfig -o name", config).await;
        }
        self.row("3.1.1", "the PeerPodConfig with the defaults");
        let object = format!("-n {NAMESPACE} peerpodconfig/{}", names::PEER_POD_CONFIG);
        until("it is there", || async {
            !self.kubectl.run(&format!("get peerpodconfig -n {NAMESPACE} -o name")).await.is_empty()
        })
        .await;
        for (path, expected) in [
            (".spec.cloudSecretName", "peer-pods-secret"),
            (".spec.configMapName", "peer-pods-cm"),
            (".spec.limit", "10"),
        ] {
            assert_eq!(self.field(&object, path).await, expected, "{path}");
        }
        assert!(self.field(&object, ".spec.nodeSelector").await.contains(names::ROLE_LABEL));
        self.row("3.1.2.1", "oc get nodes -l node-role.kubernetes.io/worker: the role is added, not swapped");
        self.says("get nodes -l node-role.kubernetes.io/worker -o name", "node/worker0").await;
    }

    /// The condition of the PeerPodConfig comes to have a reason.
    async fn configured_is(&self, expected: &str) {
        let line = format!(
            "get peerpodconfig {} -n {NAMESPACE} -o jsonpath={{.status.conditions[0]}}",
            names::PEER_POD_CONFIG
        );
        self.comes_to_say(&line, expected).await;
    }

    async fn aws(&self) {
        self.row("3.2.2.1", "oc apply -f peer-pods-secret.yaml, AWS");
        self.configured_is("MissingSecret").await;
        let secret = json!({
            "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_REGION": "eu-west-1",
            "AWS_SUBNET_ID": "subnet-1", "AWS_VPC_ID": "vpc-1", "AWS_SG_IDS": "sg-1",
        });
        self.kubectl.with("apply", &of_cloud("Secret", "peer-pods-secret", &secret)).await;
        self.configured_is("MissingConfigMap").await;
        self.row("3.2.2.3", "oc apply -f peer-pods-cm.yaml, AWS");
        let map = json!({
            "CLOUD_PROVIDER": "aws", "VXLAN_PORT": "9000", "PODVM_INSTANCE_TYPE": "t3.medium", "PROXY_TIMEOUT": "5m",
            "PODVM_AMI_ID": "ami-1",
        });
        self.kubectl.with("apply", &of_cloud("ConfigMap", "peer-pods-cm", &map)).await;
        self.comes_to_say(&format!("get daemonset -n {NAMESPACE} -o name"), names::NODE_SERVICE).await;
        if self.cluster.place.server().is_none() {
            self.configured_is("\"Ready\"").await;
        } else {
            // Nobody runs its pods there.
            self.configured_is("ServiceStarting").await;
        }
        self.row("3.2.3.4", "oc create secret generic ssh-key-secret");
        let line =
            format!("create secret generic ssh-key-secret -n {NAMESPACE} --from-literal=id_rsa.pub=ssh-rsa");
        if self.cluster.place.server().is_none() {
            self.kubectl.run(&line).await;
        } else {
            // kubectl sends what it makes by itself as protobuf, which our server does not take.
            let file = self.kubectl.run(&format!("{line} --dry-run=client -o json")).await;
            self.kubectl.with("apply", &serde_json::from_str(&file).unwrap()).await;
        }
        let volumes = self
            .field(
                &format!("-n {NAMESPACE} daemonset/{}", names::NODE_SERVICE),
                ".spec.template.spec.volumes",
            )
            .await;
        assert!(volumes.contains("ssh-key-secret"), "{volumes}");
    }

    async fn advertised(&self) -> String {
        self.field("node/worker0", ".status.capacity.kata\\.peerpods\\.io/vm").await
    }

    async fn limit(&self) {
        let object = format!("peerpodconfig peerpodconfig-openshift -n {NAMESPACE}");
        self.row("3.1.1", "the extended resource kata.peerpods.io/vm of each node");
        until("the node advertises 10", || async { self.advertised().await == "10" }).await;
        self.row("3.1.1.1", "oc get peerpodconfig … -o jsonpath={.spec.limit}");
        assert_eq!(
            self.kubectl.run(&format!("get {object} -o jsonpath={{.spec.limit}}{{\"\\n\"}}")).await,
            "10\n"
        );
        self.row("3.1.1.1", "oc patch peerpodconfig … limit");
        self.kubectl.run(&format!(r#"patch {object} --type=merge --patch {{"spec":{{"limit":"4"}}}}"#)).await;
        until("the node advertises 4", || async { self.advertised().await == "4" }).await;
        self.cluster.rests().await;
        assert_eq!(
            self.kubectl.run(&format!("get {object} -o jsonpath={{.spec.limit}}")).await,
            "4",
            "it sticks"
        );
    }

    async fn azure(&self) {
        self.row("3.2.3.1", "oc apply -f peer-pods-secret.yaml, Azure");
        let digest = format!("-n {NAMESPACE} daemonset/{}", names::NODE_SERVICE);
        let digest =
            || self.field(&digest, ".spec.template.metadata.annotations.peerpods\\.io/configuration");
        let before = digest().await;
        let secret = json!({
            "AZURE_CLIENT_ID": "a", "AZURE_CLIENT_SECRET": "b", "AZURE_TENANT_ID": "c", "AZURE_SUBSCRIPTION_ID": "d",
            "AZURE_REGION": "westeurope", "AZURE_RESOURCE_GROUP": "e",
        });
        self.kubectl.with("apply", &of_cloud("Secret", "peer-pods-secret", &secret)).await;
        self.row("3.2.3.3", "oc apply -f peer-pods-cm.yaml, Azure");
        let map = json!({
            "CLOUD_PROVIDER": "azure", "VXLAN_PORT": "9000", "AZURE_INSTANCE_SIZE": "Standard_B2als_v2",
            "AZURE_SUBNET_ID": "s", "AZURE_NSG_ID": "n", "AZURE_IMAGE_ID": "i", "PROXY_TIMEOUT": "5m", "DISABLECVM": "true",
        });
        self.kubectl.with("apply", &of_cloud("ConfigMap", "peer-pods-cm", &map)).await;
        until("the node service follows", || async { digest().await != before }).await;
        until("nothing is missing", || async {
            let object = format!("-n {NAMESPACE} peerpodconfig/{}", names::PEER_POD_CONFIG);
            let reason = self.field(&object, ".status.conditions[0].reason").await;
            ["Ready", "ServiceStarting"].contains(&reason.as_str())
        })
        .await;
    }

    async fn class(&self) {
        self.row("3.1.1", "the overhead of kata-remote-cc");
        assert_eq!(self.field("runtimeclass/kata-remote-cc", ".overhead.podFixed.cpu").await, "250m");
        assert_eq!(self.field("runtimeclass/kata-remote-cc", ".handler").await, "kata-remote-cc");
    }
}
