//! The network between the node and a real VM goes away in the middle of a stream and of a large CopyFile, and comes back. The shim's
//! calls must end as if nothing had been. Needs root, QEMU and the image.
//!
//! `PEERPODS_CUT_SECONDS` says for how long (`make network-cut-test`: 25, of the Go shim's 30); a short cut in `make test`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use peerpods::sandbox::agent::{Agent, ProcessId, Stream};
use peerpods::sandbox::spec::{CommandSpec, ContainerSpec, Terminal, create_container};
use peerpods_proto::ttrpc::agent::CopyFileRequest;
use peerpods_proto::ttrpc::agent_ttrpc::AgentServiceClient;
use peerpods_proto::ttrpc::oci::Mount;
use peerpods_test_require::Need;
use peerpods_tests::daemon::{Daemon, image, with_vms};
use peerpods_tests::node::{output, run};
use peerpods_tests::shim::check_agent;
use tokio::sync::Notify;
use ttrpc::asynchronous::Client;
use ttrpc::context;

/// Where the agent keeps files from the node, and the one that is copied.
const SHARED: &str = "/run/kata-containers/shared/containers";
const BLOB: &str = "/run/kata-containers/shared/containers/blob";
const MIB: usize = 1 << 20;
/// What is copied, in the Go shim's pieces.
const BLOB_MIB: usize = 64;
/// The piece after which the network goes away.
const CUT_AT: usize = 20;
/// The Go shim's deadline of most calls, in seconds. A CopyFile has it too.
const SHIM_DEADLINE: u64 = 60;

/// How the network goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Packets vanish.
    Drop,
    /// Packets vanish, and the node's TCP connections to the VM are killed.
    Kill,
}

#[test]
fn a_cut_that_drops_packets_is_not_noticed_by_the_pod() {
    cut_in_the_middle("a_cut_that_drops_packets_is_not_noticed_by_the_pod", Cut::Drop);
}

#[test]
fn a_cut_that_kills_the_connection_is_not_noticed_by_the_pod() {
    cut_in_the_middle("a_cut_that_kills_the_connection_is_not_noticed_by_the_pod", Cut::Kill);
}

fn cut_in_the_middle(test: &'static str, cut: Cut) {
    with_vms(test, &[Need::Program("ss")], move || {
        let daemon = Daemon::start(image());
        let id = daemon.id("cut");
        let create = ["sandbox", "create", "--id", &id, "--pod-network", "10.155.9.0/24"];
        drop(daemon.succeed(&create));
        drop(daemon.succeed(&["sandbox", "start", &id, "--quiet"]));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(survive(&Place::of(&daemon, &id), cut));
        drop(daemon.succeed(&["sandbox", "stop", &id]));
        daemon.assert_nothing_left();
    });
}

/// What the test must know of the sandbox.
struct Place {
    id: String,
    socket: PathBuf,
    vm: String,
    tap: String,
}

impl Place {
    fn of(daemon: &Daemon, id: &str) -> Self {
        let listed: serde_json::Value =
            serde_json::from_str(&daemon.succeed(&["sandbox", "list", "--output", "json"])).unwrap();
        let sandbox = listed.as_array().or_else(|| listed["sandboxes"].as_array()).unwrap()[0].clone();
        let links = output("ip", &["-o", "link", "show", "master", "ppq0"]);
        let tap = links.split_whitespace().nth(1).unwrap().trim_end_matches(':').to_owned();
        Self {
            id: id.to_owned(),
            socket: sandbox["agent_socket"].as_str().unwrap().into(),
            vm: sandbox["addresses"][0].as_str().unwrap().to_owned(),
            tap,
        }
    }

    fn cut(&self, cut: Cut) {
        // Out of the bridge: nothing goes through, nobody is told.
        run("ip", &["link", "set", &self.tap, "nomaster"]);
        if cut == Cut::Kill {
            run("ss", &["-K", "dst", &self.vm]);
        }
    }

    fn mend(&self) {
        run("ip", &["link", "set", &self.tap, "master", "ppq0"]);
    }
}

fn cut_length() -> Duration {
    let seconds = std::env::var("PEERPODS_CUT_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(6))
}

async fn survive(place: &Place, cut: Cut) {
    let agent = Agent::connect(&place.id.parse().unwrap(), &place.socket).await.unwrap();
    let client = Client::connect(&format!("unix://{}", place.socket.display())).await.unwrap();
    let copier = AgentServiceClient::new(client);
    let container = container(&agent, &copier, place).await;

    let lines = Arc::new(AtomicUsize::new(0));
    let lasting = cut_length() + Duration::from_secs(12);
    let stream = tokio::spawn(count(agent.clone(), container.clone(), lasting, lines.clone()));
    let middle = Arc::new(Notify::new());
    let copying = tokio::spawn(copy_blob(copier, middle.clone()));
    middle.notified().await;

    place.cut(cut);
    let (socket, length) = (place.socket.clone(), cut_length());
    let check = tokio::spawn(async move { check_agent(&socket).await });
    tokio::time::sleep(length).await;
    let (seen, mended) = (lines.load(Ordering::Relaxed), Instant::now());
    assert!(!copying.is_finished(), "nothing was cut");
    place.mend();
    while lines.load(Ordering::Relaxed) == seen {
        assert!(
            mended.elapsed() < Duration::from_secs(60),
            "the stream stands still after the network's return"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{cut:?} for {length:?}: traffic again {:.0?} after the network's return", mended.elapsed());

    assert_eq!(check.await.unwrap().unwrap(), 1, "the shim's health check, asked during the cut");
    let digest = copying.await.unwrap();
    stream.await.unwrap();
    assert_eq!(digest_in_vm(&agent, &container).await, digest, "the copied file");
}

/// A container that sees the files from the node.
async fn container(agent: &Agent, client: &AgentServiceClient, place: &Place) -> ProcessId {
    agent.create_sandbox("cut").await.unwrap();
    copy(client, &format!("{SHARED}/first"), b"the directory is made", 0, 21).await;
    let spec = ContainerSpec {
        id: place.id.parse().unwrap(),
        hostname: "cut".to_owned(),
        userland: peerpods::sandbox::spec::userland(&image()).unwrap(),
        command: CommandSpec::hold(),
    };
    let mut request = create_container(&spec);
    let shared = Mount {
        destination: "/shared".to_owned(),
        source: SHARED.to_owned(),
        type_: "bind".to_owned(),
        options: vec!["rbind".to_owned(), "ro".to_owned()],
        ..Mount::default()
    };
    request.OCI.as_mut().unwrap().Mounts.push(shared);
    client.create_container(within(SHIM_DEADLINE), &request).await.unwrap();
    let process = ProcessId { container: place.id.clone(), exec: place.id.clone() };
    agent.start_container(&process).await.unwrap();
    process
}

fn command(script: &str) -> CommandSpec {
    let args = ["sh", "-c", script].map(str::to_owned).to_vec();
    CommandSpec { args, env: Vec::new(), cwd: "/".to_owned(), terminal: Terminal::None }
}

/// Reads a counter for as long as it counts; a gap or a repetition fails.
async fn count(agent: Agent, container: ProcessId, lasting: Duration, lines: Arc<AtomicUsize>) {
    let process = ProcessId { exec: "counter".to_owned(), ..container };
    let last = lasting.as_millis() / 100;
    let script = format!("i=0; while [ $i -lt {last} ]; do echo $i; i=$((i+1)); sleep 0.1; done");
    agent.exec(&process, &command(&script)).await.unwrap();
    let mut text = String::new();
    let mut expected = 0_usize;
    loop {
        let read = agent.read(&process, Stream::Out).await.unwrap();
        if read.is_empty() {
            break;
        }
        text.push_str(std::str::from_utf8(&read).unwrap());
        while let Some((line, rest)) = text.split_once('\n') {
            assert_eq!(line, expected.to_string(), "a gap or a repetition in the stream");
            expected += 1;
            lines.store(expected, Ordering::Relaxed);
            text = rest.to_owned();
        }
    }
    assert_eq!(expected as u128, last, "the stream ended early");
}

/// Copies the blob in pieces; answers its digest. Tells when the piece before the cut is over.
async fn copy_blob(client: AgentServiceClient, middle: Arc<Notify>) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    run(
        "dd",
        &["if=/dev/urandom", &format!("of={}", file.path().display()), "bs=1M", "count=64", "status=none"],
    );
    let blob = std::fs::read(file.path()).unwrap();
    assert_eq!(blob.len(), BLOB_MIB * MIB);
    for (n, piece) in blob.chunks(MIB).enumerate() {
        if n == CUT_AT {
            middle.notify_one();
            // The network goes away while this piece is on its way or waits for it.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        copy(&client, BLOB, piece, n * MIB, blob.len()).await;
    }
    digest(file.path())
}

fn digest(path: &Path) -> String {
    let said = output("sha256sum", &[&path.display().to_string()]);
    said.split_whitespace().next().unwrap().to_owned()
}

async fn copy(client: &AgentServiceClient, path: &str, data: &[u8], offset: usize, size: usize) {
    let request = CopyFileRequest {
        path: path.to_owned(),
        file_size: i64::try_from(size).unwrap(),
        file_mode: 0o100_644,
        dir_mode: 0o755,
        offset: i64::try_from(offset).unwrap(),
        data: data.to_vec(),
        ..CopyFileRequest::default()
    };
    client.copy_file(within(SHIM_DEADLINE), &request).await.unwrap();
}

async fn digest_in_vm(agent: &Agent, container: &ProcessId) -> String {
    let process = ProcessId { exec: "digest".to_owned(), ..container.clone() };
    agent.exec(&process, &command("sha256sum /shared/blob")).await.unwrap();
    let mut said = Vec::new();
    loop {
        let read = agent.read(&process, Stream::Out).await.unwrap();
        if read.is_empty() {
            break;
        }
        said.extend(read);
    }
    String::from_utf8(said).unwrap().split_whitespace().next().unwrap_or_default().to_owned()
}

fn within(seconds: u64) -> context::Context {
    context::with_duration(Duration::from_secs(seconds))
}
