//! `peerpods-guest`: PID 1 of a pod VM, or a service in one.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use nix::sys::signal::SigSet;
use peerpods_guest::{Args, init, service};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    if init::is_our_job() {
        return init::run();
    }
    let args = Args::parse();
    match serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line with the whole chain; a closed standard error is no reason to panic.
            let _ = writeln!(std::io::stderr(), "peerpods-guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &Args) -> anyhow::Result<()> {
    // Whoever started us may have signals blocked; our shutdown and the agent's children depend on them.
    SigSet::empty().thread_set_mask()?;
    tracing_subscriber::fmt()
        .with_max_level(args.log_level)
        .with_ansi(false)
        .with_target(false)
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        tokio::spawn(cancel_when_told(shutdown.clone()));
        service::run(args, shutdown).await
    })?;
    Ok(())
}

async fn cancel_when_told(shutdown: CancellationToken) {
    let _cancel = shutdown.drop_guard();
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("cannot listen to signals");
        return;
    };
    tokio::select! {
        _ = term.recv() => tracing::info!("SIGTERM: stopping"),
        _ = int.recv() => tracing::info!("SIGINT: stopping"),
    }
}
