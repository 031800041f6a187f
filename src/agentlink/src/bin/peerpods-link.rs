//! The near end of one sandbox's agent link, as a process: [`peerpods_agentlink::near`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Context;
use clap::Parser;
use peerpods_agentlink::near::{Near, Places, detach};
use peerpods_podvm::SandboxId;

/// Owns the shim's connections to one sandbox's agent, and outlives the node daemon. Started by the daemon; not meant to be run by hand.
#[derive(Parser)]
#[command(name = "peerpods-link", version)]
struct Args {
    /// The sandbox.
    #[arg(long)]
    sandbox: SandboxId,
    /// Where the shim looks for the agent; the control socket `link.sock` and the log `link.log` lie beside it.
    #[arg(long, value_name = "PATH")]
    agent_socket: PathBuf,
    /// Serve in this process instead of starting a detached one.
    #[arg(long)]
    serve: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.serve {
        return match detach::launch(&args.sandbox, &args.agent_socket) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    match serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            detach::give_up(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &Args) -> anyhow::Result<()> {
    let places = Places::beside(&args.agent_socket)?;
    detach::settle().context("cannot become a process of its own")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (near, journal) = Near::bind(&args.sandbox, places)?;
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_target(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(Mutex::new(journal))
            .init();
        detach::ready()?;
        Ok(near.run().await?)
    })
}
