//! A worker's message, on its way to become files in the guest.
//!
//! Whatever the document says, files are written in the run directory and nowhere else, under names that are known beforehand, and only when every part of the
//! message was understood. Initdata is unfolded as its owner wrote it.
//!
//! The input is a document, or (when its first byte is 1) the contents of its files parted by 0x01, initdata as TOML.

use std::path::Path;

use peerpods_guest::provision::decided;
use peerpods_podvm::initdata::InitData;
use peerpods_podvm::user_data::{ALLOWED_PATHS, APF_PATH, CloudConfig, File, INITDATA_PATH};

use super::Target;
use crate::input::Input;

/// The target.
pub const TARGET: Target =
    Target { name: "provision", check, max_len: 768, memory: 3 << 20, memory_per_byte: 2048 };

const RUN_DIR: &str = "/run/peerpod";
const NAMES: [&str; 8] =
    ["apf.json", "auth.json", "initdata", "aa.toml", "cdh.toml", "scratch-space.marker", "policy.rego", "initdata.digest"];

fn check(data: &[u8]) {
    let mut input = Input(data);
    let text = if input.byte() == 1 { document(&input.text()) } else { Input(data).text() };
    let Ok((config, writes)) = decided(&text, Path::new(RUN_DIR)) else { return };
    let parsed = CloudConfig::parse(&text).unwrap();
    assert!(parsed.content(APF_PATH).is_some(), "there is no configuration: {config:?}");
    // Unfolding costs more than all the rest: once for all files.
    let initdata = parsed.content(INITDATA_PATH).and_then(|text| InitData::from_encoded(text).ok());
    for (path, content) in &writes {
        assert_eq!(path.parent(), Some(Path::new(RUN_DIR)), "{} is elsewhere", path.display());
        let name = path.file_name().and_then(|name| name.to_str()).unwrap();
        assert!(NAMES.contains(&name), "{name} is none of ours");
        let said = parsed.content(path.to_str().unwrap()) == Some(content.as_str());
        let unfolded = initdata.as_ref();
        let unfolded = unfolded.is_some_and(|i| i.data().get(name) == Some(content) || i.digest_hex() == *content);
        assert!(said || unfolded, "{name} has a content nobody wrote");
    }
}

fn document(contents: &str) -> String {
    let file = |(path, content): (&&str, &str)| {
        let packed = InitData::from_toml(content).ok().filter(|_| *path == INITDATA_PATH).map(|i| i.encode());
        File::new(*path, packed.as_deref().unwrap_or(content))
    };
    let files = ALLOWED_PATHS.iter().zip(contents.split('\u{1}')).map(file).collect();
    CloudConfig::new(files).render().unwrap_or_default()
}
