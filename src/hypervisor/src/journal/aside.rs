//! Files of the journal that make no sense: kept beside it under another name, and looked through for what must not be handed out twice.
//!
//! The VM of such a sandbox has no record; the sweep that compares VMs with records finds it by its tags.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use peerpods_podvm::{ClusterId, SandboxId};
use tracing::warn;

use super::{JournalError, SUFFIX, failed, format, read_at_most};

/// Ends the name of a file that was set aside, or stands before its number when there was one before.
const MARK: &str = "corrupt";
/// Of one sandbox, and of all: as many files as are kept, the newest. A disk that writes nonsense must not be filled with it.
const KEPT_OF_ONE: u32 = 10;
const KEPT: usize = 500;

/// A record file that could not be read, and where it was moved.
#[derive(Debug)]
pub struct SetAside {
    /// The file's new name.
    pub path: PathBuf,
    /// What was wrong with it.
    pub reason: String,
}

/// What can be known of a sandbox whose record made no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvaged {
    /// The sandbox, from the file's name.
    pub sandbox: SandboxId,
    /// The cluster whose VM it may have.
    pub cluster: Option<ClusterId>,
    /// The VXLAN network identifier it may use.
    pub vni: Option<u32>,
    /// Those its further interfaces may use.
    pub more_vnis: Vec<u32>,
}

/// Moves a file away under a name that no other has.
pub(super) fn set_aside(path: &Path, reason: String) -> SetAside {
    let first = path.with_extension(format!("{SUFFIX}.{MARK}"));
    let numbered = (2..=KEPT_OF_ONE).map(|n| path.with_extension(format!("{SUFFIX}.{MARK}.{n}")));
    let free = std::iter::once(first).chain(numbered).find(|name| !name.exists());
    // With so many of one sandbox the last is no news.
    let moved = free.unwrap_or_else(|| path.with_extension(format!("{SUFFIX}.{MARK}.{KEPT_OF_ONE}")));
    let path = if fs::rename(path, &moved).is_ok() { moved } else { path.to_owned() };
    SetAside { path, reason }
}

/// Looks through all files set aside, after removing the oldest when there are too many.
pub(super) fn salvage(dir: &Path) -> Result<Vec<Salvaged>, JournalError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| failed("read", dir, e))? {
        let entry = entry.map_err(|e| failed("read", dir, e))?;
        if let Some(sandbox) = sandbox(&entry.path()) {
            let changed = entry.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            files.push((changed, entry.path(), sandbox));
        }
    }
    files.sort();
    let too_many = files.len().saturating_sub(KEPT);
    for (_, path, sandbox) in files.drain(..too_many) {
        warn!(%sandbox, file = %path.display(), "removing the oldest of many unreadable records");
        drop(fs::remove_file(path));
    }
    Ok(files.into_iter().map(|(_, path, sandbox)| look_through(&path, sandbox)).collect())
}

/// The sandbox a file set aside is of.
fn sandbox(path: &Path) -> Option<SandboxId> {
    let name = path.file_name()?.to_str()?;
    let (sandbox, number) = name.rsplit_once(&format!(".{SUFFIX}.{MARK}"))?;
    let numbered = number.strip_prefix('.').is_some_and(|n| n.parse::<u32>().is_ok());
    if number.is_empty() || numbered { sandbox.parse().ok() } else { None }
}

fn look_through(path: &Path, sandbox: SandboxId) -> Salvaged {
    salvaged(&read_at_most(path, format::LARGEST).ok().flatten().unwrap_or_default(), sandbox)
}

/// What bytes that make no sense still tell. Pure.
pub(crate) fn salvaged(bytes: &[u8], sandbox: SandboxId) -> Salvaged {
    let text = String::from_utf8_lossy(bytes);
    let cluster = value_of(&text, "cluster").and_then(|v| v.trim_matches('"').parse().ok());
    let mut vnis = values_of(&text, "vni").filter_map(|v| v.parse().ok());
    Salvaged { sandbox, cluster, vni: vnis.next(), more_vnis: vnis.collect() }
}

/// What stands after the first key of this name, as far as the file goes. A value that may be cut off at the end is none.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    values_of(text, key).next()
}

/// The same after every key of this name.
fn values_of<'a>(text: &'a str, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let marked: Vec<&str> = text.split(&format!("\"{key}\":")).skip(1).collect();
    marked.into_iter().filter_map(|after| Some(after.split_once([',', '}', '\n'])?.0.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SecondaryRecord;
    use crate::record::tests::a_record;

    fn files(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn a_second_unreadable_file_of_a_sandbox_does_not_replace_the_first_and_there_is_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.json");
        for n in 0..KEPT_OF_ONE + 5 {
            fs::write(&path, n.to_string()).unwrap();
            set_aside(&path, String::new());
        }
        assert_eq!(fs::read_to_string(dir.path().join("one.json.corrupt")).unwrap(), "0");
        assert_eq!(fs::read_to_string(dir.path().join("one.json.corrupt.2")).unwrap(), "1");
        assert_eq!(files(dir.path()), KEPT_OF_ONE as usize);
        for n in 0..KEPT + 20 {
            fs::write(dir.path().join(format!("{n}.json.corrupt")), "").unwrap();
        }
        assert_eq!(salvage(dir.path()).unwrap().len(), KEPT);
        assert_eq!(files(dir.path()), KEPT);
    }

    #[test]
    fn whatever_a_file_still_shows_is_salvaged_and_a_number_that_may_be_cut_off_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let whole = format::encode(&a_record("one")).unwrap();
        let text = String::from_utf8(whole.clone()).unwrap();
        let (at_vni, at_cluster) = (text.find("555000").unwrap(), text.find("\"cluster\"").unwrap());
        for cut in 0..whole.len() {
            fs::write(dir.path().join("one.json.corrupt.3"), &whole[..cut]).unwrap();
            let found = salvage(dir.path()).unwrap().remove(0);
            assert_eq!(found.sandbox.as_str(), "one");
            assert_eq!(found.vni, (cut > at_vni + 6).then_some(555_000), "cut at {cut}");
            let cluster = found.cluster.map(|c| c.to_string());
            assert_eq!(cluster.as_deref(), (cut > at_cluster + 17).then_some("test"), "cut at {cut}");
        }
    }

    #[test]
    fn the_identifiers_of_further_interfaces_are_salvaged_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = a_record("one");
        let second = |n: u32| SecondaryRecord { pod_interface: format!("net{n}"), vni: 555_000 + n };
        record.secondary = vec![second(1), second(2)];
        let whole = format::encode(&record).unwrap();
        fs::write(dir.path().join("one.json.corrupt"), &whole[..whole.len() - 1]).unwrap();
        let found = salvage(dir.path()).unwrap().remove(0);
        assert_eq!((found.vni, found.more_vnis), (Some(555_000), vec![555_001, 555_002]));
    }

    #[test]
    fn only_files_set_aside_are_looked_through() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.json", "b.json.tmp", "c.json.corrupted", "d.json.corrupt.x", ".json.corrupt", "lock"]
        {
            fs::write(dir.path().join(name), "\"vni\": 7,").unwrap();
        }
        assert_eq!(salvage(dir.path()).unwrap(), vec![]);
    }
}
