//! What built-in kinds demand beyond their types: the fields that must be there and those that never change. A choice of what controllers
//! of ours can get wrong, not the whole of Kubernetes' validation.

use serde_json::Value;

use crate::cel::Program;
use crate::kinds::Kind;
use crate::object;
use crate::refusal::Fault;

/// Kind, and the fields below it that must be there.
const REQUIRED: &[(&str, &[&str])] = &[
    ("RuntimeClass", &["handler"]),
    ("DaemonSet", &["spec.selector", "spec.template"]),
    ("Deployment", &["spec.selector", "spec.template"]),
    ("RoleBinding", &["roleRef"]),
    ("ClusterRoleBinding", &["roleRef"]),
    ("Job", &["spec.template"]),
    ("PriorityClass", &["value"]),
];

/// Kind, and the fields that stay as they were created.
const FIXED: &[(&str, &[&str])] = &[
    ("RuntimeClass", &["handler"]),
    ("DaemonSet", &["spec.selector"]),
    ("Deployment", &["spec.selector"]),
    ("StatefulSet", &["spec.selector", "spec.serviceName"]),
    ("RoleBinding", &["roleRef"]),
    ("ClusterRoleBinding", &["roleRef"]),
    ("Job", &["spec.template", "spec.selector", "spec.completionMode"]),
    ("PriorityClass", &["value"]),
    ("Secret", &["type"]),
    (
        "Pod",
        &[
            "spec.nodeName",
            "spec.nodeSelector",
            "spec.runtimeClassName",
            "spec.overhead",
            "spec.volumes",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "spec.priorityClassName",
        ],
    ),
];

/// Everything about a built-in object that a server would refuse, of what is looked at here.
pub(super) fn faults(kind: &Kind, before: Option<&Value>, after: &Value) -> Vec<Fault> {
    let mut faults = owners(after);
    if kind.custom.is_some() {
        return faults;
    }
    for path in of(REQUIRED, &kind.kind) {
        let value = field(after, path);
        if value.is_none_or(|value| value.is_null() || value == "") {
            faults.push(Fault::required(*path, ""));
        }
    }
    faults.extend(selector_misses_template(after));
    faults.extend(match_conditions(kind, after));
    let Some(before) = before else { return faults };
    for path in of(FIXED, &kind.kind) {
        // What a server fills in later is no change.
        let (old, new) = (field(before, path), field(after, path));
        if old != new && (old.is_some() || kind.kind == "Pod") {
            faults.push(Fault::invalid(*path, new.unwrap_or(&Value::Null), "field is immutable"));
        }
    }
    if before["immutable"] == true {
        for part in ["data", "binaryData", "stringData", "immutable"] {
            if before.get(part) != after.get(part) {
                faults.push(Fault::forbidden(part, "field is immutable when `immutable` is set"));
            }
        }
    }
    faults
}

fn of<'a>(table: &'a [(&str, &'a [&'a str])], kind: &str) -> &'a [&'a str] {
    table.iter().find(|(name, _)| *name == kind).map(|(_, paths)| *paths).unwrap_or_default()
}

fn field<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    object.pointer(&format!("/{}", path.replace('.', "/")))
}

/// An owner reference names its owner whole.
fn owners(object: &Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (at, owner) in object::items(object, "/metadata/ownerReferences").iter().enumerate() {
        for part in ["apiVersion", "kind", "name", "uid"] {
            if object::text(owner, &format!("/{part}")).is_empty() {
                faults.push(Fault::required(
                    format!("metadata.ownerReferences[{at}].{part}"),
                    "must not be empty",
                ));
            }
        }
    }
    faults
}

/// A webhook with a condition that cannot be evaluated here is refused: else it would be asked too often.
fn match_conditions(kind: &Kind, object: &Value) -> Option<Fault> {
    if kind.group != "admissionregistration.k8s.io" {
        return None;
    }
    object::items(object, "/webhooks").iter().enumerate().find_map(|(at, webhook)| {
        object::items(webhook, "/matchConditions").iter().find_map(|condition| {
            let expression = object::text(condition, "/expression");
            let why = Program::parse(expression).err()?;
            let why = format!("the test API server does not know this part of CEL: {why}");
            Some(Fault::invalid(format!("webhooks[{at}].matchConditions"), &condition["expression"], &why))
        })
    })
}

/// A workload whose template lacks the labels it selects by.
fn selector_misses_template(object: &Value) -> Option<Fault> {
    let wanted = object.pointer("/spec/selector/matchLabels")?.as_object()?;
    let template = object.pointer("/spec/template")?;
    let labels = template.pointer("/metadata/labels").unwrap_or(&Value::Null);
    if wanted.iter().all(|(key, value)| labels.get(key) == Some(value)) {
        return None;
    }
    Some(Fault::invalid(
        "spec.template.metadata.labels",
        labels,
        "`selector` does not match template `labels`",
    ))
}
