//! Lines for whoever reads the VM's serial console.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};

use nix::sys::termios::tcdrain;

use crate::uptime::Uptime;

/// The console, and the time of the step before.
pub(super) struct Console {
    last: Uptime,
}

impl Console {
    /// The kernel gave us the console as standard error.
    pub(super) fn open() -> Self {
        Self { last: Uptime::now() }
    }

    /// Says that a step is done: time since the VM's start, and what the step itself took.
    pub(super) fn step(&mut self, name: &str) {
        let now = Uptime::now();
        self.say(format_args!("{name} {now} (+{:.2}s)", now.since(self.last).as_secs_f64()));
        self.last = now;
    }

    /// Says one line. A console that does not take it is no reason to stop.
    pub(super) fn say(&self, text: impl fmt::Display) {
        let _ = writeln!(io::stderr(), "peerpods-guest: {text}");
    }

    /// Says why the VM goes down: the whole chain on one line.
    pub(super) fn fatal(&self, error: &dyn Error) {
        self.say(format_args!("FATAL at {}: {}; powering off", Uptime::now(), Chain(error)));
    }

    /// Waits until the last line has left the serial port; powering off would cut it.
    pub(super) fn flush(&self) {
        let _ = tcdrain(io::stderr());
    }
}

/// An error with everything beneath it, on one line.
struct Chain<'a>(&'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut below = self.0.source();
        while let Some(error) = below {
            write!(f, ": {error}")?;
            below = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_chain_stands_on_one_line() {
        let source = io::Error::from_raw_os_error(2);
        let error = super::super::failed::<io::Error>("mount /proc")(source);
        assert_eq!(Chain(&error).to_string(), "cannot mount /proc: No such file or directory (os error 2)");
    }
}
