//! Custom kinds: they are served when they are defined, and their schema speaks.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::{conditions, wait::await_condition};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::place::{Place, create, parse, refusal, soon, until};

/// Defines a namespaced kind of this test alone.
struct Defined {
    name: String,
    resource: ApiResource,
    definitions: Api<CustomResourceDefinition>,
}

impl Defined {
    async fn new(place: &Place, spec: Value) -> Self {
        let group = format!("{}.example.com", place.namespace);
        let definitions: Api<CustomResourceDefinition> = Api::all(place.client.clone());
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
            "spec": spec,
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}});
        let version = json!({"name": "v1", "served": true, "storage": true, "schema": schema, "subresources": {"status": {}}});
        let names = json!({"plural": "things", "singular": "thing", "kind": "Thing", "shortNames": ["th"]});
        let name = format!("things.{group}");
        let body =
            json!({"spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}});
        create(&definitions, &name, body).await;
        let established = await_condition(definitions.clone(), &name, conditions::is_crd_established());
        soon("the kind is served", established).await.unwrap();
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(&group, "v1", "Thing"), "things");
        let defined = Self { name, resource, definitions };
        let things = defined.api(place.client.clone(), &place.namespace);
        until("the kind is listed", || async { things.list(&ListParams::default()).await.is_ok() }).await;
        defined
    }

    fn api(&self, client: Client, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(client, namespace, &self.resource)
    }

    fn thing(&self, name: &str, spec: Value) -> DynamicObject {
        parse(json!({
            "apiVersion": self.resource.api_version, "kind": "Thing", "metadata": {"name": name}, "spec": spec,
        }))
    }

    async fn remove(self) {
        self.definitions.delete(&self.name, &DeleteParams::default()).await.unwrap();
        until("the definition is gone", || async {
            self.definitions.get_opt(&self.name).await.unwrap().is_none()
        })
        .await;
    }
}

fn spec() -> Value {
    let rule = json!({"rule": "self.size < 100 || has(self.name)", "message": "a large thing needs a name"});
    json!({"type": "object", "x-kubernetes-validations": [rule], "required": ["size"], "properties": {
        "size": {"type": "integer", "minimum": 1},
        "level": {"type": "string", "default": "info", "enum": ["info", "debug"]},
        "name": {"type": "string", "pattern": "^[a-z]*$", "maxLength": 5},
        "parts": {
            "type": "array", "maxItems": 3, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
            "items": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}, "v": {"type": "string"}}},
        },
    }})
}

#[tokio::test]
async fn a_schema_fills_in_drops_and_refuses() {
    let place = Place::new().await;
    let defined = Defined::new(&place, spec()).await;
    let things = defined.api(place.client.clone(), &place.namespace);
    let made = things
        .create(&PostParams::default(), &defined.thing("t", json!({"size": 1, "unknown": "x"})))
        .await
        .unwrap();
    assert_eq!(made.data["spec"], json!({"size": 1, "level": "info"}));
    for (bad, field) in [
        (json!({}), "spec.size"),
        (json!({"size": 0}), "spec.size"),
        (json!({"size": "1"}), "spec.size"),
        (json!({"size": 100}), "spec"),
        (json!({"size": 1, "level": "loud"}), "spec.level"),
        (json!({"size": 1, "name": "ABC"}), "spec.name"),
        (json!({"size": 1, "name": "abcdef"}), "spec.name"),
        (json!({"size": 1, "parts": [{"id": "a"}, {"id": "a"}]}), "spec.parts[1]"),
    ] {
        let refused =
            things.create(&PostParams::default(), &defined.thing("bad", bad.clone())).await.unwrap_err();
        let kube::Error::Api(status) = refused else { panic!("{refused:?}") };
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"), "{bad}");
        let fields: Vec<_> =
            status.details.iter().flat_map(|d| &d.causes).map(|cause| cause.field.as_str()).collect();
        assert!(fields.contains(&field), "{bad}: {fields:?}");
    }
    defined.remove().await;
    place.leave().await;
}

#[tokio::test]
async fn status_and_generation_of_a_custom_kind() {
    let place = Place::new().await;
    let defined = Defined::new(&place, spec()).await;
    let things = defined.api(place.client.clone(), &place.namespace);
    let mut thing = defined.thing("t", json!({"size": 1}));
    thing.data["status"] = json!({"x": 1});
    let made = things.create(&PostParams::default(), &thing).await.unwrap();
    assert!(made.data.get("status").is_none());
    let params = PatchParams::default();
    let status = json!({"status": {"x": 2}, "spec": {"size": 9}, "metadata": {"labels": {"a": "b"}}});
    let written = things.patch_status("t", &params, &Patch::Merge(&status)).await.unwrap();
    assert_eq!((&written.data["status"], &written.data["spec"]["size"]), (&json!({"x": 2}), &json!(1)));
    assert!(written.labels().is_empty(), "of a write to the status only the status counts");
    assert_eq!(written.metadata.generation, Some(1));
    let changed = things.patch("t", &params, &Patch::Merge(&status)).await.unwrap();
    assert_eq!((changed.metadata.generation, &changed.data["status"]), (Some(2), &json!({"x": 2})));
    let mut unversioned = changed;
    unversioned.metadata.resource_version = None;
    let replaced = things.replace("t", &PostParams::default(), &unversioned).await;
    assert_eq!(refusal(replaced), (422, "Invalid".into()));
    let strategic = things.patch("t", &params, &Patch::Strategic(json!({"spec": {"size": 3}}))).await;
    assert_eq!(refusal(strategic).0, 415);
    defined.remove().await;
    place.leave().await;
}

#[tokio::test]
async fn lists_of_a_schema_merge_by_their_keys() {
    let place = Place::new().await;
    let defined = Defined::new(&place, spec()).await;
    let things = defined.api(place.client.clone(), &place.namespace);
    let apply = |parts: Value| Patch::Apply(defined.thing("t", json!({"size": 1, "parts": parts})));
    things.patch("t", &PatchParams::apply("one"), &apply(json!([{"id": "a", "v": "1"}]))).await.unwrap();
    let both =
        things.patch("t", &PatchParams::apply("two"), &apply(json!([{"id": "b", "v": "2"}]))).await.unwrap();
    assert_eq!(both.data["spec"]["parts"], json!([{"id": "a", "v": "1"}, {"id": "b", "v": "2"}]));
    let one = things.patch("t", &PatchParams::apply("one"), &apply(json!([]))).await.unwrap();
    assert_eq!(one.data["spec"]["parts"], json!([{"id": "b", "v": "2"}]));
    let status = Patch::Apply(json!({
        "apiVersion": defined.resource.api_version, "kind": "Thing", "metadata": {"name": "t"}, "status": {"phase": "Good"},
    }));
    let written = things.patch_status("t", &PatchParams::apply("one").force(), &status).await.unwrap();
    assert_eq!(written.data["status"]["phase"], "Good");
    assert_eq!(written.data["spec"]["size"], 1, "an apply to the status does not give up the rest");
    defined.remove().await;
    place.leave().await;
}

#[tokio::test]
async fn a_definition_takes_its_objects_with_it() {
    let place = Place::new().await;
    let defined = Defined::new(&place, spec()).await;
    let things = defined.api(place.client.clone(), &place.namespace);
    things.create(&PostParams::default(), &defined.thing("t", json!({"size": 1}))).await.unwrap();
    let (client, namespace) = (place.client.clone(), place.namespace.clone());
    let things = defined.api(client, &namespace);
    defined.remove().await;
    until("the kind is no longer served", || async {
        refused_code(things.list(&ListParams::default()).await) == Some(404)
    })
    .await;
    place.leave().await;
}

fn refused_code<T>(result: Result<T, kube::Error>) -> Option<u16> {
    match result {
        Err(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

#[tokio::test]
async fn discovery_finds_built_in_and_defined_kinds() {
    let place = Place::new().await;
    let defined = Defined::new(&place, spec()).await;
    let group = defined.resource.group.clone();
    let pinned = kube::discovery::group(&place.client, &group).await.unwrap();
    let (resource, capabilities) = pinned.recommended_kind("Thing").unwrap();
    assert_eq!(
        (resource.plural.as_str(), capabilities.scope),
        ("things", kube::discovery::Scope::Namespaced)
    );
    let apps = kube::discovery::group(&place.client, "apps").await.unwrap();
    assert_eq!(apps.recommended_kind("DaemonSet").unwrap().0.plural, "daemonsets");
    assert!(
        !kube::discovery::Discovery::new(place.client.clone())
            .run()
            .await
            .unwrap()
            .has_group("config.openshift.io")
    );
    assert_eq!(place.client.apiserver_version().await.unwrap().major, "1");
    defined.remove().await;
    place.leave().await;
}
