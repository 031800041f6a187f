//! `peerpods sandbox` as a user runs it, against the fakes.

use std::process::{Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peerpods_test_require::{Need, require};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::fake_node::{FakeNode, Start};

/// Longer than anything here takes on a busy machine, the grace of an unheeded signal included.
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    directory: TempDir,
    node: FakeNode,
}

impl Bench {
    async fn new(start: Start) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = FakeNode::serve(directory.path(), start).await;
        Self { directory, node }
    }

    fn client_dir(&self) -> std::path::PathBuf {
        self.directory.path().join("client")
    }

    /// `peerpods sandbox ARGS`.
    fn command(&self, args: &[&str]) -> Command {
        self.wrapped(Command::new(env!("CARGO_BIN_EXE_peerpods")), args)
    }

    fn wrapped(&self, mut command: Command, args: &[&str]) -> Command {
        command.arg("sandbox").args(args).arg("--socket").arg(&self.node.socket);
        // The socket must stand before the command, which takes everything after `--`.
        if let Some(place) = args.iter().position(|arg| *arg == "--") {
            let program = command.as_std().get_program().to_owned();
            let before: Vec<_> = command.as_std().get_args().map(ToOwned::to_owned).collect();
            let head = before.len() - 2 - args.len() + place;
            command = Command::new(program);
            command
                .args(&before[..head])
                .args(&before[before.len() - 2..])
                .args(&before[head..before.len() - 2]);
        }
        command.env("PEERPODS_CLIENT_DIR", self.client_dir()).env("PEERPODS_CONFIG", "/dev/null");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn output(&self, args: &[&str]) -> Output {
        let child = self.command(args).spawn().unwrap();
        finish(child).await
    }

    /// Everything that was made was stopped, and the client remembers nothing.
    async fn assert_nothing_left(&self) {
        assert_eq!(self.node.states().await, []);
        let left: Vec<_> = std::fs::read_dir(self.client_dir())
            .map(|entries| {
                entries.map(|entry| entry.unwrap().file_name()).filter(|name| name != ".lock").collect()
            })
            .unwrap_or_default();
        assert!(left.is_empty(), "{left:?}");
    }
}

async fn finish(child: Child) -> Output {
    tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it does not end").unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().unwrap().try_into().unwrap()), signal).unwrap();
}

/// Waits until the child has written a line, so that its command is known to run.
async fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await.expect("no line").unwrap();
    line
}

const NETNS: [&str; 2] = ["--netns", "/run/netns/of-somebody-else"];

fn run<'a>(options: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    [&["run"], &NETNS[..], options, &["--"], command].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_passes_on_stdout_stderr_and_status_and_leaves_nothing() {
    let bench = Bench::new(Start::Works).await;
    let output = bench.output(&run(&["--id", "one"], &["sh", "-c", "echo out; echo err >&2; exit 7"])).await;
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(7), "out\n"), "{output:?}");
    let stderr = text(&output.stderr);
    assert!(stderr.contains("err\n") && !stderr.contains("out\n"), "{stderr}");
    for phase in ["CreateVM", "StartVM", "  make vm", "container", "command", "StopVM", "total"] {
        assert!(stderr.contains(&format!("\n{phase}")), "no {phase:?} in {stderr}");
    }
    assert_eq!(bench.node.calls(), ["create one", "start one", "stop one"]);
    bench.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_run_says_nothing_of_its_own() {
    let bench = Bench::new(Start::Works).await;
    let output = bench.output(&run(&["--quiet"], &["true"])).await;
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_json_report_is_the_last_line_of_stderr() {
    let bench = Bench::new(Start::Works).await;
    let output = bench.output(&run(&["--output", "json"], &["sh", "-c", "echo out; exit 3"])).await;
    assert_eq!(text(&output.stdout), "out\n");
    let report: serde_json::Value =
        serde_json::from_str(text(&output.stderr).lines().last().unwrap()).unwrap();
    assert_eq!((&report["status"], &report["left_behind"]), (&3.into(), &serde_json::Value::Null));
    let service: Vec<_> =
        report["phases"].as_array().unwrap().iter().filter(|phase| phase["by"] == "service").collect();
    assert_eq!((service.len(), &service[0]["took_us"]), (1, &7_000.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn input_of_a_megabyte_comes_back_unchanged() {
    let bench = Bench::new(Start::Works).await;
    let input: Vec<u8> = (0..1_000_000_u32).flat_map(|n| (n % 251).to_le_bytes()).take(1_000_003).collect();
    let mut child = bench.command(&run(&["-q"], &["cat"])).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let given = input.clone();
    tokio::spawn(async move { stdin.write_all(&given).await });
    let output = finish(child).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == input, "{} bytes came back of {}", output.stdout.len(), input.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_output_of_a_terminal_is_whole_although_its_input_ends_first() {
    let bench = Bench::new(Start::Works).await;
    let command = run(&["-q", "--tty"], &["sh", "-c", "cat; sleep 0.3; echo last; exit 9"]);
    let mut child = bench.command(&command).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"first\n").await.unwrap();
    let output = finish(child).await;
    assert_eq!(text(&output.stdout), "first\nlast\n", "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(9), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_told_its_size_at_the_start() {
    if !require("a_terminal_is_told_its_size_at_the_start", &[Need::Program("script")]) {
        return;
    }
    let bench = Bench::new(Start::Works).await;
    let command = bench.command(&run(&["-q", "--tty", "--keep", "--id", "sized"], &["sleep", "1"]));
    let words: Vec<String> = std::iter::once(command.as_std().get_program())
        .chain(command.as_std().get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let line = format!("stty rows 33 cols 101; exec {}", words.join(" "));
    let mut under = Command::new("script");
    under.args(["-qefc", &line, "/dev/null"]).envs(
        command
            .as_std()
            .get_envs()
            .filter_map(|(key, value)| value.map(|value| (key.to_owned(), value.to_owned()))),
    );
    let child = under.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = finish(child).await;
    assert!(bench.node.asked("sized").await.sizes.contains(&(33, 101)), "{}", text(&output.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_reaches_the_command_which_decides_the_status() {
    for (sent, name) in [(Signal::SIGINT, "INT"), (Signal::SIGTERM, "TERM")] {
        let bench = Bench::new(Start::Works).await;
        let script = format!("trap 'exit 42' {name}; echo ready; while :; do sleep 0.1; done");
        let mut child = bench.command(&run(&["-q"], &["sh", "-c", &script])).spawn().unwrap();
        assert_eq!(first_line(&mut child).await, "ready\n");
        signal(&child, sent);
        assert_eq!(finish(child).await.status.code(), Some(42), "{name}");
        bench.assert_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ctrl_c_ends_a_command_that_heeds_none() {
    let bench = Bench::new(Start::Works).await;
    let script = "trap '' INT; echo ready; while :; do sleep 0.1; done";
    let mut child = bench.command(&run(&["-q"], &["sh", "-c", script])).spawn().unwrap();
    assert_eq!(first_line(&mut child).await, "ready\n");
    signal(&child, Signal::SIGINT);
    tokio::time::sleep(Duration::from_millis(300)).await;
    signal(&child, Signal::SIGINT);
    assert_eq!(finish(child).await.status.code(), Some(137));
    bench.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_ctrl_c_is_enough_after_the_grace() {
    let bench = Bench::new(Start::Works).await;
    let script = "trap '' INT; echo ready; while :; do sleep 0.1; done";
    let mut child = bench.command(&run(&["-q"], &["sh", "-c", script])).spawn().unwrap();
    assert_eq!(first_line(&mut child).await, "ready\n");
    signal(&child, Signal::SIGINT);
    assert_eq!(finish(child).await.status.code(), Some(137));
    bench.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_while_the_vm_starts_withdraws_the_start_and_stops_it() {
    let bench = Bench::new(Start::Never).await;
    let child = bench.command(&run(&["--id", "slow"], &["true"])).spawn().unwrap();
    while !bench.node.calls().contains(&"start slow".to_owned()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    signal(&child, Signal::SIGINT);
    let output = finish(child).await;
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let calls = bench.node.calls();
    assert!(calls.contains(&"withdrawn slow".to_owned()), "{calls:?}");
    assert!(calls.contains(&"stop slow".to_owned()), "{calls:?}");
    bench.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_says_why_and_leaves_nothing() {
    let bench = Bench::new(Start::Fails).await;
    let output = bench.output(&run(&["--id", "one"], &["true"])).await;
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr.contains("StartVM of sandbox one failed: the cloud is full"), "{stderr}");
    bench.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_is_our_failure_and_not_the_commands() {
    let bench = Bench::new(Start::Works).await;
    let output = bench.output(&run(&[], &["/no/such/program"])).await;
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("StartContainer: /no/such/program: No such file"), "{output:?}");
    bench.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_service_that_is_not_there_is_named_with_its_socket() {
    let mut bench = Bench::new(Start::Works).await;
    bench.node.die();
    let output = bench.output(&run(&[], &["true"])).await;
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr.contains("is `peerpods hypervisor` running") && stderr.contains("h.sock"), "{stderr}");
    bench.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn create_start_exec_list_and_stop_do_one_thing_each() {
    let bench = Bench::new(Start::Works).await;
    let create = [&["create", "--id", "one", "--pod-name", "web"], &NETNS[..]].concat();
    let created = bench.output(&create).await;
    assert_eq!(text(&created.stdout).lines().next(), Some("one"), "{created:?}");
    let early = bench.output(&["exec", "one", "--", "true"]).await;
    assert_eq!(early.status.code(), Some(125));
    assert!(text(&early.stderr).contains("`peerpods sandbox start one` starts it"), "{early:?}");
    let again = bench.output(&create).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("it is there already (created)"), "{again:?}");
    assert!(bench.output(&["start", "one"]).await.status.success());
    for n in ["1", "2"] {
        let script = format!("echo $A{n}; exit {n}");
        let exec =
            bench.output(&["exec", "one", "--env", "A=x", "--cwd", "/tmp", "--", "sh", "-c", &script]).await;
        assert_eq!(exec.status.code(), Some(n.parse().unwrap()), "{exec:?}");
    }
    let asked = bench.node.asked("one").await;
    assert_eq!((asked.sandboxes, asked.containers.len(), asked.execs.len()), (1, 1, 2));
    assert_eq!(asked.containers[0].OCI.Hostname, "web");
    assert_ne!(asked.execs[0].exec_id, asked.execs[1].exec_id);
    let listed = bench.output(&["list", "--output", "json"]).await;
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&listed[0]["id"], &listed[0]["state"]), (&"one".into(), &"running".into()));
    assert!(text(&bench.output(&["list"]).await.stdout).contains("default/web"));
    assert!(bench.output(&["stop", "one"]).await.status.success());
    assert!(bench.output(&["stop", "one"]).await.status.success(), "stopping nothing is no error");
    bench.assert_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_in_an_unknown_sandbox_says_so() {
    let bench = Bench::new(Start::Works).await;
    let output = bench.output(&["exec", "nobody", "--", "true"]).await;
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("there is no sandbox nobody"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_sandbox_takes_further_commands_even_while_the_service_is_away() {
    let mut bench = Bench::new(Start::Works).await;
    let output = bench.output(&run(&["--id", "one", "--keep"], &["sh", "-c", "exit 4"])).await;
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(text(&output.stderr).contains("peerpods sandbox stop one"));
    assert_eq!(bench.node.states().await, [("one".to_owned(), "running".to_owned())]);
    let mut counter =
        bench.command(&["exec", "one", "--", "sh", "-c", "echo a; sleep 2; echo b"]).spawn().unwrap();
    let mut reader = BufReader::new(counter.stdout.take().unwrap()).lines();
    assert_eq!(reader.next_line().await.unwrap().as_deref(), Some("a"));
    bench.node.die();
    assert_eq!(bench.output(&["exec", "one", "--", "sh", "-c", "exit 5"]).await.status.code(), Some(5));
    assert_eq!(reader.next_line().await.unwrap().as_deref(), Some("b"));
    assert_eq!(finish(counter).await.status.code(), Some(0));
    let stop = bench.output(&["stop", "one"]).await;
    assert_eq!(stop.status.code(), Some(1));
    assert!(bench.client_dir().join("one.json").exists(), "a stop that reached nobody must not forget");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_namespace_of_our_own_exists_while_the_command_runs_and_not_after() {
    let needs = [Need::Root, Need::NetworkNamespaces, Need::Program("unshare"), Need::Program("ip")];
    if !require("a_network_namespace_of_our_own", &needs) {
        return;
    }
    let bench = Bench::new(Start::Works).await;
    // All in namespaces of the test's own: neither the machine's network nor its /run/netns is touched.
    let script = format!(
        "mkdir -p /run/netns && mount -t tmpfs none /run/netns && ip link set lo up && '{}' \"$@\" & \
         until [ -e \"$FLAG\".runs ]; do sleep 0.05; done; \
         echo \"during: $(ls /run/netns) $(ip -n peerpods-one -o -4 address show dev eth0)\"; \
         touch \"$FLAG\".seen; wait $!; status=$?; \
         echo \"after: [$(ls /run/netns)] $(ip -o link | wc -l)\"; exit $status",
        env!("CARGO_BIN_EXE_peerpods")
    );
    let mut outer = Command::new("unshare");
    outer.args(["--mount", "--net", "sh", "-c", &script, "sh"]);
    let flag = bench.directory.path().join("flag").display().to_string();
    let inner = format!("touch {flag}.runs; until [ -e {flag}.seen ]; do sleep 0.05; done; exit 6");
    let args = ["run", "--id", "one", "-q", "--", "sh", "-c", &inner];
    let output = finish(bench.wrapped(outer, &args).env("FLAG", &flag).spawn().unwrap()).await;
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    assert!(stdout.contains("during: peerpods-one") && stdout.contains("inet 10.88.0.2/24"), "{stdout}");
    assert!(stdout.ends_with("after: [] 1\n"), "{stdout}");
    assert_eq!(bench.node.calls(), ["create one", "start one", "stop one"]);
    bench.assert_nothing_left().await;
}
