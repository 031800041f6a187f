//! The configuration file.
//!
//! Every text is settings or a list of all its faults, each on a bounded line with its place in the file. Settings are within what their kinds allow; shown and
//! written into a file again they give the same settings. The same text gives the same answer.

use std::path::Path;

use peerpods::config::{Origin, check as judge, layers};

use super::Target;
use crate::input::Input;

/// The target.
pub const TARGET: Target =
    Target { name: "config_file", check, max_len: 768, memory: 3 << 20, memory_per_byte: 1024 };

fn check(data: &[u8]) {
    let text = Input(data).text();
    let layer = || layers::file(Path::new("/etc/peerpods/peerpods.toml"), &text);
    let lines = text.matches('\n').count() + 1;
    for fault in layer().faults {
        let Origin::File { line, .. } = fault.origin else { panic!("{fault} has no place") };
        assert!((1..=lines).contains(&line), "there is no line {line}");
    }
    match judge(vec![layer()]) {
        Ok(settings) => {
            let sockets = settings.hypervisor.agent_socket(&"x".repeat(64).parse().unwrap());
            assert!(sockets.is_absolute() && sockets.as_os_str().len() <= 107);
            assert!(settings.hypervisor.vxlan_port > 0);
            let again = judge(vec![layer()]).unwrap();
            assert_eq!(again.shown, settings.shown);
        }
        Err(faults) => {
            assert!(!faults.0.is_empty());
            assert!(faults.to_string().len() < 16 * 1024 + 256 * data.len(), "{} bytes of faults", faults.to_string().len());
        }
    }
}
