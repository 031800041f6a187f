//! The figures as rows: each path's beside those of the path it is compared with, from the same rounds.

use peerpods_tests::bench::{Aim, Report, Row, Samples, Unit, Value};

use super::calls::Taken;
use super::paths::{Path, Usage};

/// One figure of one path in one round.
struct Figure {
    group: &'static str,
    what: &'static str,
    unit: Unit,
    of: fn(&Taken) -> f64,
    upstream: Option<&'static str>,
}

const FIGURES: &[Figure] = &[
    Figure {
        group: "Health.Check, one at a time",
        what: "median",
        unit: Unit::Micros,
        of: |taken| Unit::Micros.of(taken.one[0]),
        upstream: Some("579–690 µs through, 138–214 µs direct"),
    },
    Figure {
        group: "Health.Check, one at a time",
        what: "99th percentile",
        unit: Unit::Micros,
        of: |taken| Unit::Micros.of(taken.one[1]),
        upstream: None,
    },
    Figure {
        group: "Health.Check, 32 in flight",
        what: "calls",
        unit: Unit::PerSecond,
        of: |taken| taken.in_flight[0].0,
        upstream: Some("2.8–6.5 k/s through, 12–34 k/s direct: 0.2"),
    },
    Figure {
        group: "Health.Check, 32 in flight",
        what: "99th percentile",
        unit: Unit::Micros,
        of: |taken| Unit::Micros.of(taken.in_flight[0].1),
        upstream: Some("12–27 ms"),
    },
    Figure {
        group: "Health.Check, 256 in flight",
        what: "calls",
        unit: Unit::PerSecond,
        of: |taken| taken.in_flight[1].0,
        upstream: None,
    },
    Figure {
        group: "Health.Check, 256 in flight",
        what: "99th percentile",
        unit: Unit::Micros,
        of: |taken| Unit::Micros.of(taken.in_flight[1].1),
        upstream: None,
    },
    Figure {
        group: "CopyFile, 256 MiB in 1 MiB chunks",
        what: "throughput",
        unit: Unit::MiBPerSecond,
        of: |taken| taken.copied[0].0,
        upstream: Some("54 MiB/s through, 258 MiB/s direct: 0.21"),
    },
    Figure {
        group: "CopyFile, 256 MiB in 1 MiB chunks",
        what: "CPU time of both ends",
        unit: Unit::Seconds,
        of: |taken| taken.copied[0].1,
        upstream: Some("3.8 s"),
    },
    Figure {
        group: "ReadStdout, 256 MiB in 1 MiB answers",
        what: "throughput",
        unit: Unit::MiBPerSecond,
        of: |taken| taken.copied[1].0,
        upstream: None,
    },
    Figure {
        group: "ReadStdout, 256 MiB in 1 MiB answers",
        what: "CPU time of both ends",
        unit: Unit::Seconds,
        of: |taken| taken.copied[1].1,
        upstream: None,
    },
];

/// Puts all of it into the report.
pub(crate) fn fill(report: &mut Report, rounds: &[Vec<Taken>]) {
    for figure in FIGURES {
        let of =
            |path: Path| samples(figure.unit, rounds.iter().map(|round| (figure.of)(&round[path as usize])));
        let direct_has_none = figure.unit == Unit::Seconds;
        for path in Path::ALL.into_iter().skip(usize::from(direct_has_none)) {
            let mut row = Row::new(figure.group, format!("{}, {}", figure.what, path.name()), of(path));
            row = match path {
                Path::Direct => row,
                Path::Bare | Path::Tls if direct_has_none => row,
                Path::Bare | Path::Tls => row.against("direct", of(Path::Direct)),
                Path::Session | Path::Plain if direct_has_none || figure.unit == Unit::MiBPerSecond => {
                    row.against("plain TLS", of(Path::Tls))
                }
                Path::Session | Path::Plain => row.against("direct", of(Path::Direct)),
            };
            if matches!(path, Path::Session | Path::Plain) {
                row.upstream = figure.upstream.map(str::to_owned);
                row.aim = aim(figure, rounds, path);
            }
            report.row(row);
        }
    }
}

fn aim(figure: &Figure, rounds: &[Vec<Taken>], path: Path) -> Option<Aim> {
    let over = |to: Path, how: fn(f64, f64) -> f64| {
        let pairs = rounds
            .iter()
            .map(|round| how((figure.of)(&round[path as usize]), (figure.of)(&round[to as usize])));
        samples(figure.unit, pairs).median
    };
    let ratio = |ours, other| ours / other;
    Some(match (figure.group, figure.what) {
        (_, "median") => {
            let added = over(Path::Direct, |ours, direct| ours - direct);
            Aim::new(format!("≤ 150 µs added; added {added:.0}"), added <= 150.0)
        }
        ("Health.Check, 32 in flight", "calls") => {
            let ratio = over(Path::Direct, ratio);
            Aim::new(format!("≥ 5 × upstream's 0.2; is {ratio:.2}"), ratio >= 1.0)
        }
        (_, "throughput") => {
            let ratio = over(Path::Tls, ratio);
            Aim::new(format!("≥ 0.8 of plain TLS; is {ratio:.2}"), ratio >= 0.8)
        }
        _ => return None,
    })
}

/// Memory of the ends of every path.
pub(crate) fn memory(report: &mut Report, when: &str, usage: &[Usage]) {
    for used in usage {
        let value = |kib: u64| samples(Unit::KiB, [kib as f64].into_iter());
        let near = value(used.near);
        let row =
            Row::new("Private anonymous memory", format!("{} near end, {when}", used.path.name()), near);
        let ours = matches!(used.path, Path::Session | Path::Plain);
        report.row(if ours {
            row.aim(Aim::at_most(&near, 2048.0)).upstream("54 MB, one daemon")
        } else {
            row
        });
        let row = Row::new(
            "Private anonymous memory",
            format!("{} far end, {when}", used.path.name()),
            value(used.far),
        );
        report.row(if ours { row.upstream("33 / 44 MB") } else { row });
    }
}

fn samples(unit: Unit, all: impl Iterator<Item = f64>) -> Value {
    let mut samples = Samples::new(unit);
    all.for_each(|one| samples.push(one));
    samples.value()
}
