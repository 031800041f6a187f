//! GetMetrics: the agent's own figures and the VM's load and memory, as Prometheus text, under the kata-agent's names.

use std::fmt::Write;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

/// Clock ticks a second in /proc/PID/stat: fixed in the kernel's interface on every architecture we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Size of the pages /proc/PID/stat counts resident memory in.
const PAGE: u64 = 4096;

static SCRAPES: AtomicU64 = AtomicU64::new(0);

/// What is read of /proc for one answer.
#[derive(Debug, Default)]
struct Observed {
    stat: String,
    load: String,
    memory: String,
}

/// The text for one scrape.
#[must_use]
pub fn scrape() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let observed = Observed {
        stat: read("/proc/self/stat"),
        load: read("/proc/loadavg"),
        memory: read("/proc/meminfo"),
    };
    render(SCRAPES.fetch_add(1, Ordering::Relaxed) + 1, &observed)
}

fn render(scrapes: u64, observed: &Observed) -> String {
    let mut out = String::new();
    family(
        &mut out,
        "kata_agent_scrape_count",
        "counter",
        "Times metrics were asked for",
        [("", scrapes as f64)],
    );
    agent(&mut out, &observed.stat);
    let load =
        ["load1", "load5", "load15"].into_iter().zip(observed.load.split_whitespace().filter_map(number));
    family(&mut out, "kata_guest_load", "gauge", "Load of the VM", load);
    let memory = observed.memory.lines().filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        let mut words = rest.split_whitespace();
        let value = number(words.next()?)?;
        Some((name, if words.next() == Some("kB") { value * 1024.0 } else { value }))
    });
    family(&mut out, "kata_guest_meminfo", "gauge", "Memory of the VM", memory);
    out
}

fn agent(out: &mut String, stat: &str) {
    // The name in parentheses may hold spaces, so fields count from its end.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |number_from_three: usize| fields.get(number_from_three - 3).copied().and_then(number);
    let one = |value: Option<f64>| value.map(|value| ("", value));
    let time = field(14).zip(field(15)).map(|(user, system)| (user + system) / TICKS_PER_SECOND);
    let resident = field(24).map(|pages| pages * PAGE as f64);
    family(out, "kata_agent_threads", "gauge", "Threads of the agent", one(field(20)));
    family(out, "kata_agent_total_time", "gauge", "Processor time of the agent in seconds", one(time));
    family(out, "kata_agent_total_vm", "gauge", "Virtual memory of the agent in bytes", one(field(23)));
    family(out, "kata_agent_total_rss", "gauge", "Resident memory of the agent in bytes", one(resident));
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// A family with its values by item; the empty item has no label.
fn family<'a>(
    out: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    values: impl IntoIterator<Item = (&'a str, f64)>,
) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (item, value) in values {
        let _ = match item {
            "" => writeln!(out, "{name} {value}"),
            item => writeln!(out, "{name}{{item=\"{item}\"}} {value}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_out_under_the_kata_agents_names() {
        let observed = Observed {
            stat: "7 (mini (agent)) S 1 7 7 0 -1 0 0 0 0 0 150 50 0 0 20 0 3 0 9 8192 2 0".into(),
            load: "0.50 1.25 2.00 1/80 99".into(),
            memory: "MemTotal:  1024 kB\nHugePages_Total: 3\n".into(),
        };
        let text = render(4, &observed);
        for line in [
            "kata_agent_scrape_count 4",
            "kata_agent_threads 3",
            "kata_agent_total_time 2",
            "kata_agent_total_vm 8192",
            "kata_agent_total_rss 8192",
            "kata_guest_load{item=\"load5\"} 1.25",
            "kata_guest_meminfo{item=\"MemTotal\"} 1048576",
            "kata_guest_meminfo{item=\"HugePages_Total\"} 3",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line:?} in\n{text}");
        }
    }

    #[test]
    fn a_scrape_of_the_real_proc_has_the_load() {
        assert!(scrape().contains("kata_guest_load{item=\"load1\"}"));
    }
}
