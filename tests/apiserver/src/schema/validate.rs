//! Whether an object has the form that its schema wants.

use regex::Regex;
use serde_json::Value;

use super::{properties, property};
use crate::refusal::Fault;

/// Every fault, with the path of its field.
pub(super) fn faults(schema: &Value, object: &Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (name, below) in properties(schema) {
        if let Some(value) = object.get(name).filter(|_| name != "metadata") {
            check(below, name, value, &mut faults);
        }
    }
    required(schema, "", object, &mut faults);
    faults
}

fn check(schema: &Value, at: &str, value: &Value, faults: &mut Vec<Fault>) {
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    if let Some(wanted) = wrong_type(schema, value) {
        let shown: Value = type_of(value).into();
        let why = format!("{at} in body must be of type {wanted}: {shown}");
        faults.push(Fault::invalid(at, &shown, &why));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
        faults.push(Fault::unsupported(at, value, allowed));
    }
    match value {
        Value::String(text) => string(schema, at, text, faults),
        Value::Number(_) => number(schema, at, value, faults),
        Value::Array(items) => list(schema, at, items, faults),
        Value::Object(map) => {
            size(schema, at, "Properties", map.len(), faults);
            required(schema, at, value, faults);
            for (name, value) in map {
                if let Some(below) = property(schema, name) {
                    check(below, &format!("{at}.{name}"), value, faults);
                }
            }
        }
        _ => {}
    }
    combined(schema, at, value, faults);
}

/// The type that is wanted, when the value is of another.
fn wrong_type<'a>(schema: &'a Value, value: &Value) -> Option<&'a str> {
    if schema["x-kubernetes-int-or-string"] == true {
        return (!value.is_string() && !is_integer(value)).then_some("integer or string");
    }
    let wanted = schema["type"].as_str()?;
    let right = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => is_integer(value),
        "number" => value.is_number(),
        _ => true,
    };
    (!right).then_some(wanted)
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn required(schema: &Value, at: &str, value: &Value, faults: &mut Vec<Fault>) {
    for name in crate::object::strings(schema, "/required") {
        if value.get(name).is_none() {
            let path = if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
            faults.push(Fault::required(path, ""));
        }
    }
}

fn string(schema: &Value, at: &str, text: &str, faults: &mut Vec<Fault>) {
    size(schema, at, "Length", text.chars().count(), faults);
    let Some(pattern) = schema["pattern"].as_str() else { return };
    match Regex::new(pattern) {
        Ok(regex) if regex.is_match(text) => {}
        Ok(_) => {
            let why = format!("{at} in body should match '{pattern}'");
            faults.push(Fault::invalid(at, &text.into(), &why));
        }
        Err(error) => faults.push(Fault::invalid(at, &pattern.into(), &format!("not a pattern: {error}"))),
    }
}

fn number(schema: &Value, at: &str, value: &Value, faults: &mut Vec<Fault>) {
    let is = value.as_f64().unwrap_or_default();
    let bound = |name: &str| schema[name].as_f64();
    let strict = |name: &str| schema[name] == true;
    let mut refuse = |words: &str, bound: &Value| {
        let why = format!("{at} in body should be {words} {bound}");
        faults.push(Fault::invalid(at, value, &why));
    };
    match bound("minimum") {
        Some(least) if strict("exclusiveMinimum") && is <= least => {
            refuse("greater than", &schema["minimum"])
        }
        Some(least) if is < least => refuse("greater than or equal to", &schema["minimum"]),
        _ => {}
    }
    match bound("maximum") {
        Some(most) if strict("exclusiveMaximum") && is >= most => refuse("less than", &schema["maximum"]),
        Some(most) if is > most => refuse("less than or equal to", &schema["maximum"]),
        _ => {}
    }
    if bound("multipleOf").is_some_and(|step| is % step != 0.0) {
        refuse("a multiple of", &schema["multipleOf"]);
    }
}

fn list(schema: &Value, at: &str, items: &[Value], faults: &mut Vec<Fault>) {
    size(schema, at, "Items", items.len(), faults);
    for (index, item) in items.iter().enumerate() {
        check(&schema["items"], &format!("{at}[{index}]"), item, faults);
    }
    let keys = crate::object::strings(schema, "/x-kubernetes-list-map-keys");
    let identity = |item: &Value| match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Some(item.clone()),
        Some("map") => Some(keys.iter().map(|key| item[*key].clone()).collect::<Vec<_>>().into()),
        _ => None,
    };
    let mut seen = Vec::new();
    for (index, item) in items.iter().enumerate() {
        match identity(item) {
            Some(found) if seen.contains(&found) => faults.push(Fault {
                field: format!("{at}[{index}]"),
                reason: "FieldValueDuplicate",
                says: format!("Duplicate value: {item}"),
            }),
            Some(found) => seen.push(found),
            None => {}
        }
    }
}

/// `minLength`, `maxItems` and their like.
fn size(schema: &Value, at: &str, what: &str, is: usize, faults: &mut Vec<Fault>) {
    let bound =
        |word: &str| schema[format!("{word}{what}")].as_u64().and_then(|bound| usize::try_from(bound).ok());
    let unit = match what {
        "Length" => "chars long",
        "Items" => "items",
        _ => "properties",
    };
    if let Some(least) = bound("min").filter(|least| is < *least) {
        faults.push(Fault::invalid(
            at,
            &is.into(),
            &format!("{at} in body should have at least {least} {unit}"),
        ));
    }
    if let Some(most) = bound("max").filter(|most| is > *most) {
        let (reason, words) = if what == "Length" {
            ("FieldValueTooLong", "Too long: may not be more than")
        } else {
            ("FieldValueTooMany", "Too many: must have at most")
        };
        faults.push(Fault { field: at.into(), reason, says: format!("{words} {most} {unit}") });
    }
}

/// `allOf`, `anyOf`, `oneOf` and `not`.
fn combined(schema: &Value, at: &str, value: &Value, faults: &mut Vec<Fault>) {
    let holds = |schema: &Value| {
        let mut found = Vec::new();
        check(schema, at, value, &mut found);
        found.is_empty()
    };
    let count = |word: &str| {
        schema[word]
            .as_array()
            .map(|schemas| (schemas.len(), schemas.iter().filter(|schema| holds(schema)).count()))
    };
    let mut refuse = |why: String| faults.push(Fault::invalid(at, value, &why));
    if count("allOf").is_some_and(|(all, holding)| holding < all) {
        refuse(format!("{at} in body must validate all the schemas (allOf)"));
    }
    if count("anyOf").is_some_and(|(_, holding)| holding == 0) {
        refuse(format!("{at} in body must validate at least one schema (anyOf)"));
    }
    if count("oneOf").is_some_and(|(_, holding)| holding != 1) {
        refuse(format!("{at} in body must validate one and only one schema (oneOf)"));
    }
    if schema.get("not").is_some_and(holds) {
        refuse(format!("{at} in body must not validate the schema (not)"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The fields that are at fault in a spec.
    fn at_fault(schema: Value, spec: Value) -> Vec<String> {
        let schema = json!({"properties": {"spec": schema}});
        faults(&schema, &json!({"spec": spec})).into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn each_keyword_refuses_what_it_is_for() {
        for (schema, good, bad) in [
            (json!({"type": "string"}), json!("a"), json!(1)),
            (json!({"type": "integer"}), json!(1), json!(1.5)),
            (json!({"type": "boolean"}), json!(true), json!("true")),
            (json!({"type": "string", "nullable": true}), json!(null), json!([])),
            (json!({"x-kubernetes-int-or-string": true}), json!("50%"), json!(true)),
            (json!({"enum": ["a", "b"]}), json!("b"), json!("c")),
            (json!({"type": "string", "pattern": "^a+$"}), json!("aa"), json!("ab")),
            (json!({"type": "string", "minLength": 2}), json!("ab"), json!("a")),
            (json!({"type": "string", "maxLength": 2}), json!("äb"), json!("abc")),
            (json!({"type": "integer", "minimum": 0}), json!(0), json!(-1)),
            (json!({"type": "integer", "maximum": 5}), json!(5), json!(6)),
            (json!({"type": "integer", "minimum": 0, "exclusiveMinimum": true}), json!(1), json!(0)),
            (json!({"type": "array", "maxItems": 1}), json!([1]), json!([1, 2])),
            (json!({"type": "array", "x-kubernetes-list-type": "set"}), json!([1, 2]), json!([1, 1])),
            (json!({"type": "object", "maxProperties": 1}), json!({"a": 1}), json!({"a": 1, "b": 2})),
            (json!({"anyOf": [{"type": "string"}, {"type": "integer"}]}), json!(1), json!(true)),
            (json!({"not": {"enum": ["x"]}}), json!("y"), json!("x")),
        ] {
            assert_eq!(at_fault(schema.clone(), good.clone()), Vec::<String>::new(), "{schema} {good}");
            assert_eq!(at_fault(schema.clone(), bad.clone()).len(), 1, "{schema} {bad}");
        }
    }

    #[test]
    fn faults_name_the_path() {
        let schema = json!({"type": "object", "required": ["a"], "properties": {
            "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "integer"}}}},
        }});
        assert_eq!(at_fault(schema, json!({"list": [{"x": 1}, {"x": "1"}]})), ["spec.a", "spec.list[1].x"]);
    }

    #[test]
    fn two_items_with_the_same_keys_are_a_duplicate() {
        let schema =
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]});
        assert_eq!(at_fault(schema, json!([{"type": "a"}, {"type": "b"}, {"type": "a"}])), ["spec[2]"]);
    }
}
