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

/// Everything that the schema does not allow.
pub(crate) fn faults(kind: &Kind, before: Option<&Value>, after: &Value) -> Vec<Fault> {
    let Some(custom) = &kind.custom else { return Vec::new() };
    let mut faults = validate::faults(&custom.schema, after);
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
