//! From a request to its answer: who asks, what for, and which part of the server is to do it. Decides nothing itself.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, USER_AGENT};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};

use crate::desk::{Asked, Failure};
use crate::kinds::{self, Kind};
use crate::patch::Patch;
use crate::read::{self, Form, Watched};
use crate::refusal::Refusal;
use crate::selector::Selector;
use crate::server::Shared;
use crate::target::{Query, Target};
use crate::write::{self, Call, Deletion};
use crate::{admission, discovery, object, rbac, watch};

/// An answer's body: at once, or as it comes.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Answers one request. The error breaks the connection.
pub(crate) async fn handle(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let asked = asked(&parts);
    let (ticket, failure) = shared.desk().enter(asked.clone());
    let answer = match failure {
        Some(Failure::Refused(code)) => Err(arranged(code)),
        _ => answer(&shared, &asked, &parts, &body).await,
    };
    if failure == Some(Failure::Unanswered) {
        return Err(io::Error::other("the test wanted this answer lost"));
    }
    let response = answer.unwrap_or_else(|refusal| document(refusal.code, &refusal.status()));
    shared.desk().answered(ticket, response.status().as_u16());
    Ok(response)
}

fn asked(parts: &Parts) -> Asked {
    let query = parts.uri.query().unwrap_or_default();
    let named = Target::parse(parts.uri.path()).is_some_and(|target| !target.name.is_empty());
    let verb = match (&parts.method, named) {
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, true) => "delete",
        (&Method::DELETE, false) => "deletecollection",
        (_, true) => "get",
        (_, false) if Query::parse(query).is_true("watch") => "watch",
        (_, false) => "list",
    };
    Asked {
        verb,
        path: parts.uri.path().to_owned(),
        query: query.to_owned(),
        agent: header(parts, &USER_AGENT).to_owned(),
        code: 0,
    }
}

fn header<'a>(parts: &'a Parts, name: &HeaderName) -> &'a str {
    parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn arranged(code: u16) -> Refusal {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    Refusal::new(code, reason, "the test wanted this request to fail")
}

/// A JSON answer.
pub(crate) fn document(code: u16, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed_unsync();
    with(code, "application/json", body)
}

/// An answer of this type. An impossible code would be ours: it becomes 500.
pub(crate) fn with(code: u16, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        hyper::StatusCode::from_u16(code).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

/// Everything about a request that its answer depends on.
struct Exchange<'a> {
    shared: &'a Arc<Shared>,
    parts: &'a Parts,
    body: &'a [u8],
    target: Target,
    query: Query,
    kind: Kind,
    user: String,
}

async fn answer(
    shared: &Arc<Shared>,
    asked: &Asked,
    parts: &Parts,
    body: &[u8],
) -> Result<Response<Body>, Refusal> {
    if let Some(found) = discovery::answer(&shared.store(), parts.uri.path()) {
        return Ok(found);
    }
    let missing = || Refusal::new(404, "NotFound", "the server could not find the requested resource");
    let target = Target::parse(parts.uri.path()).ok_or_else(missing)?;
    let query = Query::parse(&asked.query);
    let kind = kinds::by_path(&shared.store(), &target.group, &target.version, &target.plural)
        .ok_or_else(missing)?;
    let user = rbac::admit(shared, header(parts, &AUTHORIZATION), asked.verb, &kind, &target, &query)?;
    let exchange = Exchange { shared, parts, body, target, query, kind, user };
    match asked.verb {
        "get" | "list" => exchange.read(),
        "watch" => exchange.watch(),
        "create" => exchange.create().await,
        "update" => exchange.update().await,
        "patch" => exchange.patch().await,
        "delete" => exchange.delete().await,
        _ => exchange.delete_collection().await,
    }
}

impl Exchange<'_> {
    fn form(&self) -> Form {
        Form::accepted(header(self.parts, &ACCEPT))
    }

    fn call(&self) -> Result<Call, Refusal> {
        let known = match self.target.subresource.as_str() {
            "" => true,
            "status" => self.kind.has(kinds::Trait::Status),
            "finalize" => self.kind.is("Namespace"),
            "eviction" => self.kind.is("Pod"),
            _ => false,
        };
        if !known {
            return Err(Refusal::new(404, "NotFound", "the server could not find the requested resource"));
        }
        Call::new(self.kind.clone(), &self.target, &self.query, header(self.parts, &USER_AGENT))
    }

    /// The body as a value. Appliers may send YAML.
    fn value(&self) -> Result<Value, Refusal> {
        let bad =
            |error: String| Refusal::bad_request(format!("the body of the request cannot be read: {error}"));
        let media = header(self.parts, &CONTENT_TYPE);
        if media.contains("protobuf") {
            let message = "this test API server takes JSON and YAML, no protobuf";
            return Err(Refusal::new(415, "UnsupportedMediaType", message));
        }
        if media.contains("yaml") && serde_json::from_slice::<Value>(self.body).is_err() {
            let text = std::str::from_utf8(self.body).map_err(|error| bad(error.to_string()))?;
            return serde_saphyr::from_str(text).map_err(|error| bad(error.to_string()));
        }
        serde_json::from_slice(self.body).map_err(|error| bad(error.to_string()))
    }

    fn read(&self) -> Result<Response<Body>, Refusal> {
        let store = self.shared.store();
        let (namespace, name) = (self.target.namespace.as_str(), self.target.name.as_str());
        if name.is_empty() {
            return Ok(document(200, &read::list(&store, &self.kind, namespace, &self.query, self.form())?));
        }
        self.call()?;
        Ok(document(200, &read::get(&store, &self.kind, namespace, name, self.form())?))
    }

    fn watch(&self) -> Result<Response<Body>, Refusal> {
        let (labels, fields) = (self.query.text("labelSelector"), self.query.text("fieldSelector"));
        let watched = Watched {
            kind: self.kind.clone(),
            namespace: self.target.namespace.clone(),
            selector: Selector::parse(&self.kind, labels, fields)?,
            form: self.form(),
        };
        watch::answer(self.shared.clone(), watched, &self.query)
    }

    async fn create(&self) -> Result<Response<Body>, Refusal> {
        if self.target.subresource == "eviction" {
            return self.evict().await;
        }
        if !self.target.name.is_empty() {
            return Err(Refusal::no_method());
        }
        let (call, body) = (self.call()?, self.value()?);
        let made = self.write(&call, "CREATE", |store| write::create(store, &call, body.clone())).await?;
        Ok(document(201, &self.form().show(&self.kind, &made)))
    }

    async fn update(&self) -> Result<Response<Body>, Refusal> {
        if self.target.name.is_empty() {
            return Err(Refusal::no_method());
        }
        let (call, body) = (self.call()?, self.value()?);
        let made = self.write(&call, "UPDATE", |store| write::replace(store, &call, body.clone())).await?;
        Ok(document(200, &self.form().show(&self.kind, &made)))
    }

    async fn patch(&self) -> Result<Response<Body>, Refusal> {
        let call = self.call()?;
        let body = self.value()?;
        let media = header(self.parts, &CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
        let patch = match media {
            "application/apply-patch+yaml" => return self.apply(&call, body).await,
            "application/json-patch+json" => Patch::Json(
                serde_json::from_value(body).map_err(|error| Refusal::bad_request(error.to_string()))?,
            ),
            "application/merge-patch+json" => Patch::Merge(body),
            "application/strategic-merge-patch+json" => Patch::Strategic(body),
            other => {
                return Err(Refusal::new(
                    415,
                    "UnsupportedMediaType",
                    format!("a patch of type {other:?} is not supported"),
                ));
            }
        };
        let made = self.write(&call, "UPDATE", |store| write::patch(store, &call, &patch)).await?;
        Ok(document(200, &self.form().show(&self.kind, &made)))
    }

    async fn apply(&self, call: &Call, wanted: Value) -> Result<Response<Body>, Refusal> {
        if self.query.text("fieldManager").is_empty() {
            let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
            return Err(Refusal::new(422, "Invalid", message));
        }
        let exists = self.shared.store().get(&self.kind.key(&call.namespace, &call.name)).is_some();
        let (code, operation) = if exists { (200, "UPDATE") } else { (201, "CREATE") };
        if !exists {
            let authorization = header(self.parts, &AUTHORIZATION);
            rbac::admit(self.shared, authorization, "create", &self.kind, &self.target, &self.query)?;
        }
        let made = self.write(call, operation, |store| write::apply(store, call, wanted.clone())).await?;
        Ok(document(code, &self.form().show(&self.kind, &made)))
    }

    /// Makes a draft, asks the webhooks, and stores it; anew when the object moved in between.
    async fn write(
        &self,
        call: &Call,
        operation: &'static str,
        make: impl Fn(&crate::store::Store) -> Result<write::Draft, Refusal>,
    ) -> Result<Arc<Value>, Refusal> {
        const TRIES: u32 = 10;
        for _ in 0..TRIES {
            let draft = make(&self.shared.store())?;
            let draft = admission::admit(self.shared, call, operation, &self.user, draft).await?;
            if let Some(made) = self.shared.change(|store| write::commit(store, call, draft))? {
                return Ok(made);
            }
        }
        Err(Refusal::modified(&call.kind, &call.name))
    }

    /// `DeleteOptions`, from the body or the query.
    fn deletion(&self, nested: Option<&str>) -> Result<Deletion, Refusal> {
        let mut options = if self.body.is_empty() { json!({}) } else { self.value()? };
        if let Some(nested) = nested {
            options = options.get(nested).cloned().unwrap_or_else(|| json!({}));
        }
        let map = object::fields(&mut options);
        for field in ["propagationPolicy", "dryRun"] {
            let text = self.query.text(field);
            if !text.is_empty() {
                map.insert(field.into(), if field == "dryRun" { json!([text]) } else { text.into() });
            }
        }
        if let Some(grace) = self.query.number("gracePeriodSeconds") {
            map.insert("gracePeriodSeconds".into(), grace.into());
        }
        Ok(Deletion::of(&options))
    }

    async fn delete(&self) -> Result<Response<Body>, Refusal> {
        let (call, how) = (self.call()?, self.deletion(None)?);
        let removed = self.remove(&call, &how, write::delete).await?;
        if object::is_being_deleted(&removed) {
            return Ok(document(200, &self.form().show(&self.kind, &removed)));
        }
        let details = json!({
            "name": call.name, "group": self.kind.group, "kind": self.kind.plural, "uid": object::uid(&removed),
        });
        Ok(document(200, &success(&details)))
    }

    async fn evict(&self) -> Result<Response<Body>, Refusal> {
        let (mut call, how) = (self.call()?, self.deletion(Some("deleteOptions"))?);
        call.subresource.clear();
        self.remove(&call, &how, write::evict).await?;
        Ok(document(201, &success(&Value::Null)))
    }

    async fn delete_collection(&self) -> Result<Response<Body>, Refusal> {
        let how = self.deletion(None)?;
        let list =
            read::list(&self.shared.store(), &self.kind, &self.target.namespace, &self.query, Form::Whole)?;
        let mut call = self.call()?;
        for item in object::items(&list, "/items") {
            call.name = object::name(item).to_owned();
            call.namespace = object::namespace(item).to_owned();
            match self.remove(&call, &how, write::delete).await {
                Err(refusal) if refusal.code != 404 => return Err(refusal),
                _ => {}
            }
        }
        Ok(document(200, &list))
    }

    async fn remove(
        &self,
        call: &Call,
        how: &Deletion,
        decide: impl Fn(&crate::store::Store, &Call, &Deletion) -> Result<write::Removal, Refusal>,
    ) -> Result<Arc<Value>, Refusal> {
        let live = self.shared.store().get(&self.kind.key(&call.namespace, &call.name)).cloned();
        if let Some(live) = live {
            admission::admit_deletion(self.shared, call, &self.user, &live).await?;
        }
        self.shared.change(|store| {
            let removal = decide(store, call, how)?;
            write::carry_out(store, call, how, removal)
        })
    }
}

fn success(details: &Value) -> Value {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if !details.is_null() {
        status["details"] = details.clone();
    }
    status
}
