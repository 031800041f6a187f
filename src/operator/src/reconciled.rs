//! What controllers write to the object they reconcile: our finalizer, its status, and Events about it. Each is written alone, and only
//! when it differs.

use std::error::Error;
use std::fmt::Debug;

use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::names;

/// As much of a text as an Event may have, in characters.
const NOTE: usize = 1000;

/// Why an object that is reconciled could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The API server refused.
    #[error("cannot write the {part} of {kind} {name}")]
    Refused {
        /// Which part.
        part: &'static str,
        /// The object's kind.
        kind: String,
        /// Its name.
        name: String,
        /// What the API server said.
        source: kube::Error,
    },
    /// Somebody changed its finalizers, or made another object of its name: what is to be done is decided anew.
    #[error("the finalizers of {kind} {name} were changed by somebody else meanwhile")]
    Overtaken {
        /// The object's kind.
        kind: String,
        /// Its name.
        name: String,
    },
}

/// Whether a finalizer is to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finalizer {
    /// It is.
    There,
    /// It is not.
    Gone,
}

/// Puts a finalizer, or takes it away, and leaves everybody else's. Ok when the object is gone.
///
/// # Errors
/// [`WriteError::Overtaken`] when others' finalizers are not those that were seen, else what the API server said.
pub async fn finalizer<K>(api: &Api<K>, seen: &K, name: &str, wanted: Finalizer) -> Result<(), WriteError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let has = seen.finalizers().iter().any(|one| one == name);
    if has == (wanted == Finalizer::There) {
        return Ok(());
    }
    // The status may have been written meanwhile: the version is that of now, and the finalizers are compared by it.
    let now = api.get_metadata_opt(&seen.name_any()).await.map_err(refused("finalizers", seen))?;
    let Some(now) = now else { return Ok(()) };
    if now.uid() != seen.uid() || now.finalizers() != seen.finalizers() {
        return Err(WriteError::Overtaken { kind: K::kind(&()).into_owned(), name: seen.name_any() });
    }
    let others = seen.finalizers().iter().filter(|one| *one != name).map(String::as_str);
    let all: Vec<&str> = others.chain((wanted == Finalizer::There).then_some(name)).collect();
    let patch = json!({ "metadata": { "finalizers": all, "resourceVersion": now.resource_version() } });
    let written = api.patch(&seen.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
    gone_is_ok(written).map_err(refused("finalizers", seen))
}

/// Writes a status whole: fields that are no longer there must go. Ok when the object is gone.
///
/// # Errors
/// What the API server said; also when it is another object of the same name.
pub async fn status<K>(api: &Api<K>, seen: &K, status: &impl Serialize) -> Result<(), WriteError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let patch = json!([
        { "op": "test", "path": "/metadata/uid", "value": seen.uid() },
        { "op": "add", "path": "/status", "value": status },
    ]);
    let patch: json_patch::Patch =
        serde_json::from_value(patch).map_err(kube::Error::SerdeError).map_err(refused("status", seen))?;
    let patch = Patch::Json::<()>(patch);
    let written = api.patch_status(&seen.name_any(), &PatchParams::default(), &patch).await;
    gone_is_ok(written).map_err(refused("status", seen))
}

fn gone_is_ok<T>(written: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match written {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        done => done.map(drop),
    }
}

fn refused<K: Resource<DynamicType = ()>>(
    part: &'static str,
    seen: &K,
) -> impl FnOnce(kube::Error) -> WriteError {
    let (kind, name) = (K::kind(&()).into_owned(), seen.name_any());
    move |source| WriteError::Refused { part, kind, name, source }
}

/// What is told in an Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Whether somebody has to do something.
    pub warning: bool,
    /// One word.
    pub reason: String,
    /// For people.
    pub text: String,
}

/// Tells Events about the objects that a controller reconciles.
#[derive(Clone)]
pub struct Teller(Recorder);

impl Teller {
    /// One for a controller.
    #[must_use]
    pub fn new(client: &Client) -> Self {
        let reporter = Reporter { controller: names::FIELD_MANAGER.to_owned(), instance: None };
        Self(Recorder::new(client.clone(), reporter))
    }

    /// Tells notes of an object. One that cannot be told is a line in the log: it is no reason to do anything again.
    pub async fn tell<K: Resource<DynamicType = ()>>(&self, about: &K, notes: Vec<Note>) {
        for note in notes {
            let event = Event {
                type_: if note.warning { EventType::Warning } else { EventType::Normal },
                reason: note.reason,
                note: Some(note.text.chars().take(NOTE).collect()),
                action: "Reconcile".to_owned(),
                secondary: None,
            };
            if let Err(error) = self.0.publish(&event, &about.object_ref(&())).await {
                let error: &dyn Error = &error;
                tracing::warn!(error, object = about.name_any(), "an Event was not told");
            }
        }
    }
}

/// The text of a failure, given the one that was told last. Of the same step the first text stays: what an API server says may have other ports
/// or times in it at each try, and each write would cause the next.
#[must_use]
pub fn told_once(before: Option<&str>, now: String) -> String {
    let step = |text: &str| text.split(": ").next().map(str::to_owned);
    match before {
        Some(before) if step(before) == step(&now) => before.to_owned(),
        _ => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_steps_failure_is_not_told_anew_and_another_steps_is() {
        let told = |before: Option<&str>, now: &str| told_once(before, now.to_owned());
        let first = "cannot apply RuntimeClass kata: reset by 10.0.0.1:43210";
        assert_eq!(told(None, first), first);
        assert_eq!(told(Some(first), "cannot apply RuntimeClass kata: reset by 10.0.0.1:9"), first);
        let other = "cannot apply Secret a: no";
        assert_eq!(told(Some(first), other), other);
    }
}
