//! The server as a test holds it: its address, clients for it, and the knobs that break things.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Client;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tracing::debug;

use crate::desk::{Asked, Desk, Failure};
use crate::http;
use crate::rbac::Identity;
use crate::store::Store;
use crate::{collect, write};

/// Why a server could not be started, or a client not be made.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No port on the loopback.
    #[error("cannot listen on the loopback")]
    Listen(#[from] io::Error),
    /// The client does not take its configuration.
    #[error("cannot make a client for the server at {url}")]
    Client {
        /// Where the server is.
        url: String,
        /// What it says.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Signals to everything that watches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Signals {
    pub(crate) drops: u64,
    pub(crate) bookmarks: u64,
}

/// What all connections share.
pub(crate) struct Shared {
    store: Mutex<Store>,
    desk: Mutex<Desk>,
    /// The store's version, for those who wait for a change.
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) signals: watch::Sender<Signals>,
}

impl Shared {
    /// The store, for a moment: nobody awaits anything while holding it.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the store and tells the watches.
    pub(crate) fn change<T>(&self, act: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.store();
        let before = store.version();
        let outcome = act(&mut store);
        if store.version() != before {
            self.changed.send_replace(store.version());
        }
        outcome
    }
}

/// A running API server. It ends when the last clone is dropped.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Running>,
}

struct Running {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Bound and never listening: keeps the port ours while the server is stopped.
    _reserved: TcpSocket,
    /// Accepts and serves; aborted, it takes its connections with it.
    serving: Mutex<Option<JoinHandle<()>>>,
    collecting: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.collecting.abort();
        if let Some(serving) = self.serving.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            serving.abort();
        }
    }
}

impl Server {
    /// A server with the namespaces that every cluster has, and nothing else.
    ///
    /// # Errors
    /// No port on the loopback.
    pub async fn start() -> Result<Self, ServerError> {
        let mut store = Store::default();
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            write::found_namespace(&mut store, name);
        }
        let reserved = TcpSocket::new_v4()?;
        reserved.set_reuseaddr(true)?;
        reserved.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = reserved.local_addr()?;
        let shared = Arc::new(Shared {
            changed: watch::Sender::new(store.version()),
            signals: watch::Sender::new(Signals::default()),
            store: Mutex::new(store),
            desk: Mutex::default(),
        });
        let serving = Mutex::new(Some(serve(listen(address)?, shared.clone())));
        let collecting = tokio::spawn(collect::run(shared.clone()));
        Ok(Self { inner: Arc::new(Running { shared, address, _reserved: reserved, serving, collecting }) })
    }

    /// Where it is, such as `http://127.0.0.1:40001`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.inner.address)
    }

    /// A file for kubectl.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters:\n- name: test\n  cluster: {{server: \"{}\"}}\n\
             contexts:\n- name: test\n  context: {{cluster: test, user: test}}\n\
             users:\n- name: test\n  user: {{}}\n",
            self.url()
        )
    }

    /// A client that may do everything. `name` is its user agent, by which [`Server::requests`] tells clients apart and which stands in
    /// for a field manager that is not named.
    ///
    /// # Errors
    /// None known: the configuration is one that the client takes.
    pub fn client(&self, name: &str) -> Result<Client, ServerError> {
        self.connect(name, None)
    }

    /// A client that may do what the stored roles and bindings give to a service account. What they do not is refused with 403.
    ///
    /// # Errors
    /// As [`Server::client`].
    pub fn client_as(&self, namespace: &str, account: &str) -> Result<Client, ServerError> {
        self.connect(account, Some(Identity::account(namespace, account)))
    }

    /// A client that may do just what these rules say, in every namespace.
    ///
    /// # Errors
    /// As [`Server::client`].
    pub fn client_with_role(&self, name: &str, rules: &[PolicyRule]) -> Result<Client, ServerError> {
        self.connect(name, Some(Identity::with_rules(name, rules)))
    }

    fn connect(&self, name: &str, identity: Option<Identity>) -> Result<Client, ServerError> {
        // Another part of the test may have chosen already: its choice is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let url = self.url();
        let refused =
            |source: kube::Error| ServerError::Client { url: url.clone(), source: Box::new(source) };
        let uri =
            url.parse().map_err(|error| refused(kube::Error::HttpError(hyper::http::Error::from(error))))?;
        let mut config = kube::Config::new(uri);
        let header = |text: &str| {
            hyper::http::HeaderValue::from_str(text)
                .map_err(|error| refused(kube::Error::HttpError(error.into())))
        };
        config.headers.push((hyper::header::USER_AGENT, header(name)?));
        if let Some(identity) = identity {
            let token = uuid::Uuid::new_v4().to_string();
            config.headers.push((hyper::header::AUTHORIZATION, header(&format!("Bearer {token}"))?));
            self.inner.shared.desk().tokens.insert(token, identity);
        }
        Client::try_from(config).map_err(refused)
    }

    /// No watch may start from before this moment: it gets 410.
    pub fn compact(&self) {
        self.inner.shared.store().compact();
    }

    /// Breaks the connection of every watch.
    pub fn drop_watches(&self) {
        self.inner.shared.signals.send_modify(|signals| signals.drops += 1);
    }

    /// Watches of this resource, such as `configmaps`, tell nothing more until [`Server::release_watches`]: whoever relies on them alone
    /// acts on what was.
    pub fn hold_watches(&self, resource: &str) {
        self.inner.shared.desk().held = Some(resource.to_owned());
    }

    /// Watches that were held tell what they owe.
    pub fn release_watches(&self) {
        self.inner.shared.desk().held = None;
        self.inner.shared.changed.send_modify(|_| {});
    }

    /// Sends a bookmark on every watch that takes them, instead of after a minute.
    pub fn bookmark_watches(&self) {
        self.inner.shared.signals.send_modify(|signals| signals.bookmarks += 1);
    }

    /// Stops serving: what is open breaks, and connections are refused, until [`Server::serve_again`]. The objects stay.
    pub async fn stop(&self) {
        let serving = self.serving().take();
        if let Some(serving) = serving {
            serving.abort();
            // It ends by being aborted, which is the error of a join.
            let _ = serving.await;
        }
    }

    /// Serves again at the same address. Does nothing when it does.
    ///
    /// # Errors
    /// The port is taken.
    pub fn serve_again(&self) -> Result<(), ServerError> {
        let mut serving = self.serving();
        if serving.is_none() {
            *serving = Some(serve(listen(self.inner.address)?, self.inner.shared.clone()));
        }
        Ok(())
    }

    /// Is away for a while, and back.
    ///
    /// # Errors
    /// As [`Server::serve_again`].
    pub async fn away(&self, duration: Duration) -> Result<(), ServerError> {
        self.stop().await;
        tokio::time::sleep(duration).await;
        self.serve_again()
    }

    fn serving(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.inner.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every request since the start or the last [`Server::forget_requests`], oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Asked> {
        self.inner.shared.desk().log().to_vec()
    }

    /// How many of the requests were writes. A quiet controller makes none.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.inner.shared.desk().log().iter().filter(|asked| asked.is_write()).count()
    }

    /// Empties the log of requests.
    pub fn forget_requests(&self) {
        self.inner.shared.desk().forget();
    }

    /// Refuses the next request that matches, with this code. (kube's client asks again by itself after 429, 503 and 504.)
    pub fn fail_next(&self, matches: impl FnMut(&Asked) -> bool + Send + 'static, code: u16) {
        self.inner.shared.desk().arrange(Box::new(matches), Failure::Refused(code));
    }

    /// Does what the next matching request asks for, but breaks the connection before the answer.
    pub fn lose_next_answer(&self, matches: impl FnMut(&Asked) -> bool + Send + 'static) {
        self.inner.shared.desk().arrange(Box::new(matches), Failure::Unanswered);
    }

    /// Where the service of a webhook configuration is. Without it such a webhook cannot be reached.
    pub fn resolve_service(&self, namespace: &str, name: &str, address: SocketAddr) {
        self.inner.shared.desk().services.insert((namespace.into(), name.into()), address);
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

fn serve(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            // The answers are small and waited for.
            let _ = stream.set_nodelay(true);
            let shared = shared.clone();
            connections.spawn(async move {
                let service =
                    hyper::service::service_fn(move |request| http::handle(shared.clone(), request));
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = served.await {
                    debug!(%error, "a connection broke");
                }
            });
            while connections.try_join_next().is_some() {}
        }
    })
}
