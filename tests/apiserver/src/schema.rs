//! What a custom kind's structural schema does to its objects: unknown fields are dropped, defaults filled in, and the rest is checked.
//!
//! Not here: what definitions themselves must be like. A schema that a real server would refuse is taken as it is.

mod rules;
mod validate;

use serde_json::{Map, Value};

use crate::kinds::Kind;
use crate::refusal::Fault;

/// Drops what the schema does not know and fills in what it defaults.
pub(crate) fn clean(kind: &Kind, object: &mut Value) {
    let Some(custom) = &kind.custom else { return };
    prune(&custom.schema, object, true);
    default(&custom.schema, object);
}

/// Everything that the schema does not allow. What was so before and did not change is let pass: an object that an older definition took
/// must stay changeable, and deletable.
pub(crate) fn faults(kind: &Kind, before: Option<&Value>, after: &Value) -> Vec<Fault> {
    let Some(custom) = &kind.custom else { return Vec::new() };
    let mut faults = validate::faults(&custom.schema, after);
    if let Some(before) = before {
        faults.retain(|fault| !is_unchanged(fault, before, after));
    }
    // As a real server: rules are only asked about objects that have the right form.
    if faults.is_empty() {
        faults = rules::faults(&custom.schema, before, after);
    }
    faults
}

/// Fills in defaults, also below what was just filled in.
pub(crate) fn default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, below) in properties(schema) {
                // A null that is not allowed counts as absent where there is a default.
                let absent = map.get(name).is_none_or(|value| value.is_null() && below["nullable"] != true);
                if let (true, Some(default)) = (absent, below.get("default")) {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in map {
                if let Some(below) = property(schema, name) {
                    default(below, value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| default(&schema["items"], item)),
        _ => {}
    }
}

fn prune(schema: &Value, value: &mut Value, is_root: bool) {
    match value {
        Value::Object(map) => {
            let open = schema["x-kubernetes-preserve-unknown-fields"] == true || is_open(schema);
            let own = |name: &str| {
                let embedded = is_root || schema["x-kubernetes-embedded-resource"] == true;
                embedded && ["apiVersion", "kind", "metadata"].contains(&name)
            };
            map.retain(|name, _| open || own(name) || property(schema, name).is_some());
            for (name, value) in map {
                match property(schema, name) {
                    Some(below) if !own(name) => prune(below, value, false),
                    _ => {}
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| prune(&schema["items"], item, false)),
        _ => {}
    }
}

/// Whether what a fault is about is as it was: the value itself, or of a missing field what it is missing from.
fn is_unchanged(fault: &Fault, before: &Value, after: &Value) -> bool {
    let mut path = fault.field.replace('[', ".").replace(']', "");
    if fault.reason == "FieldValueRequired" {
        path.truncate(path.rfind('.').unwrap_or_default());
    }
    let pointer = format!("/{}", path.replace('.', "/"));
    let (old, new) = (before.pointer(&pointer), after.pointer(&pointer));
    !path.is_empty() && old.is_some() && old == new
}

/// Whether a schema says nothing about fields: that of a plain value, where an object is a fault for `validate`, keeps everything.
fn is_open(schema: &Value) -> bool {
    schema["additionalProperties"] == true || (schema.get("type").is_some_and(|kind| kind != "object"))
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

fn property<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    let named = schema["properties"].as_object().and_then(|map: &Map<String, Value>| map.get(name));
    named.or_else(|| schema.get("additionalProperties").filter(|schema| schema.is_object()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_go_below_what_is_there_and_below_other_defaults_only() {
        let schema = json!({"properties": {
            "spec": {"default": {}, "properties": {"level": {"default": "info"}, "deep": {"properties": {"x": {"default": 1}}}}},
            "list": {"items": {"properties": {"y": {"default": 2}}}},
            "never": {"properties": {"z": {"default": 3}}},
        }});
        let mut object = json!({"list": [{}]});
        default(&schema, &mut object);
        assert_eq!(object, json!({"spec": {"level": "info"}, "list": [{"y": 2}]}));
    }

    #[test]
    fn a_null_gives_way_to_a_default_unless_it_is_allowed() {
        let schema = json!({"properties": {"a": {"default": 1}, "b": {"default": 1, "nullable": true}}});
        let mut object = json!({"a": null, "b": null});
        default(&schema, &mut object);
        assert_eq!(object, json!({"a": 1, "b": null}));
    }

    #[test]
    fn an_old_fault_passes_while_its_value_stays() {
        let store = crate::store::Store::default();
        let mut kind = crate::kinds::by_path(&store, "", "v1", "pods").unwrap();
        let size = json!({"type": "integer", "minimum": 1});
        let spec = json!({"type": "object", "required": ["name"], "properties": {"size": size, "x": {}}});
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        kind.custom = Some(crate::kinds::Custom { schema: schema.into(), selectable: Vec::new() });
        let fields = |before: Value, after: Value| -> Vec<String> {
            faults(&kind, Some(&before), &after).into_iter().map(|fault| fault.field).collect()
        };
        let old = json!({"spec": {"size": 0}});
        assert!(fields(old.clone(), json!({"metadata": {"finalizers": []}, "spec": {"size": 0}})).is_empty());
        assert_eq!(fields(old.clone(), json!({"spec": {"size": -1}})), ["spec.name", "spec.size"]);
        assert_eq!(fields(old, json!({"spec": {"size": 0, "x": 1}})), ["spec.name"]);
    }

    #[test]
    fn unknown_fields_are_dropped_except_where_the_schema_keeps_them() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "known": {"type": "string"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"k": {}}}},
            }},
        }});
        let mut object = json!({
            "apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n", "labels": {"x": "y"}}, "extra": 1,
            "spec": {"known": "a", "unknown": "b", "free": {"x": {"y": 1}}, "map": {"m": {"k": 1, "l": 2}}},
        });
        prune(&schema, &mut object, true);
        assert_eq!(
            object,
            json!({
                "apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n", "labels": {"x": "y"}},
                "spec": {"known": "a", "free": {"x": {"y": 1}}, "map": {"m": {"k": 1}}},
            })
        );
    }
}
