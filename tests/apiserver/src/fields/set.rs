//! Sets of fields, in the form of `fieldsV1`, and what can be done with them. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::shape::{ListShape, Shape};

/// A set of places in an object. Each step is written as in `fieldsV1`: `f:<field>`, `k:<keys as JSON>` or `v:<value as JSON>`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Set {
    /// This place itself is in the set.
    pub(super) own: bool,
    pub(super) below: BTreeMap<String, Set>,
}

/// What is not anybody's: the server's own part of an object, and what names it.
const UNOWNED: [&str; 12] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
    "clusterName",
    "generateName",
];

impl Set {
    /// Everything that a value has.
    pub(super) fn of(shape: &Shape<'_>, value: &Value) -> Self {
        let mut set = Self::default();
        set.collect(shape, value);
        set
    }

    fn collect(&mut self, shape: &Shape<'_>, value: &Value) {
        match children(shape, value) {
            Some(children) => {
                for child in children {
                    let below = self.below.entry(child.step.clone()).or_default();
                    below.collect(&child.shape, child.value);
                    below.own |= child.is_item() || is_empty(child.value);
                }
            }
            None => self.own = true,
        }
    }

    /// Without what is nobody's.
    pub(super) fn stripped(mut self) -> Self {
        self.below.remove("f:apiVersion");
        self.below.remove("f:kind");
        if let Some(metadata) = self.below.get_mut("f:metadata") {
            metadata.own = false;
            for field in UNOWNED {
                metadata.below.remove(&format!("f:{field}"));
            }
            if metadata.below.is_empty() {
                self.below.remove("f:metadata");
            }
        }
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.own && self.below.is_empty()
    }

    pub(super) fn union(&mut self, other: &Self) {
        self.own |= other.own;
        for (step, set) in &other.below {
            self.below.entry(step.clone()).or_default().union(set);
        }
    }

    pub(super) fn minus(&self, other: &Self) -> Self {
        self.combined(other, |own, others| own && !others, true)
    }

    pub(super) fn common(&self, other: &Self) -> Self {
        self.combined(other, |own, others| own && others, false)
    }

    fn combined(&self, other: &Self, own: fn(bool, bool) -> bool, keep_alone: bool) -> Self {
        let mut set = Self { own: own(self.own, other.own), below: BTreeMap::new() };
        for (step, mine) in &self.below {
            let result = match other.below.get(step) {
                Some(others) => mine.combined(others, own, keep_alone),
                None if keep_alone => mine.clone(),
                None => continue,
            };
            if !result.is_empty() {
                set.below.insert(step.clone(), result);
            }
        }
        set
    }

    /// Reads `fieldsV1`.
    pub(super) fn parse(fields: &Value) -> Self {
        let mut set = Self::default();
        for (step, value) in fields.as_object().into_iter().flatten() {
            if step == "." {
                set.own = true;
                continue;
            }
            let mut below = Self::parse(value);
            below.own |= value.as_object().is_none_or(Map::is_empty);
            set.below.insert(step.clone(), below);
        }
        set
    }

    /// Writes `fieldsV1`.
    pub(super) fn write(&self) -> Value {
        let mut map = Map::new();
        if self.own && !self.below.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (step, set) in &self.below {
            map.insert(step.clone(), set.write());
        }
        Value::Object(map)
    }

    /// The places, as messages have them: `.spec.containers[name="a"].image`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut list = Vec::new();
        self.path("", &mut list);
        list
    }

    fn path(&self, at: &str, list: &mut Vec<String>) {
        if self.own && !at.is_empty() {
            list.push(at.to_owned());
        }
        for (step, set) in &self.below {
            set.path(&format!("{at}{}", readable(step)), list);
        }
    }
}

fn readable(step: &str) -> String {
    match step.split_at(2) {
        ("f:", field) => format!(".{field}"),
        ("k:", keys) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<_> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        (_, value) => format!("[{value}]"),
    }
}

/// What differs between two objects: places that changed or came, and places that went.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) changed: Set,
    pub(super) removed: Set,
}

impl Difference {
    pub(super) fn between(shape: &Shape<'_>, before: Option<&Value>, after: &Value) -> Self {
        let mut difference = Self::default();
        compare(shape, before, Some(after), &mut difference.changed, &mut difference.removed);
        difference.changed = difference.changed.stripped().pruned();
        difference.removed = difference.removed.stripped().pruned();
        difference
    }

    pub(super) fn is_none(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

impl Set {
    /// Without steps that lead nowhere.
    fn pruned(mut self) -> Self {
        self.below = std::mem::take(&mut self.below)
            .into_iter()
            .map(|(step, set)| (step, set.pruned()))
            .filter(|(_, set)| !set.is_empty())
            .collect();
        self
    }
}

fn compare(
    shape: &Shape<'_>,
    before: Option<&Value>,
    after: Option<&Value>,
    changed: &mut Set,
    removed: &mut Set,
) {
    if before == after {
        return;
    }
    changed.own |= before.is_none();
    removed.own |= after.is_none();
    let (old, new) = (before.and_then(|v| children(shape, v)), after.and_then(|v| children(shape, v)));
    changed.own |= new.is_none() && after.is_some();
    let index = |list: Option<Vec<Child<'_>>>| -> BTreeMap<String, (Value, bool)> {
        list.into_iter().flatten().map(|c| (c.step.clone(), (c.value.clone(), c.is_item()))).collect()
    };
    let shapes: BTreeMap<String, Shape<'_>> = [before, after]
        .into_iter()
        .flatten()
        .filter_map(|value| children(shape, value))
        .flatten()
        .map(|child| (child.step, child.shape))
        .collect();
    let (old, new) = (index(old), index(new));
    for (step, below) in &shapes {
        let (was, is) = (old.get(step).map(|(v, _)| v), new.get(step).map(|(v, _)| v));
        let changed = changed.below.entry(step.clone()).or_default();
        let removed = removed.below.entry(step.clone()).or_default();
        compare(below, was, is, changed, removed);
    }
}

/// A part of a map or of a list with keys.
pub(super) struct Child<'a> {
    pub(super) step: String,
    pub(super) shape: Shape<'a>,
    pub(super) value: &'a Value,
}

impl Child<'_> {
    fn is_item(&self) -> bool {
        !self.step.starts_with("f:")
    }
}

/// The parts of a value that can be owned apart from it; `None` when it is one value.
pub(super) fn children<'a>(shape: &Shape<'a>, value: &'a Value) -> Option<Vec<Child<'a>>> {
    match value {
        Value::Object(map) if !map.is_empty() && !shape.is_atomic_map() => Some(
            map.iter()
                .map(|(field, value)| Child {
                    step: format!("f:{field}"),
                    shape: shape.field(field).unwrap_or(Shape::Schema(&Value::Null)),
                    value,
                })
                .collect(),
        ),
        Value::Array(items) => {
            let list = Some(shape.list()).filter(|list| *list != ListShape::Atomic)?;
            items
                .iter()
                .map(|value| Some(Child { step: step_of(shape, &list, value)?, shape: shape.item(), value }))
                .collect()
        }
        _ => None,
    }
}

/// How a list's item is found again; `None` when it cannot be, and the list is one value.
pub(super) fn step_of(shape: &Shape<'_>, list: &ListShape, item: &Value) -> Option<String> {
    match list {
        ListShape::Atomic => None,
        ListShape::Set => Some(format!("v:{item}")),
        ListShape::Keyed(keys) => Some(format!("k:{}", Value::Object(shape.keys_of(keys, item)?))),
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Shape<'static> {
        Shape::BuiltIn { parent: String::new(), name: String::new() }
    }

    #[test]
    fn fields_are_written_as_a_server_does_and_read_back() {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "labels": {"a": "1"}, "finalizers": ["x/y"]},
            "spec": {
                "containers": [{"name": "c", "ports": [{"containerPort": 80}], "args": ["a"]}],
                "nodeSelector": {"n": ""}, "tolerations": [{"key": "k"}], "securityContext": {},
            },
        });
        let set = Set::of(&pod(), &object).stripped();
        let expected = json!({
            "f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"x/y\"": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"c\"}": {
                    ".": {}, "f:name": {}, "f:args": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                }},
                "f:nodeSelector": {}, "f:tolerations": {}, "f:securityContext": {},
            },
        });
        assert_eq!(set.write(), expected);
        assert_eq!(Set::parse(&expected), set);
    }

    #[test]
    fn a_difference_is_what_changed_came_or_went() {
        let before = json!({"data": {"a": "1", "b": "1"}, "x": {"y": "1"}});
        let after = json!({"data": {"a": "2", "c": "1"}, "metadata": {"resourceVersion": "7"}});
        let difference = Difference::between(&pod(), Some(&before), &after);
        assert_eq!(difference.changed.paths(), [".data.a", ".data.c"]);
        assert_eq!(difference.removed.paths(), [".data.b", ".x", ".x.y"]);
    }

    #[test]
    fn sets_are_added_and_taken_away_place_by_place() {
        let a = Set::parse(&json!({"f:x": {}, "f:y": {".": {}, "f:z": {}}}));
        let b = Set::parse(&json!({"f:y": {"f:z": {}}, "f:w": {}}));
        assert_eq!(a.minus(&b).write(), json!({"f:x": {}, "f:y": {}}));
        assert_eq!(a.common(&b).write(), json!({"f:y": {"f:z": {}}}));
        let mut both = a.clone();
        both.union(&b);
        assert_eq!(both.write(), json!({"f:x": {}, "f:y": {".": {}, "f:z": {}}, "f:w": {}}));
    }

    #[test]
    fn paths_read_as_in_messages() {
        let set = Set::parse(&json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {"f:image": {}}}}}));
        assert_eq!(set.paths(), [".spec.containers[name=\"c\"].image"]);
    }
}
