//! What a QEMU (or whoever listens at its socket) answers on its control socket.
//!
//! After a greeting and an answer to the handshake, an answer with our id is handed over as it was said, and everything else is an error: of
//! bounded length, without waiting for what cannot come, and without keeping more than a line.

use std::time::Duration;

use peerpods_provider_qemu::fuzzing::ask;
use serde::Deserialize;
use serde_json::Value;

use super::Target;
use crate::input::{Input, Pieces, in_virtual_time};

/// The target.
pub const TARGET: Target =
    Target { name: "qmp", check, max_len: 512, memory: 1 << 17, memory_per_byte: 256 };

fn check(data: &[u8]) {
    let mut input = Input(data);
    let sizes = input.sizes();
    let said = input.rest();
    let mut qemu = Pieces::new(said, &sizes);
    let answered = in_virtual_time(ask(&mut qemu, Duration::from_secs(5)));
    let asked = String::from_utf8(qemu.written).unwrap();
    assert!(asked.lines().count() <= 2 && asked.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    match answered {
        Ok((answer, lives)) => {
            let is_it = |line: &[u8]| {
                serde_json::from_str::<Said>(&String::from_utf8_lossy(line))
                    .is_ok_and(|said| said.answer == answer && said.id == 2)
            };
            assert!(said_lines(data).any(is_it), "{answer} was never said");
            let down = ["guest-panicked", "internal-error", "io-error", "shutdown", "watchdog"];
            assert_eq!(lives, !answer["status"].as_str().is_some_and(|status| down.contains(&status)));
        }
        Err(error) => assert!(error.len() < 2 * said.len() + 1024, "a long error"),
    }
}

/// What is of interest in a line. The rest is skipped whatever its bytes, also a number that is none.
#[derive(Deserialize)]
struct Said {
    #[serde(rename = "return")]
    answer: Value,
    id: u64,
}

fn said_lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut input = Input(data);
    input.sizes();
    input.0.split(|byte| *byte == b'\n')
}
