//! One line of the table: what was measured, what it is compared with, and what was aimed at.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What numbers of a row are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// 2^20 bytes.
    MiB,
    /// 2^10 bytes.
    KiB,
    /// 2^20 bytes a second.
    MiBPerSecond,
    /// 10^6 bits a second.
    MbitPerSecond,
    /// Calls, or round trips, a second.
    PerSecond,
    /// A number of things.
    Count,
}

impl Unit {
    /// As it is written behind a number.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Millis => "ms",
            Self::Micros => "µs",
            Self::MiB => "MiB",
            Self::KiB => "KiB",
            Self::MiBPerSecond => "MiB/s",
            Self::MbitPerSecond => "Mbit/s",
            Self::PerSecond => "/s",
            Self::Count => "",
        }
    }

    /// A duration in this unit.
    ///
    /// # Panics
    /// When the unit is none of time.
    #[must_use]
    pub fn of(self, took: Duration) -> f64 {
        match self {
            Self::Seconds => took.as_secs_f64(),
            Self::Millis => took.as_secs_f64() * 1e3,
            Self::Micros => took.as_secs_f64() * 1e6,
            other => panic!("{other:?} is no unit of time"),
        }
    }
}

/// Measurements of one thing.
#[derive(Debug, Clone)]
pub struct Samples {
    unit: Unit,
    all: Vec<f64>,
}

impl Samples {
    /// None yet.
    #[must_use]
    pub fn new(unit: Unit) -> Self {
        Self { unit, all: Vec::new() }
    }

    /// Adds one, in the unit.
    pub fn push(&mut self, sample: f64) {
        self.all.push(sample);
    }

    /// Adds one time.
    pub fn took(&mut self, took: Duration) {
        self.all.push(self.unit.of(took));
    }

    /// Their quantiles.
    ///
    /// # Panics
    /// When there are none.
    #[must_use]
    pub fn value(&self) -> Value {
        assert!(!self.all.is_empty(), "nothing was measured");
        let mut sorted = self.all.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |percent| sorted[rank(percent, sorted.len())];
        Value { unit: self.unit, runs: sorted.len(), min: at(0), median: at(50), p99: at(99), max: at(100) }
    }
}

/// Where the nearest-rank percentile is among `n` sorted samples. Of fewer than 100 the 99th is the largest.
fn rank(percent: usize, n: usize) -> usize {
    (percent * n).div_ceil(100).clamp(1, n) - 1
}

/// Quantiles of several measurements, or one number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// What the numbers are in.
    pub unit: Unit,
    /// How many measurements.
    pub runs: usize,
    /// The smallest.
    pub min: f64,
    /// The middle one.
    pub median: f64,
    /// The 99th percentile by nearest rank: the largest of fewer than 100.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Value {
    /// One number.
    #[must_use]
    pub fn single(unit: Unit, number: f64) -> Self {
        Self { unit, runs: 1, min: number, median: number, p99: number, max: number }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let numbers = match self.runs {
            1 => rounded(self.median),
            2..100 => [self.min, self.median, self.max].map(rounded).join(" / "),
            _ => [self.min, self.median, self.p99, self.max].map(rounded).join(" / "),
        };
        write!(f, "{numbers} {}", self.unit.name())?;
        if self.runs > 1 { write!(f, " (n={})", self.runs) } else { Ok(()) }
    }
}

/// Three digits or so.
pub(super) fn rounded(number: f64) -> String {
    match number.abs() {
        n if n >= 100.0 => format!("{number:.0}"),
        n if n >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// What was wanted, and whether it is so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aim {
    /// Such as "≤ 50 ms at p99".
    pub text: String,
    /// Whether it is so.
    pub met: bool,
}

impl Aim {
    /// An aim in words, judged by the caller.
    #[must_use]
    pub fn new(text: impl Into<String>, met: bool) -> Self {
        Self { text: text.into(), met }
    }

    /// The 99th percentile is at most `limit`, in the value's unit.
    #[must_use]
    pub fn p99_at_most(value: &Value, limit: f64) -> Self {
        Self::new(format!("≤ {} {} at p99", limit, value.unit.name()), value.p99 <= limit)
    }

    /// The median is at most `limit`, in the value's unit.
    #[must_use]
    pub fn at_most(value: &Value, limit: f64) -> Self {
        Self::new(format!("≤ {} {}", limit, value.unit.name()), value.median <= limit)
    }
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Rows of a group stand together, in the order of the groups' first rows.
    pub group: String,
    /// What was measured.
    pub what: String,
    /// How much.
    pub value: Value,
    /// What it is compared with, measured in the same run, and how much that is.
    pub peer: Option<(String, Value)>,
    /// What was aimed at.
    pub aim: Option<Aim>,
    /// Upstream's figure from another day, in words.
    pub upstream: Option<String>,
}

impl Row {
    /// A measurement of its own.
    #[must_use]
    pub fn new(group: impl Into<String>, what: impl Into<String>, value: Value) -> Self {
        Self { group: group.into(), what: what.into(), value, peer: None, aim: None, upstream: None }
    }

    /// Compared with `peer`, measured in the same run.
    #[must_use]
    pub fn against(mut self, peer: impl Into<String>, value: Value) -> Self {
        self.peer = Some((peer.into(), value));
        self
    }

    /// With what was aimed at.
    #[must_use]
    pub fn aim(mut self, aim: Aim) -> Self {
        self.aim = Some(aim);
        self
    }

    /// With upstream's figure (`testbed.md` §10: another day, the same kind of machine).
    #[must_use]
    pub fn upstream(mut self, figure: impl Into<String>) -> Self {
        self.upstream = Some(figure.into());
        self
    }

    /// The median over the peer's median.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        let (_, peer) = self.peer.as_ref()?;
        (peer.median != 0.0).then(|| self.value.median / peer.median)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(all: impl IntoIterator<Item = u32>) -> Value {
        let mut samples = Samples::new(Unit::Millis);
        all.into_iter().for_each(|n| samples.push(f64::from(n)));
        samples.value()
    }

    #[test]
    fn quantiles_are_of_the_nearest_rank() {
        let hundred = value((1..=100).rev());
        assert_eq!([hundred.min, hundred.median, hundred.p99, hundred.max], [1.0, 50.0, 99.0, 100.0]);
        let five = value([5, 1, 4, 2, 3]);
        assert_eq!([five.min, five.median, five.p99, five.max], [1.0, 3.0, 5.0, 5.0]);
        let one = value([7]);
        assert_eq!([one.min, one.median, one.p99, one.max], [7.0; 4]);
    }

    #[test]
    fn a_number_says_how_often_it_was_measured() {
        assert_eq!(value([1]).to_string(), "1.00 ms");
        assert_eq!(value([1, 20, 300]).to_string(), "1.00 / 20.0 / 300 ms (n=3)");
        assert_eq!(value(1..=100).to_string(), "1.00 / 50.0 / 99.0 / 100 ms (n=100)");
    }

    #[test]
    fn an_aim_is_judged_by_what_it_names() {
        let value = value((1..=99).chain([1000]));
        assert!(Aim::p99_at_most(&value, 99.0).met);
        assert!(!Aim::p99_at_most(&value, 98.0).met);
        assert!(Aim::at_most(&value, 50.0).met);
        assert!(!Aim::at_most(&value, 49.0).met);
    }

    #[test]
    fn a_ratio_needs_a_peer_that_is_not_zero() {
        let row = Row::new("g", "w", value([3]));
        assert_eq!(row.ratio(), None);
        assert_eq!(row.clone().against("p", value([2])).ratio(), Some(1.5));
        assert_eq!(row.against("p", value([0])).ratio(), None);
    }
}
