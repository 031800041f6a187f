//! The link as a process: that it stands alone, is found again, and leaves nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as BlockingListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getsid};
use peerpods_agentlink::process::LinkProcesses;
use peerpods_agentlink::{Link, LinkError};
use peerpods_proto::ttrpc::agent::ReadStreamRequest;
use peerpods_proto::ttrpc::agent_ttrpc::AgentServiceClient;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::support::{Guest, Sandbox, eventually, healthy, program, within};

pub(crate) async fn pid_of(sandbox: &Sandbox) -> Pid {
    let status = sandbox.links.status(&sandbox.spec).await.unwrap().unwrap();
    Pid::from_raw(i32::try_from(status.pid).unwrap())
}

/// Gone, or a zombie where process 1 reaps nobody.
pub(crate) fn is_gone(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_is_a_process_of_its_own_with_private_files() {
    let inherited = tempfile::tempfile().unwrap();
    fcntl(inherited.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let pid = pid_of(&sandbox).await;
    assert_eq!(getsid(Some(pid)).unwrap(), pid, "it is in our session");
    let proc = Path::new("/proc").join(pid.to_string());
    let stat = fs::read_to_string(proc.join("stat")).unwrap();
    let parent = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(1).unwrap().to_owned();
    assert_ne!(parent, std::process::id().to_string(), "it is our child");
    let links = fs::read_dir(proc.join("fd")).unwrap();
    let open: Vec<String> =
        links.filter_map(|e| Some(fs::read_link(e.ok()?.path()).ok()?.display().to_string())).collect();
    let strange = open.iter().find(|target| {
        let known = ["socket:", "anon_inode:", "/dev/null", "pipe:"];
        !known.iter().any(|start| target.starts_with(start)) && !target.ends_with("link.log")
    });
    assert_eq!(strange, None, "among {open:?}");
    for (fd, target) in [(0, "/dev/null"), (1, "/dev/null"), (2, "/dev/null")] {
        assert_eq!(fs::read_link(proc.join(format!("fd/{fd}"))).unwrap(), Path::new(target));
    }
    assert_eq!(fs::read_link(proc.join("cwd")).unwrap(), Path::new("/"));
    assert!(fs::read(proc.join("environ")).unwrap().is_empty());
    for file in ["agent.ttrpc", "link.sock", "link.log"] {
        assert_eq!(mode(&sandbox.dir.join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(&sandbox.dir), 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_on_the_command_line_or_on_the_disk() {
    let guest = Guest::on().await;
    let _agent = guest.agent().await;
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let target = guest.target();
    sandbox.links.connect(&sandbox.spec, &target).await.unwrap();
    let secret = target.identity.key.lines().nth(1).unwrap();
    let pid = pid_of(&sandbox).await;
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let log = fs::read_to_string(sandbox.dir.join("link.log")).unwrap();
    assert!(log.contains("connected"), "{log}");
    for text in [&command, &log] {
        assert!(!text.contains(secret) && !text.contains("PRIVATE"), "{text}");
    }
    assert_eq!(fs::read_dir(&sandbox.dir).unwrap().count(), 3);
}

/// A daemon in a process group of its own, that starts the link and stays.
struct Daemon(Child);

impl Daemon {
    fn start(socket: &Path) -> Self {
        let child = Command::new("sh")
            .args(["-c", r#""$0" --sandbox s1 --agent-socket "$1" && echo up && sleep 600"#])
            .arg(program())
            .arg(socket)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut daemon = Self(child);
        let mut line = String::new();
        BufReader::new(daemon.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        daemon
    }
}

impl Drop for Daemon {
    /// `kill -9`, with all it had started and not let go of.
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_while_the_daemon_is_killed_and_its_successor_finds_the_link() {
    let guest = Guest::on().await;
    let _agent = guest.agent().await;
    let sandbox = Sandbox::new();
    fs::create_dir(&sandbox.dir).unwrap();
    let mut daemon = Some(Daemon::start(&sandbox.spec.agent_socket));
    sandbox.links.connect(&sandbox.spec, &guest.target()).await.unwrap();
    let pid = pid_of(&sandbox).await;
    let client = AgentServiceClient::new(sandbox.shim().await);
    let request = ReadStreamRequest { container_id: "a".to_owned(), len: 1000, ..Default::default() };
    for round in 0..20 {
        if round == 5 {
            drop(daemon.take());
        }
        assert_eq!(client.read_stdout(within(10), &request).await.unwrap().data.len(), 1000);
    }
    let successor = LinkProcesses::new(program());
    successor.open(&sandbox.spec).await.unwrap();
    assert_eq!(pid_of(&sandbox).await, pid);
    successor.connect(&sandbox.spec, &guest.target()).await.unwrap();
    successor.close(&sandbox.spec).await.unwrap();
    assert!(client.read_stdout(within(10), &request).await.is_err(), "the shim did not see the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn close_leaves_nothing_and_may_be_asked_twice() {
    let sandbox = Sandbox::new();
    sandbox.links.close(&sandbox.spec).await.unwrap();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let pid = pid_of(&sandbox).await;
    let mut shim = sandbox.raw_shim().await;
    sandbox.links.close(&sandbox.spec).await.unwrap();
    assert!(is_gone(pid));
    assert!(!sandbox.dir.exists());
    assert_eq!(shim.read(&mut [0; 1]).await.unwrap_or(0), 0);
    sandbox.links.close(&sandbox.spec).await.unwrap();
    assert!(sandbox.links.status(&sandbox.spec).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn close_keeps_what_is_not_the_links() {
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    fs::write(sandbox.dir.join("other"), "x").unwrap();
    sandbox.links.close(&sandbox.spec).await.unwrap();
    assert_eq!(fs::read_dir(&sandbox.dir).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_hangs_is_killed_by_close() {
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let pid = pid_of(&sandbox).await;
    kill(pid, Signal::SIGSTOP).unwrap();
    sandbox.links.close(&sandbox.spec).await.unwrap();
    assert!(is_gone(pid) && !sandbox.dir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_control_socket_was_removed_is_still_ended_by_close() {
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let pid = pid_of(&sandbox).await;
    fs::remove_file(sandbox.dir.join("link.sock")).unwrap();
    sandbox.links.close(&sandbox.spec).await.unwrap();
    assert!(is_gone(pid) && !sandbox.dir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_sockets_are_replaced_and_a_killed_link_is_started_anew() {
    let sandbox = Sandbox::new();
    fs::create_dir(&sandbox.dir).unwrap();
    for name in ["agent.ttrpc", "link.sock"] {
        drop(BlockingListener::bind(sandbox.dir.join(name)).unwrap());
    }
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let first = pid_of(&sandbox).await;
    kill(first, Signal::SIGKILL).unwrap();
    eventually("the link is gone", || is_gone(first)).await;
    sandbox.links.open(&sandbox.spec).await.unwrap();
    assert_ne!(pid_of(&sandbox).await, first);
    sandbox.raw_shim().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_open_at_once_get_one_link() {
    let sandbox = Sandbox::new();
    let open = || sandbox.links.open(&sandbox.spec);
    let opened = tokio::join!(open(), open(), open(), open());
    assert!(opened.0.is_ok() && opened.1.is_ok() && opened.2.is_ok() && opened.3.is_ok(), "{opened:?}");
    let path = sandbox.spec.agent_socket.display().to_string();
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let command = fs::read_to_string(entry.ok()?.path().join("cmdline")).ok()?;
        (command.contains(&path) && command.contains("--serve")).then_some(())
    });
    assert_eq!(processes.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_terminated_takes_its_sockets_with_it() {
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let pid = pid_of(&sandbox).await;
    kill(pid, Signal::SIGTERM).unwrap();
    eventually("the link is gone", || is_gone(pid)).await;
    assert!(!sandbox.spec.agent_socket.exists() && !sandbox.dir.join("link.sock").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_cannot_begin_says_why_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let mut sandbox = Sandbox::new();
    for (dir, expected) in [("d".repeat(100), "107 bytes"), ("a:b".to_owned(), "':'")] {
        sandbox.spec.agent_socket = root.path().join(dir).join("agent.ttrpc");
        let error = sandbox.links.open(&sandbox.spec).await.unwrap_err();
        let chain = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(matches!(error, LinkError::Start { .. }) && chain.contains(expected), "{chain}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        sandbox.links.close(&sandbox.spec).await.unwrap();
    }

    let sandbox = Sandbox::new();
    fs::create_dir_all(&sandbox.spec.agent_socket).unwrap();
    let started = Instant::now();
    let error = sandbox.links.open(&sandbox.spec).await.unwrap_err();
    let chain = format!("{error}: {}", std::error::Error::source(&error).unwrap());
    assert!(chain.contains("cannot replace") && chain.contains("no socket"), "{chain}");
    assert!(started.elapsed() < Duration::from_secs(4));
    assert!(!sandbox.dir.join("link.sock").exists());

    let sandbox = Sandbox::new();
    let missing = LinkProcesses::new("/nonexistent/peerpods-link".into());
    let error = missing.open(&sandbox.spec).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent/peerpods-link"), "{error}");
    assert!(!sandbox.dir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_the_sockets_place_is_not_removed() {
    let sandbox = Sandbox::new();
    fs::create_dir(&sandbox.dir).unwrap();
    fs::write(sandbox.dir.join("link.sock"), "precious").unwrap();
    let places = std::path::PathBuf::from(&sandbox.dir);
    let output = Command::new(program())
        .args(["--sandbox", "s1", "--agent-socket"])
        .arg(places.join("agent.ttrpc"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no socket"), "{output:?}");
    assert_eq!(fs::read_to_string(sandbox.dir.join("link.sock")).unwrap(), "precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_socket_answers_nonsense_with_an_error_and_goes_on() {
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let stream = UnixStream::connect(sandbox.dir.join("link.sock")).await.unwrap();
    let (read, mut write) = stream.into_split();
    let mut lines = tokio::io::BufReader::new(read).lines();
    for (line, expected) in [
        ("{\"v\":9,\"op\":\"status\"}\n", "\"unsupported\",\"speaks\":{\"oldest\":1,\"newest\":2}"),
        ("{\"v\":1,\"op\":\"dance\"}\n", "dance"),
        ("hello\n", "no JSON object"),
        ("{\"v\":1,\"op\":\"connect\",\"target\":{}}\n", "target"),
        ("{\"v\":1,\"op\":\"status\",\"new\":true}\n", "\"sandbox\":\"s1\""),
    ] {
        write.write_all(line.as_bytes()).await.unwrap();
        let answer = lines.next_line().await.unwrap().unwrap();
        // What no version of ours understands is answered in the newest.
        let version = if line.contains("\"v\":9") { "{\"v\":2," } else { "{\"v\":1," };
        assert!(answer.starts_with(version) && answer.contains(expected), "{line}: {answer}");
    }
    let _ = write.write_all(&vec![b'x'; 100_000]).await;
    let last = timeout(Duration::from_secs(5), lines.next_line()).await.unwrap().unwrap().unwrap();
    assert!(last.contains("longer than"), "{last}");
    assert!(!matches!(timeout(Duration::from_secs(5), lines.next_line()).await.unwrap(), Ok(Some(_))));
    pid_of(&sandbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_up_leaves_the_shims_connections_alone() {
    let guest = Guest::on().await;
    let _agent = guest.agent().await;
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let control = UnixStream::connect(sandbox.dir.join("link.sock")).await.unwrap();
    sandbox.links.connect(&sandbox.spec, &guest.target()).await.unwrap();
    let shim = sandbox.shim().await;
    healthy(&shim).await.unwrap();
    assert_eq!(sandbox.links.status(&sandbox.spec).await.unwrap().unwrap().shims, 1);
    drop(control);
    healthy(&shim).await.unwrap();
}
