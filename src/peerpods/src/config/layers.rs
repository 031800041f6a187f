//! The three layers as they were found, before anybody judges them: file, environment, flags.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Origin};
use super::keys::{self, KEYS, Key, Reveal};

/// The environment, read through one small door so that a test can hand in a map.
pub trait Environment {
    /// The value of a variable, if it is set.
    fn get(&self, name: &str) -> Option<OsString>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }
}

impl Environment for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<OsString> {
        BTreeMap::get(self, name).map(OsString::from)
    }
}

/// A value as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// One value; numbers and truth values in their decimal or word form.
    Text(String),
    /// Several, from an array of the file.
    List(Vec<String>),
}

impl Written {
    /// The value on one line, for messages.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Written::Text(text) => text.clone(),
            Written::List(list) => list.join(","),
        }
    }
}

/// A key with a value and the place it was written at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// Which key.
    pub key: &'static Key,
    /// Its value.
    pub written: Written,
    /// Its place.
    pub origin: Origin,
}

/// What one source said, and what in it could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layer {
    /// The values.
    pub values: Vec<Raw>,
    /// What was not understood.
    pub faults: Vec<Fault>,
}

/// Reads the text of a configuration file. Unknown keys and wrong types are faults.
#[must_use]
pub fn file(path: &Path, text: &str) -> Layer {
    let source = Source { path, text };
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut layer = Layer::default();
    layer.faults.extend(errors.iter().map(|error| source.syntax(error)));
    // After a syntax error the rest of the tree is a guess; its other faults would mislead.
    if errors.is_empty() {
        source.table("", table.get_ref(), &mut layer);
    }
    layer
}

struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn at(&self, offset: usize) -> Origin {
        let before = self.text.get(..offset).unwrap_or(self.text);
        Origin::File { path: self.path.to_owned(), line: 1 + before.matches('\n').count() }
    }

    fn syntax(&self, error: &toml::de::Error) -> Fault {
        Fault {
            key: "file".to_owned(),
            origin: self.at(error.span().map_or(0, |span| span.start)),
            value: None,
            expected: format!("is no TOML: {}", error.message().replace('\n', ", ")),
        }
    }

    fn table(&self, prefix: &str, table: &DeTable<'_>, layer: &mut Layer) {
        for (name, value) in table {
            let full = format!("{prefix}{}", name.get_ref());
            let origin = self.at(name.span().start);
            match (keys::find(&full), value.get_ref()) {
                (Some(key), _) => self.value(key, value, origin, layer),
                (None, DeValue::Table(inner)) if is_table(&full) => {
                    self.table(&format!("{full}."), inner, layer);
                }
                (None, _) => layer.faults.push(unknown(full, origin)),
            }
        }
    }

    fn value(&self, key: &'static Key, value: &Spanned<DeValue<'_>>, origin: Origin, layer: &mut Layer) {
        match written(value.get_ref()) {
            Some(written) => layer.values.push(Raw { key, written, origin }),
            None => layer.faults.push(Fault {
                key: key.name.to_owned(),
                origin,
                value: None,
                expected: format!(
                    "is a TOML {}; {} is written as a string",
                    value.get_ref().type_str(),
                    key.value
                ),
            }),
        }
    }
}

/// Whether keys of ours lie in a table of that name.
fn is_table(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

fn unknown(key: String, origin: Origin) -> Fault {
    let expected = match keys::nearest(&key) {
        Some(near) => format!("there is no such key; did you mean {near:?}?"),
        None => "there is no such key; `peerpods config show` lists all of them".to_owned(),
    };
    Fault { key, origin, value: None, expected }
}

fn written(value: &DeValue<'_>) -> Option<Written> {
    match value {
        DeValue::Array(array) => {
            let items: Option<Vec<String>> = array.iter().map(|item| scalar(item.get_ref())).collect();
            items.map(Written::List)
        }
        other => scalar(other).map(Written::Text),
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// Reads the variables of all keys. Set but empty counts as unset, as in `peer-pods-cm`.
#[must_use]
pub fn environment(environment: &dyn Environment) -> Layer {
    let mut layer = Layer::default();
    for key in KEYS {
        let origin = Origin::Variable { name: key.variable.to_owned() };
        match environment.get(key.variable).map(OsString::into_string) {
            None => {}
            Some(Ok(text)) if text.is_empty() => {}
            Some(Ok(text)) => layer.values.push(Raw { key, written: Written::Text(text), origin }),
            Some(Err(bytes)) => layer.faults.push(Fault {
                key: key.name.to_owned(),
                origin,
                value: (key.reveal == Reveal::Value).then(|| bytes.to_string_lossy().into_owned()),
                expected: "must be UTF-8".to_owned(),
            }),
        }
    }
    layer
}

/// An option given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagValue {
    /// The key it sets.
    pub key: &'static Key,
    /// What was given.
    pub text: String,
}

/// The options of the command line.
#[must_use]
pub fn flags(flags: &[FlagValue]) -> Layer {
    let values = flags.iter().map(|flag| Raw {
        key: flag.key,
        written: Written::Text(flag.text.clone()),
        origin: Origin::Flag { name: format!("--{}", flag.key.flag) },
    });
    Layer { values: values.collect(), faults: Vec::new() }
}
