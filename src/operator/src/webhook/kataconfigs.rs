//! `KataConfig`: one in a cluster, and nothing in it that nobody understands.
//!
//! CREATE and UPDATE are asked about, UPDATE never of an object that is being deleted: whatever it holds, it can go. The controller checks
//! the same with [`spec_faults`], because an object may be older than this webhook, and tells it in the status.

use peerpods_crds::{KataConfigSpec, LOG_LEVELS, NodeSelector};

use super::faults::{Fault, shown};
use super::names;
use super::review::{Asked, Operation};
use super::stored::{Stored, new_faults};

/// One that is there, of a kind of which a cluster has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// Its name.
    pub name: String,
    /// Whether it is being deleted.
    pub being_deleted: bool,
}

/// What becomes of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be stored.
    Allowed,
    /// There is another already.
    SecondOne(Vec<Existing>),
    /// It is wrong.
    Invalid(Vec<Fault>),
}

impl Verdict {
    pub(super) fn of(faults: Vec<Fault>) -> Self {
        if faults.is_empty() { Self::Allowed } else { Self::Invalid(faults) }
    }

    /// About one that is to be created beside these.
    pub(super) fn of_new(
        asked: &Asked<Stored>,
        existing: &[Existing],
        faults: impl FnOnce() -> Vec<Fault>,
    ) -> Self {
        let others = |one: &&Existing| asked.request.name.is_empty() || one.name != asked.request.name;
        let others: Vec<Existing> = existing.iter().filter(others).cloned().collect();
        if others.is_empty() { Self::of(faults()) } else { Self::SecondOne(others) }
    }
}

/// Decides about a `KataConfig`, knowing those that exist. One of the same name is no second one: the API server says itself that it exists.
#[must_use]
pub fn decide(asked: &Asked<Stored>, existing: &[Existing]) -> Verdict {
    let Some(object) = &asked.object else { return Verdict::Allowed };
    if asked.request.sub_resource.is_some() {
        return Verdict::Allowed;
    }
    match asked.request.operation {
        Operation::Create => Verdict::of_new(asked, existing, || faults(object)),
        Operation::Update if !object.is_being_deleted() => {
            let before = asked.old_object.as_ref().map(faults).unwrap_or_default();
            Verdict::of(new_faults(faults(object), &before))
        }
        Operation::Update | Operation::Delete | Operation::Connect => Verdict::Allowed,
    }
}

/// What the user is told of a second one.
#[must_use]
pub fn second_one(kind: &str, others: &[Existing]) -> String {
    let told = |one: &Existing| match one.being_deleted {
        true => format!("{}, which is being deleted: wait until it is gone", shown(&one.name)),
        false => format!("{}: change that one, or delete it first", shown(&one.name)),
    };
    let told: Vec<String> = others.iter().take(4).map(told).collect();
    format!("a cluster has one {kind}, and there is {}", told.join("; there is "))
}

/// All that is wrong with a stored object.
fn faults(object: &Stored) -> Vec<Fault> {
    match object.spec() {
        Ok(spec) => spec_faults(&spec),
        Err(unreadable) => vec![unreadable],
    }
}

/// All that is wrong with a spec.
#[must_use]
pub fn spec_faults(spec: &KataConfigSpec) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Some(selector) = &spec.kata_config_pool_selector {
        faults.extend(selector_faults("spec.kataConfigPoolSelector", selector));
    }
    if !LOG_LEVELS.contains(&spec.effective_log_level()) {
        let reason = format!("{}: want one of {}", shown(&spec.log_level), LOG_LEVELS.join(", "));
        faults.push(Fault::new("spec.logLevel", reason));
    }
    if let Some(image) = &spec.kata_monitor_image
        && (image.is_empty() || image.chars().any(|c| c.is_whitespace() || c.is_control()))
    {
        let reason = format!("{}: want the name of an image, or leave the field out", shown(image));
        faults.push(Fault::new("spec.kataMonitorImage", reason));
    }
    faults
}

/// All that is wrong with a selector of nodes.
#[must_use]
pub fn selector_faults(field: &str, selector: &NodeSelector) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (key, value) in &selector.match_labels {
        faults.extend(label_faults(&format!("{field}.matchLabels"), key, value));
    }
    for (n, requirement) in selector.match_expressions.iter().enumerate() {
        let field = format!("{field}.matchExpressions[{n}]");
        if let Err(wanted) = names::label_key(&requirement.key) {
            faults.push(Fault::new(format!("{field}.key"), format!("{}: {wanted}", shown(&requirement.key))));
        }
        faults.extend(operator_fault(&field, &requirement.operator, requirement.values.len()));
        for (n, value) in requirement.values.iter().enumerate() {
            if let Err(wanted) = names::label_value(value) {
                faults
                    .push(Fault::new(format!("{field}.values[{n}]"), format!("{}: {wanted}", shown(value))));
            }
        }
    }
    faults
}

fn operator_fault(field: &str, operator: &str, values: usize) -> Option<Fault> {
    match (operator, values) {
        ("In" | "NotIn", 1..) | ("Exists" | "DoesNotExist", 0) => None,
        ("In" | "NotIn", 0) => {
            Some(Fault::new(format!("{field}.values"), format!("{operator} needs values")))
        }
        ("Exists" | "DoesNotExist", _) => {
            Some(Fault::new(format!("{field}.values"), format!("{operator} must have none")))
        }
        _ => {
            let reason = format!("{}: want In, NotIn, Exists or DoesNotExist", shown(operator));
            Some(Fault::new(format!("{field}.operator"), reason))
        }
    }
}

/// What is wrong with one label of a map of them.
pub(super) fn label_faults(field: &str, key: &str, value: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Err(wanted) = names::label_key(key) {
        faults.push(Fault::new(field, format!("key {}: {wanted}", shown(key))));
    }
    if let Err(wanted) = names::label_value(value) {
        faults.push(Fault::new(
            format!("{field}[{}]", shown(key).trim_matches('"')),
            format!("{}: {wanted}", shown(value)),
        ));
    }
    faults
}

#[cfg(test)]
mod tests;
