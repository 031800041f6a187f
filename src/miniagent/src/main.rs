//! `miniagent`: see the library. With the hidden subcommand `container-init` it is the agent's child.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use peerpods_miniagent::{child, config, server};
use tracing_subscriber::EnvFilter;

/// Just enough of the kata-agent to run containers in a pod VM; takes the kata-agent's command line.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// TOML file; the key `server_addr` (unix:///path) says where to listen. KATA_AGENT_SERVER_ADDR wins over it.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    // Before anything else, and without the async runtime: the child must have one thread.
    if let Some(control) = child_control(std::env::args_os().skip(1)) {
        return child::run(control);
    }
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("miniagent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The number in `container-init --control N`, which is how the agent starts its child and nobody else does.
fn child_control(mut args: impl Iterator<Item = OsString>) -> Option<i32> {
    let is = |arg: Option<OsString>, wanted: &str| arg.is_some_and(|arg| arg == wanted);
    if !is(args.next(), child::SUBCOMMAND) || !is(args.next(), "--control") {
        return None;
    }
    args.next()?.to_str()?.parse().ok()
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let config = config::load(arguments.config.as_deref(), std::env::var_os(config::VARIABLE))?;
    // One thread: children are started from it alone, and die with it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(server::serve(config)).context("cannot serve")
}
