//! Writes, in two steps: a *draft* is what a request makes of the state, and *commit* stores it if nothing moved meanwhile. Between the two
//! a caller may ask webhooks, which takes time and holds no lock.
//!
//! ```text
//!  create ┐
//!  update ├─▶ Draft ──(admission)──▶ commit ──▶ validate, count the generation, store or remove
//!  patch  ┘
//!  delete ───▶ Draft or removal ─────▶ commit
//! ```
//!
//! Who owns which field is `fields`; what a custom kind's schema wants is `schema`.

mod commit;
mod create;
mod delete;
mod immutable;
mod runtime_class;
mod update;

use std::sync::Arc;

use serde_json::Value;

use crate::fields::Manager;
use crate::kinds::Kind;
use crate::object;
use crate::refusal::Refusal;
use crate::store::Key;
use crate::target::Query;

pub(crate) use commit::commit;
pub(crate) use create::{create, found_namespace};
pub(crate) use delete::{Deletion, FOREGROUND, ORPHAN, Removal, carry_out, delete, evict};
pub(crate) use update::{apply, patch, replace};

/// A write as it was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    /// Empty for a creation.
    pub(crate) name: String,
    /// Empty, or `status`, or `finalize`.
    pub(crate) subresource: String,
    /// Who writes, for `managedFields`.
    pub(crate) manager: String,
    pub(crate) force: bool,
    pub(crate) dry_run: bool,
}

impl Call {
    /// `agent` stands in for a field manager that was not named.
    pub(crate) fn new(
        kind: Kind,
        target: &crate::target::Target,
        query: &Query,
        agent: &str,
    ) -> Result<Self, Refusal> {
        let dry_run = match query.text("dryRun") {
            "" => false,
            "All" => true,
            other => return Err(Refusal::bad_request(format!("dryRun: Unsupported value: {other:?}"))),
        };
        let agent = agent.split('/').next().unwrap_or_default();
        let named = [query.text("fieldManager"), agent].into_iter().find(|name| !name.is_empty());
        let manager = named.unwrap_or("unknown");
        Ok(Self {
            kind,
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            subresource: target.subresource.clone(),
            manager: manager.to_owned(),
            force: query.is_true("force"),
            dry_run,
        })
    }

    fn key(&self) -> Key {
        self.kind.key(&self.namespace, &self.name)
    }

    fn manager(&self) -> Manager<'_> {
        Manager { name: &self.manager, subresource: &self.subresource }
    }
}

/// What a request makes of an object, not yet stored.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) key: Key,
    /// The object it was made from; none when it is created.
    pub(crate) before: Option<Arc<Value>>,
    pub(crate) object: Value,
}

/// Refuses a body that is about something else than the path.
fn fits(call: &Call, body: &Value) -> Result<(), Refusal> {
    if !body.is_object() {
        return Err(Refusal::bad_request("the body of the request was not an object"));
    }
    for (field, expected) in [("apiVersion", call.kind.api_version()), ("kind", call.kind.kind.clone())] {
        let said = object::text(body, &format!("/{field}"));
        if !said.is_empty() && said != expected {
            return Err(Refusal::bad_request(format!(
                "the {field} of the provided object ({said}) does not match the one expected ({expected})"
            )));
        }
    }
    let said = object::namespace(body);
    if call.kind.is_namespaced() && !said.is_empty() && said != call.namespace {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let said = object::name(body);
    if !call.name.is_empty() && !said.is_empty() && said != call.name {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({said}) does not match the name on the URL ({})",
            call.name
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
