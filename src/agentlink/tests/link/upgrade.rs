//! Links and daemons of different versions: what commit dfd8ffc's said, word for word, and a link it really built.

use std::fs;
use std::path::PathBuf;

use peerpods_agentlink::process::{GuestState, LinkProcesses};
use peerpods_agentlink::{Link, LinkError, ShimProcess};
use peerpods_test_require::{Need, require};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::detach::{is_gone, pid_of};
use super::support::{Guest, Sandbox, healthy, program};

/// Requests of that daemon (`>`) and answers of that link (`<`), as they were on the socket; keys are names in angle brackets.
const CONVERSATION: &str = include_str!("fixtures/dfd8ffc.txt");

/// The stored line that contains `word`, of one side.
fn stored(side: char, word: &str) -> String {
    let found = CONVERSATION.lines().find(|line| line.starts_with(side) && line.contains(word));
    found.unwrap_or_else(|| panic!("no {side} line with {word}"))[2..].to_owned()
}

/// A peer that answers each request with the stored line for its operation, on the control socket.
struct Scripted(tokio::task::JoinHandle<()>);

impl Scripted {
    fn start(sandbox: &Sandbox, answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        fs::create_dir_all(&sandbox.dir).unwrap();
        let listener = UnixListener::bind(sandbox.dir.join("link.sock")).unwrap();
        Self(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (read, mut write) = stream.into_split();
                let mut lines = BufReader::new(read).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let _ = write.write_all(format!("{}\n", answer(&line)).as_bytes()).await;
                }
            }
        }))
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn as_dfd8ffc(request: &str) -> String {
    let words = [("status", "status"), ("connect", "connected"), ("close", "closing")];
    // It read v 1 only, and these operations only.
    match words.iter().find(|(op, _)| request.starts_with(&format!("{{\"v\":1,\"op\":\"{op}\""))) {
        Some((_, answer)) => stored('<', &format!("\"answer\":\"{answer}\"")),
        None => stored('<', "is not spoken here"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_of_the_first_links_are_understood() {
    let guest = Guest::off().await;
    let sandbox = Sandbox::new();
    let _peer = Scripted::start(&sandbox, as_dfd8ffc);
    let opened = sandbox.links.open(&sandbox.spec).await.unwrap();
    assert!(!opened.admits_by_token, "they know no tokens");
    let status = sandbox.links.status(&sandbox.spec).await.unwrap().unwrap();
    assert_eq!((status.guest, status.shims, status.version.as_str()), (GuestState::Connected, 1, "0.1.0"));
    assert_eq!((status.speaks.oldest, status.speaks.newest), (1, 1));
    let shims = sandbox.links.shims(&sandbox.spec).await.unwrap().unwrap();
    assert_eq!((shims.connections, shims.last), (1, ShimProcess::Unknown));
    let connected = sandbox.links.connect(&sandbox.spec, &guest.target()).await.unwrap();
    assert_eq!(connected.attempts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requests_of_that_daemon_are_served_in_its_own_words() {
    let guest = Guest::on().await;
    let _agent = guest.agent().await;
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let (read, mut write) = UnixStream::connect(sandbox.dir.join("link.sock")).await.unwrap().into_split();
    let mut lines = BufReader::new(read).lines();
    let target = guest.target();
    let text = |pem: &str| pem.replace('\n', "\\n");
    let connect = stored('>', "connect")
        .replace("<address>", &target.address.to_string())
        .replace("<certificate>", &text(&target.identity.certificate))
        .replace("<key>", &text(&target.identity.key))
        .replace("<authority>", &text(&target.identity.authority));
    for (request, starts) in [
        (stored('>', "status"), r#"{"v":1,"answer":"status","sandbox":"s1","pid":"#),
        (connect, r#"{"v":1,"answer":"connected","port_open_after":{"secs":"#),
        (stored('>', "status"), r#"{"v":1,"answer":"status","sandbox":"s1","pid":"#),
        (stored('>', "close"), r#"{"v":1,"answer":"closing"}"#),
    ] {
        write.write_all(format!("{request}\n").as_bytes()).await.unwrap();
        let answer = lines.next_line().await.unwrap().unwrap();
        assert!(answer.starts_with(starts), "{request}: {answer}");
    }
    assert!(!matches!(lines.next_line().await, Ok(Some(_))), "EOF after closing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_no_longer_speaks_our_version_is_told_apart_from_one_that_fails() {
    for (answer, unsupported) in [
        (r#"{"v":7,"answer":"unsupported","speaks":{"oldest":5,"newest":7},"hint":"upgrade"}"#, true),
        (&stored('<', "is not spoken here").replace("\"v\":1", "\"v\":0"), true),
        (r#"{"v":7,"answer":"closing"}"#, false),
        (r#"{"v":1,"answer":"sang"}"#, false),
    ] {
        let sandbox = Sandbox::new();
        let said = answer.to_owned();
        let _peer = Scripted::start(&sandbox, move |_| said.clone());
        let error = sandbox.links.shims(&sandbox.spec).await.unwrap_err();
        let typed = match &error {
            LinkError::Unsupported { needed: 1, .. } => true,
            LinkError::Protocol { .. } => false,
            other => panic!("{other}"),
        };
        assert_eq!(typed, unsupported, "{answer}: {error}");
    }
}

/// With `PEERPODS_OLD_LINK` naming the program of an older commit.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an older build: make upgrade-test"]
async fn a_running_link_of_an_older_build_is_taken_over_with_its_traffic() {
    if !require(
        "a_running_link_of_an_older_build_is_taken_over_with_its_traffic",
        &[Need::Variable("PEERPODS_OLD_LINK")],
    ) {
        return;
    }
    let old = PathBuf::from(std::env::var_os("PEERPODS_OLD_LINK").unwrap());
    let guest = Guest::on().await;
    let _agent = guest.agent().await;
    let sandbox = Sandbox::new();
    LinkProcesses::new(old.clone()).open(&sandbox.spec).await.unwrap();
    let pid = pid_of(&sandbox).await;
    let links = LinkProcesses::new(program());
    links.open(&sandbox.spec).await.unwrap();
    let first = links.connect(&sandbox.spec, &guest.target()).await.unwrap();
    let shim = sandbox.shim().await;
    healthy(&shim).await.unwrap();
    // As a daemon that was started anew does.
    let again = links.connect(&sandbox.spec, &guest.target()).await.unwrap();
    assert_eq!(first.agent_after, again.agent_after);
    healthy(&shim).await.unwrap();
    let status = links.status(&sandbox.spec).await.unwrap().unwrap();
    assert_eq!((status.guest, status.shims), (GuestState::Connected, 1));
    assert_eq!(fs::read_link(format!("/proc/{pid}/exe")).unwrap(), old);
    links.close(&sandbox.spec).await.unwrap();
    assert!(is_gone(pid) && !sandbox.dir.exists());
}
