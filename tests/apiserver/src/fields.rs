//! Who owns which field: `metadata.managedFields`, and server-side apply on top of it.
//!
//! An entry is of one manager, one way of writing (apply or update) and one subresource. Two managers may own the same field while they agree
//! on its value. An update takes what it changes; an apply takes what it says, and is refused where that would change what another owns,
//! unless it is forced. What a manager applied once and does not apply now is removed, unless somebody else owns it or a part of it.

mod merge;
mod set;
mod shape;

use serde_json::{Value, json};

use self::set::{Difference, Set};
use crate::kinds::Kind;
use crate::object;
use crate::refusal::Refusal;

pub(crate) use merge::{lost, only_part};
pub(crate) use shape::{ListShape, Shape};

/// Who writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manager<'a> {
    pub(crate) name: &'a str,
    /// Empty, or the subresource that is written to: the same name is another manager there.
    pub(crate) subresource: &'a str,
}

/// The longest a manager's name may be.
const NAME_MAX: usize = 128;

/// One entry of `managedFields`.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    manager: String,
    operation: String,
    subresource: String,
    api_version: String,
    time: String,
    set: Set,
}

impl Entry {
    fn read(value: &Value) -> Self {
        let text = |pointer| object::text(value, pointer).to_owned();
        Self {
            manager: text("/manager"),
            operation: text("/operation"),
            subresource: text("/subresource"),
            api_version: text("/apiVersion"),
            time: text("/time"),
            set: Set::parse(&value["fieldsV1"]),
        }
    }

    fn write(&self) -> Value {
        let mut value = json!({
            "manager": self.manager, "operation": self.operation, "apiVersion": self.api_version,
            "time": self.time, "fieldsType": "FieldsV1", "fieldsV1": self.set.write(),
        });
        if !self.subresource.is_empty() {
            value["subresource"] = self.subresource.clone().into();
        }
        value
    }

    fn new(kind: &Kind, manager: Manager<'_>, operation: &str) -> Self {
        Self {
            manager: manager.name.into(),
            operation: operation.into(),
            subresource: manager.subresource.into(),
            api_version: kind.api_version(),
            time: object::now(),
            set: Set::default(),
        }
    }

    fn is_of(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
    }

    /// How a conflict with it is told.
    fn said(&self) -> String {
        let part = if self.subresource.is_empty() {
            String::new()
        } else {
            format!(" with subresource {:?}", self.subresource)
        };
        format!("conflict with {:?}{part} using {}", self.manager, self.api_version)
    }
}

fn entries(object: &Value) -> Vec<Entry> {
    object::items(object, "/metadata/managedFields")
        .iter()
        .map(Entry::read)
        .filter(|e| !e.set.is_empty())
        .collect()
}

fn set_entries(object: &mut Value, entries: &[Entry]) {
    let list: Vec<_> = entries.iter().filter(|entry| !entry.set.is_empty()).map(Entry::write).collect();
    let meta = object::metadata(object);
    if list.is_empty() {
        meta.remove("managedFields");
    } else {
        meta.insert("managedFields".into(), list.into());
    }
}

/// The entry of this manager, made where there is none.
fn entry_of<'a>(entries: &'a mut Vec<Entry>, new: &Entry) -> &'a mut Entry {
    let at = entries.iter().position(|entry| entry.is_of(new)).unwrap_or_else(|| {
        entries.push(Entry { set: Set::default(), ..new.clone() });
        entries.len() - 1
    });
    &mut entries[at]
}

/// `object` with the entries of `before`, and its own for what it changed.
pub(crate) fn updated(kind: &Kind, manager: Manager<'_>, before: Option<&Value>, mut object: Value) -> Value {
    let mut list = before.map(entries).unwrap_or_default();
    let difference = Difference::between(&Shape::of(kind), before, &object);
    if !difference.is_none() {
        for entry in &mut list {
            let rest = entry.set.minus(&difference.removed);
            let own = entry.manager == manager.name
                && entry.operation == "Update"
                && entry.subresource == manager.subresource;
            entry.set = if own { rest } else { rest.minus(&difference.changed) };
        }
        let mut new = Entry::new(kind, manager, "Update");
        new.manager.truncate(NAME_MAX);
        let own = entry_of(&mut list, &new);
        own.set.union(&difference.changed);
        own.time = new.time;
        own.api_version = new.api_version;
    }
    set_entries(&mut object, &list);
    object
}

/// Whether a body asks to forget who owns what, by an empty list or a list of one empty entry.
pub(crate) fn wants_reset(body: &Value) -> bool {
    let list = body.pointer("/metadata/managedFields").and_then(Value::as_array);
    list.is_some_and(|list| list.is_empty() || list == &[json!({})])
}

/// A new object that `wanted` was made into.
pub(crate) fn first_applied(
    kind: &Kind,
    manager: Manager<'_>,
    wanted: &Value,
    mut object: Value,
) -> Result<Value, Refusal> {
    let set = said(kind, wanted)?;
    set_entries(&mut object, &[Entry { set, ..Entry::new(kind, manager, "Apply") }]);
    Ok(object)
}

/// What an apply owns: everything it says.
fn said(kind: &Kind, wanted: &Value) -> Result<Set, Refusal> {
    let shape = Shape::of(kind);
    if let Some(fault) = merge::fault(&shape, "", wanted) {
        return Err(untyped(kind, wanted, &fault));
    }
    Ok(Set::of(&shape, wanted).stripped())
}

/// That what is applied does not fit the kind.
pub(crate) fn untyped(kind: &Kind, wanted: &Value, fault: &str) -> Refusal {
    let name = format!(
        "{}/{}; {}, Kind={}",
        object::namespace(wanted),
        object::name(wanted),
        kind.api_version(),
        kind.kind
    );
    Refusal::new(500, "InternalError", format!("failed to create typed patch object ({name}): {fault}"))
}

/// `live` with what is wanted of it.
pub(crate) fn applied(
    kind: &Kind,
    manager: Manager<'_>,
    force: bool,
    live: &Value,
    wanted: &Value,
) -> Result<Value, Refusal> {
    let shape = Shape::of(kind);
    let mut list = entries(live);
    if list.is_empty() {
        let unknown = Entry::new(kind, Manager { name: "before-first-apply", subresource: "" }, "Update");
        list.push(Entry { set: Set::of(&shape, live).stripped(), ..unknown });
    }
    let new = Entry { set: said(kind, wanted)?, ..Entry::new(kind, manager, "Apply") };
    let last = list.iter().find(|entry| entry.is_of(&new)).map(|entry| entry.set.clone()).unwrap_or_default();
    let mut object = merge::merge(&shape, Some(live.clone()), wanted);
    let difference = Difference::between(&shape, Some(live), &object);
    take(&mut list, &new, &difference.changed, force)?;
    let mut kept = new.set.clone();
    for entry in list.iter().filter(|entry| !entry.is_of(&new)) {
        kept.union(&entry.set);
    }
    merge::prune(&shape, &mut object, &last.minus(&new.set), &kept);
    let own = entry_of(&mut list, &new);
    let same = own.set == new.set && Difference::between(&shape, Some(live), &object).is_none();
    let time = if same && !own.time.is_empty() { own.time.clone() } else { new.time.clone() };
    *own = Entry { time, ..new };
    set_entries(&mut object, &list);
    Ok(object)
}

/// Takes what changes from its owners, if that is asked for; refused otherwise.
fn take(list: &mut [Entry], new: &Entry, changed: &Set, force: bool) -> Result<(), Refusal> {
    let mut conflicts = Vec::new();
    for entry in list.iter_mut().filter(|entry| !entry.is_of(new)) {
        let common = entry.set.common(changed);
        if common.is_empty() {
            continue;
        }
        if force {
            entry.set = entry.set.minus(&common);
        } else {
            conflicts.extend(common.paths().into_iter().map(|path| (entry.said(), path)));
        }
    }
    if conflicts.is_empty() {
        return Ok(());
    }
    let said: Vec<_> = conflicts.iter().map(|(whom, path)| format!("{whom}: {path}")).collect();
    let word = if conflicts.len() == 1 { "conflict" } else { "conflicts" };
    let mut refusal = Refusal::new(
        409,
        "Conflict",
        format!("Apply failed with {} {word}: {}", conflicts.len(), said.join(", ")),
    );
    let cause = |(whom, path): &(String, String)| json!({"reason": "FieldManagerConflict", "message": whom, "field": path});
    refusal.details = json!({"causes": conflicts.iter().map(cause).collect::<Vec<_>>()});
    Err(refusal)
}

#[cfg(test)]
mod tests;
