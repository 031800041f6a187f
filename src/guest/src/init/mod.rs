//! PID 1 of a pod VM that boots from our initramfs.
//!
//! Makes a Linux system out of a bare kernel, starts this same program again as the service, and from then on only reaps. Two
//! processes, because PID 1 has to wait for *any* child, which would steal the exit status of the agent from whoever started it.
//!
//! Every step says on the console when it was done; a step that fails is named there and powers the VM off, which the worker sees.
//! A service that fails does the same. An agent that ends is no failure here: the service goes on, and the VM with it.

mod console;
mod modules;
mod mounts;
mod reaper;
mod root;

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};

use nix::errno::Errno;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{gethostname, sethostname, sync};
use peerpods_podnet::TunnelError;
use peerpods_podnet::guest::set_underlay;
use peerpods_podvm::underlay::{KERNEL_ARGUMENT, Underlay, UnderlayError};

use console::Console;
use reaper::Ending;

/// What the VM is called until a sandbox gives it its own name.
const HOSTNAME: &str = "podvm";
/// Open files per process: containers count on a generous limit and the kernel's own is 4096.
const OPEN_FILES: u64 = 1 << 20;

/// Why the VM could not be set up, or did not go on. The text names the step.
#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("cannot {step}")]
    System {
        step: String,
        #[source]
        source: io::Error,
    },
    #[error("kernel command line")]
    CommandLine(#[from] UnderlayError),
    #[error("the kernel command line has no {KERNEL_ARGUMENT}=, and this image has no DHCP client")]
    NoUnderlay,
    #[error("the VM's own network")]
    Network(#[from] TunnelError),
    #[error("the service ended ({0})")]
    Service(String),
}

/// Turns a system error into one that names the step.
fn failed<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> InitError {
    let step = step.into();
    move |source| InitError::System { step, source: source.into() }
}

/// Are we PID 1, started by the kernel? PID 1 of a container, called by another name, is a service like any other.
#[must_use]
pub fn is_our_job() -> bool {
    let name = std::env::args_os().next().map(PathBuf::from);
    std::process::id() == 1 && name.as_deref().and_then(|path| path.file_name()) == Some("init".as_ref())
}

/// Boots, tends and powers off. Returns only when even that is refused.
#[must_use]
pub fn run() -> ExitCode {
    let mut console = Console::open();
    match boot(&mut console).and_then(tend) {
        Ok(ending) => console.say(format_args!("{ending}; powering off")),
        Err(error) => console.fatal(&error),
    }
    console.flush();
    let Err(error) = power_off();
    console.say(format_args!("cannot power off: {error}"));
    ExitCode::FAILURE
}

/// Everything up to the running service.
fn boot(console: &mut Console) -> Result<Child, InitError> {
    console.step("kernel");
    root::leave_initramfs()?;
    mounts::mount_all()?;
    console.step("mounts");
    modules::load_all()?;
    console.step("modules");
    network()?;
    console.step("network");
    settle()?;
    let service = Command::new("/proc/self/exe").arg0("peerpods-guest").spawn();
    let service = service.map_err(failed("start the service"))?;
    console.step("service");
    Ok(service)
}

fn tend(service: Child) -> Result<Ending, InitError> {
    reaper::tend(service).map_err(failed("wait for children")).and_then(|ending| match ending {
        Ending::Service(status) => Err(InitError::Service(status)),
        told @ Ending::Told(_) => Ok(told),
    })
}

/// The VM's own address, from the kernel command line.
fn network() -> Result<(), InitError> {
    let line = fs::read_to_string("/proc/cmdline").map_err(failed("read /proc/cmdline"))?;
    let underlay = Underlay::from_command_line(&line)?.ok_or(InitError::NoUnderlay)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed("start the async runtime"))?;
    runtime.block_on(set_underlay(&underlay, None))?;
    Ok(())
}

/// A name and limits.
fn settle() -> Result<(), InitError> {
    let unnamed = gethostname().map_or(true, |name| name.is_empty() || name == "(none)");
    if unnamed {
        sethostname(HOSTNAME).map_err(failed("set the host name"))?;
    }
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)
        .map_err(failed("raise the limit of open files"))
}

fn power_off() -> Result<Infallible, Errno> {
    sync();
    reboot(RebootMode::RB_POWER_OFF)
}
