//! What the pods that place and remove files tell, by node; only where there is no machine config operator.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use serde_json::to_value;

use super::{ObserveError, all, failed};
use crate::kataconfig::build;
use crate::kataconfig::world::{FileWorker, Files, Node};
use crate::names;
use crate::settings::Settings;
use crate::stuck;

/// What the DaemonSets' pods are made of now, where they are there.
pub(super) struct Templates(BTreeMap<&'static str, String>);

impl Templates {
    /// Reads both.
    pub(super) async fn read(client: &Client, settings: &Settings) -> Result<Self, ObserveError> {
        let sets: Api<DaemonSet> = Api::namespaced(client.clone(), &settings.namespace);
        let mut found = BTreeMap::new();
        for files in [Files::Installed, Files::Removed] {
            let name = build::name_for(files);
            let set = sets.get_opt(name).await.map_err(failed("the installer's DaemonSets"))?;
            let template = set.and_then(|set| build::template_of(&to_value(set).ok()?).map(str::to_owned));
            found.extend(template.map(|template| (name, template)));
        }
        Ok(Self(found))
    }

    /// The installer's.
    pub(super) fn installer(&self) -> Option<String> {
        self.0.get(names::INSTALLER).cloned()
    }
}

/// Tells nodes of the pods on them.
pub(super) async fn tell(
    client: &Client,
    settings: &Settings,
    templates: &Templates,
    nodes: &mut [Node],
) -> Result<(), ObserveError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &settings.namespace);
    let selector = format!("name in ({},{})", names::INSTALLER, names::REMOVER);
    let pods = all(&pods, ListParams::default().labels(&selector), "the installer's pods").await?;
    for node in nodes {
        let Some(files) = node.files() else { continue };
        node.worker =
            pods.iter().filter(|pod| is_on(pod, &node.name)).find_map(|pod| worker(pod, files, templates));
        node.reason = node.worker.as_ref().and_then(|worker| worker.failure.clone());
    }
    Ok(())
}

fn is_on(pod: &Pod, node: &str) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(node))
}

/// A pod of the DaemonSet for this that is not about to end.
fn worker(pod: &Pod, files: Files, templates: &Templates) -> Option<FileWorker> {
    let name = build::name_for(files);
    let owners = pod.owner_references();
    let of_set = owners.iter().any(|owner| owner.kind == "DaemonSet" && owner.name == name);
    if !of_set || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let wanted = templates.0.get(name);
    let current = wanted.is_some() && pod.annotations().get(names::TEMPLATE) == wanted;
    Some(FileWorker { files, done: current && stuck::is_ready(pod), failure: stuck::why(pod) })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn templates() -> Templates {
        Templates([(names::INSTALLER, "t1".to_owned()), (names::REMOVER, "t2".to_owned())].into())
    }

    fn pod(set: &str, template: &str, ready: &str, container: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "annotations": { names::TEMPLATE: template },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": set, "uid": "u" }],
            },
            "spec": { "nodeName": "w0", "containers": [] },
            "status": {
                "conditions": [{ "type": "Ready", "status": ready }],
                "containerStatuses": [container],
            },
        }))
        .unwrap()
    }

    fn container(state: &Value, last: &Value) -> Value {
        json!({ "name": "peerpods", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state, "lastState": last })
    }

    #[test]
    fn a_pod_is_done_when_it_is_ready_of_the_right_set_and_of_its_form_now() {
        let running = container(&json!({ "running": {} }), &json!({}));
        for (set, template, ready, expected) in [
            (names::INSTALLER, "t1", "True", Some(true)),
            (names::INSTALLER, "t1", "False", Some(false)),
            (names::INSTALLER, "t0", "True", Some(false)),
            (names::REMOVER, "t2", "True", None),
        ] {
            let found = worker(&pod(set, template, ready, &running), Files::Installed, &templates());
            assert_eq!(found.map(|found| found.done), expected, "{set} {template} {ready}");
        }
        let mut ending = pod(names::INSTALLER, "t1", "True", &running);
        ending.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(worker(&ending, Files::Installed, &templates()), None);
    }
}
