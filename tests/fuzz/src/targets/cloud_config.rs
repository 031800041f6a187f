//! Cloud-config documents, read by the guest as user data.
//!
//! Whatever the text, it is files at allowed paths, each path once, or an error of a bounded length that quotes no content. Nothing clever
//! in YAML makes reading slow or large. What was read and can be written is read again as the same files.

use peerpods_podvm::user_data::{ALLOWED_PATHS, CloudConfig};

use super::Target;
use crate::input::Input;

/// The target.
pub const TARGET: Target =
    Target { name: "cloud_config", check, max_len: 768, memory: 1 << 18, memory_per_byte: 1024 };

fn check(data: &[u8]) {
    let text = Input(data).text();
    let parsed = match CloudConfig::parse(&text) {
        Ok(parsed) => parsed,
        Err(error) => return assert!(error.to_string().len() < 2048, "a long error"),
    };
    for (at, file) in parsed.files.iter().enumerate() {
        assert!(ALLOWED_PATHS.contains(&file.path.as_str()), "{} may be written", file.path);
        assert!(parsed.files[..at].iter().all(|earlier| earlier.path != file.path), "{} twice", file.path);
        assert_eq!(parsed.content(&file.path), Some(file.content.as_str()));
    }
    assert!(parsed.skipped.iter().all(|path| path.chars().count() <= 120));
    let Ok(written) = CloudConfig::new(parsed.files.clone()).render() else { return };
    let again = CloudConfig::parse(&written).unwrap();
    assert!(again.files == parsed.files && again.skipped.is_empty(), "{written:?} is another document");
}
