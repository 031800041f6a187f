//! Reading and writing the few places of an object that every kind has. Objects are plain JSON here, as in a request's body.

use serde_json::{Map, Value, json};

pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

pub(crate) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

pub(crate) fn version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

pub(crate) fn is_being_deleted(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    strings(object, "/metadata/finalizers")
}

pub(crate) fn strings<'a>(object: &'a Value, pointer: &str) -> Vec<&'a str> {
    items(object, pointer).iter().filter_map(Value::as_str).collect()
}

/// The list at `pointer`, or nothing.
pub(crate) fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// `metadata`, made where it is missing or not an object.
pub(crate) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    fields(child(fields(object), "metadata"))
}

/// The fields of a value, which becomes an object if it was none.
pub(crate) fn fields(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        // Was made an object above.
        _ => unreachable!("an object is an object"),
    }
}

pub(crate) fn child<'a>(map: &'a mut Map<String, Value>, name: &str) -> &'a mut Value {
    map.entry(name).or_insert(Value::Null)
}

/// Sets `field` as `source` has it, or removes it.
pub(crate) fn carry(map: &mut Map<String, Value>, field: &str, source: Option<&Value>) {
    match source {
        Some(value) => drop(map.insert(field.to_owned(), value.clone())),
        None => drop(map.remove(field)),
    }
}

/// Sets `finalizers`; an empty list is no list.
pub(crate) fn set_finalizers(object: &mut Value, finalizers: &[&str]) {
    let meta = metadata(object);
    if finalizers.is_empty() {
        meta.remove("finalizers");
    } else {
        meta.insert("finalizers".into(), json!(finalizers));
    }
}

/// Now, as Kubernetes writes it: whole seconds, UTC.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
