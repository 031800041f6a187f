//! Merging the layers and handing out typed values one key at a time, while faults and effective values are written down.

use std::collections::BTreeMap;

use serde::Serialize;

use super::fault::{Fault, Origin};
use super::keys::{self, Reveal};
use super::kinds::Kind;
use super::layers::{Layer, Raw};

/// A key's effective value, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// The key.
    pub key: &'static str,
    /// Its value; `null` when it has none, a description when it must not be shown.
    pub value: serde_json::Value,
    /// Where it came from.
    pub source: Origin,
}

/// The merged layers, being read.
pub struct Door {
    merged: BTreeMap<&'static str, Raw>,
    faults: Vec<Fault>,
    shown: Vec<Shown>,
}

impl Door {
    /// Merges layers; of two that name a key the later wins.
    #[must_use]
    pub fn new(layers: Vec<Layer>) -> Self {
        let mut door = Self { merged: BTreeMap::new(), faults: Vec::new(), shown: Vec::new() };
        for layer in layers {
            door.faults.extend(layer.faults);
            door.merged.extend(layer.values.into_iter().map(|raw| (raw.key.name, raw)));
        }
        door
    }

    /// The value of a key, or its default.
    pub fn take<T>(&mut self, key: &'static str, default: T, kind: &Kind<T>) -> T {
        let (value, source) = match self.read(key, kind) {
            Some((value, source)) => (value, source),
            None => (default, Origin::Default),
        };
        self.show(key, (kind.show)(&value), source);
        value
    }

    /// The value of a key that has no default.
    pub fn take_optional<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Option<T> {
        let read = self.read(key, kind);
        let shown = read.as_ref().map_or(serde_json::Value::Null, |(value, _)| (kind.show)(value));
        let source = read.as_ref().map_or(Origin::Default, |(_, source)| source.clone());
        self.show(key, shown, source);
        read.map(|(value, _)| value)
    }

    /// Notes a fault of a value that is well-formed, but does not fit what else is configured.
    pub fn refuse(&mut self, key: &'static str, expected: impl Into<String>) {
        let raw = self.merged.get(key);
        self.faults.push(Fault {
            key: key.to_owned(),
            origin: raw.map_or(Origin::Default, |raw| raw.origin.clone()),
            value: raw.filter(|_| may_be_shown(key)).map(|raw| raw.written.line()),
            expected: expected.into(),
        });
    }

    /// The effective values and the faults.
    #[must_use]
    pub fn close(self) -> (Vec<Shown>, Vec<Fault>) {
        (self.shown, self.faults)
    }

    fn read<T>(&mut self, key: &'static str, kind: &Kind<T>) -> Option<(T, Origin)> {
        let raw = self.merged.get(key)?;
        match (kind.read)(&raw.written) {
            Ok(value) => Some((value, raw.origin.clone())),
            Err(expected) => {
                self.refuse(key, expected);
                None
            }
        }
    }

    fn show(&mut self, key: &'static str, value: serde_json::Value, source: Origin) {
        let hidden = || format!("(set, {} characters)", value.as_str().map_or(0, str::len)).into();
        let value = if may_be_shown(key) || value.is_null() { value } else { hidden() };
        self.shown.push(Shown { key, value, source });
    }
}

fn may_be_shown(key: &str) -> bool {
    keys::find(key).is_none_or(|key| key.reveal == Reveal::Value)
}
