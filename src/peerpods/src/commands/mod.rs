//! From a parsed command line to an exit status. The whole chain of an error is printed here, once.

mod config;
mod doctor;
mod gc;
mod image;
mod install_node;
mod manifests;
#[cfg(feature = "aws")]
mod ports;
mod reason;
mod sandbox;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use peerpods_podvm::causes::chain;

use crate::cli::flags::ConfigFlags;
use crate::cli::{Cli, Command, ConfigCommand, Global};
use crate::config::{ConfigError, ProcessEnvironment, Role, Settings, load};
use crate::logging::{self, Verbosity};
use crate::{exit, roles};

/// How long threads that still block (a read of stdin, a lookup) may hold the end of the program up.
const LINGER: Duration = Duration::from_millis(200);

/// Why a command failed, for people.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Parses `args`, does what they ask, prints what went wrong; answers the process's status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(answer) => return parse_answer(&answer),
    };
    match on_runtime(cli) {
        Ok(status) => exit::code(status),
        Err(error) => {
            complain(error.as_ref());
            let usage = error.downcast_ref::<ConfigError>().is_some();
            exit::code(if usage { exit::USAGE } else { exit::FAILURE })
        }
    }
}

/// Help and version are answers; everything else is a mistake on the command line.
fn parse_answer(answer: &clap::Error) -> ExitCode {
    // Where stderr is closed there is nobody left to tell.
    let _ = answer.print();
    exit::code(if answer.use_stderr() { exit::USAGE } else { exit::OK })
}

fn on_runtime(cli: Cli) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(Box::pin(dispatch(cli)));
    runtime.shutdown_timeout(LINGER);
    result
}

async fn dispatch(cli: Cli) -> Result<u8, Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Hypervisor(asked) => {
            let ended = roles(&global, &asked.flags, |_| vec![Role::Hypervisor]).await;
            reason::leave(ended, asked.reason_file.as_deref())
        }
        Command::Operator(flags) => roles(&global, &flags, |_| vec![Role::Operator]).await,
        Command::Run(flags) => roles(&global, &flags, |settings| settings.roles.clone()).await,
        Command::Sandbox(command) => sandbox::run(&global, *command).await,
        Command::Gc(command) => gc::run(&global, command).await,
        #[cfg(feature = "aws")]
        Command::Ports(command) => ports::run(&global, command).await,
        Command::Image(command) => image::run(&global, command).await,
        Command::Doctor(asked) => doctor::run(&global, &asked).await,
        Command::InstallNode(asked) => install_node::run(&global, &asked).await,
        Command::Crd => manifests::definitions(global.output),
        Command::Manifests { openshift, image } => manifests::operator(global.output, openshift, &image),
        Command::Config(ConfigCommand::Show(flags)) => {
            let settings = configured(&global, &flags, Verbosity::Command)?;
            config::show(global.output, &settings)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "peerpods", &mut script);
            std::io::Write::write_all(&mut std::io::stdout(), &script)?;
            Ok(exit::OK)
        }
    }
}

async fn roles(
    global: &Global,
    flags: &ConfigFlags,
    which: impl FnOnce(&Settings) -> Vec<Role>,
) -> Result<u8, Failure> {
    let settings = configured(global, flags, Verbosity::Service)?;
    logging::effective(&settings);
    roles::run(&settings, &which(&settings)).await?;
    Ok(exit::OK)
}

/// Reads the configuration and starts logging as it says.
fn configured(global: &Global, flags: &ConfigFlags, verbosity: Verbosity) -> Result<Settings, ConfigError> {
    let settings = load(&global.request(flags), &ProcessEnvironment)?;
    logging::start(&settings, verbosity);
    Ok(settings)
}

/// Prints an error and everything that caused it, to stderr.
fn complain(error: &(dyn std::error::Error + 'static)) {
    eprintln!("peerpods: {}", chain(error));
}
