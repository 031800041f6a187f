//! Where the time went: what this client did and what the node service reports, in one table.

use std::time::{Duration, Instant};

use peerpods_proto::grpc::admin::Phase as ServicePhase;
use serde::Serialize;

use crate::output;

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// This command.
    Client,
    /// The node service, within one of the client's phases.
    Service,
}

/// One thing that took time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What it was.
    pub name: String,
    /// Who did it.
    pub by: By,
    /// When it began, in microseconds since the command began.
    pub start_us: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// What the service has to say about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// The phases of one command.
#[derive(Debug)]
pub struct Timeline {
    began: Instant,
    entries: Vec<Entry>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { began: Instant::now(), entries: Vec::new() }
    }
}

impl Timeline {
    /// Awaits `work` and notes it under `name`, however it ends. A work that is dropped is not noted.
    pub async fn time<T>(&mut self, name: &str, work: impl Future<Output = T>) -> T {
        let start = self.began.elapsed();
        let result = work.await;
        self.push(name, start, self.began.elapsed().saturating_sub(start));
        result
    }

    fn push(&mut self, name: &str, start: Duration, took: Duration) {
        let (start_us, took_us) = (micros(start), micros(took));
        self.entries.push(Entry {
            name: name.to_owned(),
            by: By::Client,
            start_us,
            took_us,
            detail: String::new(),
        });
    }

    /// Adds what the node service did; its clock began when the phase `since` of this client did.
    pub fn adopt(&mut self, since: &str, phases: &[ServicePhase]) {
        let zero = self.entries.iter().find(|entry| entry.name == since).map_or(0, |entry| entry.start_us);
        self.entries.retain(|entry| entry.by == By::Client);
        self.entries.extend(phases.iter().map(|phase| Entry {
            name: phase.name.clone(),
            by: By::Service,
            start_us: zero.saturating_add(phase.start_us),
            took_us: phase.took_us,
            detail: phase.detail.clone(),
        }));
        // The longer of two that begin together holds the other.
        self.entries.sort_by_key(|entry| (entry.start_us, entry.by == By::Service, u64::MAX - entry.took_us));
    }

    /// The phases in order of their beginning.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// As a table; what the service did is indented.
    #[must_use]
    pub fn table(&self) -> String {
        let row = |entry: &Entry| {
            let indent = if entry.by == By::Service { "  " } else { "" };
            let name = format!("{indent}{}", entry.name);
            vec![name, seconds(entry.start_us), seconds(entry.took_us), entry.detail.clone()]
        };
        let mut rows: Vec<Vec<String>> = self.entries.iter().map(row).collect();
        let total = seconds(micros(self.began.elapsed()));
        rows.push(vec!["total".to_owned(), String::new(), total, String::new()]);
        output::table(&["PHASE", "AT", "TOOK", "DETAIL"], &rows)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Microseconds as seconds with three decimals, aligned up to a thousand seconds.
fn seconds(micros: u64) -> String {
    format!("{:>4}.{:03} s", micros / 1_000_000, micros / 1_000 % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_phases_stand_within_the_clients() {
        let mut timeline = Timeline::default();
        let at = Duration::from_millis;
        timeline.push("pod network", at(0), at(10));
        timeline.push("CreateVM", at(10), at(20));
        timeline.push("StartVM", at(30), at(3_000));
        let phase = |name: &str, start_us, took_us| ServicePhase {
            name: name.to_owned(),
            start_us,
            took_us,
            detail: String::new(),
        };
        timeline.adopt("CreateVM", &[phase("observe", 1_000, 5_000), phase("vm", 25_000, 100_000)]);
        timeline.adopt("CreateVM", &[phase("observe", 1_000, 5_000), phase("vm", 25_000, 100_000)]);
        let names: Vec<&str> = timeline.entries().iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["pod network", "CreateVM", "observe", "StartVM", "vm"]);
        assert!(timeline.table().contains("  vm"), "{}", timeline.table());
        assert!(timeline.table().contains("0.035 s"), "{}", timeline.table());
    }
}
