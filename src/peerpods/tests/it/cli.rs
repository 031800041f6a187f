//! The command line: what parses, what does not, what it prints.

use std::process::{Command, Output};

use clap::{CommandFactory, Parser};
use peerpods::cli::sandbox::SandboxAction;
use peerpods::cli::{self, Cli};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("peerpods").chain(line.split_whitespace()))
}

fn peerpods(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_peerpods")).args(args).env_clear().output().unwrap()
}

#[test]
fn the_command_line_contradicts_itself_nowhere() {
    Cli::command().debug_assert();
}

#[test]
fn what_the_documentation_shows_parses() {
    for line in [
        "hypervisor --socket /run/t.sock --proxy-timeout 2m --log-level debug",
        "hypervisor --qemu-image /i --qemu-subnet 10.1.0.0/24 --peerpods-limit-per-node -1",
        "hypervisor --reason-file /dev/termination-log",
        "run --roles hypervisor",
        "sandbox run -- uname -a",
        "sandbox run --vcpus 2 --memory 512 --keep --id demo --output json -- cat /proc/cpuinfo",
        "sandbox --socket /run/t.sock create --netns /run/netns/x --pod-name web --annotation a=b --annotation c=d=e",
        "sandbox start demo --socket /run/t.sock --timeout 1m30s",
        "sandbox exec demo -t -e A=1 --env B= --cwd /tmp -- sh -c true --output",
        "sandbox stop demo",
        "sandbox list --output json",
        "gc list --output json",
        "gc delete --orphans --dry-run",
        "gc delete a b --yes --timeout 1m --socket /run/t.sock",
        "gc adopt demo --netns /run/netns/x --vni 555000",
        "gc adopt demo --remove --yes",
        "image build --target qemu --guest /g --miniagent /m --agent /a --out /o",
        "image verify /o",
        "install-node --host-root /host --class kata-remote-cc --class kata-remote --hypervisor-timeout 900s",
        "install-node --runtime-log-level debug --reason-file /dev/termination-log",
        "install-node --remove --once --output json",
        "install-node --is-ready",
        "doctor --output json",
        "config show --vxlan-port 1",
        "completions bash",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[cfg(feature = "aws")]
#[test]
fn what_the_documentation_shows_of_a_cloud_parses() {
    use peerpods::cli::ports::PortsCommand;
    for line in ["doctor aws --output json", "ports check aws", "ports close aws --dry-run"] {
        parse(line).unwrap();
    }
    let cli = parse("ports open aws --from sg-1,sg-2 --from sg-3 --dry-run").unwrap();
    let cli::Command::Ports(PortsCommand::Open(change)) = cli.command else { panic!("{cli:?}") };
    assert!(change.dry_run && change.place.from == ["sg-1", "sg-2", "sg-3"], "{change:?}");
    let doctor = peerpods(&["doctor", "aws"]);
    assert_eq!(doctor.status.code(), Some(1));
    assert!(String::from_utf8(doctor.stderr).unwrap().contains("CLOUD_PROVIDER"));
}

#[test]
fn mistakes_are_refused_by_name() {
    for (line, named) in [
        ("sandbox run", "<COMMAND>"),
        ("sandbox run uname", "uname"),
        ("sandbox start a/b", "'/'"),
        ("sandbox create --annotation x", "KEY=VALUE"),
        ("sandbox stop demo --timeout 5", "duration"),
        ("sandbox create --netns /n --pod-network 10.0.0.0/24", "--pod-network"),
        ("gc delete", "<ID>"),
        ("install-node --class Kata", "lower-case"),
        ("install-node --remove --class kata-remote-cc", "--class"),
        ("install-node --hypervisor-timeout 900", "duration"),
        ("gc delete a --orphans", "--orphans"),
        ("gc adopt demo", "--netns"),
        ("gc adopt demo --netns /n", "--vni"),
        ("gc adopt demo --remove --vni 7", "--vni"),
        ("image build", "--target"),
        ("doctor --output yaml", "yaml"),
    ] {
        let error = parse(line).unwrap_err();
        assert!(error.use_stderr() && error.to_string().contains(named), "{line}: {error}");
    }
}

#[test]
fn the_command_after_two_dashes_is_left_alone() {
    let cli = parse("sandbox exec demo -- sh -c x --socket y").unwrap();
    let cli::Command::Sandbox(sandbox) = cli.command else { panic!("{cli:?}") };
    assert_eq!(sandbox.socket, None);
    let SandboxAction::Exec(exec) = sandbox.action else { panic!("{:?}", sandbox.action) };
    assert_eq!(exec.process.command, ["sh", "-c", "x", "--socket", "y"]);
}

/// Set `PEERPODS_REGENERATE=1` to write the text anew.
/// Of the program without clouds, which have commands of their own.
#[cfg(not(feature = "aws"))]
#[test]
fn the_help_is_the_one_that_was_reviewed() {
    let help = Cli::command().term_width(110).render_long_help().to_string();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/help.txt");
    if std::env::var("PEERPODS_REGENERATE").is_ok_and(|value| value == "1") {
        std::fs::write(&golden, &help).unwrap();
    }
    assert_eq!(help, std::fs::read_to_string(golden).unwrap());
}

#[test]
fn answers_go_to_stdout_and_mistakes_to_stderr_with_their_status() {
    let help = peerpods(&["--help"]);
    assert_eq!((help.status.code(), help.stderr.len()), (Some(0), 0));
    let version = peerpods(&["--version"]);
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        concat!("peerpods ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let mistake = peerpods(&["sandbocks"]);
    assert_eq!((mistake.status.code(), mistake.stdout.len()), (Some(2), 0));
    let completions = peerpods(&["completions", "bash"]);
    assert!(completions.status.success() && completions.stdout.starts_with(b"_peerpods()"));
}

#[test]
fn faults_of_the_configuration_are_a_usage_error_that_lists_them() {
    let output = peerpods(&["config", "show", "--vxlan-port", "x", "--proxy-timeout", "5"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert!(text.starts_with("peerpods: the configuration has 2 faults:\n"), "{text}");
    let run = peerpods(&["run", "--roles", "conductor"]);
    assert_eq!(run.status.code(), Some(2));
    assert!(String::from_utf8(run.stderr).unwrap().contains("known roles: hypervisor, operator, webhook"));
}

#[test]
fn why_the_node_service_ended_is_left_on_one_line_where_it_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("reason");
    let file_name = file.to_str().unwrap();
    let ended =
        peerpods(&["hypervisor", "--reason-file", file_name, "--vxlan-port", "x", "--proxy-timeout", "5"]);
    assert_eq!(ended.status.code(), Some(2));
    let reason = std::fs::read_to_string(&file).unwrap();
    assert!(reason.contains("vxlan-port") && reason.contains("proxy-timeout"), "{reason}");
    assert!(!reason.contains('\n'), "{reason}");
    let missing = directory.path().join("no-link");
    let program = missing.to_str().unwrap();
    let state = directory.path().join("state");
    let ended = peerpods(&[
        "hypervisor",
        "--reason-file",
        file_name,
        "--link-program",
        program,
        "--state-dir",
        state.to_str().unwrap(),
    ]);
    assert_eq!(ended.status.code(), Some(1));
    let reason = std::fs::read_to_string(&file).unwrap();
    assert!(reason.starts_with("no link program"), "{reason}");
}

#[test]
fn the_effective_configuration_is_shown_with_its_sources() {
    let text = peerpods(&["config", "show", "--vxlan-port", "4789"]);
    let text = String::from_utf8(text.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("vxlan-port")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["vxlan-port", "4789", "flag", "--vxlan-port"]);
    let json = peerpods(&["config", "show", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let socket = json.as_array().unwrap().iter().find(|entry| entry["key"] == "socket").unwrap();
    assert_eq!(socket["source"]["from"], "default");
}

#[test]
fn the_doctor_answers_json_and_fails_when_something_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("no-image");
    let output = peerpods(&[
        "doctor",
        "--output",
        "json",
        "--qemu-image",
        missing.to_str().unwrap(),
        "--qemu-program",
        "/no/qemu",
    ]);
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    for check in ["image", "qemu"] {
        let finding = findings.as_array().unwrap().iter().find(|finding| finding["check"] == check).unwrap();
        assert_eq!(finding["level"], "error", "{finding}");
        assert!(finding["fix"].is_string(), "{finding}");
    }
}
