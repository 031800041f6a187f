//! One ttrpc connection of a client, written on the bytes: the shims' side of `facts/kata.md` §2.
//!
//! Not the ttrpc crate, which the service under test is made of: the two would agree with each other in what is wrong. It also does
//! what no well-meant client does: it says half a request, and closes with an answer unread. Unary calls only; there are no others.

mod reset;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use peerpods_proto::ttrpc::envelope::{KeyValue, Request, Response};
use protobuf::Message;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use reset::Unread;

/// The longest payload a peer takes.
pub const MAX_PAYLOAD: usize = 4 << 20;
/// A frame's type: a request.
pub const REQUEST: u8 = 1;
/// A frame's type: a response.
const RESPONSE: u8 = 2;
/// Length, stream id, type, flags.
pub const HEADER: usize = 10;

/// A service and one of its methods, as they are called on the wire.
pub type Method = (&'static str, &'static str);

/// How a call ended other than with an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody listens.
    #[error("cannot connect: {0}")]
    Dial(String),
    /// The peer answered with a status.
    #[error("status {code}: {message}")]
    Status {
        /// `google.rpc.Code`.
        code: i32,
        /// For people.
        message: String,
    },
    /// The connection ended before the answer.
    #[error("the connection ended: {0}")]
    Closed(String),
    /// The caller's own deadline passed.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
}

impl CallError {
    /// The status' number. A deadline that passed here is no answer, and has none.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Status { code, .. } => Some(*code),
            Self::Deadline(_) | Self::Dial(_) | Self::Closed(_) => None,
        }
    }
}

impl From<CallError> for ttrpc::Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Status { code, message } => {
                let mut status = ttrpc::get_status(ttrpc::Code::UNKNOWN, message);
                status.code = protobuf::EnumOrUnknown::from_i32(code);
                Self::RpcStatus(status)
            }
            CallError::Closed(_) => Self::RemoteClosed,
            // Not a status: whoever asks for a refusal must not take our own impatience for one.
            CallError::Deadline(_) | CallError::Dial(_) => Self::Others(error.to_string()),
        }
    }
}

type Answer = Result<Vec<u8>, CallError>;

/// Those who wait, by stream id; `None` once nothing more will come.
type Waiting = Arc<Mutex<Option<HashMap<u32, oneshot::Sender<Answer>>>>>;

/// A connection. Dropping it closes the socket, whatever is under way, and without the shutdown that tokio's halves would do first.
pub struct Connection {
    stream: Arc<UnixStream>,
    /// One frame after the other.
    writing: tokio::sync::Mutex<()>,
    waiting: Waiting,
    next: Mutex<u32>,
    reader: JoinHandle<()>,
    /// What goes with every request of this connection.
    metadata: Vec<KeyValue>,
}

/// A call that was sent.
#[derive(Debug)]
pub struct InFlight {
    answer: oneshot::Receiver<Answer>,
    deadline: Option<Duration>,
}

impl InFlight {
    /// Waits for the answer.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn answer<A: Message>(self) -> Result<A, CallError> {
        let came = async {
            self.answer.await.unwrap_or_else(|_| Err(CallError::Closed("before the answer".to_owned())))
        };
        let payload = match self.deadline {
            None => came.await?,
            Some(limit) => {
                tokio::time::timeout(limit, came).await.map_err(|_| CallError::Deadline(limit))??
            }
        };
        A::parse_from_bytes(&payload)
            .map_err(|e| CallError::Closed(format!("the answer makes no sense: {e}")))
    }
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// [`CallError::Dial`].
    pub async fn dial(socket: &Path) -> Result<Self, CallError> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|e| CallError::Dial(format!("{}: {e}", socket.display())))?;
        Ok(Self::over(stream))
    }

    /// A connection on a stream that is open.
    #[must_use]
    pub fn over(stream: UnixStream) -> Self {
        let stream = Arc::new(stream);
        let waiting = Waiting::new(Mutex::new(Some(HashMap::new())));
        let reader = tokio::spawn(read_answers(stream.clone(), waiting.clone()));
        let (writing, next) = (tokio::sync::Mutex::default(), Mutex::new(1));
        Self { stream, writing, waiting, next, reader, metadata: Vec::new() }
    }

    /// The same connection, with a pair of metadata in every request from now on.
    #[must_use]
    pub fn marked(mut self, key: &str, value: &str) -> Self {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.metadata.push(KeyValue { key, value, ..KeyValue::default() });
        self
    }

    /// Sends a request; its deadline travels in it.
    ///
    /// # Errors
    /// [`CallError::Closed`].
    pub async fn begin(
        &self,
        method: Method,
        request: &impl Message,
        deadline: Option<Duration>,
    ) -> Result<InFlight, CallError> {
        let payload = request.write_to_bytes().map_err(|e| CallError::Closed(e.to_string()))?;
        self.begin_raw(envelope(method, payload, deadline, &self.metadata), deadline).await
    }

    /// Sends a request as it is given.
    ///
    /// # Errors
    /// [`CallError::Closed`].
    pub async fn begin_raw(
        &self,
        request: Vec<u8>,
        deadline: Option<Duration>,
    ) -> Result<InFlight, CallError> {
        let stream = self.next_stream();
        let (tell, answer) = oneshot::channel();
        match &mut *lock(&self.waiting) {
            Some(waiting) => drop(waiting.insert(stream, tell)),
            None => return Err(CallError::Closed("some time ago".to_owned())),
        }
        let mut bytes = header(request.len(), stream, REQUEST).to_vec();
        bytes.extend_from_slice(&request);
        let _turn = self.writing.lock().await;
        let sent = write_all(&self.stream, &bytes).await;
        sent.map_err(|e| CallError::Closed(e.to_string()))?;
        Ok(InFlight { answer, deadline })
    }

    /// A whole call.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<A: Message>(
        &self,
        method: Method,
        request: &impl Message,
        deadline: Option<Duration>,
    ) -> Result<A, CallError> {
        self.begin(method, request, deadline).await?.answer().await
    }

    /// Whether the peer has closed, or the connection broke.
    #[must_use]
    pub fn is_over(&self) -> bool {
        lock(&self.waiting).is_none()
    }

    /// Client streams are odd.
    fn next_stream(&self) -> u32 {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = *next;
        *next += 2;
        stream
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The envelope of a request.
#[must_use]
pub fn envelope(
    (service, method): Method,
    payload: Vec<u8>,
    deadline: Option<Duration>,
    metadata: &[KeyValue],
) -> Vec<u8> {
    let timeout_nano = deadline.map_or(0, |limit| i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX).max(1));
    let request = Request {
        service: service.to_owned(),
        method: method.to_owned(),
        payload,
        timeout_nano,
        metadata: metadata.to_vec(),
        ..Request::default()
    };
    request.write_to_bytes().unwrap_or_default()
}

/// An [`envelope`] that carries metadata, as with tracing (Go) or agent-ctl.
#[must_use]
pub fn envelope_with_metadata((service, method): Method, payload: Vec<u8>, key: &str) -> Vec<u8> {
    let pair = KeyValue { key: key.to_owned(), value: "x".to_owned(), ..KeyValue::default() };
    let request = Request {
        service: service.to_owned(),
        method: method.to_owned(),
        payload,
        metadata: vec![pair],
        ..Request::default()
    };
    request.write_to_bytes().unwrap_or_default()
}

/// A frame's header.
#[must_use]
pub fn header(length: usize, stream: u32, kind: u8) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    bytes[4..8].copy_from_slice(&stream.to_be_bytes());
    bytes[8] = kind;
    bytes
}

async fn read_answers(stream: Arc<UnixStream>, waiting: Waiting) {
    let end = loop {
        match read_answer(&stream).await {
            Ok((id, answer)) => {
                let waiter = lock(&waiting).as_mut().and_then(|waiting| waiting.remove(&id));
                // Somebody who gave up does not wait any more.
                if let Some(waiter) = waiter {
                    drop(waiter.send(answer));
                }
            }
            Err(error) => break error,
        }
    };
    for waiter in lock(&waiting).take().into_iter().flat_map(HashMap::into_values) {
        drop(waiter.send(Err(CallError::Closed(end.to_string()))));
    }
}

async fn read_answer(stream: &UnixStream) -> io::Result<(u32, Answer)> {
    let mut header = [0; HEADER];
    read_exact(stream, &mut header).await?;
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (length, id, kind) = (word(0) as usize, word(4), header[8]);
    if kind != RESPONSE || length > MAX_PAYLOAD {
        return Err(io::Error::other(format!("a frame of type {kind} with {length} bytes, no answer")));
    }
    let mut payload = vec![0; length];
    read_exact(stream, &mut payload).await?;
    let response = Response::parse_from_bytes(&payload).map_err(io::Error::other)?;
    let answer = match response.status.as_ref() {
        Some(status) if status.code != 0 => {
            Err(CallError::Status { code: status.code, message: status.message.clone() })
        }
        _ => Ok(response.payload),
    };
    Ok((id, answer))
}

async fn read_exact(stream: &UnixStream, mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        stream.readable().await?;
        match stream.try_read(into) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => into = &mut std::mem::take(&mut into)[read..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Writes all of it.
///
/// # Errors
/// The kernel's.
pub async fn write_all(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
