//! The last words of a VM's console, for the error that explains why it did not come up.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use peerpods_provider::Console;

use crate::failure::ConsoleTail;

/// How much of a console goes into an error text.
const TAIL_LINES: usize = 4;
const TAIL_BYTES: u64 = 4096;

/// Reads the end of a console. A console that cannot be read has no last words.
pub(super) async fn tail(console: Option<&Console>) -> ConsoleTail {
    let Some(Console::File(path)) = console.cloned() else { return ConsoleTail(None) };
    let read = tokio::task::spawn_blocking(move || read_end(&path)).await;
    ConsoleTail(
        read.ok().and_then(Result::ok).map(|bytes| last_lines(&bytes)).filter(|text| !text.is_empty()),
    )
}

fn read_end(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The guest wrote this, so nothing that steers a terminal may pass.
pub(crate) fn last_lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let clean = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned();
    let lines: Vec<String> = text.lines().map(clean).filter(|line| !line.is_empty()).collect();
    // A kernel that gives up says why first and prints its stack after it.
    let reason = lines.iter().rposition(|line| line.contains("Kernel panic - not syncing"));
    let from = reason.unwrap_or_else(|| lines.len().saturating_sub(TAIL_LINES));
    lines
        .into_iter()
        .skip(from)
        .take(if reason.is_some() { 1 } else { TAIL_LINES })
        .collect::<Vec<_>>()
        .join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_tail_is_short_and_cannot_steer_a_terminal() {
        let console = b"one\r\ntwo\r\n\r\n\x1b[31mthree\x07\r\nfour\r\nfive\r\n";
        assert_eq!(last_lines(console), "two | [31mthree | four | five");
        assert_eq!(last_lines(b""), "");
        let panic = b"[1] before\n[2] Kernel panic - not syncing: no init\n[3] CPU: 0\n[4] Call Trace:\n[5] a\n[6] b\n[7] c\n";
        assert_eq!(last_lines(panic), "[2] Kernel panic - not syncing: no init");
    }
}
