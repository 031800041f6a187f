//! `peerpods install-node` on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::config::duration;

/// What is placed, and examples, for the help.
pub const HELP: &str = "\
What is placed, files that are all ours with a first line that says whose they are:
  /opt/kata/configuration-remote.toml       the Kata shim's configuration for peer pods
  /etc/crio/crio.conf.d/50-peerpods         CRI-O's handlers
  /etc/containerd/conf.d/peerpods.toml      containerd's handlers, where its configuration is of version 3 or later
  /etc/containerd/config.toml               of version 2: a marked block with the handlers at its end; later ones: a
                                            marked entry in `imports` where none covers conf.d; all ours where there is none
  /var/lib/peerpods-installer.json          what was made and what is owed, while there is something
The container runtime is restarted when something changed; pods go on. What is the host's own is never replaced, and
--remove leaves the host's files byte for byte as they were.

Examples:
  peerpods install-node --host-root /host --class kata-remote-cc
  peerpods install-node --class kata-remote-cc --once --output json
  peerpods install-node --remove --once";

/// What is to be done on a node.
#[derive(Debug, Args)]
pub struct InstallNodeArgs {
    /// Where the host's root directory is
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub host_root: PathBuf,
    /// Remove what was placed
    #[arg(long)]
    pub remove: bool,
    /// A handler for peer pods, named like its runtime class; may be given again
    #[arg(long, value_name = "NAME", value_parser = handler, conflicts_with = "remove")]
    pub class: Vec<String>,
    /// How long a start of a VM may take
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = "15m", conflicts_with = "remove")]
    pub hypervisor_timeout: u32,
    /// What the container runtime logs; containerd only from version 3 of its configuration on [default: as it is]
    #[arg(long, value_name = "LEVEL", value_parser = levels(), conflicts_with = "remove")]
    pub runtime_log_level: Option<String>,
    /// Do it and end, in place of staying and looking every minute
    #[arg(long)]
    pub once: bool,
    /// The host's system bus [default: /run/dbus/system_bus_socket under the host's root]
    #[arg(long, value_name = "SOCKET")]
    pub bus: Option<PathBuf>,
    /// A file that is there while the host is as wished
    #[arg(long, value_name = "FILE", default_value = "/run/peerpods-install-node.ready")]
    pub ready_file: PathBuf,
    /// Only say whether that file is there
    #[arg(long, conflicts_with_all = ["remove", "once", "class"])]
    pub is_ready: bool,
    /// A file that gets the reason of a failure: the kubelet shows it in the pod's status
    #[arg(long, value_name = "FILE")]
    pub reason_file: Option<PathBuf>,
}

/// As Kubernetes wants the name of a handler: it also becomes part of a name of containerd's.
fn handler(text: &str) -> Result<String, String> {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = text.len() <= 63 && text.chars().all(inside) && !text.starts_with('-') && !text.ends_with('-');
    match good && !text.is_empty() {
        true => Ok(text.to_owned()),
        false => Err("a handler has lower-case letters, digits and '-', at most 63".to_owned()),
    }
}

fn seconds(text: &str) -> Result<u32, String> {
    let whole = |time: Duration| u32::try_from(time.as_secs()).ok().filter(|seconds| *seconds > 0);
    duration::parse(text).and_then(whole).ok_or_else(|| format!("write {}, at least 1s", duration::EXPECTED))
}

fn levels() -> PossibleValuesParser {
    PossibleValuesParser::new(["trace", "debug", "info", "warn", "error", "fatal", "panic"])
}
