//! What wakes controllers up: objects that changed in a way that matters, that came, or went. Says *that*, not what: reconciling looks at
//! everything anyway.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use futures::StreamExt;
use futures::future::ready;
use futures::stream::BoxStream;
use kube::api::Api;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

/// A moment at which something of a kind changed. `what_matters` is what two states of an object are compared by. A kind that the
/// cluster does not have, or an API server that is away, is asked again for ever, ever less often.
pub fn changes<K, T>(
    api: Api<K>,
    config: watcher::Config,
    what_matters: impl Fn(&K) -> T + Send + 'static,
) -> BoxStream<'static, ()>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    T: Hash,
{
    let mut known = HashMap::new();
    watch(api, config)
        .backoff(Patience::default())
        .filter_map(move |event| {
            ready(event.ok().is_some_and(|event| is_news(&mut known, &event, &what_matters)).then_some(()))
        })
        .boxed()
}

/// Pauses of watches that fail, for [`changes`] and controllers: each twice the one before, up to a limit. kube's own begin anew with
/// everything that a watch says between two failures, and it says that it begins to list: a kind that is not there would be asked for every
/// second. Here time alone makes them short again.
#[derive(Debug, Default)]
pub struct Patience {
    failed: u32,
    last: Option<Instant>,
}

const FIRST_PAUSE: Duration = Duration::from_millis(800);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// After so long without a failure the next one is the first.
const CALM: Duration = Duration::from_secs(120);

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.last.replace(now).is_some_and(|last| now.saturating_duration_since(last) > CALM) {
            self.failed = 0;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failed.min(10)).min(LONGEST_PAUSE);
        self.failed = self.failed.saturating_add(1);
        // Two watches that fail together are not in step.
        Some(pause.mul_f64(0.75 + fastrand::f64() / 4.0))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {}
}

type Known = HashMap<(Option<String>, String), u64>;

fn is_news<K: Resource, T: Hash>(
    known: &mut Known,
    event: &Event<K>,
    what_matters: &impl Fn(&K) -> T,
) -> bool {
    match event {
        Event::Apply(object) | Event::InitApply(object) => {
            let hash = hash(&what_matters(object));
            known.insert(key(object), hash) != Some(hash)
        }
        Event::Delete(object) => known.remove(&key(object)).is_some(),
        Event::Init => false,
        // What went while nobody watched is not told of.
        Event::InitDone => true,
    }
}

fn key<K: Resource>(object: &K) -> (Option<String>, String) {
    (object.namespace(), object.name_any())
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;

    use super::*;

    fn node(name: &str, label: &str) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some(name.to_owned());
        node.metadata.labels = Some([("a".to_owned(), label.to_owned())].into());
        node
    }

    #[test]
    fn what_a_watch_says_between_failures_does_not_shorten_the_pauses() {
        let mut patience = Patience::default();
        let mut after = |failures: u32| {
            for _ in 0..failures {
                patience.next();
                patience.reset();
            }
            patience.next().unwrap()
        };
        let first = after(0);
        assert!(first <= FIRST_PAUSE && first >= FIRST_PAUSE.mul_f64(0.75), "{first:?}");
        let later = after(9);
        assert!(later <= LONGEST_PAUSE && later >= LONGEST_PAUSE.mul_f64(0.75), "{later:?}");
        patience.last = Instant::now().checked_sub(CALM + FIRST_PAUSE);
        assert!(patience.next().unwrap() <= FIRST_PAUSE);
    }

    #[test]
    fn only_what_matters_is_news_and_every_end_is() {
        let mut known = Known::new();
        let mut news = |event: Event<Node>| is_news(&mut known, &event, &|node: &Node| node.labels().clone());
        assert!(!news(Event::Init));
        assert!(news(Event::InitApply(node("a", "1"))));
        assert!(news(Event::InitDone));
        let mut beating = node("a", "1");
        beating.metadata.resource_version = Some("7".to_owned());
        assert!(!news(Event::Apply(beating)), "a heartbeat");
        assert!(news(Event::Apply(node("a", "2"))));
        assert!(news(Event::Delete(node("a", "2"))));
        assert!(!news(Event::Delete(node("a", "2"))));
        assert!(news(Event::Apply(node("a", "2"))), "it came back as it was");
    }
}
