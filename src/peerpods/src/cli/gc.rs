//! `peerpods gc …`: the options.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use peerpods_podvm::SandboxId;

use super::sandbox::go_duration;

/// The text under `peerpods gc --help`.
pub const HELP: &str = "What the node service does by itself: every minute (gc-interval) it lists the cluster's VMs. One that this node
made, that no sandbox owns and no shim uses, is deleted when two passes in a row and a grace period (gc-grace) have seen it.
A VM of another node, or one that does not say whose it is, is only listed here.

Exit status 1 also means that some of the VMs named were not deleted; each is named with the reason on stderr.";

/// The `gc` command.
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct GcCommand {
    /// The node service's socket [default: the configured one]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub action: GcAction,
}

/// What can be done with VMs that no sandbox owns.
#[derive(Debug, Subcommand)]
pub enum GcAction {
    /// List every VM of the cluster, who owns it, and when it will be deleted
    #[command(after_help = "Verdicts:\n  \
        live         a sandbox of this node owns it\n  \
        held         this node has no record of it, and a shim uses its agent socket\n  \
        other-node   another node made it\n  \
        no-node      it does not say which node made it\n  \
        orphan       this node made it, and nobody owns it\n\n\
        Example:\n  peerpods gc list --output json")]
    List,
    /// Delete orphans now, and wait until they are gone
    #[command(after_help = "Examples:\n  peerpods gc delete --orphans --dry-run\n  \
        peerpods gc delete --orphans --yes\n  peerpods gc delete 0c7d9b2e\n\n\
        A VM whose sandbox lives is refused: end the pod, or run `peerpods sandbox stop`.")]
    Delete(DeleteArgs),
    /// Make this node the owner of a VM it has no record of
    #[command(after_help = "Two purposes:\n  \
        --netns and --vni  the pod lives and its record was lost: go on with it as if it had not been. Both are in the record\n                     \
        that was set aside (journal/SANDBOX.json.corrupt in the state directory); `ip -d link` in the network namespace\n                     \
        shows the VNI, too. The pod's own resource wishes are not known again\n  \
        --remove           whoever made the VM is gone for good: delete it from here, though it names another node, or none\n\n\
        Examples:\n  peerpods gc adopt 0c7d9b2e --netns /run/netns/cni-1234 --vni 555000\n  \
        peerpods gc adopt 0c7d9b2e --remove --yes")]
    Adopt(AdoptArgs),
}

/// Options of `delete`.
#[derive(Debug, Clone, Args)]
pub struct DeleteArgs {
    /// Ids of VMs or of their sandboxes
    #[arg(value_name = "ID", required_unless_present = "orphans", conflicts_with = "orphans")]
    pub ids: Vec<String>,
    /// Every orphan there is
    #[arg(long)]
    pub orphans: bool,
    /// Only say what would be deleted
    #[arg(long)]
    pub dry_run: bool,
    /// How it is confirmed and waited for.
    #[command(flatten)]
    pub ending: EndingArgs,
}

/// Options of `adopt`.
#[derive(Debug, Clone, Args)]
pub struct AdoptArgs {
    /// The sandbox the VM was made for
    pub sandbox: SandboxId,
    /// The pod's network namespace
    #[arg(long, value_name = "PATH", requires = "vni", required_unless_present = "remove")]
    pub netns: Option<PathBuf>,
    /// VXLAN network identifier of the pod's tunnel
    #[arg(long, value_name = "N", requires = "netns", required_unless_present = "remove")]
    pub vni: Option<u32>,
    /// Adopt it to delete it
    #[arg(long, conflicts_with_all = ["netns", "vni"])]
    pub remove: bool,
    /// How a deletion is confirmed and waited for.
    #[command(flatten)]
    pub ending: EndingArgs,
}

/// How a deletion is confirmed and waited for.
#[derive(Debug, Clone, Args)]
pub struct EndingArgs {
    /// Do not ask; needed where stdin is no terminal
    #[arg(long, short)]
    pub yes: bool,
    /// How long to wait until the VMs are gone; the node service goes on after it
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = go_duration)]
    pub timeout: Duration,
}
