//! The proxy itself: HTTP in, [`Front`] decides, HTTP to moto, [`Front`] corrects.
//!
//! A call that changes something is carried out to its end before a later call that reads is let through, also when its caller is
//! gone: so what was asked for is seen at once, except where a test hides it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
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
    passage: Arc<dyn Passage>,
    order: RwLock<()>,
    /// Calls to moto that are under way.
    at_moto: AtomicUsize,
}

impl Shared {
    fn new(moto: SocketAddr, passage: Arc<dyn Passage>) -> Arc<Self> {
        let (front, order) = (Mutex::default(), RwLock::default());
        Arc::new(Self { moto, front, passage, order, at_moto: AtomicUsize::new(0) })
    }
}

/// An answer, or none: the connection ends.
pub(crate) type Answer = Option<(u16, String)>;

/// Whoever stands by and sees every call pass, for a test that needs more than [`Front`] does.
#[async_trait]
pub(crate) trait Passage: Send + Sync {
    /// A call has come, and nothing was done about it. False ends its connection.
    async fn comes(&self, _action: &str) -> bool {
        true
    }

    /// A call was carried out; this is what AWS would answer.
    async fn goes(&self, _action: &str, _parameters: &Parameters, answer: (u16, String)) -> Answer {
        Some(answer)
    }
}

/// Nobody.
struct Unattended;

impl Passage for Unattended {}

impl Proxy {
    /// Listens on loopback before moto at `moto`.
    pub(crate) fn start(moto: SocketAddr) -> Self {
        Self::attended(moto, Arc::new(Unattended))
    }

    /// [`Proxy::start`] with somebody who sees every call pass.
    pub(crate) fn attended(moto: SocketAddr, passage: Arc<dyn Passage>) -> Self {
        let (listener, address) = listen();
        let shared = Shared::new(moto, passage);
        let serving = shared.clone();
        // Kept in a thread with a runtime of its own: tests that share the proxy end at different times.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move { accept(TcpListener::from_std(listener).unwrap(), serving).await });
        });
        Self { address, shared }
    }

    /// The same in this runtime, whose time it has then.
    pub(crate) fn start_here(moto: SocketAddr) -> Self {
        let (listener, address) = listen();
        let shared = Shared::new(moto, Arc::new(Unattended));
        let serving = shared.clone();
        tokio::spawn(async move { accept(TcpListener::from_std(listener).unwrap(), serving).await });
        Self { address, shared }
    }

    /// Whether moto is being asked something.
    pub(crate) fn asks_moto(&self) -> bool {
        self.shared.at_moto.load(Ordering::Relaxed) > 0
    }

    /// What is known and what is to go wrong.
    pub(crate) fn front(&self) -> MutexGuard<'_, Front> {
        self.shared.front.lock().unwrap()
    }

    /// Calls moto behind the provider's back.
    pub(crate) async fn moto(&self, action: &str, parameters: &[(&str, &str)]) -> String {
        ask(self.shared.moto, action, parameters).await
    }
}

fn listen() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Calls moto at an address, past any proxy; the answer of a call that succeeds.
pub(crate) async fn ask(moto: SocketAddr, action: &str, parameters: &[(&str, &str)]) -> String {
    let mut all = Parameters::from([
        ("Action".to_owned(), action.to_owned()),
        ("Version".to_owned(), "2016-11-15".to_owned()),
    ]);
    all.extend(parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let (status, xml) = send(moto, &all).await;
    assert_eq!(status, 200, "{action}: {xml}");
    xml
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
    let answer = tokio::spawn(async move { in_order(&shared, parameters).await }).await.unwrap();
    let (status, xml) = answer.ok_or_else(lost)?;
    Ok(Response::builder()
        .status(status)
        .header("content-type", "text/xml")
        // AWS has the request's id in a header of every answer; in that of a success moto has none worth the name.
        .header("x-amzn-requestid", form::texts(&xml, "RequestID").pop().unwrap_or_default())
        .body(Full::new(xml.into()))
        .unwrap())
}

async fn in_order(shared: &Shared, parameters: Parameters) -> Answer {
    let action = parameters.get("Action").cloned().unwrap_or_default();
    let answer = if action.starts_with("Describe") {
        let _reading = shared.order.read().await;
        through(shared, &action, &parameters).await
    } else {
        let _writing = shared.order.write().await;
        through(shared, &action, &parameters).await
    };
    let takes = shared.front.lock().unwrap().launch_takes;
    if action == "RunInstances" && !takes.is_zero() {
        tokio::time::sleep(takes).await;
    }
    answer
}

async fn through(shared: &Shared, action: &str, parameters: &Parameters) -> Answer {
    if !shared.passage.comes(action).await {
        return None;
    }
    let answer = carry_out(shared, action, parameters).await?;
    shared.passage.goes(action, parameters, answer).await
}

async fn carry_out(shared: &Shared, action: &str, parameters: &Parameters) -> Answer {
    let decision = shared.front.lock().unwrap().decide(action, parameters);
    let lose = matches!(decision, Decision::ForwardAndLose);
    match decision {
        Decision::Answer(status, xml) => return Some((status, xml)),
        Decision::Lose => return None,
        Decision::Forward | Decision::ForwardAndLose => {}
    }
    let (status, xml) = ask_moto(shared, parameters).await;
    let (xml, also) = shared.front.lock().unwrap().correct(action, parameters, status, xml);
    if let Some(also) = also {
        ask_moto(shared, &also).await;
    }
    (!lose).then_some((status, xml))
}

async fn ask_moto(shared: &Shared, parameters: &Parameters) -> (u16, String) {
    shared.at_moto.fetch_add(1, Ordering::Relaxed);
    let answer = send(shared.moto, parameters).await;
    shared.at_moto.fetch_sub(1, Ordering::Relaxed);
    answer
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
