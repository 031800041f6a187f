//! What is applied to a cluster before anything of ours runs: the operator itself, and who may do what. Pure; `deploy/` holds what is made
//! here, and a test compares.
//!
//! ```text
//!   rights     every right there is, one line each with its reason: the one table behind roles, README and the test that none is too many
//!   access     accounts, roles and bindings, made of that table
//!   workload   the operator's Deployment and what stands beside it
//!   monitoring what Prometheus and the console read
//!   files      all of it as files
//!   chart      the same as a Helm chart
//! ```
//!
//! Not here: the definitions of the custom resources (`peerpods-crds`), and what the operator makes once it runs (`kataconfig`,
//! `peerpodconfig`, `webhook::configuration`).

pub mod access;
pub mod chart;
pub mod files;
pub mod monitoring;
pub mod rights;
pub mod workload;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The operator: its Deployment, its ServiceAccount, its roles and its Lease.
pub const OPERATOR: &str = "peerpods-operator";

/// What all objects of `deploy/` are labelled with, and what they are a part of.
fn labels(component: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/component", component),
        ("app.kubernetes.io/managed-by", "peerpods"),
        ("app.kubernetes.io/name", "peerpods"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn named(name: &str, namespace: Option<&str>, component: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some(labels(component)),
        ..ObjectMeta::default()
    }
}
