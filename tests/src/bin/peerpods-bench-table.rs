//! Joins what benchmarks left into one Markdown document on stdout: `peerpods-bench-table DIR NAME...`, in the order of the names.

use std::path::Path;
use std::process::ExitCode;

use peerpods_tests::bench::{Report, table};

const HOW: &str = "\
Repeat it with `make bench` (root, about 15 minutes; `make bench ONLY=start` for one section). It writes this file.

Numbers are min / median / max, or min / median / p99 / max of 100 measurements and more. What a row is compared with was measured in
the same run, in turn with it; the ratio is of the medians. Read ratios: such machines are shared, and absolute times say little. The last
column has the figures of upstream's cloud-api-adaptor, measured on another day on the same kind of machine; factors under 1.5 are noise
there.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((dir, names)) = arguments.split_first() else {
        eprintln!("usage: peerpods-bench-table DIR NAME...");
        return ExitCode::from(2);
    };
    let mut reports = Vec::new();
    for name in names {
        match Report::read(Path::new(dir), name) {
            Ok(Some(report)) => reports.push(report),
            Ok(None) => {
                eprintln!(
                    "no report of {name} in {dir}: it did not run, and a table without it would pass for a whole one"
                );
                return ExitCode::FAILURE;
            }
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
    }
    print!("{}", table::document(&reports, HOW));
    ExitCode::SUCCESS
}
