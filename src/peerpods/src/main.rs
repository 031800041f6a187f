//! The `peerpods` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    peerpods::run(std::env::args_os())
}
