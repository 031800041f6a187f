//! Answers that change nothing: one object, a list, and which events a change makes for a watch.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::refusal::Refusal;
use crate::selector::Selector;
use crate::store::{Change, Key, Store};
use crate::target::Query;

/// How objects are shown: whole, or their metadata alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    Metadata,
}

impl Form {
    /// By the `Accept` header. What we cannot make (tables) is answered whole, which clients accept as well.
    pub(crate) fn accepted(header: &str) -> Self {
        let first = header.split(',').next().unwrap_or_default();
        if first.contains("as=PartialObjectMetadata") { Self::Metadata } else { Self::Whole }
    }

    pub(crate) fn show(self, kind: &Kind, stored: &Value) -> Value {
        let shown = kind.present(stored);
        match self {
            Self::Whole => shown,
            Self::Metadata => json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": shown["metadata"],
            }),
        }
    }
}

/// Refuses a version that has not been yet, as a real server does after waiting for it in vain.
pub(crate) fn not_from_the_future(store: &Store, asked: u64) -> Result<(), Refusal> {
    if asked <= store.version() {
        return Ok(());
    }
    let message = format!("Too large resource version: {asked}, current: {}", store.version());
    let mut refusal = Refusal::new(504, "Timeout", message);
    let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
    refusal.details = json!({"causes": [cause], "retryAfterSeconds": 1});
    Err(refusal)
}

pub(crate) fn get(
    store: &Store,
    kind: &Kind,
    namespace: &str,
    name: &str,
    form: Form,
) -> Result<Value, Refusal> {
    let found = store.get(&kind.key(namespace, name)).ok_or_else(|| Refusal::not_found(kind, name))?;
    Ok(form.show(kind, found))
}

/// A page of a list. Pages are cut from the objects as they are now, not as they were at the first page.
pub(crate) fn list(
    store: &Store,
    kind: &Kind,
    namespace: &str,
    query: &Query,
    form: Form,
) -> Result<Value, Refusal> {
    let selector = Selector::parse(kind, query.text("labelSelector"), query.text("fieldSelector"))?;
    let after = Token::read(store, query.text("continue"))?;
    version_wanted(store, query)?;
    let resource = kind.resource();
    let limit = query
        .number("limit")
        .filter(|limit| *limit > 0)
        .map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let namespace = if kind.is_namespaced() { namespace } else { "" };
    let mut rest = store
        .list(&resource, namespace)
        .filter(|(key, object)| {
            after.as_ref().is_none_or(|token| token.is_before(key)) && selector.matches(object)
        })
        .peekable();
    let mut items = Vec::new();
    let mut last = None;
    while items.len() < limit
        && let Some((key, object)) = rest.next()
    {
        items.push(form.show(kind, object));
        last = Some(key);
    }
    let version = after.as_ref().map_or(store.version(), |token| token.version);
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if rest.peek().is_some()
        && let Some(last) = last
    {
        metadata["continue"] = Token::of(version, last).write().into();
        metadata["remainingItemCount"] = rest.count().into();
    }
    let (api_version, list_kind) = match form {
        Form::Whole => (kind.api_version(), format!("{}List", kind.kind)),
        Form::Metadata => ("meta.k8s.io/v1".into(), "PartialObjectMetadataList".into()),
    };
    Ok(json!({"apiVersion": api_version, "kind": list_kind, "metadata": metadata, "items": items}))
}

fn version_wanted(store: &Store, query: &Query) -> Result<(), Refusal> {
    let Some(asked) = query.number("resourceVersion") else { return Ok(()) };
    not_from_the_future(store, asked)?;
    if query.text("resourceVersionMatch") == "Exact" && asked != store.version() {
        return Err(Refusal::expired(asked, store.version()));
    }
    Ok(())
}

/// Where a list goes on: which version the first page had, and the last object shown.
struct Token {
    version: u64,
    namespace: String,
    name: String,
}

impl Token {
    fn of(version: u64, key: &Key) -> Self {
        Self { version, namespace: key.namespace.clone(), name: key.name.clone() }
    }

    fn write(&self) -> String {
        STANDARD.encode(format!("{} {} {}", self.version, self.namespace, self.name))
    }

    fn read(store: &Store, text: &str) -> Result<Option<Self>, Refusal> {
        if text.is_empty() {
            return Ok(None);
        }
        let bad = || Refusal::bad_request("continue key is not valid");
        let decoded =
            STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(bad)?;
        let mut parts = decoded.splitn(3, ' ');
        let version = parts.next().and_then(|version| version.parse().ok()).ok_or_else(bad)?;
        if version < store.oldest() {
            let message = "The provided continue parameter is too old to display a consistent list result.";
            return Err(Refusal::new(410, "Expired", message));
        }
        let mut part = || parts.next().map(str::to_owned).ok_or_else(bad);
        Ok(Some(Self { version, namespace: part()?, name: part()? }))
    }

    fn is_before(&self, key: &Key) -> bool {
        (key.namespace.as_str(), key.name.as_str()) > (self.namespace.as_str(), self.name.as_str())
    }
}

/// What is watched.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) kind: Kind,
    /// Empty: all.
    pub(crate) namespace: String,
    pub(crate) selector: Selector,
    pub(crate) form: Form,
}

impl Watched {
    /// What it watches, such as `configmaps`.
    pub(crate) fn resource(&self) -> &str {
        &self.kind.plural
    }

    /// The event a change is for this watch, if it is one. An object that comes to match is added, one that no longer matches is deleted.
    pub(crate) fn event(&self, change: &Change) -> Option<Value> {
        if change.key.resource != self.kind.resource()
            || !(self.namespace.is_empty() || self.namespace == change.key.namespace)
        {
            return None;
        }
        let before = change.before.as_ref().is_some_and(|object| self.selector.matches(object));
        let after = !change.deleted && self.selector.matches(&change.object);
        let word = match (before, after) {
            (false, false) => return None,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        Some(json!({"type": word, "object": self.form.show(&self.kind, &change.object)}))
    }

    /// What is there already, as added.
    pub(crate) fn present(&self, store: &Store) -> Vec<Value> {
        store
            .list(&self.kind.resource(), &self.namespace)
            .filter(|(_, object)| self.selector.matches(object))
            .map(|(_, object)| json!({"type": "ADDED", "object": self.form.show(&self.kind, object)}))
            .collect()
    }

    /// That nothing up to `version` is outstanding.
    pub(crate) fn bookmark(&self, version: u64, initial_end: bool) -> Value {
        let mut metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (api_version, kind) = match self.form {
            Form::Whole => (self.kind.api_version(), self.kind.kind.clone()),
            Form::Metadata => ("meta.k8s.io/v1".into(), "PartialObjectMetadata".into()),
        };
        json!({"type": "BOOKMARK", "object": {"apiVersion": api_version, "kind": kind, "metadata": metadata}})
    }
}

#[cfg(test)]
mod tests;
