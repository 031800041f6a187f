//! What the program's exit status means.

use std::process::ExitCode;

/// Everything asked for was done.
pub const OK: u8 = 0;
/// Something failed; the reason is on stderr.
pub const FAILURE: u8 = 1;
/// The command line or the configuration cannot be understood.
pub const USAGE: u8 = 2;
/// `sandbox run` and `sandbox exec` answer with the command's own status, so what fails around the command has a status of its own.
pub const AROUND_COMMAND: u8 = 125;

/// The text under every `--help`.
pub const HELP: &str = "Exit status:
  0    done
  1    failed; the reason is on stderr
  2    the command line or the configuration cannot be understood
  125  `sandbox run` or `sandbox exec` failed before or around the command; otherwise these two
       answer with the command's own status (128+N when signal N ended it)";

/// The status a shell gives to what signal `number` ended.
#[must_use]
pub fn of_signal(number: i32) -> u8 {
    u8::try_from(128_i32.saturating_add(number)).unwrap_or(FAILURE)
}

/// A status an agent reported, as this process can answer it; what does not fit in a byte is a failure and never 0.
#[must_use]
pub fn of_command(status: i32) -> u8 {
    u8::try_from(status).unwrap_or(u8::MAX)
}

/// As `main` wants it.
#[must_use]
pub fn code(status: u8) -> ExitCode {
    ExitCode::from(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_does_not_fit_is_never_success() {
        assert_eq!(of_command(0), 0);
        assert_eq!(of_command(7), 7);
        assert_eq!(of_command(256), 255);
        assert_eq!(of_command(-1), 255);
        assert_eq!(of_signal(2), 130);
    }
}
