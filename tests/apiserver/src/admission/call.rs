//! Carrying a review to a webhook over HTTPS, and what a webhook that cannot be asked means.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::hooks::Hook;
use super::review::{Question, Verdict, verdict};
use crate::object;
use crate::refusal::Refusal;
use crate::server::Shared;

/// Where a webhook is, and as whom it has to show itself.
#[derive(Debug)]
struct Place {
    host: String,
    /// Where the connection goes, if not to the host.
    address: Option<SocketAddr>,
    port: u16,
    path: String,
}

/// Asks. The answer is a patch, if there is one.
pub(super) async fn ask(
    shared: &Shared,
    hook: &Hook,
    question: &Question<'_>,
) -> Result<Option<json_patch::Patch>, Refusal> {
    if question.call.dry_run && hook.side_effects {
        let message = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(Refusal::bad_request(message));
    }
    let uid = uuid::Uuid::new_v4().to_string();
    let place = place(shared, hook);
    let sent = async { exchange(&hook.client, &place?, question.review(&uid)).await };
    let outcome = match tokio::time::timeout(hook.timeout, sent).await {
        Ok(answer) => answer
            .map(|answer| verdict(hook, &uid, &answer))
            .unwrap_or_else(|error| Verdict::Unusable(error.to_string())),
        Err(_) => Verdict::Unusable(format!("no answer within {:?}", hook.timeout)),
    };
    match outcome {
        Verdict::Allowed => Ok(None),
        Verdict::Patched(patch) => Ok(Some(patch)),
        Verdict::Denied(refusal) => Err(refusal),
        Verdict::Unusable(_) if hook.ignores_failure => Ok(None),
        Verdict::Unusable(why) => Err(Refusal::internal(format!(
            "failed calling webhook {:?}: failed to call webhook: {why}",
            hook.name
        ))),
    }
}

fn place(shared: &Shared, hook: &Hook) -> io::Result<Place> {
    if let Some(url) = hook.client["url"].as_str() {
        let uri: Uri = url.parse().map_err(io::Error::other)?;
        let host = uri.host().ok_or_else(|| io::Error::other(format!("{url:?} names no host")))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        return Ok(Place {
            host: host.into(),
            address: None,
            port: uri.port_u16().unwrap_or(443),
            path: path.into(),
        });
    }
    let text = |field: &str| object::text(&hook.client["service"], &format!("/{field}")).to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    let address = shared.desk().services.get(&(namespace.clone(), name.clone())).copied();
    let address = address.ok_or_else(|| {
        io::Error::other(format!(
            "service {name:?} of namespace {namespace:?} has no address (Server::resolve_service)"
        ))
    })?;
    Ok(Place {
        host: format!("{name}.{namespace}.svc"),
        address: Some(address),
        port: address.port(),
        path: Some(text("path")).filter(|path| !path.is_empty()).unwrap_or_else(|| "/".into()),
    })
}

async fn exchange(client: &Value, place: &Place, review: Value) -> io::Result<Value> {
    let stream = match place.address {
        Some(address) => TcpStream::connect(address).await?,
        None => TcpStream::connect((place.host.trim_matches(['[', ']']), place.port)).await?,
    };
    let name = ServerName::try_from(place.host.clone()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::new(trust(client)?)).connect(name, stream).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let driver = tokio::spawn(connection);
    let request = Request::post(&place.path)
        .header(HOST, &place.host)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(review.to_string())))
        .map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    driver.abort();
    if !status.is_success() {
        return Err(io::Error::other(format!("the server answered {status}")));
    }
    serde_json::from_slice(&body).map_err(io::Error::other)
}

/// Only the webhook's own `caBundle` is trusted: a test has no other authority.
fn trust(client: &Value) -> io::Result<ClientConfig> {
    let pem = STANDARD.decode(object::text(client, "/caBundle")).map_err(io::Error::other)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    if roots.is_empty() {
        return Err(io::Error::other(
            "x509: certificate signed by unknown authority (the webhook has no caBundle)",
        ));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth())
}
