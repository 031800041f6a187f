//! Running iproute2: the fake uses the same programs a person would, so that it proves nothing about our own netlink code.

use std::io;
use std::process::{Command, Stdio};

use tokio::io::AsyncWriteExt;

/// Runs a batch of `ip` commands, in network namespace `netns` if one is named; stops at the first that fails.
pub(super) async fn ip_batch(netns: Option<&str>, commands: &[String]) -> io::Result<()> {
    let mut program = tokio::process::Command::new("ip");
    if let Some(name) = netns {
        program.args(["-n", name]);
    }
    program.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = program.spawn().map_err(|e| named("ip", e))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all((commands.join("\n") + "\n").as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("ip -batch failed: {said}")))
}

/// Runs one `ip` command and answers what it printed; for the sync world of `Drop` and checks.
pub(super) fn ip(arguments: &[&str]) -> io::Result<String> {
    let output =
        Command::new("ip").args(arguments).stdin(Stdio::null()).output().map_err(|e| named("ip", e))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("ip {} failed: {said}", arguments.join(" "))))
}

/// Sends SIGKILL to processes; those that are gone are fine.
pub(super) fn kill_all<'a>(pids: impl Iterator<Item = &'a str>) -> io::Result<()> {
    let mut kill = Command::new("kill");
    kill.arg("-KILL").args(pids).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    kill.status().map(drop).map_err(|e| named("kill", e))
}

fn named(program: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot run {program}: {error}"))
}
