//! Initdata, raw and packed.
//!
//! What is read keeps every byte of its TOML; packed and unpacked it is the same, and packing is repeatable. The digest is as long as the algorithm
//! says. What unpacks to more than 1 MiB is refused without being unpacked: memory stays bounded whatever a gzip promises. An error names a
//! place and quotes no value.
//!
//! The first byte says what the rest is: an annotation's value up to 2, gzip data when it is odd (in base64 for the parser), after a bomb when it is 255, else
//! TOML.

use std::io::Write as _;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use peerpods_podvm::initdata::{Algorithm, InitData, MAX_TOML};

use super::Target;
use crate::input::Input;

/// The target.
pub const TARGET: Target =
    Target { name: "initdata", check, max_len: 2304, memory: 5 << 20, memory_per_byte: 256 };

fn check(data: &[u8]) {
    let mut input = Input(data);
    let read = match input.byte() {
        255 => InitData::from_encoded(&BASE64_STANDARD.encode([bomb(), input.rest()].concat())),
        0..=2 => InitData::from_annotation(&input.text()),
        kind if kind % 2 == 1 => InitData::from_encoded(&BASE64_STANDARD.encode(input.rest())),
        _ => InitData::from_toml(&input.text()),
    };
    match read {
        Ok(initdata) => good(&initdata),
        Err(error) => assert!(error.to_string().len() < 2048, "a long error"),
    }
}

/// A gzip file of some kilobytes that would be 12 MiB.
fn bomb() -> &'static [u8] {
    static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
    BOMB.get_or_init(|| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        // In pieces: what is made here counts as memory of the first run.
        for _ in 0..12 * MAX_TOML / 4096 {
            packer.write_all(&[b' '; 4096]).unwrap();
        }
        packer.finish().unwrap()
    })
}

fn good(initdata: &InitData) {
    assert!(initdata.as_toml().len() <= MAX_TOML);
    let length = match initdata.algorithm() {
        Algorithm::Sha256 => 32,
        Algorithm::Sha384 => 48,
        Algorithm::Sha512 => 64,
    };
    assert_eq!((initdata.digest().len(), initdata.digest_hex().len()), (length, 2 * length));
    // Packing costs more than all the rest: for some it has to do.
    if initdata.digest()[0].is_multiple_of(4) {
        packs(initdata);
    }
    let shown = format!("{initdata:?}");
    let secret = |value: &&String| value.len() > 16 && shown.contains(value.as_str());
    assert!(!initdata.data().values().any(|value| secret(&value)), "a value is shown");
}

fn packs(initdata: &InitData) {
    let packed = initdata.encode();
    let again = InitData::from_annotation(&packed).unwrap();
    assert_eq!(again.as_toml(), initdata.as_toml());
    assert_eq!(again.data(), initdata.data());
    assert_eq!(again.encode(), packed, "packing is not repeatable");
    let json = serde_json::to_string(initdata).unwrap();
    assert_eq!(&serde_json::from_str::<InitData>(&json).unwrap(), initdata);
}
