//! One run of the service seen from outside: how it is asked to end, and how far it is. Whoever composes the service keeps a clone, for
//! signals and for its health endpoints. Nothing here waits or works.

use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::context::Context;

/// How far the service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// The journal is read and the provider asked; the socket exists and nobody answers yet.
    #[default]
    Starting,
    /// Requests are answered.
    Serving,
    /// No new sandbox and no new start; what is under way is waited for.
    Draining {
        /// Creations and starts that are still under way.
        starts: usize,
    },
    /// The socket is closed.
    Ended,
}

/// The life of one service. Clones are the same life.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    pub(crate) drain: CancellationToken,
    pub(crate) hurry: CancellationToken,
    status: Arc<watch::Sender<Status>>,
    context: Arc<OnceLock<Weak<Context>>>,
}

impl Lifecycle {
    /// A life that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the service to end, as the first SIGTERM does: nothing new, what is under way may finish within
    /// [`drain_timeout`](crate::Config::drain_timeout).
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Asks it to end now, as a second signal does: starts under way are unwound, and the process ends when that is on record.
    pub fn hurry(&self) {
        self.drain.cancel();
        self.hurry.cancel();
    }

    /// Whether the service was asked to end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Waits until the service is asked to end. May be dropped.
    pub async fn asked_to_end(&self) {
        self.drain.cancelled().await;
    }

    /// How far the service is.
    #[must_use]
    pub fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// Follows [`Lifecycle::status`].
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Why no new VM can be made at present; `None` when one can, and before the service serves or after it ended.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let context = self.context.get()?.upgrade()?;
        context.ready().err().map(|failure| failure.to_string())
    }

    pub(crate) fn enter(&self, status: Status) {
        self.status.send_replace(status);
    }

    /// Weakly: a life that somebody still looks at must not keep the state directory locked.
    pub(crate) fn look_at(&self, context: &Arc<Context>) {
        // A second service under one life is a mistake of the composer; the first is looked at then.
        let _second = self.context.set(Arc::downgrade(context));
    }
}

/// A life that is ended by this token alone, and never in a hurry.
impl From<CancellationToken> for Lifecycle {
    fn from(drain: CancellationToken) -> Self {
        Self { drain, ..Self::default() }
    }
}
