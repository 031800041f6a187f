//! Which nodes a KataConfig means. Two selectors, kept apart: the user's decides which nodes get our role, the role's is what everything else
//! selects by.

use std::collections::BTreeMap;
use std::fmt;

use peerpods_crds::{KataConfigSpec, NodeSelector, Requirement};

use crate::names;

/// A requirement that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    DoesNotExist(String),
}

/// A selector that was understood. Without terms it means every node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(Vec<Term>);

/// A field that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct FieldFault {
    /// The field, from `spec`.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

/// Reads the selector of a KataConfig with what `checkNodeEligibility` adds.
///
/// # Errors
/// All faults.
pub fn of_user(spec: &KataConfigSpec) -> Result<Selector, Vec<FieldFault>> {
    let mut selector = match &spec.kata_config_pool_selector {
        Some(selector) => read(selector)?,
        None => Selector::default(),
    };
    if spec.check_node_eligibility {
        selector.0.push(Term::In(names::ELIGIBLE_LABEL.to_owned(), vec!["true".to_owned()]));
    }
    Ok(selector)
}

/// Reads a selector.
///
/// # Errors
/// All faults.
pub fn read(selector: &NodeSelector) -> Result<Selector, Vec<FieldFault>> {
    let mut faults = Vec::new();
    let mut terms = Vec::new();
    for (key, value) in &selector.match_labels {
        let path = format!("spec.kataConfigPoolSelector.matchLabels[{key}]");
        faults.extend(
            label::key_fault(key)
                .into_iter()
                .chain(label::value_fault(value))
                .map(|reason| FieldFault { path: path.clone(), reason }),
        );
        terms.push(Term::In(key.clone(), vec![value.clone()]));
    }
    for (at, requirement) in selector.match_expressions.iter().enumerate() {
        let path = format!("spec.kataConfigPoolSelector.matchExpressions[{at}]");
        match term(requirement) {
            Ok(term) => terms.push(term),
            Err((field, reason)) => faults.push(FieldFault { path: format!("{path}.{field}"), reason }),
        }
    }
    if faults.is_empty() { Ok(Selector(terms)) } else { Err(faults) }
}

fn term(requirement: &Requirement) -> Result<Term, (&'static str, String)> {
    let Requirement { key, operator, values } = requirement;
    if let Some(reason) = label::key_fault(key) {
        return Err(("key", reason));
    }
    if let Some(reason) = values.iter().find_map(|value| label::value_fault(value)) {
        return Err(("values", reason));
    }
    let (key, values) = (key.clone(), values.clone());
    match (operator.as_str(), values.is_empty()) {
        ("In", false) => Ok(Term::In(key, values)),
        ("NotIn", false) => Ok(Term::NotIn(key, values)),
        ("Exists", true) => Ok(Term::Exists(key)),
        ("DoesNotExist", true) => Ok(Term::DoesNotExist(key)),
        ("In" | "NotIn", true) => Err(("values", format!("{operator} needs at least one value"))),
        ("Exists" | "DoesNotExist", false) => Err(("values", format!("{operator} takes no values"))),
        (other, _) => Err(("operator", format!("{other:?} is not In, NotIn, Exists or DoesNotExist"))),
    }
}

impl Selector {
    /// Whether a node with these labels is meant.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|term| match term {
            Term::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Term::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Term::Exists(key) => labels.contains_key(key),
            Term::DoesNotExist(key) => !labels.contains_key(key),
        })
    }
}

impl fmt::Display for Selector {
    /// As kubectl writes selectors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("every worker");
        }
        for (at, term) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            match term {
                Term::In(key, values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Term::In(key, values) => write!(f, "{key} in ({})", values.join(","))?,
                Term::NotIn(key, values) => write!(f, "{key} notin ({})", values.join(","))?,
                Term::Exists(key) => f.write_str(key)?,
                Term::DoesNotExist(key) => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

/// What Kubernetes takes as a label.
pub(crate) mod label {
    const NAME: usize = 63;
    const PREFIX: usize = 253;

    /// What is wrong with a key.
    pub(crate) fn key_fault(key: &str) -> Option<String> {
        let (prefix, name) = match key.split_once('/') {
            Some((prefix, name)) => (Some(prefix), name),
            None => (None, key),
        };
        if name.is_empty() || !is_name(name) {
            return Some(format!(
                "{key:?} is no label: its name has letters, digits, '-', '_' and '.', at most {NAME}"
            ));
        }
        let good = |prefix: &str| {
            let part = |part: &str| {
                let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                !part.is_empty() && part.chars().all(inside) && !part.starts_with('-') && !part.ends_with('-')
            };
            prefix.len() <= PREFIX && prefix.split('.').all(part)
        };
        prefix
            .filter(|prefix| !good(prefix))
            .map(|prefix| format!("{key:?} is no label: {prefix:?} is no DNS name"))
    }

    /// What is wrong with a value.
    pub(crate) fn value_fault(value: &str) -> Option<String> {
        (!value.is_empty() && !is_name(value)).then(|| {
            format!("{value:?} is no label value: letters, digits, '-', '_' and '.', at most {NAME}")
        })
    }

    fn is_name(text: &str) -> bool {
        let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        text.len() <= NAME
            && text.chars().all(inside)
            && edge(text.chars().next())
            && edge(text.chars().next_back())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Requirement {
        Requirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        }
    }

    fn with(match_labels: &[(&str, &str)], match_expressions: Vec<Requirement>) -> KataConfigSpec {
        let selector = NodeSelector { match_labels: labels(match_labels), match_expressions };
        KataConfigSpec { kata_config_pool_selector: Some(selector), ..KataConfigSpec::default() }
    }

    #[test]
    fn without_a_selector_every_worker_is_meant() {
        let all = of_user(&KataConfigSpec::default()).unwrap();
        assert!(all.matches(&labels(&[])));
        assert_eq!(all.to_string(), "every worker");
    }

    #[test]
    fn each_operator_means_what_kubernetes_means() {
        for (expression, node, meant) in [
            (expression("a", "In", &["1", "2"]), vec![("a", "2")], true),
            (expression("a", "In", &["1", "2"]), vec![("a", "3")], false),
            (expression("a", "In", &["1"]), vec![], false),
            (expression("a", "NotIn", &["1"]), vec![("a", "2")], true),
            (expression("a", "NotIn", &["1"]), vec![], true),
            (expression("a", "NotIn", &["1"]), vec![("a", "1")], false),
            (expression("a", "Exists", &[]), vec![("a", "")], true),
            (expression("a", "Exists", &[]), vec![("b", "")], false),
            (expression("a", "DoesNotExist", &[]), vec![("b", "")], true),
            (expression("a", "DoesNotExist", &[]), vec![("a", "")], false),
        ] {
            let selector = of_user(&with(&[], vec![expression.clone()])).unwrap();
            assert_eq!(selector.matches(&labels(&node)), meant, "{expression:?} on {node:?}");
        }
    }

    #[test]
    fn eligibility_is_one_more_label() {
        let spec = KataConfigSpec { check_node_eligibility: true, ..with(&[("zone", "a")], Vec::new()) };
        let selector = of_user(&spec).unwrap();
        assert!(!selector.matches(&labels(&[("zone", "a")])));
        assert!(selector.matches(&labels(&[("zone", "a"), (names::ELIGIBLE_LABEL, "true")])));
        assert_eq!(selector.to_string(), "zone=a,feature.node.kubernetes.io/runtime.kata=true");
    }

    #[test]
    fn every_fault_is_told_with_its_field() {
        let spec = with(
            &[("a b", "x"), ("fine", "-x")],
            vec![
                expression("a", "Foo", &[]),
                expression("a", "In", &[]),
                expression("a", "Exists", &["x"]),
                expression("UP.er/a", "Exists", &[]),
                expression("ok.org/a", "Exists", &[]),
            ],
        );
        let faults = of_user(&spec).unwrap_err();
        let paths: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "spec.kataConfigPoolSelector.matchLabels[a b]",
                "spec.kataConfigPoolSelector.matchLabels[fine]",
                "spec.kataConfigPoolSelector.matchExpressions[0].operator",
                "spec.kataConfigPoolSelector.matchExpressions[1].values",
                "spec.kataConfigPoolSelector.matchExpressions[2].values",
                "spec.kataConfigPoolSelector.matchExpressions[3].key",
            ]
        );
    }
}
