//! The child: makes or joins a container and runs one process in it. One thread, no async runtime.
//!
//! It is this same program, started as `miniagent container-init --control FD`. It forks: the parent stays in the agent's
//! namespaces, waits, and ends with the process's own status, so that the agent has an ordinary child to wait for.
//!
//! Why no OCI library: youki's libcontainer 0.7 (default features off, `v2`) builds statically, but joins a cgroup unconditionally
//! and refuses to run where none is usable, as in a network namespace that stands for a VM in tests. What is left of the runtime
//! specification for our purpose is these few files.

mod devices;
mod identity;
mod mounts;
mod namespaces;
mod program;
mod rootfs;

use std::convert::Infallible;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setsid};
use rustix::process::{DumpableBehavior, set_dumpable_behavior, set_parent_process_death_signal};

use crate::control::{ChildEnd, Failure, Report};
use crate::plan::{ContainerPlan, Place, Plan};

/// The name of the hidden subcommand.
pub const SUBCOMMAND: &str = "container-init";

/// The status of a process that never ran.
const NEVER_RAN: u8 = 127;

/// Runs the child whose control stream is the inherited descriptor `control`, and answers with the process's status: its exit
/// code, or 128 plus the signal that ended it.
#[must_use]
pub fn run(control: RawFd) -> ExitCode {
    #[expect(unsafe_code, reason = "a descriptor's number is all that survives exec")]
    // SAFETY: the agent passed this descriptor to us alone, and nothing else in this process uses it.
    let stream = unsafe { UnixStream::from_raw_fd(control) };
    if fcntl(&stream, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).is_err() {
        return ExitCode::from(NEVER_RAN);
    }
    let mut end = ChildEnd::new(stream);
    let failure = match begin(&mut end) {
        Ok(Side::Outside(pid)) => return wait_for(pid, end),
        Ok(Side::Inside(plan)) => match become_process(&plan, &mut end) {
            Err(failure) => failure,
            Ok(never) => match never {},
        },
        Err(failure) => failure,
    };
    // Nobody is left to tell when this fails; the status tells as much as can be told.
    let _ = end.report(&Report::Failed(failure));
    ExitCode::from(NEVER_RAN)
}

/// Which of the two processes we are after the fork.
enum Side {
    /// The one that waits for the other.
    Outside(Pid),
    /// The one that becomes the container's process.
    Inside(Box<Plan>),
}

/// Everything before the fork: read the plan, get into the process namespace, which only children enter.
fn begin(end: &mut ChildEnd) -> Result<Side, Failure> {
    let plan = end.plan().map_err(|error| Failure::setup("read the plan", error))?;
    die_with_parent()?;
    // No process of the container may look into us through /proc while we are on our way in.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| Failure::setup("become undumpable", error))?;
    match &plan.place {
        Place::New(container) => namespaces::before_fork(&container.namespaces)?,
        Place::Join { pidfd } => namespaces::join_before_fork(*pidfd)?,
    }
    #[expect(unsafe_code, reason = "entering a process namespace takes a fork")]
    // SAFETY: this process has one thread, so that no lock can be held by another.
    match unsafe { fork() }.map_err(|error| Failure::setup("fork", error))? {
        ForkResult::Parent { child } => Ok(Side::Outside(child)),
        ForkResult::Child => Ok(Side::Inside(Box::new(plan))),
    }
}

/// The outside: says who the process is, lets go of everything it uses, waits.
fn wait_for(pid: Pid, mut end: ChildEnd) -> ExitCode {
    let _ = end.report(&Report::Forked { pid: pid.as_raw() });
    drop(end);
    release_streams();
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, code)) => return ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return ExitCode::from(NEVER_RAN),
        }
    }
}

/// Streams must close when the process closes them, so the outside keeps none.
fn release_streams() {
    let Ok(null) =
        nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())
    else {
        return;
    };
    let _ = nix::unistd::dup2_stdin(&null);
    let _ = nix::unistd::dup2_stdout(&null);
    let _ = nix::unistd::dup2_stderr(&null);
}

/// The inside: everything after the fork. Returns only where it failed.
fn become_process(plan: &Plan, end: &mut ChildEnd) -> Result<Infallible, Failure> {
    die_with_parent()?;
    setsid().map_err(|error| Failure::setup("begin a session", error))?;
    if plan.process.terminal {
        rustix::process::ioctl_tiocsctty(std::io::stdin())
            .map_err(|error| Failure::setup("take the terminal", error))?;
    }
    identity::set_oom_score(plan.process.oom_score_adj);
    match &plan.place {
        Place::New(container) => make_container(container)?,
        Place::Join { pidfd } => namespaces::join_after_fork(*pidfd)?,
    }
    let program = program::find(&plan.process)?;
    identity::enter_directory(&plan.process.cwd)?;
    identity::assume(&plan.process)?;
    restore_signals()?;
    // A change of user clears it.
    die_with_parent()?;
    end.report(&Report::Ready).map_err(|error| Failure::setup("tell the agent", error))?;
    end.wait_for_start().map_err(|error| Failure::setup("wait for the start", error))?;
    program.execute()
}

fn make_container(container: &ContainerPlan) -> Result<(), Failure> {
    namespaces::after_fork(&container.namespaces)?;
    if let Some(name) = &container.hostname {
        nix::unistd::sethostname(name)
            .map_err(|error| Failure::setup(format!("set the host name {name:?}"), error))?;
    }
    rootfs::enter(container)
}

/// The container's processes must not outlive the agent: nobody could stop them then.
fn die_with_parent() -> Result<(), Failure> {
    set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| Failure::setup("ask for the parent's death signal", error))
}

/// What is ignored stays so over exec: Rust programs ignore SIGPIPE, and whoever started the agent may have ignored more.
fn restore_signals() -> Result<(), Failure> {
    let fixed = [Signal::SIGKILL, Signal::SIGSTOP];
    for restored in Signal::iterator().filter(|signal| !fixed.contains(signal)) {
        #[expect(unsafe_code, reason = "nix marks every change of a signal's action as unsafe")]
        // SAFETY: the default action runs no code of ours.
        unsafe { signal(restored, SigHandler::SigDfl) }
            .map_err(|error| Failure::setup(format!("restore {restored}"), error))?;
    }
    Ok(())
}
