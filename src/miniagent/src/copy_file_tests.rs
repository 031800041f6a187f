//! Tests of CopyFile in a temporary directory; as whoever runs them, so nothing is given away to others.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

struct Confines {
    dir: tempfile::TempDir,
}

impl Confines {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("shared")
    }

    fn request(&self, path: &str, mode: u32, data: &[u8]) -> CopyFileRequest {
        let me = fs::metadata(self.dir.path()).unwrap();
        CopyFileRequest {
            path: self.root().join(path).to_str().unwrap().into(),
            file_mode: mode,
            dir_mode: 0o750,
            file_size: i64::try_from(data.len()).unwrap(),
            data: data.to_vec(),
            uid: i32::try_from(me.uid()).unwrap(),
            gid: i32::try_from(me.gid()).unwrap(),
            ..Default::default()
        }
    }

    fn copy(&self, request: &CopyFileRequest) -> Result<(), CopyFileError> {
        copy(request, &self.root())
    }
}

#[test]
fn a_file_arrives_with_its_mode_and_its_directories() {
    let confines = Confines::new();
    confines.copy(&confines.request("a/b/f", 0o100_640, b"text")).unwrap();
    let path = confines.root().join("a/b/f");
    assert_eq!(fs::read(&path).unwrap(), b"text");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::metadata(confines.root().join("a")).unwrap().permissions().mode() & 0o777, 0o750);
}

#[test]
fn a_file_shows_only_when_its_last_piece_is_there() {
    let confines = Confines::new();
    let mut piece = confines.request("f", 0o100_644, b"first ");
    piece.file_size = 12;
    confines.copy(&piece).unwrap();
    assert!(!confines.root().join("f").exists());
    (piece.offset, piece.data) = (6, b"second".to_vec());
    confines.copy(&piece).unwrap();
    assert_eq!(fs::read(confines.root().join("f")).unwrap(), b"first second");
}

#[test]
fn a_piece_beyond_the_size_is_refused() {
    let confines = Confines::new();
    let mut piece = confines.request("f", 0o100_644, b"12345");
    piece.file_size = 4;
    assert!(matches!(confines.copy(&piece), Err(CopyFileError::Piece { .. })));
    (piece.file_size, piece.offset) = (5, -1);
    assert!(matches!(confines.copy(&piece), Err(CopyFileError::Piece { .. })));
}

#[test]
fn an_empty_file_and_a_directory_and_a_link_can_be_copied() {
    let confines = Confines::new();
    confines.copy(&confines.request("empty", 0o100_600, b"")).unwrap();
    assert_eq!(fs::metadata(confines.root().join("empty")).unwrap().len(), 0);
    confines.copy(&confines.request("d", 0o040_755, b"")).unwrap();
    confines.copy(&confines.request("d", 0o040_711, b"")).unwrap();
    assert_eq!(fs::metadata(confines.root().join("d")).unwrap().permissions().mode() & 0o777, 0o711);
    for target in ["..one", "..two"] {
        confines.copy(&confines.request("..data", 0o120_777, target.as_bytes())).unwrap();
        assert_eq!(fs::read_link(confines.root().join("..data")).unwrap(), Path::new(target));
    }
}

#[test]
fn a_path_outside_or_with_dots_is_refused() {
    let confines = Confines::new();
    for bad in ["/etc/x", "../x", "a/../../x", "a/..", ""] {
        let error = confines.copy(&confines.request(bad, 0o100_644, b"x")).unwrap_err();
        assert!(matches!(error, CopyFileError::Outside { .. }), "{bad:?}: {error:?}");
    }
    assert!(!confines.dir.path().join("x").exists());
}

#[test]
fn a_link_that_leads_out_does_not_help_to_get_out() {
    let confines = Confines::new();
    let outside = confines.dir.path().join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(confines.root()).unwrap();
    symlink(&outside, confines.root().join("door")).unwrap();
    symlink("..", confines.root().join("up")).unwrap();
    for bad in ["door/f", "up/f"] {
        let error = confines.copy(&confines.request(bad, 0o100_644, b"x")).unwrap_err();
        assert!(error.is_request_fault(), "{bad}: {error:?}");
    }
    // The name itself being a link is replaced, not followed.
    symlink(outside.join("target"), confines.root().join("leaf")).unwrap();
    confines.copy(&confines.request("leaf", 0o100_644, b"x")).unwrap();
    assert_eq!(fs::read(confines.root().join("leaf")).unwrap(), b"x");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_link_within_the_confines_is_followed() {
    let confines = Confines::new();
    confines.copy(&confines.request("real", 0o040_755, b"")).unwrap();
    symlink("real", confines.root().join("..data")).unwrap();
    confines.copy(&confines.request("..data/f", 0o100_644, b"x")).unwrap();
    assert_eq!(fs::read(confines.root().join("real/f")).unwrap(), b"x");
}
