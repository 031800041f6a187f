//! Leaving the daemon: the steps by which the link becomes a process of its own.
//!
//! `peerpods-link` as the daemon starts it is a *launcher*: it drops every inherited file descriptor, starts itself again as the
//! *server*, waits until that one listens or says why not, and exits. So the daemon has a child for some milliseconds and no zombie, and
//! the server is nobody's child but init's, in a session of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::prctl;
use nix::sys::stat::{Mode, umask};
use nix::unistd;
use peerpods_podvm::SandboxId;

/// What the server writes when it listens.
const READY: &str = "ready";
/// The longest reason a server gives for not listening, in bytes.
const MAX_REASON: u64 = 4096;

/// The flag that makes a process the server.
pub const SERVE_FLAG: &str = "--serve";

/// The launcher's work. Must run before anything in this process opens a file.
///
/// # Errors
/// With the server's own words when it could not listen.
pub fn launch(sandbox: &SandboxId, agent_socket: &Path) -> io::Result<()> {
    close_inherited()?;
    let program = std::env::current_exe()?;
    let mut server = Command::new(program)
        .args(["--sandbox", sandbox.as_str(), SERVE_FLAG, "--agent-socket"])
        .arg(agent_socket)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let said = server.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut line = String::new();
    BufReader::new(said.take(MAX_REASON)).read_line(&mut line)?;
    match line.trim_end() {
        READY => Ok(()),
        "" => Err(io::Error::other(format!("the server ended without a word: {}", server.wait()?))),
        reason => Err(io::Error::other(reason.to_owned())),
    }
}

/// The server's first steps: a session of its own, files private by default, no core file that would hold keys.
///
/// # Errors
/// When the kernel refuses one of them.
pub fn settle() -> io::Result<()> {
    match unistd::setsid() {
        // EPERM: it leads a process group already, as when it was started from a terminal.
        Ok(_) | Err(nix::errno::Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    umask(Mode::from_bits_truncate(0o177));
    prctl::set_dumpable(false)?;
    unistd::chdir("/")?;
    Ok(())
}

/// Tells the launcher that the sockets are there, and lets go of it.
///
/// # Errors
/// When `/dev/null` cannot be opened. A launcher that is gone is no error.
pub fn ready() -> io::Result<()> {
    tell(READY);
    let null: File = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    Ok(unistd::dup2_stdout(&null)?)
}

/// Tells the launcher why there will be no link.
pub fn give_up(reason: &str) {
    tell(&reason.replace('\n', " "));
}

fn tell(line: &str) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn close_inherited() -> io::Result<()> {
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // The one that was used to list them is closed by now; nothing else is ours yet.
        let _ = unistd::close(fd);
    }
    Ok(())
}
