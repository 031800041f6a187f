//! The three patches that say what to change: JSON patch, JSON merge patch and strategic merge patch. (Server-side apply says what should
//! be, and is elsewhere.)

use json_patch::PatchOperation;
use serde_json::Value;

use crate::fields::{ListShape, Shape};
use crate::kinds::Kind;
use crate::object;
use crate::refusal::Refusal;

/// A patch as it was sent.
#[derive(Debug)]
pub(crate) enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// What the patch makes of an object.
    pub(crate) fn on(&self, kind: &Kind, mut object: Value) -> Result<Value, Refusal> {
        match self {
            Self::Json(patch) => json(&mut object, patch)?,
            Self::Merge(patch) => json_patch::merge(&mut object, patch),
            Self::Strategic(_) if kind.custom.is_some() => {
                let message = "the body of the request was in an unknown format - accepted media types include: \
                               application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
                return Err(Refusal::new(415, "UnsupportedMediaType", message));
            }
            Self::Strategic(patch) => strategic(&Shape::of(kind), &mut object, patch),
        }
        Ok(object)
    }
}

/// As a server does it: to test for null is to test that there is nothing.
fn json(object: &mut Value, patch: &json_patch::Patch) -> Result<(), Refusal> {
    for operation in &patch.0 {
        if let PatchOperation::Test(test) = operation
            && test.value.is_null()
            && object.pointer(test.path.as_str()).is_none()
        {
            continue;
        }
        json_patch::patch(object, std::slice::from_ref(operation)).map_err(|error| {
            let message = format!("the server rejected our request due to an error in our request: {error}");
            Refusal::new(422, "Invalid", message)
        })?;
    }
    Ok(())
}

/// A merge patch that goes into lists with keys. Of the directives `$patch: delete`, `$patch: replace` and
/// `$deleteFromPrimitiveList/<field>` are known; `$setElementOrder` and `$retainKeys` change nothing that a test here looks at.
fn strategic(shape: &Shape<'_>, target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if changes.get("$patch").is_some_and(|word| word == "replace") {
        *target = Value::Object(
            changes.iter().filter(|(k, _)| *k != "$patch").map(|(k, v)| (k.clone(), v.clone())).collect(),
        );
        return;
    }
    let map = object::fields(target);
    for (name, change) in changes {
        if let Some(field) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let unwanted = change.as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(Value::Array(items)) = map.get_mut(field) {
                items.retain(|item| !unwanted.contains(item));
            }
        } else if name.starts_with('$') {
        } else if change.is_null() || change.get("$patch").is_some_and(|word| word == "delete") {
            map.remove(name);
        } else {
            let below = shape.field(name).unwrap_or(Shape::Schema(&Value::Null));
            let target = object::child(map, name);
            match change {
                Value::Array(changes) => strategic_list(&below, target, changes),
                _ => strategic(&below, target, change),
            }
        }
    }
}

fn strategic_list(shape: &Shape<'_>, target: &mut Value, changes: &[Value]) {
    if !target.is_array() || changes.iter().any(|change| change == &serde_json::json!({"$patch": "replace"}))
    {
        *target = Value::Array(Vec::new());
    }
    let Value::Array(items) = target else { return };
    match shape.list() {
        ListShape::Atomic => *items = changes.to_vec(),
        ListShape::Set => {
            for change in changes {
                if !items.contains(change) {
                    items.push(change.clone());
                }
            }
        }
        ListShape::Keyed(keys) => {
            for change in changes.iter().filter(|change| *change != &serde_json::json!({"$patch": "replace"}))
            {
                let wanted = shape.keys_of(&keys, change);
                let at = items.iter().position(|item| shape.keys_of(&keys, item) == wanted);
                let delete = change.get("$patch").is_some_and(|word| word == "delete");
                match (at, delete) {
                    (Some(at), true) => drop(items.remove(at)),
                    (None, true) => {}
                    (Some(at), false) => strategic(&shape.item(), &mut items[at], change),
                    (None, false) => items.push(change.clone()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::by_path;
    use crate::store::Store;

    fn daemonsets() -> Kind {
        by_path(&Store::default(), "apps", "v1", "daemonsets").unwrap()
    }

    fn patched(before: Value, change: Value) -> Value {
        Patch::Strategic(change).on(&daemonsets(), before).unwrap()
    }

    #[test]
    fn strategic_patches_go_into_lists_with_keys() {
        let before = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "x"}]}]}}}});
        let change = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "a", "image": "2", "env": [{"name": "X", "$patch": "delete"}, {"name": "Y", "value": "y"}]},
            {"name": "b", "image": "3"},
        ]}}}});
        let after = patched(before, change);
        assert_eq!(
            after.pointer("/spec/template/spec/containers").unwrap(),
            &json!([{"name": "a", "image": "2", "env": [{"name": "Y", "value": "y"}]}, {"name": "b", "image": "3"}])
        );
    }

    #[test]
    fn strategic_patches_replace_lists_without_keys_and_remove_by_null() {
        let before =
            json!({"spec": {"tolerations": [{"key": "a"}]}, "metadata": {"labels": {"x": "1", "y": "2"}}});
        let after = patched(
            before,
            json!({"spec": {"tolerations": [{"key": "b"}]}, "metadata": {"labels": {"x": null}}}),
        );
        assert_eq!(
            after,
            json!({"spec": {"tolerations": [{"key": "b"}]}, "metadata": {"labels": {"y": "2"}}})
        );
    }

    #[test]
    fn strategic_patches_add_to_and_take_from_sets() {
        let before = json!({"metadata": {"finalizers": ["a", "b"]}});
        let change = json!({"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]}});
        assert_eq!(patched(before, change), json!({"metadata": {"finalizers": ["b", "c"]}}));
    }

    #[test]
    fn a_failed_test_in_a_json_patch_refuses_the_whole() {
        let patch = serde_json::from_value(json!([
            {"op": "add", "path": "/metadata/x", "value": 1}, {"op": "test", "path": "/metadata/y", "value": 1}
        ]));
        let refusal = Patch::Json(patch.unwrap()).on(&daemonsets(), json!({"metadata": {}})).unwrap_err();
        assert_eq!((refusal.code, refusal.reason), (422, "Invalid"));
    }

    #[test]
    fn to_test_for_null_is_to_test_that_there_is_nothing() {
        let patch = || {
            let operations = json!([
                {"op": "test", "path": "/metadata/finalizers", "value": null},
                {"op": "add", "path": "/metadata/finalizers", "value": ["x"]},
            ]);
            Patch::Json(serde_json::from_value(operations).unwrap())
        };
        let after = patch().on(&daemonsets(), json!({"metadata": {}})).unwrap();
        assert_eq!(after, json!({"metadata": {"finalizers": ["x"]}}));
        assert_eq!(patch().on(&daemonsets(), after).unwrap_err().code, 422);
    }
}
