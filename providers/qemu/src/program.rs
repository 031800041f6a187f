//! The QEMU program: what it is, what it can do, and starting a VM with it.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::accel::one_line;
use crate::command::{Machine, SANDBOX, Seccomp};
use crate::failure::Failure;

/// How long QEMU may take until the VM's processors run. It is some 100 ms on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What QEMU calls itself, such as `QEMU emulator version 10.0.2 (Debian …)`.
///
/// # Errors
/// When it cannot be run.
pub(crate) async fn version(program: &Path) -> Result<String, Failure> {
    let output = run(program, Command::new(program).arg("--version"), b"").await?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().next().filter(|_| output.status.success()) {
        Some(line) => Ok(line.trim().to_owned()),
        None => Err(Failure::Start { said: one_line(&output.stderr) }),
    }
}

/// Whether this QEMU was built with seccomp: tried with a machine of nothing that is told to quit.
pub(crate) async fn seccomp(program: &Path) -> Result<Seccomp, Failure> {
    let mut command = Command::new(program);
    command.args(["-machine", "none", "-nodefaults", "-no-user-config", "-display", "none"]);
    command.args(["-sandbox", SANDBOX, "-qmp", "stdio"]);
    let quit = b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"quit\"}\n";
    let output = run(program, &mut command, quit).await?;
    Ok(if output.status.success() { Seccomp::Built } else { Seccomp::Absent })
}

/// Starts a VM. When this returns its process has detached from us and holds its pid file.
pub(crate) async fn start(program: &Path, machine: &Machine) -> Result<(), Failure> {
    let mut command = Command::new(program);
    let output = run(program, command.args(machine.arguments()), b"").await?;
    if output.status.success() {
        return Ok(());
    }
    let said = match one_line(&output.stderr) {
        text if text.is_empty() => format!("it ended with {} and said nothing", output.status),
        text => text,
    };
    Err(Failure::Start { said })
}

async fn run(program: &Path, command: &mut Command, input: &[u8]) -> Result<Output, Failure> {
    let failed = |source| Failure::Program { program: program.to_owned(), source };
    // Only what a program must know of its surroundings: our own may hold credentials.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let work = async {
        if let Some(mut stdin) = child.stdin.take() {
            // Whoever ends without reading says why on standard error.
            let _ = stdin.write_all(input).await;
        }
        child.wait_with_output().await
    };
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(output) => output.map_err(failed),
        Err(_) => Err(Failure::Start { said: format!("no answer within {PATIENCE:?}") }),
    }
}
