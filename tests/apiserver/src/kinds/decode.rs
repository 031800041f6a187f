//! Built-in kinds as the types of `k8s-openapi` know them: a body that does not fit its type is refused, and fields that the type does not
//! have are dropped, both as a real server does.

use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, batch::v1 as batch,
    coordination::v1 as coordination, core::v1 as core, events::v1 as events, networking::v1 as networking,
    node::v1 as node, policy::v1 as policy, rbac::v1 as rbac, scheduling::v1 as scheduling,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Kind, quantity};
use crate::refusal::Refusal;

/// Checks a built-in object against its type, and drops what the type does not have. Custom kinds pass: their schema speaks later.
pub(crate) fn decode(kind: &Kind, object: &mut Value) -> Result<(), Refusal> {
    if kind.custom.is_some() {
        return Ok(());
    }
    let typed = match (kind.group.as_str(), kind.kind.as_str()) {
        ("events.k8s.io", _) => round::<events::Event>(object),
        (_, "Node") => round::<core::Node>(object),
        (_, "Namespace") => round::<core::Namespace>(object),
        (_, "Pod") => round::<core::Pod>(object),
        (_, "Secret") => round::<core::Secret>(object),
        (_, "ConfigMap") => round::<core::ConfigMap>(object),
        (_, "Service") => round::<core::Service>(object),
        (_, "ServiceAccount") => round::<core::ServiceAccount>(object),
        (_, "Event") => round::<core::Event>(object),
        (_, "DaemonSet") => round::<apps::DaemonSet>(object),
        (_, "Deployment") => round::<apps::Deployment>(object),
        (_, "ReplicaSet") => round::<apps::ReplicaSet>(object),
        (_, "StatefulSet") => round::<apps::StatefulSet>(object),
        (_, "Job") => round::<batch::Job>(object),
        (_, "CronJob") => round::<batch::CronJob>(object),
        (_, "RuntimeClass") => round::<node::RuntimeClass>(object),
        (_, "Role") => round::<rbac::Role>(object),
        (_, "RoleBinding") => round::<rbac::RoleBinding>(object),
        (_, "ClusterRole") => round::<rbac::ClusterRole>(object),
        (_, "ClusterRoleBinding") => round::<rbac::ClusterRoleBinding>(object),
        (_, "Lease") => round::<coordination::Lease>(object),
        (_, "PodDisruptionBudget") => round::<policy::PodDisruptionBudget>(object),
        (_, "NetworkPolicy") => round::<networking::NetworkPolicy>(object),
        (_, "PriorityClass") => round::<scheduling::PriorityClass>(object),
        (_, "MutatingWebhookConfiguration") => round::<admission::MutatingWebhookConfiguration>(object),
        (_, "ValidatingWebhookConfiguration") => round::<admission::ValidatingWebhookConfiguration>(object),
        (_, "CustomResourceDefinition") => round::<CustomResourceDefinition>(object),
        _ => return Ok(()),
    };
    let typed = typed.map_err(|error| {
        Refusal::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {error}",
            kind.kind, kind.version, kind.kind
        ))
    })?;
    keep_known(object, &typed);
    if kind.is("Node") {
        quantity::settle(object);
    }
    Ok(())
}

fn round<T: DeserializeOwned + Serialize>(object: &Value) -> serde_json::Result<Value> {
    serde_json::to_value(T::deserialize(object)?)
}

/// Drops every field of `object` that is not in `typed`. What `typed` has beyond that (empty lists of required fields) stays out: nobody
/// sent it. An empty map or list, or a null, that the type does not write is kept: it has a meaning in an apply.
fn keep_known(object: &mut Value, typed: &Value) {
    match (object, typed) {
        (Value::Object(map), Value::Object(known)) => {
            map.retain(|name, value| known.contains_key(name) || is_empty(value));
            for (name, value) in map {
                if let Some(known) = known.get(name) {
                    keep_known(value, known);
                }
            }
        }
        (Value::Array(items), Value::Array(known)) => {
            for (item, known) in items.iter_mut().zip(known) {
                keep_known(item, known);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::by_path;
    use crate::store::Store;

    fn pod() -> Kind {
        by_path(&Store::default(), "", "v1", "pods").unwrap()
    }

    #[test]
    fn a_misspelt_field_is_dropped_and_nothing_is_added() {
        let mut object =
            json!({"metadata": {"name": "a"}, "spec": {"runtimeClasName": "x", "nodeName": "n"}});
        decode(&pod(), &mut object).unwrap();
        assert_eq!(object, json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}}));
    }

    #[test]
    fn a_field_of_the_wrong_type_is_refused() {
        let mut object = json!({"metadata": {"name": "a"}, "spec": {"nodeName": 5}});
        let refusal = decode(&pod(), &mut object).unwrap_err();
        assert_eq!((refusal.code, refusal.reason), (400, "BadRequest"));
    }
}
