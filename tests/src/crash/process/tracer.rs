//! Runs a program and kills it with SIGKILL at one of its system calls: the N-th of those that leave something behind. A debugger's
//! means (ptrace), because no program can be asked to die between two instructions. Threads are followed, child processes are not.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Where a program is to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// Nowhere.
    Never,
    /// Before this call has an effect, counted from 1.
    Before(u64),
    /// After it.
    After(u64),
}

/// What was seen of a program that has ended.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The call it died at.
    pub died_at: Option<&'static str>,
    /// How many calls there were of each kind.
    pub calls: BTreeMap<&'static str, u64>,
}

/// A program under the tracer. It is killed when this is dropped.
pub struct Traced {
    /// The program's process.
    pub pid: Pid,
    tracer: Option<JoinHandle<io::Result<Seen>>>,
}

/// The calls that leave something behind: on disk, in the kernel's network, in another process.
fn counted(call: i64) -> Option<&'static str> {
    Some(match call {
        libc::SYS_fsync | libc::SYS_fdatasync => "fsync",
        libc::SYS_rename | libc::SYS_renameat | libc::SYS_renameat2 => "rename",
        libc::SYS_unlink | libc::SYS_unlinkat | libc::SYS_rmdir => "unlink",
        libc::SYS_mkdir | libc::SYS_mkdirat => "mkdir",
        libc::SYS_sendto | libc::SYS_sendmsg => "send",
        libc::SYS_connect => "connect",
        libc::SYS_bind => "bind",
        libc::SYS_clone | libc::SYS_clone3 | libc::SYS_vfork => "clone",
        _ => return None,
    })
}

impl Traced {
    /// Starts a program with its arguments, its errors going to `log`, to die at `death`. The tracer is a thread of its own, because a process is traced by one thread.
    ///
    /// # Errors
    /// When it cannot be started or traced.
    pub fn start(program: Vec<OsString>, log: File, death: Death) -> io::Result<Self> {
        let (told, started) = mpsc::channel();
        let tracer = std::thread::spawn(move || {
            let pid = begin(&program, log)?;
            let _gone = told.send(pid);
            follow(pid, death)
        });
        match started.recv() {
            Ok(pid) => Ok(Self { pid, tracer: Some(tracer) }),
            Err(_) => {
                Err(tracer.join().ok().and_then(Result::err).unwrap_or_else(|| io::Error::other("no tracer")))
            }
        }
    }

    /// Whether the program has ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.tracer.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if !self.ended() {
            let _gone = kill(self.pid, signal);
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When tracing failed.
    pub fn wait(mut self) -> io::Result<Seen> {
        match self.tracer.take().map(JoinHandle::join) {
            Some(Ok(seen)) => seen,
            _ => Err(io::Error::other("the tracer panicked")),
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        drop(self.tracer.take().map(JoinHandle::join));
    }
}

/// Starts the program behind a shell that waits until it is traced, so that no call is missed.
fn begin(program: &[OsString], log: File) -> io::Result<Pid> {
    let mut shell = Command::new("sh");
    shell.args(["-c", "read _ && exec \"$@\" < /dev/null", "sh"]).args(program);
    let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options)?;
    ptrace::interrupt(pid)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(b"\n")?;
    }
    Ok(pid)
}

/// Only what this thread traces, or its tracees' ends would be taken from others and others' from them.
fn next_stop() -> nix::Result<WaitStatus> {
    waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD))
}

fn follow(leader: Pid, death: Death) -> io::Result<Seen> {
    let (mut seen, mut count) = (Seen::default(), 0);
    loop {
        let status = match next_stop() {
            Ok(status) => status,
            Err(Errno::EINTR) => continue,
            Err(Errno::ECHILD) => return Ok(seen),
            Err(error) => return Err(error.into()),
        };
        let (thread, signal) = match status {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) if pid == leader => return Ok(seen),
            WaitStatus::PtraceSyscall(thread) => {
                if dies_here(thread, death, &mut count, &mut seen) {
                    kill(leader, Signal::SIGKILL)?;
                }
                (thread, None)
            }
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            _ => continue,
        };
        // A thread that was killed meanwhile is not there any more.
        let _gone = ptrace::syscall(thread, signal);
    }
}

/// Looks at a stop at a call's entry or exit.
fn dies_here(thread: Pid, death: Death, count: &mut u64, seen: &mut Seen) -> bool {
    let Ok((call, entering)) = registers(thread) else { return false };
    let Some(name) = counted(call) else { return false };
    if entering {
        *count += 1;
        *seen.calls.entry(name).or_default() += 1;
    }
    let here = match death {
        Death::Never => false,
        Death::Before(number) => entering && *count == number,
        // Between this call's entry and its exit another thread may have entered one: the exit nearest to it is as good.
        Death::After(number) => !entering && *count >= number && seen.died_at.is_none(),
    };
    if here {
        seen.died_at = Some(name);
    }
    here
}

/// The call, and whether it is being entered: the kernel puts ENOSYS into the result then.
fn registers(thread: Pid) -> nix::Result<(i64, bool)> {
    let registers = ptrace::getregs(thread)?;
    Ok((registers.orig_rax.cast_signed(), registers.rax.cast_signed() == -i64::from(libc::ENOSYS)))
}
