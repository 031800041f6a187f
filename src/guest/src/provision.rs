//! From the worker's message to the files of the run directory, and back to what we need of them.
//!
//! Every file is 0600: some hold keys or registry passwords, and everything that reads them in a pod VM is root. Only the paths stock
//! allows are written, and nothing is written when any part of the message is broken. A token the guest is admitted by is in no file:
//! one that something else wrote is written anew without it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use peerpods_podvm::guest_config::{ApfConfig, ApfError};
use peerpods_podvm::initdata::{InitData, InitDataError};
use peerpods_podvm::user_data::{APF_PATH, CloudConfig, File, INITDATA_PATH, ParseError};

use crate::user_data::Message;

/// The directory of every path a message may name.
const STOCK_RUN_DIR: &str = "/run/peerpod/";
/// What initdata may hold for us; other entries are for others and are left inside it.
const FROM_INITDATA: [&str; 3] = ["aa.toml", "cdh.toml", POLICY];
/// The agent's policy.
const POLICY: &str = "policy.rego";
/// The key of `apf.json` with the token.
const ADMISSION: &str = "admission";
/// The hash over the initdata, in hexadecimal, for whoever measures it.
const DIGEST: &str = "initdata.digest";

/// Why the message did not become files.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The document is no cloud-config of ours.
    #[error("the user data at {} is not understood", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: ParseError,
    },
    /// There is no `apf.json`.
    #[error("the user data has no {APF_PATH}")]
    NoConfig,
    /// The guest's configuration is broken.
    #[error("{APF_PATH} is not understood")]
    Config(#[source] ApfError),
    /// The initdata is broken.
    #[error("{INITDATA_PATH} is not understood")]
    InitData(#[source] InitDataError),
    /// A file cannot be read or written.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What the service needs to know.
#[derive(Debug)]
pub struct Provisioned {
    /// The guest's configuration.
    pub config: ApfConfig,
    /// The agent's policy, when the pod's owner gave one.
    pub policy: Option<PathBuf>,
}

/// Writes the files of a message and reads the guest's configuration.
///
/// # Errors
/// When a part of the message is broken (nothing is written then) or a file cannot be written.
pub fn provision(message: &Message, run_dir: &Path) -> Result<Provisioned, ProvisionError> {
    let (config, writes) = understood(message, run_dir)?;
    for write in &writes {
        write.apply()?;
    }
    let policy = Some(run_dir.join(POLICY)).filter(|path| path.is_file());
    Ok(Provisioned { config, policy })
}

/// The guest's configuration and every file to write, when all of the message is well.
fn understood(message: &Message, run_dir: &Path) -> Result<(ApfConfig, Vec<NewFile>), ProvisionError> {
    let files = match message {
        Message::Document { text, path } => {
            let parsed = CloudConfig::parse(text)
                .map_err(|source| ProvisionError::Document { path: path.clone(), source })?;
            for path in &parsed.skipped {
                tracing::warn!(path, "the user data names a file that is not ours to write; skipped");
            }
            parsed.files
        }
        Message::Provisioned => present(run_dir)?,
    };
    let apf = content(&files, APF_PATH).ok_or(ProvisionError::NoConfig)?;
    let config = ApfConfig::from_json(apf).map_err(ProvisionError::Config)?;
    let initdata = content(&files, INITDATA_PATH).map(InitData::from_encoded).transpose();
    let initdata = initdata.map_err(ProvisionError::InitData)?;
    let writes = writes(message, &files, initdata.as_ref(), run_dir);
    Ok((config, writes))
}

/// What a document would make: the configuration, and the files. For `tests/fuzz`.
///
/// # Errors
/// As [`provision`], before anything is written.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn decided(text: &str, run_dir: &Path) -> Result<(ApfConfig, Vec<(PathBuf, String)>), ProvisionError> {
    let message = Message::Document { text: text.to_owned(), path: PathBuf::from("user-data") };
    let (config, writes) = understood(&message, run_dir)?;
    Ok((config, writes.into_iter().map(|write| (write.path, write.content)).collect()))
}

/// Where the file of a stock path lies in `run_dir`; `None` for a path elsewhere.
pub(crate) fn place(run_dir: &Path, stock_path: &str) -> Option<PathBuf> {
    let name = stock_path.strip_prefix(STOCK_RUN_DIR)?;
    (!name.is_empty() && !name.contains('/') && name != "..").then(|| run_dir.join(name))
}

fn content<'a>(files: &'a [File], path: &str) -> Option<&'a str> {
    files.iter().find(|file| file.path == path).map(|file| file.content.as_str())
}

/// What something else wrote already, as far as we need it.
fn present(run_dir: &Path) -> Result<Vec<File>, ProvisionError> {
    let mut files = Vec::new();
    for stock_path in [APF_PATH, INITDATA_PATH] {
        let Some(path) = place(run_dir, stock_path) else { continue };
        match fs::read_to_string(&path) {
            Ok(text) => files.push(File::new(stock_path, text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ProvisionError::File { doing: "read", path, source }),
        }
    }
    Ok(files)
}

/// One file to write.
#[derive(PartialEq, Eq)]
struct NewFile {
    path: PathBuf,
    content: String,
}

/// Everything to write: the message's files unless they are there already, and what initdata holds. Pure.
fn writes(message: &Message, files: &[File], initdata: Option<&InitData>, run_dir: &Path) -> Vec<NewFile> {
    let mut writes = Vec::new();
    for file in files {
        let Some(path) = place(run_dir, &file.path) else { continue };
        let without = (file.path == APF_PATH).then(|| without_token(&file.content)).flatten();
        match (message, without) {
            (_, Some(content)) => writes.push(NewFile { path, content }),
            (Message::Document { .. }, None) => writes.push(NewFile { path, content: file.content.clone() }),
            (Message::Provisioned, None) => {}
        }
    }
    if let Some(initdata) = initdata {
        for (name, content) in initdata.data() {
            if FROM_INITDATA.contains(&name.as_str()) {
                writes.push(NewFile { path: run_dir.join(name), content: content.clone() });
            }
        }
        writes.push(NewFile { path: run_dir.join(DIGEST), content: initdata.digest_hex() });
    }
    writes
}

/// The guest's configuration without the token it is admitted by; none when there is none in it.
fn without_token(apf: &str) -> Option<String> {
    let mut document: serde_json::Value = serde_json::from_str(apf).ok()?;
    document.as_object_mut()?.remove(ADMISSION)?;
    serde_json::to_string_pretty(&document).ok()
}

impl NewFile {
    /// Writes beside the place and renames, so that a path unit that waits for the file never sees half of it.
    fn apply(&self) -> Result<(), ProvisionError> {
        let failed = |source| ProvisionError::File { doing: "write", path: self.path.clone(), source };
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut scratch = self.path.clone().into_os_string();
        scratch.push(".new");
        // One that a crash left keeps its mode; it has to go.
        let _ = fs::remove_file(&scratch);
        let options = OpenOptions::new().write(true).create_new(true).mode(0o600).to_owned();
        let mut file = options.open(&scratch).map_err(failed)?;
        file.write_all(self.content.as_bytes()).map_err(failed)?;
        fs::rename(&scratch, &self.path).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const INITDATA: &str = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n\"aa.toml\" = \"a = 1\\n\"\n\
                            \"policy.rego\" = \"package agent_policy\"\n\"../evil\" = \"x\"\n";

    fn document(files: Vec<File>) -> Message {
        let text = CloudConfig::new(files).render().unwrap();
        Message::Document { text, path: PathBuf::from("user-data") }
    }

    fn apf() -> File {
        File::new(APF_PATH, ApfConfig { pod_name: "web".to_owned(), ..ApfConfig::default() }.to_json())
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_message_becomes_private_files_and_initdata_is_unfolded() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let encoded = InitData::from_toml(INITDATA).unwrap().encode();
        let message = document(vec![apf(), File::new(INITDATA_PATH, encoded)]);
        let provisioned = provision(&message, &run_dir).unwrap();
        assert_eq!(provisioned.config.pod_name, "web");
        assert_eq!(provisioned.policy, Some(run_dir.join("policy.rego")));
        assert_eq!(names(&run_dir), ["aa.toml", "apf.json", "initdata", "initdata.digest", "policy.rego"]);
        assert_eq!(fs::read_to_string(run_dir.join("aa.toml")).unwrap(), "a = 1\n");
        let digest = InitData::from_toml(INITDATA).unwrap().digest_hex();
        assert_eq!(fs::read_to_string(run_dir.join("initdata.digest")).unwrap(), digest);
        for name in names(&run_dir) {
            let mode = fs::metadata(run_dir.join(&name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{name}");
        }
        assert_eq!(names(dir.path()), ["run"], "something was written outside");
    }

    #[test]
    fn files_that_are_there_already_are_taken_and_their_initdata_unfolded() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("apf.json"), apf().content).unwrap();
        let encoded = InitData::from_toml(INITDATA).unwrap().encode();
        fs::write(dir.path().join("initdata"), encoded).unwrap();
        let provisioned = provision(&Message::Provisioned, dir.path()).unwrap();
        assert_eq!(provisioned.config.pod_name, "web");
        assert!(dir.path().join("aa.toml").is_file());
    }

    #[test]
    fn the_token_is_in_no_file_whoever_wrote_it() {
        const TOKEN: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
        let text = format!(
            "{{\"pod-name\":\"web\",\"x-of-others\":[1],\"admission\":{{\"version\":1,\"token\":\"{TOKEN}\",\"valid-seconds\":9}}}}"
        );
        for there_already in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let apf = dir.path().join("apf.json");
            let message = if there_already {
                fs::write(&apf, &text).unwrap();
                Message::Provisioned
            } else {
                document(vec![File::new(APF_PATH, text.clone())])
            };
            let provisioned = provision(&message, dir.path()).unwrap();
            let told = provisioned.config.admission.unwrap();
            assert_eq!((told.token.expose(), told.valid_seconds), (&[1; 32][..], 9));
            let left = fs::read_to_string(&apf).unwrap();
            assert!(!left.contains(TOKEN) && !left.contains("admission"), "{left}");
            assert!(left.contains("x-of-others") && left.contains("web"), "{left}");
            assert_eq!(fs::metadata(&apf).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(names(dir.path()), ["apf.json"]);
        }
    }

    #[test]
    fn nothing_is_written_when_a_part_is_broken() {
        let dir = tempfile::tempdir().unwrap();
        let broken = [
            document(vec![File::new(APF_PATH, "{")]),
            document(vec![apf(), File::new(INITDATA_PATH, "!")]),
            document(vec![File::new(INITDATA_PATH, "x")]),
            Message::Document { text: "nonsense".to_owned(), path: PathBuf::from("x") },
        ];
        for message in broken {
            assert!(provision(&message, dir.path()).is_err());
            assert_eq!(names(dir.path()), Vec::<String>::new());
        }
    }

    #[test]
    fn only_names_directly_below_the_run_directory_have_a_place() {
        let run_dir = Path::new("/r");
        assert_eq!(place(run_dir, "/run/peerpod/apf.json"), Some(PathBuf::from("/r/apf.json")));
        for bad in ["/run/peerpod/", "/run/peerpod/a/b", "/run/peerpod/..", "/etc/passwd", "apf.json"] {
            assert_eq!(place(run_dir, bad), None, "{bad}");
        }
    }
}
