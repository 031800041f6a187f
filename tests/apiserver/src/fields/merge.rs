//! Laying what is wanted over what is, and taking away what is no longer wanted. Pure.

use serde_json::Value;

use super::set::{Set, children, step_of};
use super::shape::{ListShape, Shape};
use crate::object;

/// What is, with everything that is wanted.
pub(super) fn merge(shape: &Shape<'_>, is: Option<Value>, wanted: &Value) -> Value {
    match (is, wanted) {
        (Some(Value::Object(mut map)), Value::Object(changes)) if !shape.is_atomic_map() => {
            for (field, change) in changes {
                if change.is_null() {
                    map.remove(field);
                    continue;
                }
                let below = shape.field(field).unwrap_or(Shape::Schema(&Value::Null));
                let value = merge(&below, map.remove(field), change);
                map.insert(field.clone(), value);
            }
            Value::Object(map)
        }
        (Some(Value::Array(items)), Value::Array(changes)) if shape.list() != ListShape::Atomic => {
            Value::Array(merge_list(shape, items, changes))
        }
        _ => wanted.clone(),
    }
}

/// The items that are wanted come in the order in which they are wanted, between the others where those were.
fn merge_list(shape: &Shape<'_>, is: Vec<Value>, wanted: &[Value]) -> Vec<Value> {
    let list = shape.list();
    let step = |item: &Value| step_of(shape, &list, item);
    let mut open: Vec<&Value> = wanted.iter().collect();
    let mut merged = Vec::new();
    for item in &is {
        if !wanted.iter().any(|one| step(one) == step(item)) {
            merged.push(item.clone());
        } else if !open.is_empty() {
            // Here one of the wanted stood: the next of them takes the place.
            merged.push(laid(shape, &is, open.remove(0), &step));
        }
    }
    merged.extend(open.into_iter().map(|item| laid(shape, &is, item, &step)));
    merged
}

fn laid(shape: &Shape<'_>, is: &[Value], wanted: &Value, step: &dyn Fn(&Value) -> Option<String>) -> Value {
    let old = is.iter().find(|item| step(item) == step(wanted)).cloned();
    merge(&shape.item(), old, wanted)
}

/// Removes what `last` has and `kept` has nothing of. False when the value itself is to go.
pub(super) fn prune(shape: &Shape<'_>, value: &mut Value, last: &Set, kept: &Set) -> bool {
    let steps: Vec<String> = match children(shape, value) {
        Some(children) => children.into_iter().map(|child| child.step).collect(),
        None => return true,
    };
    let stays = |step: &str, below: &Shape<'_>, value: &mut Value| {
        let Some(last) = last.below.get(step) else { return true };
        match kept.below.get(step) {
            None => false,
            Some(kept) => prune(below, value, last, kept),
        }
    };
    match value {
        Value::Object(map) => map.retain(|field, value| {
            let below = shape.field(field).unwrap_or(Shape::Schema(&Value::Null));
            stays(&format!("f:{field}"), &below, value)
        }),
        Value::Array(items) => {
            let mut steps = steps.into_iter();
            items.retain_mut(|item| steps.next().is_none_or(|step| stays(&step, &shape.item(), item)));
        }
        _ => {}
    }
    true
}

/// Why a value cannot be applied, if it cannot: a field that the schema lacks, an item without its keys, or the same item twice.
pub(super) fn fault(shape: &Shape<'_>, at: &str, value: &Value) -> Option<String> {
    match value {
        Value::Object(map) => map.iter().find_map(|(field, value)| {
            let path = format!("{at}.{field}");
            match shape.field(field) {
                Some(below) => fault(&below, &path, value),
                None => Some(format!("{path}: field not declared in schema")),
            }
        }),
        Value::Array(items) => {
            let list = shape.list();
            let mut seen = Vec::new();
            for item in items {
                match step_of(shape, &list, item) {
                    Some(step) if seen.contains(&step) => {
                        return Some(format!("{at}: duplicate entries for key [{}]", &step[2..]));
                    }
                    Some(step) => seen.push(step),
                    None if list != ListShape::Atomic => {
                        return Some(format!(
                            "{at}: element 0: associative list with keys has an element that omits key field"
                        ));
                    }
                    None => {}
                }
            }
            items.iter().find_map(|item| fault(&shape.item(), at, item))
        }
        _ => None,
    }
}

/// The first field that `decoded` lost of what was `sent`.
pub(crate) fn lost(at: &str, sent: &Value, decoded: &Value) -> Option<String> {
    match (sent, decoded) {
        (Value::Object(sent), Value::Object(decoded)) => sent.iter().find_map(|(field, value)| {
            let path = format!("{at}.{field}");
            match decoded.get(field) {
                Some(decoded) => lost(&path, value, decoded),
                None => Some(path),
            }
        }),
        (Value::Array(sent), Value::Array(decoded)) => {
            sent.iter().zip(decoded).find_map(|(sent, decoded)| lost(at, sent, decoded))
        }
        _ => None,
    }
}

/// Drops what an apply to this part of the object does not speak of: the status at the object, all but the status at `/status`.
pub(crate) fn only_part(wanted: &mut Value, subresource: &str, has_status: bool) {
    let map = object::fields(wanted);
    match subresource {
        "status" => {
            map.retain(|field, _| ["apiVersion", "kind", "metadata", "status"].contains(&field.as_str()))
        }
        _ if has_status => drop(map.remove("status")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn root() -> Shape<'static> {
        Shape::BuiltIn { parent: String::new(), name: String::new() }
    }

    #[test]
    fn lists_with_keys_merge_item_by_item_and_keep_foreign_ones_where_they_are() {
        let is = json!({"containers": [{"name": "other"}, {"name": "a", "image": "1"}, {"name": "b"}]});
        let wanted =
            json!({"containers": [{"name": "b", "image": "2"}, {"name": "a", "tty": true}, {"name": "c"}]});
        assert_eq!(
            merge(&root(), Some(is), &wanted)["containers"],
            json!([{"name": "other"}, {"name": "b", "image": "2"}, {"name": "a", "image": "1", "tty": true}, {"name": "c"}])
        );
    }

    #[test]
    fn sets_are_united_and_single_values_replaced() {
        let is = json!({"metadata": {"finalizers": ["x"]}, "spec": {"tolerations": [1], "nodeSelector": {"a": ""}}});
        let wanted = json!({"metadata": {"finalizers": ["y"]}, "spec": {"tolerations": [2], "nodeSelector": {"b": ""}}});
        assert_eq!(
            merge(&root(), Some(is), &wanted),
            json!({"metadata": {"finalizers": ["x", "y"]}, "spec": {"tolerations": [2], "nodeSelector": {"b": ""}}})
        );
    }

    #[test]
    fn what_nobody_keeps_goes_with_all_that_is_below() {
        let mut value =
            json!({"spec": {"a": "1", "b": {"c": "1", "foreign": "2"}, "d": {"e": "1", "f": "2"}}});
        let last = Set::of(&root(), &json!({"spec": {"a": "1", "b": {"c": "1"}, "d": {"e": "1", "f": "2"}}}));
        let kept = Set::of(&root(), &json!({"spec": {"d": {"f": "2"}}}));
        prune(&root(), &mut value, &last, &kept);
        assert_eq!(value, json!({"spec": {"d": {"f": "2"}}}));
    }

    #[test]
    fn an_item_twice_or_without_its_key_cannot_be_applied() {
        let twice = json!({"containers": [{"name": "a"}, {"name": "a"}]});
        assert!(fault(&root(), "", &twice).unwrap().contains("duplicate entries"));
        assert!(fault(&root(), "", &json!({"containers": [{}]})).unwrap().contains("omits key"));
    }
}
