//! What is read of an object of ours before its spec is: enough to let it be deleted, whatever an older version let it hold.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::faults::Fault;

/// An object whose spec is not read yet.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Stored {
    /// Its name, and whether it is being deleted.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default)]
    pub spec: Value,
}

impl Stored {
    /// Whether it goes away as soon as nobody holds it any more.
    #[must_use]
    pub fn is_being_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Its spec; one that is missing or null is an empty one.
    ///
    /// # Errors
    /// The field that cannot be read.
    pub fn spec<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        let spec = match &self.spec {
            Value::Null => &Value::Object(Map::new()),
            spec => spec,
        };
        serde_path_to_error::deserialize(spec).map_err(|error| {
            let path = error.path().to_string();
            let field = if path == "." { "spec".to_owned() } else { format!("spec.{path}") };
            Fault::new(field, error.into_inner().to_string())
        })
    }
}

/// What is new among faults. An object that was stored with faults, by an older version or while no webhook was there, may be changed
/// (a finalizer set, a label, another field mended) as long as that makes nothing worse.
#[must_use]
pub fn new_faults(mut now: Vec<Fault>, before: &[Fault]) -> Vec<Fault> {
    now.retain(|fault| !before.contains(fault));
    now
}
