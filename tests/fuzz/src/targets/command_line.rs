//! The VM's own address on the kernel command line, and the two texts inside it that come from other places too: MAC addresses and ids.
//!
//! What is read is written as it is read again; the argument that is written is found on any line. A key that is there with a broken value is an error, never an
//! absence. An id is one file name. Errors are short.

use peerpods_podvm::SandboxId;
use peerpods_podvm::network::MacAddr;
use peerpods_podvm::underlay::{KERNEL_ARGUMENT, Underlay};

use super::Target;
use crate::input::Input;

/// The target.
pub const TARGET: Target =
    Target { name: "command_line", check, max_len: 128, memory: 1 << 12, memory_per_byte: 64 };

fn check(data: &[u8]) {
    let line = Input(data).text();
    let named = line.split_ascii_whitespace().any(|word| word.split_once('=').is_some_and(|(k, _)| k == KERNEL_ARGUMENT));
    match Underlay::from_command_line(&line) {
        Ok(Some(underlay)) => round_trip(&underlay),
        Ok(None) => assert!(!named, "a value was passed over"),
        Err(error) => {
            assert!(named);
            assert!(error.to_string().len() < 10 * line.len() + 200);
        }
    }
    if let Ok(underlay) = line.parse::<Underlay>() {
        round_trip(&underlay);
    }
    if let Ok(mac) = line.parse::<MacAddr>() {
        assert_eq!(mac.to_string(), line.to_ascii_lowercase());
    }
    if let Ok(id) = line.parse::<SandboxId>() {
        assert_eq!(id.as_str(), line);
        let path = std::path::Path::new("/x").join(id.as_str());
        assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(id.as_str()), "an id left its directory");
        assert_eq!(path.parent(), Some(std::path::Path::new("/x")));
        assert!(id.short().len() <= 8);
    }
}

fn round_trip(underlay: &Underlay) {
    let line = format!("quiet {} panic=1", underlay.kernel_argument());
    assert_eq!(Underlay::from_command_line(&line), Ok(Some(*underlay)));
}
