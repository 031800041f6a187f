//! Drives pods' lives against a hypervisor socket as the two Kata shims do, and says what does not hold. See `peerpods_tests::conformance`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};
use peerpods_tests::conformance::Model;
use peerpods_tests::conformance::bed::{Bed, FakeBed, ForeignBed, QemuBed};
use peerpods_tests::conformance::cases::Extent;
use peerpods_tests::conformance::play::{self, Rootfs};
use peerpods_tests::conformance::report::{Outcome, Report, Row};
use peerpods_tests::conformance::runner::{self, Choice};
use peerpods_tests::conformance::world::World;
use peerpods_tests::daemon::image;
use tokio::signal::unix::{SignalKind, signal};

/// Models of the Go shim and of runtime-rs drive pods' whole lives against a hypervisor socket. Without --socket our own service is
/// started, with VMs of the provider --provider.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Is a shim's process: plays what one line of JSON on stdin says. The suite starts it.
    #[command(hide = true)]
    Play,
}

#[derive(Debug, Args)]
struct Run {
    /// The hypervisor socket of a service to try; only its public API is used, and nothing stays. Without it our own is started.
    #[arg(long, value_name = "PATH", requires = "netns")]
    socket: Option<PathBuf>,
    /// Network namespaces of pods for that service, one sandbox at a time in each.
    #[arg(long, value_name = "PATH", value_delimiter = ',', requires = "socket")]
    netns: Vec<PathBuf>,
    /// What containers of that service's VMs are made of: a directory in the guest, or image:REFERENCE to pull there. Without it no
    /// containers are made.
    #[arg(long, value_name = "DIRECTORY|image:REFERENCE", requires = "socket")]
    rootfs: Option<String>,
    /// Whose VMs our own service makes.
    #[arg(long, value_enum, default_value_t = Provider::Fake, conflicts_with = "socket")]
    provider: Provider,
    /// How much: every fault at every step; the gentler faults taking turns; or two lives and a few faults.
    #[arg(long, value_enum)]
    extent: Option<Much>,
    /// Only cases whose name has this in it; may be given several times.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Only this shim's cases, and those that are no shim's.
    #[arg(long, value_enum)]
    model: Option<Shim>,
    /// How many cases at a time.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Names the cases and runs none.
    #[arg(long)]
    list: bool,
    /// The summary's form.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Provider {
    Fake,
    Qemu,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Much {
    Whole,
    Turns,
    Few,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shim {
    Go,
    Rs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

impl Run {
    fn choice(&self) -> Choice {
        let qemu = self.socket.is_none() && self.provider == Provider::Qemu;
        let extent = match self.extent {
            Some(Much::Whole) => Extent::Whole,
            Some(Much::Turns) => Extent::Turns,
            Some(Much::Few) => Extent::Few,
            None if qemu => Extent::Few,
            None => Extent::Whole,
        };
        let model = self.model.map(|shim| match shim {
            Shim::Go => Model::Go,
            Shim::Rs => Model::Rs,
        });
        let jobs = self.jobs.unwrap_or(if qemu { 2 } else { 8 });
        Choice { extent, only: self.only.clone(), model, jobs }
    }

    fn rootfs(&self) -> Option<Rootfs> {
        let given = self.rootfs.as_ref()?;
        Some(match given.strip_prefix("image:") {
            Some(reference) => Rootfs::Image(reference.to_owned()),
            None => Rootfs::Directory(given.into()),
        })
    }

    async fn bed(&self) -> Arc<dyn Bed> {
        match (&self.socket, self.provider) {
            (Some(socket), _) => Arc::new(ForeignBed::new(socket.clone(), self.netns.clone(), self.rootfs())),
            (None, Provider::Fake) => Arc::new(FakeBed::start().await),
            (None, Provider::Qemu) => Arc::new(QemuBed::start(image())),
        }
    }

    /// What the service to try, or our own, needs and is not there.
    fn missing(&self) -> Option<String> {
        let variable = match (&self.socket, self.provider) {
            (Some(socket), _) => {
                let mut paths = std::iter::once(socket).chain(&self.netns);
                return paths.find(|path| !path.exists()).map(|path| {
                    format!(
                        "{path:?} does not exist; --socket is the service's, --netns are networks of pods"
                    )
                });
            }
            (None, Provider::Fake) => "PEERPODS_TEST_GUEST_PROGRAMS",
            (None, Provider::Qemu) => "PEERPODS_TEST_IMAGE",
        };
        if !nix::unistd::geteuid().is_root() {
            return Some("our own service needs root, for network namespaces".to_owned());
        }
        std::env::var_os(variable)
            .is_none()
            .then(|| format!("our own service needs {variable}, which `make conformance` sets"))
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if matches!(arguments.command, Some(Command::Play)) {
        return on_runtime(async {
            match play::main().await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("peerpods-conformance play: {error}");
                    ExitCode::from(2)
                }
            }
        });
    }
    let run = arguments.run;
    if run.list {
        run.choice().cases().iter().for_each(|case| println!("{}", case.name));
        return ExitCode::SUCCESS;
    }
    if let Some(missing) = run.missing() {
        eprintln!("peerpods-conformance: {missing}");
        return ExitCode::from(2);
    }
    if run.choice().cases().is_empty() {
        eprintln!("peerpods-conformance: no case has such a name; --list shows them all");
        return ExitCode::from(2);
    }
    // Our own service is alone in a network of its own; a foreign one is found by its socket.
    if run.socket.is_none()
        && let Err(error) = peerpods_tests::node::unshare_network()
    {
        eprintln!("peerpods-conformance: cannot make a network namespace: {error}");
        return ExitCode::from(2);
    }
    let code = on_runtime(conduct(run));
    // Only an interrupted run left some.
    peerpods_tests::node::remove_pods();
    code
}

fn on_runtime(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => {
            eprintln!("peerpods-conformance: {error}");
            ExitCode::from(2)
        }
    }
}

async fn conduct(run: Run) -> ExitCode {
    let Ok(program) = std::env::current_exe() else { return ExitCode::from(2) };
    let choice = run.choice();
    let world = Arc::new(World::new(run.bed().await, program, choice.jobs));
    let progress = if run.output == Output::Table { told } else { untold };
    let report = tokio::select! {
        report = runner::run(&world, &choice, progress) => report,
        () = interrupted() => {
            eprintln!("interrupted; cleaning up");
            world.close().await;
            // The service, its VMs and the shims' processes go with what holds them: this, and the cases' tasks when the runtime ends.
            return ExitCode::from(130);
        }
    };
    print(&report, run.output);
    if !report.is_good() {
        eprintln!("{}", world.bed.log());
    }
    ExitCode::from(u8::from(!report.is_good()))
}

/// Ctrl-C or SIGTERM.
async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn print(report: &Report, output: Output) {
    match output {
        Output::Table => println!("\n{}", report.table()),
        Output::Json => println!("{}", report.json()),
    }
}

/// One line on stderr for each case that ends.
fn told(row: &Row) {
    let word = match &row.outcome {
        Outcome::Passed { .. } => "passed",
        Outcome::Failed(_) => "FAILED",
        Outcome::Skipped { .. } => "skipped",
    };
    eprintln!("{word:<7} {:>6.1} s  {}", row.seconds, row.name);
}

fn untold(_: &Row) {}
