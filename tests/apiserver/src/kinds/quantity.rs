//! Quantities in the one form that a real server stores each in: whole numbers of a node's resources. `1000` comes back as `1k`.
//! Other forms (fractions, powers of two) are left as they were sent.

use serde_json::Value;

const SUFFIXES: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];

/// Rewrites what a node has.
pub(super) fn settle(node: &mut Value) {
    for part in ["/status/capacity", "/status/allocatable"] {
        let amounts = node.pointer_mut(part).and_then(Value::as_object_mut);
        for amount in amounts.into_iter().flat_map(|amounts| amounts.values_mut()) {
            if let Some(settled) = amount.as_str().and_then(canonical) {
                *amount = settled.into();
            }
        }
    }
}

fn canonical(text: &str) -> Option<String> {
    let mut number: u64 = text.parse().ok()?;
    let mut thousands = 0;
    while number != 0 && number.is_multiple_of(1000) {
        (number, thousands) = (number / 1000, thousands + 1);
    }
    SUFFIXES.get(thousands).map(|suffix| format!("{number}{suffix}"))
}
