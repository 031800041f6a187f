//! Requests and responses of HTTP: which path, which method, which status.

use std::sync::Arc;
use std::time::Instant;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::webhooks::Question;
use super::{HEALTHZ, Limits, READYZ, Webhooks, body};

/// Answers a request, whatever it turns out to be. While the end is near the peer is asked to use another connection from now on: none is to
/// be idle when all are closed.
pub(super) async fn respond(
    webhooks: &Webhooks,
    bodies: &Arc<Semaphore>,
    limits: &Limits,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    // HTTP/2 has a frame for that, which is sent when the connection ends.
    let asks_to_close = request.version() < Version::HTTP_2;
    let mut response = respond_to(webhooks, bodies, limits, request).await;
    if asks_to_close && webhooks.is_ending() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn respond_to(
    webhooks: &Webhooks,
    bodies: &Arc<Semaphore>,
    limits: &Limits,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        HEALTHZ | READYZ if !reads => not_allowed("GET, HEAD"),
        HEALTHZ => text(StatusCode::OK, "ok\n".to_owned()),
        READYZ => match webhooks.ready() {
            Ok(()) => text(StatusCode::OK, "ok\n".to_owned()),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        path => match Question::of(path) {
            None => text(
                StatusCode::NOT_FOUND,
                format!("there are {}, {HEALTHZ} and {READYZ}\n", Question::paths()),
            ),
            Some(_) if request.method() != Method::POST => not_allowed("POST"),
            Some(question) => answer(webhooks, bodies, limits, question, request.into_body()).await,
        },
    }
}

async fn answer(
    webhooks: &Webhooks,
    bodies: &Arc<Semaphore>,
    limits: &Limits,
    question: Question,
    body: Incoming,
) -> Response<Full<Bytes>> {
    let body = match body::read(body, bodies, limits).await {
        Ok(body) => body,
        Err(error) => {
            webhooks.count_malformed();
            warn!(path = question.path(), error = %error, "a webhook request was not read");
            return text(error.status(), format!("{}: {error}\n", question.path()));
        }
    };
    let whole = Instant::now();
    let answer = match webhooks.answer(question, &body.bytes).await {
        Ok(answer) => answer,
        Err(malformed) => {
            warn!(path = question.path(), error = %malformed, "a webhook request was not understood");
            return text(StatusCode::BAD_REQUEST, format!("{}: {malformed}\n", question.path()));
        }
    };
    if let Some(status) = &answer.status {
        debug!(path = question.path(), uid = answer.uid, message = status.message, "refused");
    }
    let body = answer.to_body();
    webhooks.counts().took(question).record(whole.elapsed());
    match body {
        Ok(json) => with(StatusCode::OK, "application/json", json.into()),
        Err(e) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{}: the answer cannot be written: {e}\n", question.path()),
        ),
    }
}

fn not_allowed(methods: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("{methods}\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    with(status, "text/plain; charset=utf-8", body.into())
}

fn with(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
