//! `peerpods sandbox …`: the options.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use ipnet::Ipv4Net;
use peerpods_podvm::SandboxId;

use crate::config::duration;

/// The `sandbox` command.
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct SandboxCommand {
    /// The node service's socket [default: the configured one]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub action: SandboxAction,
}

/// What can be done with sandboxes.
#[derive(Debug, Subcommand)]
pub enum SandboxAction {
    /// Run a command in a new pod VM, and remove the VM when it ends
    #[command(after_help = "Examples:\n  peerpods sandbox run -- uname -a\n  \
        peerpods sandbox run --tty -- sh\n  \
        peerpods sandbox run --vcpus 2 --memory 512 --keep --id demo -- cat /proc/cpuinfo\n\n\
        The command's stdout and stderr are passed on; progress and times go to stderr. With --output json the times are one JSON\n\
        object, the last line of stderr. Ctrl-C reaches the command; a second one, or 5 seconds without an end, ends the VM.")]
    Run(RunArgs),
    /// Make a sandbox: pod network and agent socket, no VM yet
    #[command(after_help = "Examples:\n  peerpods sandbox create --id demo\n  \
        peerpods sandbox create --netns /run/netns/cni-1234 --pod-name web --pod-namespace shop --vcpus 2 --memory 2048")]
    Create(CreateArgs),
    /// Start a sandbox's VM and wait until its agent answers
    #[command(after_help = "Example:\n  peerpods sandbox start demo")]
    Start(StartArgs),
    /// Run a command in a running sandbox
    #[command(after_help = "Examples:\n  peerpods sandbox exec demo -- ip address\n  \
        peerpods sandbox exec --tty --env TERM=xterm demo -- sh\n  \
        echo hello | peerpods sandbox exec demo -- cat")]
    Exec(ExecArgs),
    /// Stop a sandbox, remove its VM, and wait until both are gone
    #[command(after_help = "Example:\n  peerpods sandbox stop demo")]
    Stop(StopArgs),
    /// List the sandboxes the node service knows
    #[command(after_help = "Example:\n  peerpods sandbox list --output json")]
    List,
}

/// What a sandbox is to be.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// Sandbox id [default: made up]
    #[arg(long)]
    pub id: Option<SandboxId>,
    /// The pod's network namespace [default: one is made, and removed by `stop`]
    #[arg(long, value_name = "PATH", conflicts_with = "pod_network")]
    pub netns: Option<PathBuf>,
    /// Addresses of a network namespace that is made: the first host is the node's end, the second the pod's [default: a free
    /// 10.88.N.0/24]
    #[arg(long, value_name = "CIDR")]
    pub pod_network: Option<Ipv4Net>,
    /// Pod name [default: sandbox-ID]
    #[arg(long, value_name = "NAME")]
    pub pod_name: Option<String>,
    /// Pod namespace
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub pod_namespace: String,
    /// Virtual processors [default: the provider's]
    #[arg(long, value_name = "N")]
    pub vcpus: Option<u32>,
    /// Memory in MiB [default: the provider's]
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u64>,
    /// Pod VM image [default: the provider's]
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Machine type [default: the provider's]
    #[arg(long, value_name = "TYPE")]
    pub machine_type: Option<String>,
    /// Initdata: a TOML file
    #[arg(long, value_name = "FILE")]
    pub initdata: Option<PathBuf>,
    /// A further annotation for CreateVM; may be repeated
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = pair)]
    pub annotations: Vec<(String, String)>,
}

/// How a VM is started.
#[derive(Debug, Clone, Args)]
pub struct StartArgs {
    /// Sandbox id
    pub id: SandboxId,
    /// How long to wait for the agent, as a shim does
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = go_duration)]
    pub timeout: Duration,
    /// Print no progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// What runs in a sandbox, and how.
#[derive(Debug, Clone, Args)]
pub struct ProcessArgs {
    /// Give the command a terminal
    #[arg(long, short = 't')]
    pub tty: bool,
    /// A variable for the command; may be repeated
    #[arg(long = "env", short = 'e', value_name = "KEY=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,
    /// The command's working directory
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub cwd: PathBuf,
    /// Root file system for the container, a directory in the guest [default: the one the image describes]
    #[arg(long, value_name = "DIR")]
    pub userland: Option<String>,
    /// Do not pass stdin on
    #[arg(long)]
    pub no_stdin: bool,
    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Options of `exec`.
#[derive(Debug, Clone, Args)]
pub struct ExecArgs {
    /// Sandbox id
    pub id: SandboxId,
    /// The container [default: the sandbox's own]
    #[arg(long, value_name = "ID")]
    pub container: Option<String>,
    /// The command.
    #[command(flatten)]
    pub process: ProcessArgs,
}

/// Options of `stop`.
#[derive(Debug, Clone, Args)]
pub struct StopArgs {
    /// Sandbox id
    pub id: SandboxId,
    /// How long to wait until the VM is gone
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = go_duration)]
    pub timeout: Duration,
}

/// Options of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The sandbox.
    #[command(flatten)]
    pub create: CreateArgs,
    /// Leave the sandbox running
    #[arg(long)]
    pub keep: bool,
    /// Print neither progress nor times
    #[arg(long, short)]
    pub quiet: bool,
    /// How long to wait for the agent
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = go_duration)]
    pub timeout: Duration,
    /// The command.
    #[command(flatten)]
    pub process: ProcessArgs,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

pub(super) fn go_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| format!("expected {}", duration::EXPECTED))
}
