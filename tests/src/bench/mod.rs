//! What benchmarks report: rows with what they are compared with, the machine, and one table of them all.
//!
//! ```text
//! tests/benches/NAME.rs ── Report ──▶ stdout, and $BENCH_DIR/NAME.json ── peerpods-bench-table ──▶ tests/BENCHMARKS.md
//! ```
//!
//! Machines are shared and noisy, so a benchmark measures itself and its peer in turn in one run and reports the ratio; it asserts
//! nothing about times. How something is measured is the benchmark's own matter.

pub mod instant;
pub mod machine;
pub mod pods;
pub mod process;
pub mod report;
pub mod row;
pub mod table;
pub mod traffic;
pub mod watched;

pub use machine::Machine;
pub use report::Report;
pub use row::{Aim, Row, Samples, Unit, Value};

/// Whether this process is a benchmark that was asked for: `cargo test --all-targets` runs benchmarks too, with `--bench` missing.
#[must_use]
pub fn is_asked_for() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// The number in the environment variable `name`, such as `BENCH_RUNS`.
///
/// # Panics
/// When it is no number.
#[must_use]
pub fn number(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}
