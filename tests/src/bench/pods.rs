//! Many pods' network namespaces: made and removed by the dozen, where a test's `Pod` would fork for each.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::StreamExt as _;
use peerpods_podnet::pod_netns::{self, PodNetns, PodNetnsSpec};

/// How many are made or removed at a time.
const AT_ONCE: usize = 4;

/// Namespaces that are removed together.
#[derive(Debug, Default)]
pub struct Pods {
    names: Vec<String>,
}

static MADE: AtomicU32 = AtomicU32::new(0);

#[expect(clippy::missing_panics_doc, reason = "the test framework fails the test")]
impl Pods {
    /// Makes one more.
    pub async fn one(&mut self) -> PathBuf {
        self.make(1).await.remove(0)
    }

    /// Makes `n` more and answers their paths.
    pub async fn make(&mut self, n: usize) -> Vec<PathBuf> {
        let made: Vec<PodNetns> =
            futures::stream::iter(0..n).map(|_| make()).buffered(AT_ONCE).collect().await;
        self.names.extend(made.iter().map(|pod| pod.name.clone()));
        made.into_iter().map(|pod| pod.path).collect()
    }

    /// Removes all of them.
    pub async fn remove(&mut self) {
        let removed = futures::stream::iter(self.names.drain(..));
        removed
            .for_each_concurrent(AT_ONCE, |name| async move { pod_netns::remove(&name).await.unwrap() })
            .await;
    }
}

async fn make() -> PodNetns {
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let network = format!("10.{}.{}", 160 + number / 250, number % 250);
    let spec = PodNetnsSpec {
        node_address: format!("{network}.1/24").parse().unwrap(),
        pod_address: format!("{network}.2/24").parse().unwrap(),
        mtu: 1500,
    };
    PodNetns::create(&format!("ppbench-{}-{number}", std::process::id()), spec).await.unwrap()
}
