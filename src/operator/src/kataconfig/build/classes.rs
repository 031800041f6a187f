//! Runtime classes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::kataconfig::pools::Target;
use crate::objects::{Desired, Kind, ObjectRef};
use crate::settings::Settings;

/// A runtime class for the nodes of a target. `there` is the overhead it has now, if it is there: an administrator's edit is kept.
#[must_use]
pub fn runtime_class(
    name: &str,
    target: Target,
    settings: &Settings,
    there: Option<&BTreeMap<String, String>>,
) -> Desired {
    let mut body = json!({
        "handler": name,
        "scheduling": { "nodeSelector": { target.role_label(): "" } },
    });
    if let Some(overhead) = overhead(name, settings, there) {
        body["overhead"] = json!({ "podFixed": overhead });
    }
    Desired { object: ObjectRef::cluster(Kind::RUNTIME_CLASS, name), body }
}

fn overhead(name: &str, settings: &Settings, there: Option<&BTreeMap<String, String>>) -> Option<Value> {
    match there {
        Some(edited) => (!edited.is_empty()).then(|| json!(edited)),
        None => settings.overheads.get(name).map(|own| json!({ "cpu": own.cpu, "memory": own.memory })),
    }
}
