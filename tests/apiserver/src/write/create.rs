//! A creation: the name, the namespace, and what the server puts into every new object.

use serde_json::{Value, json};

use super::{Call, Draft, fits, runtime_class};
use crate::fields;
use crate::kinds::{Trait, decode};
use crate::object;
use crate::refusal::{Fault, Refusal};
use crate::schema;
use crate::store::{Key, Store};

/// What a POST makes.
pub(crate) fn create(store: &Store, call: &Call, body: Value) -> Result<Draft, Refusal> {
    let draft = unowned(store, call, body)?;
    Ok(Draft { object: fields::updated(&call.kind, call.manager(), None, draft.object), ..draft })
}

/// A namespace that is there from the start.
pub(crate) fn found_namespace(store: &mut Store, name: &str) {
    let mut namespace = json!({"apiVersion": "v1", "kind": "Namespace"});
    namespace["metadata"] = json!({
        "name": name, "uid": uuid::Uuid::new_v4().to_string(), "creationTimestamp": object::now(),
        "labels": {"kubernetes.io/metadata.name": name},
    });
    namespace["spec"] = json!({"finalizers": ["kubernetes"]});
    namespace["status"] = json!({"phase": "Active"});
    store.put(Key::new("namespaces", "", name), namespace);
}

/// The same without an entry in `managedFields`.
pub(super) fn unowned(store: &Store, call: &Call, mut body: Value) -> Result<Draft, Refusal> {
    fits(call, &body)?;
    if !object::version(&body).is_empty() {
        return Err(Refusal::bad_request("resourceVersion should not be set on objects to be created"));
    }
    decode(&call.kind, &mut body)?;
    call.kind.absorb(&mut body);
    let name = name_of(call, &body)?;
    if call.kind.is_namespaced() {
        open_namespace(store, call, &name)?;
    }
    let key = call.kind.key(&call.namespace, &name);
    if store.get(&key).is_some() {
        return Err(Refusal::already_exists(&call.kind, &name));
    }
    runtime_class::lay_over(store, call, &mut body)?;
    introduce(call, &key, &mut body);
    initial(call, &mut body);
    schema::clean(&call.kind, &mut body);
    Ok(Draft { key, before: None, object: body })
}

fn name_of(call: &Call, body: &Value) -> Result<String, Refusal> {
    let given = if call.name.is_empty() { object::name(body) } else { &call.name };
    let prefix = object::text(body, "/metadata/generateName");
    let name = match (given, prefix) {
        ("", "") => {
            let fault = Fault::required("metadata.name", "name or generateName is required");
            return Err(Refusal::invalid(&call.kind, "", &[fault]));
        }
        ("", prefix) => format!("{prefix}{}", suffix()),
        (given, _) => given.to_owned(),
    };
    if is_name(&call.kind.group, &name) {
        return Ok(name);
    }
    let why = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
               and must start and end with an alphanumeric character";
    Err(Refusal::invalid(&call.kind, &name, &[Fault::invalid("metadata.name", &json!(name), why)]))
}

/// Five letters and digits that do not look like words.
fn suffix() -> String {
    const SIGNS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5).map(|_| char::from(SIGNS[fastrand::usize(..SIGNS.len())])).collect()
}

fn is_name(group: &str, name: &str) -> bool {
    if group == "rbac.authorization.k8s.io" {
        return !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%']);
    }
    let sign = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let label = |label: &str| {
        !label.is_empty() && label.chars().all(sign) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn open_namespace(store: &Store, call: &Call, name: &str) -> Result<(), Refusal> {
    let namespace = store
        .get(&Key::new("namespaces", "", call.namespace.as_str()))
        .ok_or_else(|| Refusal::no_namespace(&call.namespace))?;
    if !object::is_being_deleted(namespace) {
        return Ok(());
    }
    let why = format!(
        "unable to create new content in namespace {} because it is being terminated",
        call.namespace
    );
    let mut refusal = Refusal::forbidden(&call.kind, name, &why);
    let cause = json!({"reason": "NamespaceTerminating", "message": why, "field": "metadata.namespace"});
    refusal.details["causes"] = json!([cause]);
    Err(refusal)
}

/// What the server alone decides about a new object.
fn introduce(call: &Call, key: &Key, body: &mut Value) {
    let map = object::fields(body);
    map.insert("apiVersion".into(), call.kind.api_version().into());
    map.insert("kind".into(), call.kind.kind.clone().into());
    if call.kind.has(Trait::Status) && !call.kind.has(Trait::StatusAtCreation) {
        map.remove("status");
    }
    let meta = object::metadata(body);
    for field in
        ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields", "generation"]
    {
        meta.remove(field);
    }
    meta.insert("name".into(), key.name.clone().into());
    if call.kind.is_namespaced() {
        meta.insert("namespace".into(), key.namespace.clone().into());
    } else {
        meta.remove("namespace");
    }
    meta.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    meta.insert("creationTimestamp".into(), object::now().into());
    if call.kind.has(Trait::Generation) {
        meta.insert("generation".into(), 1.into());
    }
}

/// What single kinds get at birth. The defaults of built-in kinds are otherwise not filled in.
fn initial(call: &Call, body: &mut Value) {
    let name = object::name(body).to_owned();
    match call.kind.kind.as_str() {
        "Namespace" if call.kind.is("Namespace") => {
            body["spec"]["finalizers"] = json!(["kubernetes"]);
            body["status"] = json!({"phase": "Active"});
            let labels = object::child(object::metadata(body), "labels");
            object::fields(labels).insert("kubernetes.io/metadata.name".into(), name.into());
        }
        "Pod" if call.kind.is("Pod") => body["status"] = json!({"phase": "Pending"}),
        "CustomResourceDefinition" if call.kind.is("CustomResourceDefinition") => establish(body),
        "Secret" if call.kind.is("Secret") => secret(body),
        _ => {}
    }
}

/// `stringData` is a way of writing `data`, and the type has a default.
pub(super) fn secret(body: &mut Value) {
    use base64::Engine as _;
    let map = object::fields(body);
    if let Some(Value::Object(texts)) = map.remove("stringData") {
        let data = object::fields(object::child(map, "data"));
        for (name, text) in texts {
            let encoded = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
            data.insert(name, encoded.into());
        }
    }
    map.entry("type").or_insert_with(|| "Opaque".into());
}

/// A definition is served at once: a real server needs a moment, and says so in the same conditions.
fn establish(body: &mut Value) {
    let condition = |kind: &str, reason: &str| json!({"type": kind, "status": "True", "reason": reason, "message": "", "lastTransitionTime": object::now()});
    let stored: Vec<_> = object::items(body, "/spec/versions")
        .iter()
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect();
    let names = object::fields(&mut body["spec"]["names"]);
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    names.entry("singular").or_insert_with(|| kind.to_lowercase().into());
    names.entry("listKind").or_insert_with(|| format!("{kind}List").into());
    let accepted = Value::Object(names.clone());
    body["status"] = json!({
        "acceptedNames": accepted, "storedVersions": stored,
        "conditions": [condition("NamesAccepted", "NoConflicts"), condition("Established", "InitialNamesAccepted")],
    });
    let mut finalizers = object::finalizers(body);
    finalizers.push(crate::collect::CRD_CLEANUP);
    let finalizers: Vec<_> = finalizers.into_iter().map(str::to_owned).collect();
    let finalizers: Vec<_> = finalizers.iter().map(String::as_str).collect();
    object::set_finalizers(body, &finalizers);
}
