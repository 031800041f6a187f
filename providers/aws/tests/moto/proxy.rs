//! The proxy itself: HTTP in, [`Front`] decides, HTTP to moto, [`Front`] corrects.
//!
//! A call that changes something is carried out to its end before a later call that reads is let through, also when its caller is
//! gone: so what was asked for is seen at once, except where a test hides it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Request, Response, client::conn::http1 as client};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::RwLock;

use crate::form::{self, Parameters};
use crate::front::{Decision, Front};

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    moto: SocketAddr,
    front: Mutex<Front>,
    order: RwLock<()>,
}

/// An answer, or none: the connection ends.
type Answer = Option<(u16, String)>;

impl Proxy {
    /// Listens on loopback before moto at `moto`.
    pub(crate) fn start(moto: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { moto, front: Mutex::default(), order: RwLock::default() });
        let serving = shared.clone();
        // Kept in a thread with a runtime of its own: tests that share the proxy end at different times.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move { accept(TcpListener::from_std(listener).unwrap(), serving).await });
        });
        Self { address, shared }
    }

    /// What is known and what is to go wrong.
    pub(crate) fn front(&self) -> MutexGuard<'_, Front> {
        self.shared.front.lock().unwrap()
    }

    /// Calls moto behind the provider's back.
    pub(crate) async fn moto(&self, action: &str, parameters: &[(&str, &str)]) -> String {
        let mut all = Parameters::from([
            ("Action".to_owned(), action.to_owned()),
            ("Version".to_owned(), "2016-11-15".to_owned()),
        ]);
        all.extend(parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let (status, xml) = send(self.shared.moto, &all).await;
        assert_eq!(status, 200, "{action}: {xml}");
        xml
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shared = shared.clone();
        let service = service_fn(move |request| answer(shared.clone(), request));
        tokio::spawn(server::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let lost = || std::io::Error::other("lost on purpose");
    let target = request.headers().get("x-amz-target").map(|name| name.to_str().unwrap().to_owned());
    let body = request.into_body().collect().await.map_err(|_| lost())?.to_bytes();
    let parameters = match target {
        None => form::read(&body),
        Some(target) => form::of_json(&target, &body),
    };
    // To its end, whoever is gone.
    let answer = tokio::spawn(async move { carry_out(&shared, parameters).await }).await.unwrap();
    let (status, xml) = answer.ok_or_else(lost)?;
    Ok(Response::builder()
        .status(status)
        .header("content-type", "text/xml")
        // AWS has the request's id in a header of every answer; in that of a success moto has none worth the name.
        .header("x-amzn-requestid", form::texts(&xml, "RequestID").pop().unwrap_or_default())
        .body(Full::new(xml.into()))
        .unwrap())
}

async fn carry_out(shared: &Shared, parameters: Parameters) -> Answer {
    let action = parameters.get("Action").cloned().unwrap_or_default();
    if action.starts_with("Describe") {
        let _reading = shared.order.read().await;
        through(shared, &action, &parameters).await
    } else {
        let _writing = shared.order.write().await;
        through(shared, &action, &parameters).await
    }
}

async fn through(shared: &Shared, action: &str, parameters: &Parameters) -> Answer {
    let decision = shared.front.lock().unwrap().decide(action, parameters);
    let lose = matches!(decision, Decision::ForwardAndLose);
    match decision {
        Decision::Answer(status, xml) => return Some((status, xml)),
        Decision::Lose => return None,
        Decision::Forward | Decision::ForwardAndLose => {}
    }
    let (status, xml) = send(shared.moto, parameters).await;
    let (xml, also) = shared.front.lock().unwrap().correct(action, parameters, status, xml);
    if let Some(also) = also {
        send(shared.moto, &also).await;
    }
    (!lose).then_some((status, xml))
}

/// One call to moto, on a connection of its own.
async fn send(moto: SocketAddr, parameters: &Parameters) -> (u16, String) {
    let stream = TcpStream::connect(moto).await.unwrap();
    let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let service =
        if parameters.get("Action").is_some_and(|of| of == "GetCallerIdentity") { "sts" } else { "ec2" };
    let request = Request::post("/")
        .header("host", format!("{service}.us-east-1.amazonaws.com"))
        .header("content-type", "application/x-www-form-urlencoded")
        // Moto reads the region from it and checks nothing.
        .header(
            "authorization",
            format!("AWS4-HMAC-SHA256 Credential=AKIATEST/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"),
        )
        .body(Full::<Bytes>::new(form::write(parameters).into()))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}
