//! StatsContainer: a container's figures, from its cgroup where the VM has any, else from /proc for its first process alone.

use std::collections::HashMap;
use std::fs;

use peerpods_proto::ttrpc::agent::{
    CgroupStats, CpuStats, CpuUsage, MemoryData, MemoryStats, NetworkStats, PidsStats,
    StatsContainerResponse, ThrottlingData,
};

use crate::cgroup::Cgroup;
use crate::container::Container;

/// Nanoseconds of a clock tick in /proc/PID/stat.
const TICK: u64 = 10_000_000;

/// A container's figures now.
#[must_use]
pub fn of(container: &Container) -> StatsContainerResponse {
    let pid = container.init().pid();
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let cgroup = match container.cgroup() {
        Some(cgroup) => from_cgroup(cgroup),
        None => from_process(&read("stat"), &read("status")),
    };
    let mut answer = StatsContainerResponse::new();
    answer.cgroup_stats = Some(cgroup).into();
    answer.network_stats = interfaces(&read("net/dev"));
    answer
}

fn from_cgroup(cgroup: &Cgroup) -> CgroupStats {
    let single = |file| cgroup.read(file).trim().parse::<u64>();
    // "max" is no limit, which the wire format tells as the largest number.
    let limit = |file| single(file).unwrap_or(u64::MAX);
    let value = |file| single(file).unwrap_or_default();
    let memory = table(&cgroup.read("memory.stat"));
    let usage = MemoryData {
        usage: value("memory.current"),
        max_usage: value("memory.peak"),
        limit: limit("memory.max"),
        ..Default::default()
    };
    let pids = PidsStats { current: value("pids.current"), limit: limit("pids.max"), ..Default::default() };
    CgroupStats {
        cpu_stats: Some(cpu(&table(&cgroup.read("cpu.stat")))).into(),
        memory_stats: Some(MemoryStats {
            cache: memory.get("file").copied().unwrap_or_default(),
            usage: Some(usage).into(),
            use_hierarchy: true,
            stats: memory,
            ..Default::default()
        })
        .into(),
        pids_stats: Some(pids).into(),
        ..Default::default()
    }
}

fn cpu(table: &HashMap<String, u64>) -> CpuStats {
    let value = |name: &str| table.get(name).copied().unwrap_or_default();
    let usage = CpuUsage {
        total_usage: value("usage_usec") * 1000,
        usage_in_usermode: value("user_usec") * 1000,
        usage_in_kernelmode: value("system_usec") * 1000,
        ..Default::default()
    };
    let throttling = ThrottlingData {
        periods: value("nr_periods"),
        throttled_periods: value("nr_throttled"),
        throttled_time: value("throttled_usec") * 1000,
        ..Default::default()
    };
    CpuStats { cpu_usage: Some(usage).into(), throttling_data: Some(throttling).into(), ..Default::default() }
}

/// Lines of a name and a number.
fn table(text: &str) -> HashMap<String, u64> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

fn from_process(stat: &str, status: &str) -> CgroupStats {
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks =
        |number: usize| fields.get(number - 3).and_then(|f| f.parse::<u64>().ok()).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let usage = CpuUsage {
        total_usage: (ticks(14) + ticks(15)) * TICK,
        usage_in_usermode: ticks(14) * TICK,
        usage_in_kernelmode: ticks(15) * TICK,
        ..Default::default()
    };
    let memory =
        MemoryData { usage: resident.unwrap_or_default() * 1024, limit: u64::MAX, ..Default::default() };
    CgroupStats {
        cpu_stats: Some(CpuStats { cpu_usage: Some(usage).into(), ..Default::default() }).into(),
        memory_stats: Some(MemoryStats { usage: Some(memory).into(), ..Default::default() }).into(),
        pids_stats: Some(PidsStats { current: 1, limit: u64::MAX, ..Default::default() }).into(),
        ..Default::default()
    }
}

/// The interfaces of the container's network namespace, out of its /proc/PID/net/dev.
fn interfaces(text: &str) -> Vec<NetworkStats> {
    let interface = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let counts: Vec<u64> = rest.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let count = |index: usize| counts.get(index).copied().unwrap_or_default();
        Some(NetworkStats {
            name: name.trim().to_owned(),
            rx_bytes: count(0),
            rx_packets: count(1),
            rx_errors: count(2),
            rx_dropped: count(3),
            tx_bytes: count(8),
            tx_packets: count(9),
            tx_errors: count(10),
            tx_dropped: count(11),
            ..Default::default()
        })
    };
    text.lines().filter_map(interface).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_from_proc() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n  eth0: 10 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n";
        let read = interfaces(text);
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].name.as_str(), read[0].rx_bytes, read[0].rx_dropped), ("eth0", 10, 4));
        assert_eq!((read[0].tx_bytes, read[0].tx_dropped), (50, 8));
    }

    #[test]
    fn a_process_without_cgroup_has_time_and_memory() {
        let read = from_process("7 (a b) S 1 7 7 0 -1 0 0 0 0 0 3 2 0 0 20 0 1", "Name: x\nVmRSS:\t 12 kB\n");
        assert_eq!(read.cpu_stats.cpu_usage.total_usage, 50_000_000);
        assert_eq!(read.memory_stats.usage.usage, 12 * 1024);
    }
}
