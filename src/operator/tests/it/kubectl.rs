//! What a person types: the real kubectl, against wherever the test runs. Where the guide says `oc`, its command is kubectl's.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use crate::place::Place;

pub(crate) struct Kubectl {
    home: tempfile::TempDir,
    own: bool,
}

impl Kubectl {
    pub(crate) fn new(place: &Place) -> Self {
        let home = tempfile::tempdir().unwrap();
        if let Some(server) = place.server() {
            std::fs::write(home.path().join("config"), server.kubeconfig()).unwrap();
        }
        let own = place.server().is_some();
        Self { home, own }
    }

    /// Begins a command line.
    pub(crate) fn begin(&self, line: &str) -> Child {
        let mut command = Command::new("kubectl");
        command.env("HOME", self.home.path());
        if self.own {
            command.env("KUBECONFIG", self.home.path().join("config"));
        }
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default();
        command.arg(verb).args(words);
        // Our server does not serve what kubectl checks files by.
        if self.own && ["create", "apply"].contains(&verb) {
            command.arg("--validate=false");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    async fn end(&self, line: &str, input: &str) -> (bool, String, String) {
        let mut child = self.begin(line);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    /// Runs a command line; what it says.
    pub(crate) async fn run(&self, line: &str) -> String {
        let (good, said, complaint) = self.end(line, "").await;
        assert!(good, "kubectl {line}: {complaint}");
        said
    }

    /// Runs one with a file, which it reads as `-f -`.
    pub(crate) async fn with(&self, line: &str, file: &Value) -> String {
        let (good, said, complaint) = self.end(&format!("{line} -f -"), &file.to_string()).await;
        assert!(good, "kubectl {line}: {complaint}");
        said
    }

    /// Runs one that fails; what it complains of.
    pub(crate) async fn refused(&self, line: &str, file: Option<&Value>) -> String {
        let (line, input) = match file {
            Some(file) => (format!("{line} -f -"), file.to_string()),
            None => (line.to_owned(), String::new()),
        };
        let (good, said, complaint) = self.end(&line, &input).await;
        assert!(!good, "kubectl {line} is not refused: {said}");
        complaint
    }
}
