//! What this client made and must remove: one small file per sandbox, `<client dir>/<id>.json`, 0600, under `/run`.
//! Written before the thing it names is made, so that `stop` finds it whatever happened in between.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use ipnet::Ipv4Net;
use nix::fcntl::{Flock, FlockArg};
use peerpods_podvm::SandboxId;
use serde::{Deserialize, Serialize};

use super::error::SandboxError;

/// The version of the file this program writes and reads.
const FORMAT: u32 = 1;

/// A network namespace we made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedNetns {
    /// Its name below `/run/netns`.
    pub name: String,
    /// Its subnet: the first host is the node's end, the second the pod's.
    pub network: Ipv4Net,
}

/// How far the agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// Nothing was asked of the agent yet.
    #[default]
    None,
    /// The sandbox's own container runs.
    Running,
}

/// What is remembered of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this file.
    pub format: u32,
    /// The sandbox.
    pub id: SandboxId,
    /// The pod's name, which becomes the host name in the container.
    pub pod_name: String,
    /// The network namespace, if it is ours to remove.
    pub netns: Option<OwnedNetns>,
    /// The agent socket, once CreateVM answered.
    pub agent_socket: Option<PathBuf>,
    /// How far the agent is.
    pub container: Container,
}

impl Record {
    /// A record of a sandbox of which nothing exists yet.
    #[must_use]
    pub fn new(id: SandboxId, pod_name: String, netns: Option<OwnedNetns>) -> Self {
        Self { format: FORMAT, id, pod_name, netns, agent_socket: None, container: Container::None }
    }
}

/// The directory of records.
#[derive(Debug, Clone)]
pub struct Records {
    directory: PathBuf,
}

/// Holds other clients off until dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock is held by keeping it")] Flock<File>);

impl Records {
    /// Records in `directory`, which is made when the first is written.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Waits until no other client changes records or prepares an agent. Blocks: call it off the runtime's threads.
    ///
    /// # Errors
    /// When the directory cannot be made or the lock file not opened.
    pub fn lock(&self) -> Result<Lock, SandboxError> {
        let path = self.directory.join(".lock");
        let file = self.make_directory().and_then(|()| {
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)
        });
        let lock = file.and_then(|file| {
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))
        });
        lock.map(Lock).map_err(|source| SandboxError::Record { path, source })
    }

    /// The record of a sandbox, if this client made it.
    ///
    /// # Errors
    /// When there is one that cannot be read.
    pub fn load(&self, id: &SandboxId) -> Result<Option<Record>, SandboxError> {
        let path = self.path(id);
        let read = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other,
        };
        let parsed = read.and_then(|bytes| Ok(serde_json::from_slice::<Record>(&bytes)?));
        let record = parsed.map_err(|source| SandboxError::Record { path: path.clone(), source })?;
        if record.format == FORMAT {
            return Ok(Some(record));
        }
        let text = format!("format {}, and this program knows {FORMAT}", record.format);
        Err(SandboxError::Record { path, source: io::Error::new(io::ErrorKind::InvalidData, text) })
    }

    /// Writes a record, whole or not at all.
    ///
    /// # Errors
    /// When the directory or the file cannot be written.
    pub fn save(&self, record: &Record) -> Result<(), SandboxError> {
        let path = self.path(&record.id);
        self.write(record).map_err(|source| SandboxError::Record { path, source })
    }

    /// Forgets a sandbox. Ok when there is no record.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(&self, id: &SandboxId) -> Result<(), SandboxError> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SandboxError::Record { path: self.path(id), source: error })
            }
            _ => Ok(()),
        }
    }

    /// The subnets of all network namespaces that are remembered. Files that cannot be read count for nothing.
    #[must_use]
    pub fn networks(&self) -> Vec<Ipv4Net> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let records =
            entries.filter_map(|entry| serde_json::from_slice::<Record>(&fs::read(entry.path()).ok()?).ok());
        records.filter_map(|record| record.netns.map(|netns| netns.network)).collect()
    }

    fn path(&self, id: &SandboxId) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    fn make_directory(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        self.make_directory()?;
        // Ids may hold dots, so the temporary name ends in something no record's name ends in.
        let temporary = self.directory.join(format!("{}.json.{}.new", record.id, std::process::id()));
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(record)?)?;
        fs::rename(&temporary, self.path(&record.id))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn record(id: &str, network: &str) -> Record {
        let netns = OwnedNetns { name: format!("pp-{id}"), network: network.parse().unwrap() };
        Record::new(id.parse().unwrap(), "demo".to_owned(), Some(netns))
    }

    #[test]
    fn what_is_saved_is_loaded_and_removed_again() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::new(directory.path().join("client"));
        let one = record("one", "10.88.0.0/24");
        let _lock = records.lock().unwrap();
        records.save(&one).unwrap();
        records.save(&record("two", "10.88.1.0/24")).unwrap();
        assert_eq!(records.load(&one.id).unwrap(), Some(one.clone()));
        let mut networks = records.networks();
        networks.sort();
        assert_eq!(networks, ["10.88.0.0/24".parse().unwrap(), "10.88.1.0/24".parse::<Ipv4Net>().unwrap()]);
        let mode = fs::metadata(directory.path().join("client/one.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        records.remove(&one.id).unwrap();
        records.remove(&one.id).unwrap();
        assert_eq!(records.load(&one.id).unwrap(), None);
    }

    #[test]
    fn a_record_of_another_version_is_an_error_and_not_an_absence() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::new(directory.path().to_owned());
        records.save(&Record { format: 9, ..record("one", "10.88.0.0/24") }).unwrap();
        assert!(records.load(&"one".parse().unwrap()).is_err());
    }
}
