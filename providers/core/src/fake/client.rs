//! A provider whose cloud is in another process: the near side of [`CloudServer`](super::CloudServer).

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use peerpods_podvm::ClusterId;
use peerpods_podvm::image::GuestAdmission;
use tokio::net::UnixDatagram;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::wire::{Answer, Call, DATAGRAM_MAX, Failure, Reply, Request};
use crate::{ErrorKind, Facts, Instance, Provider, ProviderError, VmKey, VmSpec};

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Answer, Failure>>>>>;

/// A client of a fake cloud behind a socket. A call that is dropped was either not sent or goes on in the cloud.
pub struct CloudClient {
    cloud: PathBuf,
    own: PathBuf,
    socket: Arc<UnixDatagram>,
    numbers: AtomicU64,
    waiting: Waiting,
    receiver: JoinHandle<()>,
}

impl CloudClient {
    /// A client of the cloud at `cloud`; its own socket is made beside that.
    ///
    /// # Errors
    /// When the socket cannot be made. Whether the cloud is there is seen at the first call.
    pub fn new(cloud: &Path) -> io::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let own = PathBuf::from(format!("{}.{}.{number}", cloud.display(), std::process::id()));
        // A process of the same number may have been killed here before.
        let _absent = std::fs::remove_file(&own);
        let socket = Arc::new(UnixDatagram::bind(&own)?);
        let waiting = Waiting::default();
        let receiver = tokio::spawn(receive(socket.clone(), waiting.clone()));
        let cloud = cloud.to_owned();
        Ok(Self { cloud, own, socket, numbers: AtomicU64::new(0), waiting, receiver })
    }

    async fn call(&self, what: &str, call: Call) -> Result<Answer, ProviderError> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let lost = |e: &dyn std::fmt::Display| {
            ProviderError::new(ErrorKind::Transient, what, format!("the cloud is out of reach: {e}"))
        };
        let request = serde_json::to_vec(&Request { number, call }).map_err(|e| lost(&e))?;
        if request.len() > DATAGRAM_MAX {
            let text = format!("a request of {} bytes; at most {DATAGRAM_MAX} are taken", request.len());
            return Err(ProviderError::new(ErrorKind::Invalid, what, text));
        }
        let (sender, answer) = oneshot::channel();
        let _registered = Registered { number, waiting: &self.waiting };
        lock(&self.waiting).insert(number, sender);
        self.socket.send_to(&request, &self.cloud).await.map_err(|e| lost(&e))?;
        answer.await.map_err(|e| lost(&e))?.map_err(ProviderError::from)
    }
}

impl Drop for CloudClient {
    fn drop(&mut self) {
        self.receiver.abort();
        let _gone = std::fs::remove_file(&self.own);
    }
}

/// Nobody waits for the answer any more when this is dropped.
struct Registered<'a> {
    number: u64,
    waiting: &'a Waiting,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        lock(self.waiting).remove(&self.number);
    }
}

async fn receive(socket: Arc<UnixDatagram>, waiting: Waiting) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let length = match socket.recv(&mut buffer).await {
            Ok(length) => length,
            Err(error) => return tracing::error!(%error, "the cloud's answers cannot be received"),
        };
        match serde_json::from_slice::<Reply>(buffer.get(..length).unwrap_or_default()) {
            Ok(reply) => {
                // A caller that was dropped needs no answer.
                if let Some(caller) = lock(&waiting).remove(&reply.number) {
                    drop(caller.send(reply.answer));
                }
            }
            Err(error) => tracing::error!(%error, "not an answer"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answer of the kind that was asked for, or what it means that another came.
macro_rules! expect {
    ($what:expr, $answer:expr, $pattern:pat => $value:expr) => {
        match $answer {
            $pattern => Ok($value),
            _ => Err(ProviderError::new(ErrorKind::Transient, $what, "the cloud answered another question")),
        }
    };
}

#[async_trait]
impl Provider for CloudClient {
    fn name(&self) -> &'static str {
        "fake"
    }

    async fn verify(&self) -> Result<Facts, ProviderError> {
        let answer = self.call("verify", Call::Verify).await?;
        expect!("verify", answer, Answer::Facts(told) => told.into())
    }

    async fn guest_admission(&self, image: Option<&str>) -> GuestAdmission {
        let call = Call::GuestAdmission { image: image.map(str::to_owned) };
        match self.call("ask for the guest", call).await {
            Ok(Answer::GuestAdmission(known)) => known,
            _ => GuestAdmission::Unknown,
        }
    }

    async fn create(&self, key: &VmKey, spec: &VmSpec) -> Result<Instance, ProviderError> {
        let what = format!("create VM of {key}");
        let answer = self.call(&what, Call::Create { key: key.clone(), spec: spec.into() }).await?;
        expect!(what, answer, Answer::Created(instance) => instance)
    }

    async fn get(&self, key: &VmKey) -> Result<Option<Instance>, ProviderError> {
        let what = format!("get VM of {key}");
        let answer = self.call(&what, Call::Get { key: key.clone() }).await?;
        expect!(what, answer, Answer::Found(found) => found)
    }

    async fn list(&self, cluster: &ClusterId) -> Result<Vec<(VmKey, Instance)>, ProviderError> {
        let what = format!("list VMs of cluster {cluster}");
        let answer = self.call(&what, Call::List { cluster: cluster.clone() }).await?;
        expect!(what, answer, Answer::Listed(listed) => listed)
    }

    async fn delete(&self, key: &VmKey) -> Result<(), ProviderError> {
        let what = format!("delete VM of {key}");
        let answer = self.call(&what, Call::Delete { key: key.clone() }).await?;
        expect!(what, answer, Answer::Deleted => ())
    }
}
