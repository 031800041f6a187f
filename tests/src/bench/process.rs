//! What a process takes: memory, descriptors, processor time. Read from `/proc`.

use std::fs;
use std::time::Duration;

/// What a process has now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Resident memory in KiB, pages shared with others counted whole.
    pub rss_kib: u64,
    /// Resident memory in KiB, pages shared with others counted by their share.
    pub pss_kib: u64,
    /// Memory in KiB that is this process's alone.
    pub private_kib: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Footprint {
    /// That of process `pid`.
    ///
    /// # Panics
    /// When there is no such process.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let kib = |name: &str| -> u64 {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap_or_default()
        };
        Self {
            rss_kib: kib("Rss"),
            pss_kib: kib("Pss:"),
            private_kib: kib("Private_Clean") + kib("Private_Dirty"),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64,
            threads: fs::read_dir(format!("/proc/{pid}/task")).unwrap().count() as u64,
        }
    }
}

/// Processor time that process `pid` used since it began, in user and kernel mode; its threads' too, its children's not.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name, the second field, may hold spaces and brackets.
    let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let ticks =
        |n: usize| after_name.split(' ').nth(n).and_then(|t| t.parse::<u64>().ok()).unwrap_or_default();
    // Linux has told user space 100 ticks a second since 2.6, whatever its own clock does.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something() {
        let own = Footprint::of(std::process::id());
        assert!(own.rss_kib > 1000 && own.pss_kib > 100 && own.private_kib > 100, "{own:?}");
        assert!(own.pss_kib <= own.rss_kib && own.private_kib <= own.rss_kib, "{own:?}");
        assert!(own.descriptors >= 3 && own.threads >= 1, "{own:?}");
    }

    #[test]
    fn time_that_is_burnt_is_counted() {
        let before = cpu_time(std::process::id());
        let began = std::time::Instant::now();
        // A busy machine gives this thread little of it.
        while cpu_time(std::process::id()) <= before {
            assert!(began.elapsed() < Duration::from_secs(30), "nothing is counted");
        }
    }
}
