//! An event is one object with two faces: `v1` and `events.k8s.io/v1` name the same fields differently. Kept in the older form.

use serde_json::Value;

use crate::object;

/// The field's name in `v1` and in `events.k8s.io/v1`.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
];

pub(super) fn to_new(event: &mut Value) {
    rename(event, NAMES);
}

pub(super) fn to_core(event: &mut Value) {
    rename(event, NAMES.map(|(core, new)| (new, core)));
}

fn rename(event: &mut Value, names: [(&str, &str); 7]) {
    let map = object::fields(event);
    for (from, to) in names {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
}
