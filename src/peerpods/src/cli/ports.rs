//! `peerpods ports …` on the command line.

use clap::{Args, Subcommand};

use super::flags::ConfigFlags;

/// Examples for the help.
pub const HELP: &str = "Examples:\n  peerpods ports check aws\n  peerpods ports open aws --dry-run\n  \
    peerpods ports open aws --from sg-0123456789abcdef0\n  peerpods ports close aws";

/// What can be done about ports.
#[derive(Debug, Subcommand)]
pub enum PortsCommand {
    /// Say which are open; fails when one is missing
    Check(Place),
    /// Open those that are not
    Open(Change),
    /// Close those that `open` opened
    Close(Change),
}

/// Where.
#[derive(Debug, Args)]
pub struct Place {
    /// Whose network
    #[arg(value_enum)]
    pub cloud: Cloud,
    /// Security groups of the workers, which are let in; may be given again [default: aws.worker-groups, else this instance's; close: all that open let in]
    #[arg(long, value_name = "GROUP,…", value_delimiter = ',')]
    pub from: Vec<String>,
    /// Configuration given here.
    #[command(flatten)]
    pub flags: ConfigFlags,
}

/// Where, and whether for real.
#[derive(Debug, Args)]
pub struct Change {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// A cloud with a network of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Cloud {
    /// Security groups of EC2
    Aws,
}
