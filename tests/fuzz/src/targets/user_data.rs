//! Contents of guest files, written into a cloud-config document by the worker and read by the guest.
//!
//! Every content comes back byte for byte, or is refused for a character that it really has. The document is as long as is said before it
//! is made, and what does not fit a provider is told with its parts.

use peerpods_podvm::user_data::{ALLOWED_PATHS, CloudConfig, File, RenderError, limit_of};

use super::Target;
use crate::input::Input;

/// The target.
pub const TARGET: Target =
    Target { name: "user_data", check, max_len: 384, memory: 1 << 18, memory_per_byte: 2048 };

fn check(data: &[u8]) {
    let text = Input(data).text();
    // Parted by a character that no content may have anyway.
    let contents = text.split('\u{1}');
    let files: Vec<File> =
        ALLOWED_PATHS.iter().zip(contents).map(|(path, content)| File::new(*path, content)).collect();
    let document = CloudConfig::new(files);
    let written = match document.render() {
        Ok(written) => written,
        Err(RenderError::Character { path, line, character }) => {
            let named = document.files().iter().find(|file| file.path == path).unwrap();
            let line = named.content.split('\n').nth(line - 1).unwrap();
            return assert!(line.contains(character), "{character:?} is not there");
        }
        Err(other) => panic!("{other}"),
    };
    let parsed = CloudConfig::parse(&written).unwrap_or_else(|error| panic!("{error}: {written:?}"));
    assert!(parsed.files == document.files() && parsed.skipped.is_empty(), "{written:?} is another document");
    let limit = limit_of("aws").unwrap().document();
    assert_eq!(document.check_size(written.len(), limit).is_ok(), written.len() <= limit);
    if let Err(told) = document.check_size(written.len(), 100) {
        let header = CloudConfig::default().render().unwrap().len();
        assert_eq!(told.parts.iter().map(|(_, bytes)| bytes).sum::<usize>() + header, written.len());
    }
}
