//! Watches: an answer that goes on, fed from the store's log.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::http::{Body, with};
use crate::read::{Watched, not_from_the_future};
use crate::refusal::Refusal;
use crate::server::{Shared, Signals};
use crate::target::Query;

/// How long a watch lasts when its client does not say.
const LASTS: Duration = Duration::from_mins(30);
/// How often a watch that takes them gets a bookmark.
const BOOKMARK_EVERY: Duration = Duration::from_mins(1);

/// What a watch starts with, and how it goes on.
struct Feed {
    shared: Arc<Shared>,
    watched: Watched,
    /// Everything up to here has been sent.
    cursor: u64,
    bookmarks: bool,
    until: Instant,
    lines: mpsc::Sender<io::Result<Frame<Bytes>>>,
    changed: watch::Receiver<u64>,
    signals: watch::Receiver<Signals>,
    /// The signals as they were when the watch began.
    seen: Signals,
}

/// Starts a watch.
pub(crate) fn answer(
    shared: Arc<Shared>,
    watched: Watched,
    query: &Query,
) -> Result<Response<Body>, Refusal> {
    let initial = query.is_true("sendInitialEvents");
    if initial && query.text("resourceVersionMatch") != "NotOlderThan" {
        let message = "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: \
                       sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        return Err(Refusal::new(422, "Invalid", message));
    }
    let (lines, receiver) = mpsc::channel(64);
    let lasts =
        query.number("timeoutSeconds").filter(|seconds| *seconds > 0).map_or(LASTS, Duration::from_secs);
    let bookmarks = query.is_true("allowWatchBookmarks");
    let from = query.number("resourceVersion").unwrap_or_default();
    // From here on nothing is missed, even before the task runs.
    let (changed, signals) = (shared.changed.subscribe(), shared.signals.subscribe());
    let seen = *signals.borrow();
    let until = Instant::now() + lasts;
    let (first, cursor) = first(&shared, &watched, from, initial)?;
    let feed = Feed { shared, watched, cursor, bookmarks, until, lines, changed, signals, seen };
    tokio::spawn(feed.run(first, initial));
    let body = StreamBody::new(ReceiverStream::new(receiver).boxed());
    Ok(with(200, "application/json", BodyExt::boxed_unsync(body)))
}

/// The first events, and the version they are of. A version that is too old is told in the stream, as a real server does.
fn first(shared: &Shared, watched: &Watched, from: u64, initial: bool) -> Result<(Vec<Value>, u64), Refusal> {
    let store = shared.store();
    not_from_the_future(&store, from)?;
    if from == 0 || initial {
        return Ok((watched.present(&store), store.version()));
    }
    if from < store.oldest() {
        let status = Refusal::expired(from, store.oldest()).status();
        return Ok((vec![json!({"type": "ERROR", "object": status})], u64::MAX));
    }
    Ok((Vec::new(), from))
}

impl Feed {
    async fn run(mut self, first: Vec<Value>, initial: bool) {
        let expired = self.cursor == u64::MAX;
        if !self.send(&first).await || expired {
            return;
        }
        if initial && !self.bookmark(true).await {
            return;
        }
        let mut bookmark_at = Instant::now() + BOOKMARK_EVERY;
        loop {
            let events = self.news();
            if !self.send(&events).await {
                return;
            }
            tokio::select! {
                _ = self.changed.changed() => {}
                _ = self.signals.changed() => {
                    let now = *self.signals.borrow();
                    if now.drops != self.seen.drops {
                        let _ = self.lines.send(Err(io::Error::other("the test wanted this watch dropped"))).await;
                        return;
                    }
                    self.seen = now;
                    // What changed before the signal comes before the bookmark.
                    let events = self.news();
                    if !self.send(&events).await || !self.bookmark(false).await {
                        return;
                    }
                }
                () = tokio::time::sleep_until(bookmark_at.min(self.until)) => {
                    if !self.bookmark(false).await || Instant::now() >= self.until {
                        return;
                    }
                    bookmark_at = Instant::now() + BOOKMARK_EVERY;
                }
                () = self.lines.closed() => return,
            }
        }
    }

    fn news(&mut self) -> Vec<Value> {
        if self.shared.desk().held.as_deref() == Some(self.watched.resource()) {
            return Vec::new();
        }
        let store = self.shared.store();
        let events =
            store.since(self.cursor).iter().filter_map(|change| self.watched.event(change)).collect();
        self.cursor = store.version();
        events
    }

    async fn bookmark(&self, initial_end: bool) -> bool {
        if !self.bookmarks {
            return true;
        }
        self.send(&[self.watched.bookmark(self.cursor, initial_end)]).await
    }

    /// False when nobody reads any longer.
    async fn send(&self, events: &[Value]) -> bool {
        for event in events {
            let line = Bytes::from(format!("{event}\n"));
            if self.lines.send(Ok(Frame::data(line))).await.is_err() {
                return false;
            }
        }
        true
    }
}
