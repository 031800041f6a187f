//! Admission webhooks, over real TLS.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::place::{Place, create, parse, refusal};

/// A webhook: what it was asked, where it is, and by which certificate it is known.
struct Hook {
    address: SocketAddr,
    bundle: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Hook {
    /// Answers every review with these fields.
    async fn start(names: &[&str], response: Value) -> Self {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), asked.clone(), response));
        Self { address, bundle: STANDARD.encode(made.cert.pem()), asked }
    }

    fn by_url(&self) -> Value {
        json!({"url": format!("https://127.0.0.1:{}/review", self.address.port()), "caBundle": self.bundle})
    }

    /// What it was asked about this test's own maps: Kubernetes puts maps with certificates into a new namespace.
    fn asked(&self) -> Vec<Value> {
        let is_own = |asked: &&Value| !asked["name"].as_str().is_some_and(|name| name.ends_with("-ca.crt"));
        self.asked.lock().unwrap().iter().filter(is_own).cloned().collect()
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, asked: Arc<Mutex<Vec<Value>>>, response: Value) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, asked, response) = (tls.clone(), asked.clone(), response.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (asked, mut response) = (asked.clone(), response.clone());
                async move {
                    let body = request.into_body().collect().await?.to_bytes();
                    let review: Value = serde_json::from_slice(&body).unwrap();
                    response["uid"] = review["request"]["uid"].clone();
                    asked.lock().unwrap().push(review["request"].clone());
                    let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
                    Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from(answer.to_string()))))
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// A webhook about creations of maps in this test's namespace.
fn webhook(place: &Place, client: Value, extra: Value) -> Value {
    let mut webhook = json!({
        "name": "test.example.com", "clientConfig": client, "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": place.namespace}},
        "objectSelector": {"matchExpressions": [{"key": "unseen", "operator": "DoesNotExist"}]},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
    });
    json_patch::merge(&mut webhook, &extra);
    json!({"webhooks": [webhook]})
}

/// Lets a change of a configuration come into force: a real server hears of its own changes a moment later.
async fn in_force(place: &Place) {
    if place.server.is_none() {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
}

async fn made(place: &Place, metadata: Value) -> Result<k8s_openapi::api::core::v1::ConfigMap, kube::Error> {
    place.maps().create(&PostParams::default(), &parse(json!({"metadata": metadata}))).await
}

#[tokio::test]
async fn a_mutating_webhook_changes_what_is_made() {
    let place = Place::new().await;
    let patch = json!([{"op": "add", "path": "/data", "value": {"from": "webhook"}}]);
    let response =
        json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())});
    let hook = Hook::start(&["127.0.0.1"], response).await;
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(place.client.clone());
    let name = place.unique("hook");
    create(&configurations, &name, webhook(&place, hook.by_url(), json!({}))).await;
    in_force(&place).await;
    let object = made(&place, json!({"name": "c"})).await.unwrap();
    assert_eq!(object.data.unwrap()["from"], "webhook");
    let asked = hook.asked();
    assert_eq!((&asked[0]["operation"], &asked[0]["name"]), (&json!("CREATE"), &json!("c")));
    assert_eq!(asked[0]["object"]["metadata"]["name"], "c");
    assert_eq!(asked[0]["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    made(&place, json!({"name": "d", "labels": {"unseen": ""}})).await.unwrap();
    assert_eq!(hook.asked().len(), 1, "the object's label keeps it out");
    configurations.delete(&name, &DeleteParams::default()).await.unwrap();
    place.leave().await;
}

#[tokio::test]
async fn a_validating_webhook_denies_with_its_words() {
    let place = Place::new().await;
    let response =
        json!({"allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": "not here"}});
    let hook = Hook::start(&["127.0.0.1"], response).await;
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(place.client.clone());
    let name = place.unique("hook");
    create(&configurations, &name, webhook(&place, hook.by_url(), json!({}))).await;
    in_force(&place).await;
    let refused = made(&place, json!({"name": "c"})).await.unwrap_err();
    assert!(
        refused.to_string().contains("admission webhook \"test.example.com\" denied the request: not here"),
        "{refused}"
    );
    assert_eq!(refusal(made(&place, json!({"name": "c"})).await), (403, "Forbidden".into()));
    assert!(place.maps().get_opt("c").await.unwrap().is_none());
    configurations.delete(&name, &DeleteParams::default()).await.unwrap();
    place.leave().await;
}

#[tokio::test]
async fn a_webhook_that_cannot_be_asked_fails_the_request_or_is_passed_over() {
    let place = Place::new().await;
    let known = Hook::start(&["127.0.0.1"], json!({"allowed": true})).await;
    let stranger = Hook::start(&["127.0.0.1"], json!({"allowed": true})).await;
    // The other's certificate is not of this authority.
    let client = json!({"url": known.by_url()["url"], "caBundle": stranger.bundle});
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(place.client.clone());
    let name = place.unique("hook");
    create(&configurations, &name, webhook(&place, client.clone(), json!({"failurePolicy": "Fail"}))).await;
    in_force(&place).await;
    assert_eq!(refusal(made(&place, json!({"name": "c"})).await), (500, "InternalError".into()));
    configurations.delete(&name, &DeleteParams::default()).await.unwrap();
    create(&configurations, &name, webhook(&place, client, json!({"failurePolicy": "Ignore"}))).await;
    in_force(&place).await;
    made(&place, json!({"name": "c"})).await.unwrap();
    configurations.delete(&name, &DeleteParams::default()).await.unwrap();
    place.leave().await;
}

#[tokio::test]
async fn a_webhook_behind_a_service_is_known_by_the_services_name() {
    let Some((place, server)) =
        Place::with_server("a_webhook_behind_a_service_is_known_by_the_services_name").await
    else {
        return;
    };
    let hook = Hook::start(&["hook.system.svc"], json!({"allowed": false})).await;
    let client =
        json!({"service": {"namespace": "system", "name": "hook", "path": "/x"}, "caBundle": hook.bundle});
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(place.client.clone());
    create(&configurations, "hook", webhook(&place, client, json!({}))).await;
    assert_eq!(refusal(made(&place, json!({"name": "c"})).await).0, 500, "nobody knows where the service is");
    server.resolve_service("system", "hook", hook.address);
    assert_eq!(refusal(made(&place, json!({"name": "c"})).await).0, 400);
    assert_eq!(hook.asked().len(), 1);
}
