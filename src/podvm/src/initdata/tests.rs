//! Both wire forms, hostile ones, and digests computed elsewhere.

use proptest::prelude::*;

use super::*;
use crate::hostile::any_text;

const TOML: &str = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n\"aa.toml\" = \"x = 1\"\n";
/// `gzip -9n | base64 -w0` of [`TOML`], by the programs of those names.
const BY_GZIP: &str = "H4sIAAAAAAACAytLLSrOzM9TsFVQMtAz1DNQ4krMSc8vyizJyAWJFWckGpmaKXFFpySWJMZyKSUm6pXk5+YogeQqgIShEhcAmVTUhkIAAAA=";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn encoded(bytes: &[u8]) -> String {
    BASE64.encode(gzip(bytes))
}

#[test]
fn the_digest_is_the_one_sha256sum_gives_for_the_exact_bytes() {
    let raw = InitData::from_annotation(TOML).unwrap();
    assert_eq!(raw.digest_hex(), "e2671d1a722dcfb4a8167da7f0cec617c1dabb93b1fb8ff32ab11d371c5a8d52");
    let spaced = InitData::from_annotation(&format!("\n{TOML}")).unwrap();
    assert_ne!(spaced.digest(), raw.digest());
    let long = InitData::from_toml(&TOML.replace("sha256", "sha512")).unwrap();
    assert_eq!(
        long.digest_hex(),
        "1982966a39d6d8923338578cf1cbd5a0feda351733f074330217599181cffa474fc71860cc679718bee8a6a6cffa06e852a829e7cc338743e5d46db7b771b536"
    );
    let middle = InitData::from_toml(&TOML.replace("sha256", "sha384")).unwrap();
    assert_eq!((middle.digest().len(), middle.algorithm()), (48, Algorithm::Sha384));
}

#[test]
fn what_another_gzip_packed_is_read_and_what_we_pack_is_always_the_same() {
    let theirs = InitData::from_annotation(BY_GZIP).unwrap();
    assert_eq!(theirs.as_toml(), TOML);
    assert_eq!(theirs.data().get("aa.toml").map(String::as_str), Some("x = 1"));
    let packed = theirs.encode();
    assert_eq!(packed, InitData::from_toml(TOML).unwrap().encode());
    assert_eq!(InitData::from_encoded(&packed).unwrap().digest(), theirs.digest());
    assert!(packed.starts_with("H4sIAAAAAAA"), "no time in {packed}");
}

#[test]
fn line_ends_and_missing_padding_in_base64_are_accepted() {
    let wrapped: String =
        BY_GZIP.as_bytes().chunks(20).map(|c| format!("{}\r\n", String::from_utf8_lossy(c))).collect();
    assert_eq!(InitData::from_annotation(&format!(" {wrapped}")).unwrap().as_toml(), TOML);
    assert_eq!(InitData::from_annotation(BY_GZIP.trim_end_matches('=')).unwrap().as_toml(), TOML);
}

#[test]
fn a_gzip_file_of_several_members_is_read_whole_as_go_does_and_rubbish_after_it_is_refused() {
    let (first, second) = TOML.split_at(20);
    let two = [gzip(first.as_bytes()), gzip(second.as_bytes())].concat();
    assert_eq!(InitData::from_encoded(&BASE64.encode(two)).unwrap().as_toml(), TOML);
    let rubbish = [gzip(TOML.as_bytes()), b"rubbish at the end".to_vec()].concat();
    assert!(matches!(InitData::from_encoded(&BASE64.encode(rubbish)), Err(InitDataError::Gzip(_))));
}

#[test]
fn a_bomb_is_not_unpacked() {
    let bomb = encoded(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 100_000);
    assert!(matches!(InitData::from_annotation(&bomb), Err(InitDataError::TooLarge)));
    // Cut off: who reads on to the end finds that out, who stops at the bound does not.
    let cut = &bomb[..bomb.len() / 8 * 4];
    assert!(matches!(InitData::from_annotation(cut), Err(InitDataError::TooLarge)));
    assert!(matches!(InitData::from_annotation(&" ".repeat(MAX_TOML + 1)), Err(InitDataError::TooLarge)));
    assert!(matches!(
        InitData::from_annotation(&format!("H4sI{}", "A".repeat(MAX_TOML * 2))),
        Err(InitDataError::TooLarge)
    ));
    let largest = format!("{TOML}#{}", "x".repeat(MAX_TOML - TOML.len() - 1));
    assert_eq!(InitData::from_annotation(&encoded(largest.as_bytes())).unwrap().as_toml().len(), MAX_TOML);
}

#[test]
fn each_fault_has_its_own_error() {
    use InitDataError as E;
    let of = |text: &str| InitData::from_annotation(text).unwrap_err();
    assert!(matches!(of("H4sI!"), E::Base64(_)));
    assert!(matches!(of("H4sIAAAA"), E::Gzip(_)));
    let cut = &BY_GZIP[..BY_GZIP.len() / 8 * 4];
    assert!(matches!(of(cut), E::Gzip(_)));
    assert!(matches!(of(&encoded(&[0xff, 0xfe])), E::NotText(_)));
    assert!(matches!(of("bm90IHRvbWw="), E::Toml { .. }));
    assert!(matches!(of("version = \"\"\nalgorithm = \"sha256\""), E::Version));
    assert!(matches!(of("version = \"1\"\nalgorithm = \"SHA256\""), E::Algorithm(_)));
    for missing in ["version = \"1\"", "algorithm = \"sha256\"", "version = 1\nalgorithm = \"sha256\""] {
        assert!(matches!(of(missing), E::Toml { .. }), "{missing}");
    }
    assert!(matches!(
        of("version = \"1\"\nalgorithm = \"sha256\"\n[data]\nx ="),
        E::Toml { line: Some(4), .. }
    ));
    assert!(
        of("version = \"1\"\nalgorithm = \"sha256\"\n[data]\nx = 1")
            .to_string()
            .contains("`data.x` is no text")
    );
}

#[test]
fn neither_an_error_nor_debug_shows_what_is_inside() {
    let secret = "version = \"1\"\nalgorithm = \"sha256\"\n[data]\n\"cdh.toml\" = \"hunter2\"\n";
    assert!(!format!("{:?}", InitData::from_toml(secret).unwrap()).contains("hunter2"));
    for broken in [
        secret.replace("\"hunter2\"", "\"hunter2"),
        secret.replace("\"hunter2\"", "[\"hunter2\"]"),
        secret.replace("[data]\n\"cdh.toml\"", "data"),
    ] {
        let error = InitData::from_toml(&broken).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

proptest! {
    #[test]
    fn no_text_and_no_packed_bytes_make_the_reader_panic(
        text in any_text(),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        flipped in 0_usize..80,
    ) {
        let _ = InitData::from_annotation(&text);
        let _ = InitData::from_annotation(&format!("H4sI{text}"));
        let _ = InitData::from_encoded(&BASE64.encode(&bytes));
        let _ = InitData::from_annotation(&encoded(&bytes));
        let mut broken = gzip(TOML.as_bytes());
        if let Some(byte) = broken.get_mut(flipped) { *byte ^= 0x41; }
        let _ = InitData::from_encoded(&BASE64.encode(&broken));
    }

    #[test]
    fn packing_keeps_every_byte(comment in "[^\\p{C}]{0,200}") {
        let toml = format!("{TOML}# {comment}\r\n");
        let once = InitData::from_toml(&toml).unwrap();
        let again = InitData::from_annotation(&once.encode()).unwrap();
        prop_assert_eq!(again.as_toml(), &toml);
        prop_assert_eq!(again.encode(), once.encode());
    }
}
