//! The files of `deploy/`: each a list of objects in the order in which they are applied, and the table of rights for people.

use std::fmt::Write as _;

use serde_json::Value;

use super::rights::{HOLDERS, Right, Scope};
use super::{access, monitoring, workload};

/// A file and what is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct File {
    /// Its path below `deploy/`. The order of names is that of applying.
    pub path: &'static str,
    /// Its objects.
    pub objects: Vec<Value>,
}

/// All files with objects, but the definitions of the custom resources.
#[must_use]
pub fn all() -> Vec<File> {
    let file = |path, objects| File { path, objects };
    vec![
        file("operator/00-namespace.yaml", vec![workload::namespace()]),
        file("operator/10-access.yaml", access::everywhere()),
        file("operator/20-operator.yaml", workload::operator()),
        file("operator/30-monitoring.yaml", monitoring::everywhere()),
        file("operator/40-webhook.yaml", vec![workload::asking()]),
        file("openshift/10-access.yaml", access::on_openshift()),
        file("openshift/30-monitoring.yaml", monitoring::on_openshift()),
    ]
}

impl File {
    /// For kubectl.
    ///
    /// # Errors
    /// None in practice: objects can be written.
    pub fn yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        let mut text = String::from("# Made by `make manifests`.\n");
        for object in &self.objects {
            text.push_str("---\n");
            text.push_str(&serde_saphyr::to_string(object)?);
        }
        Ok(text)
    }
}

/// Who may do what and why, as tables.
#[must_use]
pub fn rights() -> String {
    let mut text = String::new();
    for holder in &HOLDERS {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "### `{}`: {}\n", holder.account, holder.about);
        if holder.rights.is_empty() {
            text.push_str("No rights.\n\n");
            continue;
        }
        text.push_str("| where | resource | names | may | what for |\n|---|---|---|---|---|\n");
        for right in holder.rights {
            text.push_str(&row(right));
        }
        text.push('\n');
    }
    text
}

fn row(right: &Right) -> String {
    let place = match right.scope {
        Scope::Cluster => "cluster".to_owned(),
        Scope::Own => "own namespace".to_owned(),
        Scope::OpenShift(namespace) => format!("`{namespace}`"),
    };
    let resource = match right.group {
        "" => right.resource.to_owned(),
        group => format!("{}.{group}", right.resource),
    };
    let names = if right.names.is_empty() { "all".to_owned() } else { right.names.join(", ") };
    format!("| {place} | {resource} | {names} | {} | {} |\n", right.verbs.join(", "), right.why)
}

#[cfg(test)]
mod tests;
