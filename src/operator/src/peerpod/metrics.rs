//! What is counted about VMs that nobody owns.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The counters of the PeerPod controller. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    orphans: Gauge,
    deleted: Family<By, Counter>,
    failed: Family<Of, Counter>,
}

/// By whom a VM was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It had a PeerPod.
    PeerPod,
    /// Only a tag.
    Sweep,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    by: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    kind: &'static str,
}

impl Metrics {
    /// Puts them where they are read.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "peerpods_orphans",
            "VMs at the cloud of nodes that are gone, which no PeerPod owns, at the last look",
            self.orphans.clone(),
        );
        registry.register(
            "peerpods_gc_deleted",
            "VMs that the operator deleted because their node did not",
            self.deleted.clone(),
        );
        registry.register(
            "peerpods_gc_failures",
            "Deletions of such VMs that failed and are tried again, by what the failure means",
            self.failed.clone(),
        );
    }

    /// How many orphans were seen.
    pub fn saw_orphans(&self, number: usize) {
        self.orphans.set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// A VM was deleted.
    pub fn deleted(&self, found: Found) {
        let by = match found {
            Found::PeerPod => "peerpod",
            Found::Sweep => "sweep",
        };
        self.deleted.get_or_create(&By { by }).inc();
    }

    /// A deletion failed; `kind` is a label of the provider's error kinds, or `settings`.
    pub fn failed(&self, kind: &'static str) {
        self.failed.get_or_create(&Of { kind }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_have_the_names_that_dashboards_read() {
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        metrics.saw_orphans(2);
        metrics.deleted(Found::PeerPod);
        metrics.failed("denied");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "peerpods_orphans 2",
            "peerpods_gc_deleted_total{by=\"peerpod\"} 1",
            "peerpods_gc_failures_total{kind=\"denied\"} 1",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
