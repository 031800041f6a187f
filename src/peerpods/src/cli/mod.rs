//! The command line: what can be asked, and who answers.

pub mod flags;
pub mod gc;
pub mod install_node;
#[cfg(feature = "aws")]
pub mod ports;
pub mod sandbox;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use peerpods_operator::deploy::workload;

use crate::config;
use crate::exit;
use crate::output::Output;
use flags::ConfigFlags;

/// Runs Kubernetes pods in VMs of their own.
#[derive(Debug, Parser)]
#[command(name = "peerpods", version, after_help = exit::HELP, arg_required_else_help = true)]
#[command(
    long_about = "Runs Kubernetes pods in VMs of their own: the node service that the Kata shim calls, and the \
    commands to try it, look into it and build what it needs.\n\n\
    Try it on this machine, as root:\n  \
    peerpods image build --target qemu\n  \
    peerpods hypervisor &\n  \
    peerpods sandbox run -- uname -a"
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Form of the answer
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
    /// Configuration file [default: /etc/peerpods/peerpods.toml if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Which log lines to show on stderr: error, warn, info, debug, trace, or a filter
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Form of log lines: text or json
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node service behind the shim's socket, in the foreground
    #[command(after_help = "Examples:\n  peerpods hypervisor\n  \
        peerpods hypervisor --socket /run/test/hypervisor.sock --proxy-timeout 2m --log-level debug")]
    Hypervisor(HypervisorArgs),
    /// Run the operator: the controllers, and what the API server asks about their objects, in the foreground
    #[command(after_help = "Examples:\n  peerpods operator\n  \
        KUBECONFIG=~/.kube/config peerpods operator --namespace peerpods --log-level debug")]
    Operator(ConfigFlags),
    /// Run the roles named in the configuration, in the foreground
    #[command(
        after_help = "Example, with /etc/peerpods/peerpods.toml holding `roles = [\"hypervisor\"]`:\n  peerpods run\n\n\
        All roles in one process, as on a cluster of one node:\n  peerpods run --roles hypervisor,operator,webhook"
    )]
    Run(ConfigFlags),
    /// Make, use and remove pod VMs as the shim does
    Sandbox(Box<sandbox::SandboxCommand>),
    /// Find VMs that no sandbox owns, delete them or take them back
    #[command(after_help = gc::HELP)]
    Gc(gc::GcCommand),
    /// Check, open and close the two ports between workers and VMs
    #[cfg(feature = "aws")]
    #[command(subcommand, after_help = ports::HELP)]
    Ports(ports::PortsCommand),
    /// Build and check pod VM images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Check everything that can be wrong on this machine, before the first pod
    #[command(
        after_help = "Examples:\n  peerpods doctor\n  peerpods doctor --output json --qemu-image /srv/images/qemu"
    )]
    Doctor(DoctorArgs),
    /// Place what a node's container runtime needs to know of us, or remove it: the operator's DaemonSets run this
    #[command(hide = true, after_help = install_node::HELP)]
    InstallNode(install_node::InstallNodeArgs),
    /// Print the definitions of the custom resources, for kubectl
    #[command(after_help = "Example:\n  peerpods crd | kubectl apply --server-side -f -")]
    Crd,
    /// Print what runs the operator and says who may do what, for kubectl
    #[command(after_help = "Examples:\n  peerpods manifests | kubectl apply --server-side -f -\n  \
        peerpods manifests --image registry.example.com/peerpods:0.1.0 | kubectl apply --server-side -f -\n  \
        peerpods manifests --openshift | oc apply --server-side -f -")]
    Manifests {
        /// Also what only OpenShift has
        #[arg(long)]
        openshift: bool,
        /// The image of this program: of the operator, and of the node service, the webhook and the installer that it runs
        #[arg(long, value_name = "IMAGE", default_value = workload::IMAGE)]
        image: String,
    },
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  peerpods completions bash > /etc/bash_completion.d/peerpods")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How the node service runs.
#[derive(Debug, Args)]
pub struct HypervisorArgs {
    /// A file that gets the reason when it has to end: the kubelet shows it in the pod's status
    #[arg(long, value_name = "FILE")]
    pub reason_file: Option<PathBuf>,
    /// Configuration given here.
    #[command(flatten)]
    pub flags: ConfigFlags,
}

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Build a pod VM image
    #[command(after_help = "Examples:\n  peerpods image build --target qemu\n  \
        peerpods image build --target qemu --agent /usr/bin/kata-agent --out /srv/images/qemu")]
    Build(BuildArgs),
    /// Check that an image is complete and its files are those it was built with
    #[command(after_help = "Example:\n  peerpods image verify /var/lib/peerpod/images/qemu")]
    Verify {
        /// The image's directory
        directory: PathBuf,
    },
}

/// What is looked at.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Look at this cloud only
    #[cfg(feature = "aws")]
    #[arg(value_enum)]
    pub cloud: Option<ports::Cloud>,
    /// Configuration given here.
    #[command(flatten)]
    pub flags: ConfigFlags,
}

/// How an image is built.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// What the image is for
    #[arg(long, value_enum)]
    pub target: Target,
    /// The guest program [default: peerpods-guest beside this program]
    #[arg(long, value_name = "PATH")]
    pub guest: Option<PathBuf>,
    /// The small agent [default: miniagent beside this program]
    #[arg(long, value_name = "PATH")]
    pub miniagent: Option<PathBuf>,
    /// A kata-agent to use in its place
    #[arg(long, value_name = "PATH")]
    pub agent: Option<PathBuf>,
    /// Where the image goes [default: the configured qemu.image]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where downloaded packages are kept
    #[arg(long, value_name = "DIR", default_value = "/var/cache/peerpod/images")]
    pub cache: PathBuf,
    /// Pins of what is downloaded [default: those this program was built with]
    #[arg(long, value_name = "FILE")]
    pub pins: Option<PathBuf>,
    /// Take everything from the cache, download nothing
    #[arg(long)]
    pub offline: bool,
}

/// What an image can be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// QEMU on this host: kernel and initramfs
    Qemu,
}

/// What can be asked of the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every key's effective value and where it comes from
    #[command(after_help = "Example:\n  VXLAN_PORT=4789 peerpods config show --proxy-timeout 2m")]
    Show(ConfigFlags),
}

impl Global {
    /// What the command line says about configuration.
    #[must_use]
    pub fn request(&self, flags: &ConfigFlags) -> config::Request {
        let own = [("log-level", &self.log_level), ("log-format", &self.log_format)];
        let own = own.into_iter().filter_map(|(key, text)| flags::value(key, text.as_ref()?));
        config::Request { file: self.config.clone(), flags: own.chain(flags.0.iter().cloned()).collect() }
    }
}
