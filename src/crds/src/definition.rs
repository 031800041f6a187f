//! The definitions (CRDs) as objects and as YAML. What `deploy/crds` holds is made here.
//!
//! A `spec` that is missing or null is an empty one: then the API server fills in the defaults, which it does not do below what is absent.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps,
};
use kube::CustomResourceExt;
use serde_json::json;

use crate::{KataConfig, PeerPod, PeerPodConfig};

/// A custom resource's definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The object.
    pub object: CustomResourceDefinition,
}

/// All definitions, in the order of their names.
#[must_use]
pub fn all() -> Vec<Definition> {
    [KataConfig::crd(), PeerPodConfig::crd(), PeerPod::crd()].map(Definition::of).into()
}

impl Definition {
    fn of(mut object: CustomResourceDefinition) -> Self {
        for version in &mut object.spec.versions {
            let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
            if let Some(schema) = schema {
                may_lack_its_spec(schema);
            }
        }
        Self { object }
    }

    /// The definition's name: plural and group.
    #[must_use]
    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    /// As a file for kubectl.
    ///
    /// # Errors
    /// None in practice: definitions can be written.
    pub fn yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        serde_saphyr::to_string(&self.object)
    }
}

fn may_lack_its_spec(schema: &mut JSONSchemaProps) {
    if let Some(required) = &mut schema.required {
        required.retain(|name| name != "spec");
    }
    schema.required = schema.required.take().filter(|required| !required.is_empty());
    if let Some(spec) = schema.properties.as_mut().and_then(|properties| properties.get_mut("spec")) {
        spec.default = Some(JSON(json!({})));
        spec.nullable = None;
    }
}

#[cfg(test)]
mod tests;
