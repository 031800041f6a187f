//! Many pods' network namespaces: made and removed by the dozen, where a test's `Pod` would fork for each.

use std::path::{Path, PathBuf};
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

/// Removes the namespaces of benchmarks that were killed: theirs and those of their VMs have the process' number in their names.
pub async fn remove_stale() {
    let names = std::fs::read_dir(pod_netns::DIRECTORY).into_iter().flatten().flatten();
    let names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    for name in names.iter().filter(|name| maker(name).is_some_and(|pid| !runs(pid))) {
        // What cannot be removed is in nobody's way: it only stays.
        drop(pod_netns::remove(name).await);
    }
}

/// The process that made a benchmark's namespace.
fn maker(name: &str) -> Option<u32> {
    let number = match name.strip_prefix("ppbench-") {
        Some(rest) => rest.split_once('-')?.0,
        None => name.strip_prefix("ppi")?,
    };
    number.parse().ok()
}

fn runs(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_benchmarks_namespaces_name_its_process_and_others_are_left_alone() {
        assert_eq!((maker("ppbench-17-3"), maker("ppi17")), (Some(17), Some(17)));
        for other in ["ppbench-x-3", "ppbench-17", "ppixie", "pptest-17-3", "cni-17"] {
            assert_eq!(maker(other), None, "{other}");
        }
        assert!(runs(std::process::id()) && !runs(u32::MAX));
    }
}
