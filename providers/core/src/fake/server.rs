//! A fake cloud for other processes: requests arrive on a unix datagram socket.
//!
//! Datagrams, because one socket's queue keeps the order of all its senders: a request that was sent earlier is carried out earlier, also
//! when its sender is dead by now and the next one comes from its successor. A cloud behind one front door is no different.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::UnixDatagram;
use tokio::task::JoinHandle;

use super::wire::{Answer, Call, DATAGRAM_MAX, Failure, Reply, Request};
use super::{FakeCloud, FakeProvider};
use crate::Provider;

/// Serves a [`FakeCloud`] until dropped.
pub struct CloudServer {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl CloudServer {
    /// Listens on `path`, which must not exist. Whoever may write to it may make and remove VMs.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(cloud: &Arc<FakeCloud>, path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        let task = tokio::spawn(serve(Arc::new(socket), cloud.provider()));
        Ok(Self { path: path.to_owned(), task })
    }
}

impl Drop for CloudServer {
    fn drop(&mut self) {
        self.task.abort();
        let _gone = std::fs::remove_file(&self.path);
    }
}

async fn serve(socket: Arc<UnixDatagram>, provider: FakeProvider) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => return tracing::error!(%error, "the fake cloud's socket failed"),
        };
        let Some(caller) = from.as_pathname().map(Path::to_owned) else { continue };
        let request: Request = match serde_json::from_slice(buffer.get(..length).unwrap_or_default()) {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(%error, "not a request");
                continue;
            }
        };
        let (socket, provider) = (socket.clone(), provider.clone());
        let mut work: BoxFuture<'static, ()> = async move {
            let answer = carry_out(&provider, request.call).await.map_err(Failure::from);
            let reply = serde_json::to_vec(&Reply { number: request.number, answer }).unwrap_or_default();
            // A caller that died needs no answer; what it asked for is done all the same.
            let _dead = socket.send_to(&reply, caller).await;
        }
        .boxed();
        // Begun before the next request is looked at: that is when a key's turn is taken.
        if (&mut work).now_or_never().is_none() {
            tokio::spawn(work);
        }
    }
}

async fn carry_out(provider: &FakeProvider, call: Call) -> Result<Answer, crate::ProviderError> {
    Ok(match call {
        Call::Verify => Answer::Facts(provider.verify().await?.into()),
        Call::GuestAdmission { image } => {
            Answer::GuestAdmission(provider.guest_admission(image.as_deref()).await)
        }
        Call::Create { key, spec } => Answer::Created(provider.create(&key, &spec.into()).await?),
        Call::Get { key } => Answer::Found(provider.get(&key).await?),
        Call::List { cluster } => Answer::Listed(provider.list(&cluster).await?),
        Call::Delete { key } => {
            provider.delete(&key).await?;
            Answer::Deleted
        }
    })
}
