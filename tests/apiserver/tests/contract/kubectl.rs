//! What a person types works as well.

use std::process::Stdio;

use peerpods_test_require::{Need, require};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::place::Place;

struct Kubectl {
    place: Place,
    home: tempfile::TempDir,
}

impl Kubectl {
    /// Runs it in the test's namespace, with `input` as what is read. The answer is what it says.
    async fn run(&self, arguments: &str, input: &Value) -> String {
        let mut command = Command::new("kubectl");
        if let Some(server) = &self.place.server {
            let file = self.home.path().join("config");
            std::fs::write(&file, server.kubeconfig()).unwrap();
            command.env("KUBECONFIG", file);
        }
        command.env("HOME", self.home.path()).args(["--namespace", &self.place.namespace]);
        command
            .args(arguments.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.to_string().as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        assert!(output.status.success(), "kubectl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

#[tokio::test]
async fn kubectl_lists_applies_patches_and_deletes() {
    if !require("kubectl_lists_applies_patches_and_deletes", &[Need::Program("kubectl")]) {
        return;
    }
    let kubectl = Kubectl { place: Place::new().await, home: tempfile::tempdir().unwrap() };
    let nothing = Value::Null;
    assert!(kubectl.run("api-resources", &nothing).await.contains("daemonsets"));
    assert!(kubectl.run("version", &nothing).await.contains("Server Version: v1."));
    let map = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": value}});
    for (flags, value) in [("", "1"), ("", "2"), ("--server-side --force-conflicts", "3")] {
        kubectl.run(&format!("apply --validate=false {flags} -f -"), &map(value)).await;
        assert_eq!(kubectl.run("get configmap c -o jsonpath={.data.a}", &nothing).await, value);
    }
    kubectl.run(r#"patch cm c -p {"data":{"b":"1"}}"#, &nothing).await;
    kubectl.run("label cm c on=yes", &nothing).await;
    assert_eq!(kubectl.run("get cm -l on=yes -o name", &nothing).await.trim(), "configmap/c");
    kubectl.run("wait --for=create cm/c --timeout=60s", &nothing).await;
    kubectl.run("delete cm c", &nothing).await;
    assert_eq!(kubectl.run("get cm c --ignore-not-found -o name", &nothing).await, "");
    kubectl.place.leave().await;
}
