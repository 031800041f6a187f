//! Where the worker's message is: the first place that has it.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use peerpods_podvm::user_data::{APF_PATH, FW_CFG_NAME, MAX_DOCUMENT};
use tokio::time::{Instant, sleep};

use crate::provision::place;

/// How often places that may still appear are looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Where a disk with the label `cidata` is mounted.
const CIDATA: &str = "/media/cidata/user-data";

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub enum UserDataError {
    /// No place has it.
    #[error("no user data after {waited:?}; looked at {}", looked_at.join(", "))]
    Nowhere {
        /// Every place that was looked at.
        looked_at: Vec<String>,
        /// For how long.
        waited: Duration,
    },
    /// A place has it and it cannot be read.
    #[error("cannot read the user data at {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is larger than anything a worker sends.
    #[error("the user data at {} has more than {MAX_DOCUMENT} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// The message, or what it became.
#[derive(Clone, PartialEq, Eq)]
pub enum Message {
    /// A cloud-config document, and where it was.
    Document {
        /// The text; holds secrets.
        text: String,
        /// The file.
        path: PathBuf,
    },
    /// Something else wrote the files already.
    Provisioned,
}

/// A place to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Document(PathBuf),
    Provisioned(PathBuf),
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Self::Document(path) | Self::Provisioned(path) => path,
        }
    }
}

/// The places in the order they are looked at. Pure.
fn places(named: Option<&Path>, run_dir: &Path) -> Vec<Place> {
    if let Some(path) = named {
        return vec![Place::Document(path.to_owned())];
    }
    let mut places = Vec::new();
    places.extend(place(run_dir, APF_PATH).map(Place::Provisioned));
    places.push(Place::Document(format!("/sys/firmware/qemu_fw_cfg/by_name/{FW_CFG_NAME}/raw").into()));
    places.push(Place::Document(CIDATA.into()));
    places
}

/// Finds the message: `named` alone when given, else the usual places; waits for one to appear for at most `patience`.
///
/// # Errors
/// When no place has it in time, or the one that has it cannot be read.
pub async fn find(
    named: Option<&Path>,
    run_dir: &Path,
    patience: Duration,
) -> Result<Message, UserDataError> {
    let places = places(named, run_dir);
    let started = Instant::now();
    loop {
        if let Some(place) = places.iter().find(|place| place.path().exists()) {
            return read(place);
        }
        if started.elapsed() >= patience {
            let looked_at = places.iter().map(|place| place.path().display().to_string()).collect();
            return Err(UserDataError::Nowhere { looked_at, waited: patience });
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn read(place: &Place) -> Result<Message, UserDataError> {
    let Place::Document(path) = place else { return Ok(Message::Provisioned) };
    let unreadable = |source| UserDataError::Read { path: path.clone(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(MAX_DOCUMENT as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() > MAX_DOCUMENT {
        return Err(UserDataError::TooLarge { path: path.clone() });
    }
    Ok(Message::Document { text, path: path.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_already_comes_before_devices_and_disks() {
        let places = places(None, Path::new("/run/peerpod"));
        let paths: Vec<_> = places.iter().map(|place| place.path().to_str().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "/run/peerpod/apf.json",
                "/sys/firmware/qemu_fw_cfg/by_name/opt/org.peerpods/user-data/raw",
                "/media/cidata/user-data",
            ]
        );
    }

    #[tokio::test]
    async fn a_named_file_is_the_only_place() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("apf.json"), "{}").unwrap();
        let named = dir.path().join("user-data");
        let missing = find(Some(&named), dir.path(), Duration::ZERO).await.err().unwrap();
        assert!(missing.to_string().contains("user-data"), "{missing}");
        assert!(find(None, dir.path(), Duration::ZERO).await.unwrap() == Message::Provisioned);
    }

    #[tokio::test]
    async fn a_message_that_comes_late_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("user-data");
        let late = {
            let path = path.clone();
            tokio::spawn(async move {
                sleep(Duration::from_millis(250)).await;
                std::fs::write(path, "#cloud-config\n").unwrap();
            })
        };
        let found = find(Some(&path), dir.path(), Duration::from_secs(10)).await.unwrap();
        late.await.unwrap();
        assert!(found == Message::Document { text: "#cloud-config\n".to_owned(), path });
    }

    #[tokio::test]
    async fn a_message_without_end_is_refused() {
        let endless = Path::new("/dev/zero");
        let refused = find(Some(endless), Path::new("/"), Duration::ZERO).await.err().unwrap();
        assert!(matches!(refused, UserDataError::TooLarge { .. }), "{refused:?}");
    }
}
