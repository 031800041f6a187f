//! What setting up found to do: a second time it must be nothing. That both times leave the same behind does not show it, because most of
//! what is removed and added again looks as it did before.

use std::io;
use std::sync::{Mutex, Once, PoisonError};

use tracing_subscriber::filter::LevelFilter;

static LINES: Mutex<String> = Mutex::new(String::new());

/// Keeps the log of this whole process: work is done on threads of its own.
struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.lock().unwrap_or_else(PoisonError::into_inner).push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The steps that `work` takes in the namespaces of these names.
pub(crate) fn steps(namespaces: &[&str], work: impl FnOnce()) -> Vec<String> {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(LevelFilter::DEBUG)
            .with_ansi(false)
            .with_writer(|| Log)
            .init();
    });
    let all = || LINES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let before = all().len();
    work();
    let is_step = |line: &&str| {
        line.contains(" step=")
            && namespaces.iter().any(|name| line.contains(&format!("netns=/run/netns/{name} ")))
    };
    all()[before..].lines().filter(is_step).map(str::to_owned).collect()
}
