//! What this node must remember of a sandbox, on disk before anything is done: one versioned record a sandbox, replaced atomically.
//!
//! A record holds references (names, ids, addresses, the VNI), never a key. Writing is temp file → fsync → rename → fsync of the
//! directory, so that a crash leaves the old record or the new one. A file that cannot be read is set aside, named in an error, and
//! the rest still loads. What a file says and which programs can read it is in `journal/format.rs`.

mod aside;
mod format;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use async_trait::async_trait;
use peerpods_podvm::SandboxId;
use tokio::sync::oneshot;

pub use self::aside::{Salvaged, SetAside};
use crate::record::Record;

/// Why the journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file operation failed.
    #[error("cannot {step} {}", path.display())]
    File {
        /// What was being done.
        step: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A record was written by a later version of this program, and means something else than we would read.
    #[error("{} needs a program that reads format {found}, and this one reads up to format {}: start the later program again, or move the file away, which forgets the sandbox and its VM", path.display(), format::FORMAT)]
    Newer {
        /// The record's file.
        path: PathBuf,
        /// The oldest format whose programs can read it.
        found: u32,
    },
    /// A record could not be written as JSON.
    #[error("cannot encode the record of sandbox {sandbox}")]
    Encode {
        /// The sandbox.
        sandbox: SandboxId,
        /// What was wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The thread that writes is gone.
    #[error("the journal's writer has ended")]
    WriterEnded,
}

/// The seam: where records outlive the service.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Reads every record there is.
    ///
    /// # Errors
    /// When not everything could be read now: going on would forget a VM that may be read of tomorrow.
    async fn load(&self) -> Result<Loaded, JournalError>;

    /// Keeps `record` in place of the sandbox's earlier one. When this returns, a crash of the service or the node does not lose it.
    ///
    /// # Errors
    /// When it may not have been kept; what is kept is then the earlier record or this one.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the write; a later write of the same sandbox still comes after it.
    async fn append(&self, record: &Record) -> Result<(), JournalError>;

    /// Forgets a sandbox. Ok when it is not there.
    ///
    /// # Errors
    /// When it may still be remembered.
    async fn remove(&self, sandbox: &SandboxId) -> Result<(), JournalError>;
}

/// What a journal held.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The records.
    pub records: Vec<Record>,
    /// Files that make no sense, found so this time.
    pub aside: Vec<SetAside>,
    /// What is known of sandboxes whose files made no sense, this time or earlier.
    pub salvaged: Vec<Salvaged>,
}

/// A directory of records on the node's disk, written by one thread in the order the writes were asked for.
#[derive(Debug, Clone)]
pub struct DiskJournal {
    dir: PathBuf,
    writer: mpsc::Sender<Order>,
    thread: Arc<JoinHandle<()>>,
}

type Answer = oneshot::Sender<Result<(), JournalError>>;

#[derive(Debug)]
enum Order {
    Replace { path: PathBuf, bytes: Vec<u8>, answer: Answer },
    Remove { path: PathBuf, answer: Answer },
}

const SUFFIX: &str = "json";
/// Most orders that share one sync of the directory.
const TOGETHER: usize = 64;

impl DiskJournal {
    /// Opens the journal in `dir`, making the directory (0700) when it is not there.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(dir: PathBuf) -> Result<Self, JournalError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|source| failed("make the directory", &dir, source))?;
        let (writer, orders) = mpsc::channel();
        let place = dir.clone();
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || write_in_order(&place, &orders))
            .map_err(|source| failed("start the writer of", &dir, source))?;
        Ok(Self { dir, writer, thread: Arc::new(thread) })
    }

    /// Whether the thread that writes still runs. It ends only with the last clone of this, or by a defect.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        !self.thread.is_finished()
    }

    async fn order(&self, order: impl FnOnce(Answer) -> Order) -> Result<(), JournalError> {
        let (answer, answered) = oneshot::channel();
        self.writer.send(order(answer)).map_err(|_| JournalError::WriterEnded)?;
        answered.await.map_err(|_| JournalError::WriterEnded)?
    }

    fn path(&self, sandbox: &SandboxId) -> PathBuf {
        self.dir.join(format!("{sandbox}.{SUFFIX}"))
    }
}

#[async_trait]
impl Journal for DiskJournal {
    /// Files that make no sense are renamed to `*.corrupt`. A record of a later version is an error.
    async fn load(&self) -> Result<Loaded, JournalError> {
        let mut loaded = Loaded::default();
        let entries = fs::read_dir(&self.dir).map_err(|source| failed("read", &self.dir, source))?;
        for entry in entries {
            let path = entry.map_err(|source| failed("read", &self.dir, source))?.path();
            match path.extension().and_then(|e| e.to_str()) {
                Some(SUFFIX) => match read_record(&path)? {
                    Ok(record) => loaded.records.push(record),
                    Err(reason) => loaded.aside.push(aside::set_aside(&path, reason)),
                },
                // What a crash left of a write that never counted.
                Some("tmp") => drop(fs::remove_file(&path)),
                _ => {}
            }
        }
        loaded.salvaged = aside::salvage(&self.dir)?;
        Ok(loaded)
    }

    async fn append(&self, record: &Record) -> Result<(), JournalError> {
        let bytes = format::encode(record)
            .map_err(|source| JournalError::Encode { sandbox: record.sandbox.clone(), source })?;
        let path = self.path(&record.sandbox);
        self.order(|answer| Order::Replace { path, bytes, answer }).await
    }

    async fn remove(&self, sandbox: &SandboxId) -> Result<(), JournalError> {
        let path = self.path(sandbox);
        self.order(|answer| Order::Remove { path, answer }).await
    }
}

fn write_in_order(dir: &Path, orders: &mpsc::Receiver<Order>) {
    while let Ok(first) = orders.recv() {
        // Orders that came meanwhile share one sync of the directory: many sandboxes at once do not wait for one another's.
        let together: Vec<Order> =
            std::iter::once(first).chain(orders.try_iter().take(TOGETHER - 1)).collect();
        let done: Vec<_> = together.into_iter().map(carry_out).collect();
        let synced = sync_dir(dir);
        for (answer, done) in done {
            let lasting =
                done.and_then(|()| synced.as_ref().map_err(|e| failed("sync", dir, again(e))).copied());
            // An asker that went away does not unmake the write.
            let _gone = answer.send(lasting);
        }
    }
}

/// Does it, up to the sync of the directory.
fn carry_out(order: Order) -> (Answer, Result<(), JournalError>) {
    match order {
        Order::Replace { path, bytes, answer } => (answer, replace(&path, &bytes)),
        Order::Remove { path, answer } => (answer, remove(&path)),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), JournalError> {
    let temp = path.with_extension(format!("{SUFFIX}.tmp"));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&temp).map_err(|e| failed("create", &temp, e))?;
    file.write_all(bytes).map_err(|e| failed("write", &temp, e))?;
    file.sync_all().map_err(|e| failed("sync", &temp, e))?;
    fs::rename(&temp, path).map_err(|e| failed("replace", path, e))
}

fn remove(path: &Path) -> Result<(), JournalError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, e)),
        _ => Ok(()),
    }
}

/// The same error for another asker.
fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all())
}

fn failed(step: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::File { step, path: path.to_owned(), source }
}

/// The record, or why it makes no sense.
fn read_record(path: &Path) -> Result<Result<Record, String>, JournalError> {
    let Some(bytes) = read_at_most(path, format::LARGEST)? else {
        return Ok(Err(format!("is larger than {} bytes, which no record is", format::LARGEST)));
    };
    match format::decode(&bytes) {
        Ok(record) => Ok(rightly_named(path, record)),
        Err(format::Unreadable::Newer(found)) => Err(JournalError::Newer { path: path.to_owned(), found }),
        Err(format::Unreadable::Senseless(reason)) => Ok(Err(reason)),
    }
}

/// The file's bytes; none when there are more.
fn read_at_most(path: &Path, most: u64) -> Result<Option<Vec<u8>>, JournalError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
    read.map_err(|e| failed("read", path, e))?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

fn rightly_named(path: &Path, record: Record) -> Result<Record, String> {
    let named = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    if named == record.sandbox.as_str() {
        Ok(record)
    } else {
        Err(format!("is the record of sandbox {} under another name", record.sandbox))
    }
}

/// A record's file understood, for `tests/fuzz`.
#[cfg(feature = "fuzzing")]
pub(crate) fn record_of(bytes: &[u8]) -> Result<Record, String> {
    format::decode(bytes).map_err(|why| format!("{why:?}"))
}

/// A record as its file is written, for `tests/fuzz`.
#[cfg(feature = "fuzzing")]
pub(crate) fn file_of(record: &Record) -> Result<Vec<u8>, String> {
    format::encode(record).map_err(|e| e.to_string())
}

#[cfg(feature = "fuzzing")]
pub(crate) use aside::salvaged;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::a_record;

    fn journal(dir: &tempfile::TempDir) -> DiskJournal {
        DiskJournal::open(dir.path().join("journal")).unwrap()
    }

    #[tokio::test]
    async fn what_was_appended_last_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(&dir);
        let mut record = a_record("one");
        journal.append(&record).await.unwrap();
        record.vni = 7;
        journal.append(&record).await.unwrap();
        let Loaded { records, aside, .. } = journal.load().await.unwrap();
        assert_eq!(records, vec![record.clone()]);
        assert!(aside.is_empty());
        journal.remove(&record.sandbox).await.unwrap();
        journal.remove(&record.sandbox).await.unwrap();
        assert!(journal.load().await.unwrap().records.is_empty());
    }

    #[tokio::test]
    async fn a_corrupt_record_is_set_aside_and_the_rest_loads() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(&dir);
        let good = a_record("good");
        journal.append(&good).await.unwrap();
        fs::write(journal.dir.join("half.json"), b"{\"version\":1,\"sand").unwrap();
        fs::write(journal.dir.join("older.json"), b"{\"version\":0}").unwrap();
        fs::write(journal.dir.join("other.json"), fs::read(journal.path(&good.sandbox)).unwrap()).unwrap();
        fs::write(journal.dir.join("x.json.tmp"), b"half").unwrap();
        let Loaded { records, aside, .. } = journal.load().await.unwrap();
        assert_eq!(records, vec![good]);
        assert_eq!(aside.len(), 3, "{aside:?}");
        assert!(journal.dir.join("half.json.corrupt").exists());
        assert!(!journal.dir.join("x.json.tmp").exists());
        assert!(journal.load().await.unwrap().aside.is_empty(), "what was set aside is not looked at again");
    }

    #[tokio::test]
    async fn a_record_of_a_later_version_stops_the_service_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(&dir);
        let newer = journal.dir.join("newer.json");
        fs::write(&newer, b"{\"version\":99}").unwrap();
        let error = journal.load().await.unwrap_err();
        assert!(matches!(error, JournalError::Newer { found: 99, .. }), "{error}");
        assert!(newer.exists());
    }

    #[tokio::test]
    async fn a_record_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(&dir);
        let record = a_record("one");
        journal.append(&record).await.unwrap();
        let mode = fs::metadata(journal.path(&record.sandbox)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
