//! Deletions: at once, or a mark that finalizers, a grace period or the collector have to follow.

use std::sync::Arc;

use serde_json::Value;

use super::{Call, Draft, commit};
use crate::object;
use crate::refusal::Refusal;
use crate::selector::Selector;
use crate::store::{Key, Store};

/// What the collector has to do before the object goes.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The same, where dependents stay.
pub(crate) const ORPHAN: &str = "orphan";
/// How long a pod that runs may take when nobody says.
const POD_GRACE: u64 = 30;

/// `DeleteOptions`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deletion {
    uid: Option<String>,
    version: Option<String>,
    grace: Option<u64>,
    propagation: String,
    dry_run: bool,
}

/// What becomes of an object that is deleted.
#[derive(Debug)]
pub(crate) enum Removal {
    /// It goes now.
    Gone(Key, Arc<Value>),
    /// It is marked, and goes later.
    Marked(Box<Draft>),
}

impl Deletion {
    pub(crate) fn of(options: &Value) -> Self {
        let given = |pointer| options.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        Self {
            uid: given("/preconditions/uid"),
            version: given("/preconditions/resourceVersion"),
            grace: options["gracePeriodSeconds"].as_u64(),
            propagation: object::text(options, "/propagationPolicy").to_owned(),
            dry_run: !object::items(options, "/dryRun").is_empty(),
        }
    }

    fn holds(&self, call: &Call, live: &Value) -> Result<(), Refusal> {
        for (word, asked, is) in
            [("UID", &self.uid, object::uid(live)), ("ResourceVersion", &self.version, object::version(live))]
        {
            if let Some(asked) = asked.as_deref().filter(|asked| *asked != is) {
                let why = format!(
                    "Precondition failed: {word} in precondition: {asked}, {word} in object meta: {is}"
                );
                return Err(Refusal::conflict(&call.kind, &call.name, &why));
            }
        }
        Ok(())
    }

    /// How long this object may take. Only a pod that a kubelet has in hand takes any time.
    fn grace(&self, call: &Call, live: &Value) -> u64 {
        let ended = ["Succeeded", "Failed"].contains(&object::text(live, "/status/phase"));
        if !call.kind.is("Pod") || object::text(live, "/spec/nodeName").is_empty() || ended {
            return 0;
        }
        let own = live.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64);
        self.grace.or(own).unwrap_or(POD_GRACE)
    }
}

/// What a DELETE makes of the object.
pub(crate) fn delete(store: &Store, call: &Call, how: &Deletion) -> Result<Removal, Refusal> {
    let key = call.key();
    let live = store.get(&key).ok_or_else(|| Refusal::not_found(&call.kind, &call.name))?;
    how.holds(call, live)?;
    let mut finalizers = object::finalizers(live);
    let asked = match how.propagation.as_str() {
        "Foreground" => Some(FOREGROUND),
        "Orphan" => Some(ORPHAN),
        _ => None,
    };
    finalizers.extend(asked.filter(|asked| !finalizers.contains(asked)));
    let grace = how.grace(call, live);
    if finalizers.is_empty() && grace == 0 && !call.kind.is("Namespace") {
        return Ok(Removal::Gone(key, live.clone()));
    }
    let mut object = Value::clone(live);
    if !object::is_being_deleted(live) {
        object::set_finalizers(&mut object, &finalizers);
    }
    mark(&mut object, grace);
    if call.kind.is("Namespace") {
        object["status"]["phase"] = "Terminating".into();
    }
    Ok(Removal::Marked(Box::new(Draft { key, before: Some(live.clone()), object })))
}

/// Stores what was decided. Nothing can have moved: the store was not given back in between. The answer is the object's last state.
pub(crate) fn carry_out(
    store: &mut Store,
    call: &Call,
    how: &Deletion,
    removal: Removal,
) -> Result<Arc<Value>, Refusal> {
    let call = Call { dry_run: call.dry_run || how.dry_run, ..call.clone() };
    match removal {
        Removal::Gone(_, live) if call.dry_run => Ok(live),
        Removal::Gone(key, _) => store.remove(&key).ok_or_else(|| Refusal::not_found(&call.kind, &call.name)),
        Removal::Marked(draft) => {
            commit(store, &call, *draft)?.ok_or_else(|| Refusal::modified(&call.kind, &call.name))
        }
    }
}

/// Sets the deletion's time, once. A shorter grace period counts, a longer one does not.
fn mark(object: &mut Value, grace: u64) {
    let meta = object::metadata(object);
    if meta.contains_key("deletionTimestamp") {
        let old = meta.get("deletionGracePeriodSeconds").and_then(Value::as_u64).unwrap_or_default();
        meta.insert("deletionGracePeriodSeconds".into(), old.min(grace).into());
        return;
    }
    meta.insert("deletionTimestamp".into(), object::now().into());
    meta.insert("deletionGracePeriodSeconds".into(), grace.into());
    if let Some(generation) = meta.get("generation").and_then(Value::as_u64) {
        meta.insert("generation".into(), (generation + 1).into());
    }
}

/// An eviction is a deletion that disruption budgets may forbid. A budget's `status.disruptionsAllowed` is taken as it stands: nobody
/// computes it here but the test.
pub(crate) fn evict(store: &Store, call: &Call, how: &Deletion) -> Result<Removal, Refusal> {
    let live = store.get(&call.key()).ok_or_else(|| Refusal::not_found(&call.kind, &call.name))?;
    let budgets = store.list("poddisruptionbudgets.policy", &call.namespace);
    let refused = budgets.map(|(_, budget)| budget).find(|budget| {
        Selector::of_labels(&budget["spec"]["selector"]).matches(live)
            && budget.pointer("/status/disruptionsAllowed").and_then(Value::as_u64).unwrap_or_default() == 0
    });
    if refused.is_some() {
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        return Err(Refusal::new(429, "TooManyRequests", message));
    }
    delete(store, call, how)
}
