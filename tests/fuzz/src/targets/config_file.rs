//! The configuration file.
//!
//! Every text is settings or a list of all its faults, each on a bounded line with its place in the file. Settings are within what their
//! kinds allow; what is shown of them, written into a file again, is taken and shows the same. The same text gives the same answer.

use std::path::Path;

use peerpods::config::door::Shown;
use peerpods::config::keys::{Reveal, find};
use peerpods::config::{Origin, Settings, check as judge, layers};

use super::Target;
use crate::input::Input;

/// The target.
pub const TARGET: Target =
    Target { name: "config_file", check, max_len: 768, memory: 3 << 20, memory_per_byte: 1024 };

fn check(data: &[u8]) {
    let text = Input(data).text();
    let layer = layers::file(Path::new("/etc/peerpods/peerpods.toml"), &text);
    let lines = text.matches('\n').count() + 1;
    for fault in &layer.faults {
        let Origin::File { line, .. } = fault.origin else { panic!("{fault} has no place") };
        assert!((1..=lines).contains(&line), "there is no line {line}");
    }
    match judge(vec![layer.clone()]) {
        Ok(settings) => {
            let sockets = settings.hypervisor.agent_socket(&"x".repeat(64).parse().unwrap());
            assert!(sockets.is_absolute() && sockets.as_os_str().len() <= 107);
            assert!(settings.hypervisor.vxlan_port > 0);
            let again = judge(vec![layer]).unwrap();
            assert_eq!(again.shown, settings.shown);
            written_again(&settings);
        }
        Err(faults) => {
            assert!(!faults.0.is_empty());
            assert!(faults.to_string().len() < 16 * 1024 + 256 * data.len(), "{} bytes of faults", faults.to_string().len());
        }
    }
}

/// What is shown, put into a file, gives what is shown. Secrets are not shown, so they cannot be part of it.
fn written_again(settings: &Settings) {
    let secret = |key: &str| find(key).is_some_and(|key| key.reveal == Reveal::Presence);
    let said = settings.shown.iter().filter(|one| one.source != Origin::Default && !secret(one.key));
    // JSON is TOML here, but for the one control character that JSON takes as it is.
    let line = |one: &Shown| format!("{} = {}\n", one.key, one.value.to_string().replace('\u{7f}', "\\u007f"));
    let text: String = said.map(line).collect();
    let again = judge(vec![layers::file(Path::new("/again.toml"), &text)]);
    let again = again.unwrap_or_else(|faults| panic!("{faults}\n{text}"));
    for (before, after) in settings.shown.iter().zip(&again.shown).filter(|(one, _)| !secret(one.key)) {
        assert_eq!((before.key, &before.value), (after.key, &after.value), "{text}");
    }
}
