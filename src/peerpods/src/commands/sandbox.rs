//! `peerpods sandbox …`: options to plans, answers to lines.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peerpods_podvm::SandboxId;
use peerpods_podvm::causes::chain;
use peerpods_proto::grpc::admin::Sandbox;
use serde::Serialize;
use serde_json::json;

use super::{Failure, configured};
use crate::cli::Global;
use crate::cli::flags::{ConfigFlags, value};
use crate::cli::sandbox::{
    CreateArgs, ExecArgs, ProcessArgs, RunArgs, SandboxAction, SandboxCommand, StartArgs, StopArgs,
};
use crate::config::{ConfigError, ProviderSettings, Settings, duration};
use crate::exit;
use crate::logging::Verbosity;
use crate::output::{self, Output};
use crate::sandbox::annotations::{PodWishes, annotations};
use crate::sandbox::process::{OwnTerminal, Streams};
use crate::sandbox::record::Records;
use crate::sandbox::run::{Afterwards, Outcome, RunPlan, next_signal, run as run_plan};
use crate::sandbox::service::Service;
use crate::sandbox::spec::{CommandSpec, Terminal, userland};
use crate::sandbox::{Client, CreatePlan, ExecPlan, SandboxError, terminal};

pub(super) async fn run(global: &Global, command: SandboxCommand) -> Result<u8, Failure> {
    let flags = ConfigFlags(command.socket.iter().filter_map(|path| value("socket", path)).collect());
    let settings = configured(global, &flags, Verbosity::Command)?;
    let client = Client {
        service: Service::new(settings.hypervisor.socket.clone()),
        records: Records::new(settings.client_dir.clone()),
    };
    let output = global.output;
    match command.action {
        SandboxAction::Create(args) => create(output, &client, &args).await,
        SandboxAction::Start(args) => start(output, &client, &args).await,
        SandboxAction::Stop(args) => stop(output, &client, &args).await,
        SandboxAction::List => list(output, &client).await,
        SandboxAction::Exec(args) => around(exec(&settings, &client, args).await),
        SandboxAction::Run(args) => around(run_sandbox(output, &settings, &client, args).await),
    }
}

/// What fails around a command has a status that no command of its own is likely to have.
fn around(result: Result<u8, Failure>) -> Result<u8, Failure> {
    match result {
        Err(error) if error.downcast_ref::<ConfigError>().is_none() => {
            eprintln!("peerpods: {}", chain(error.as_ref()));
            Ok(match error.downcast_ref::<SandboxError>() {
                Some(SandboxError::Interrupted { signal }) => exit::of_signal(*signal),
                _ => exit::AROUND_COMMAND,
            })
        }
        other => other,
    }
}

async fn create(output: Output, client: &Client, args: &CreateArgs) -> Result<u8, Failure> {
    let plan = create_plan(args)?;
    let socket = client.create(&plan).await?;
    let answer = json!({ "id": plan.id.as_str(), "agent_socket": socket });
    output::answer(output, &answer, |_| format!("{}\n{}", plan.id, socket.display()))?;
    Ok(exit::OK)
}

async fn start(output: Output, client: &Client, args: &StartArgs) -> Result<u8, Failure> {
    let mut events = terminal::events()?;
    let progress = progress(args.quiet || output == Output::Json);
    let began = std::time::Instant::now();
    tokio::select! {
        started = client.start(&args.id, args.timeout, &progress) => started?,
        signal = next_signal(&mut events) => return Err(SandboxError::Interrupted { signal }.into()),
    }
    let took = began.elapsed();
    let answer = json!({ "id": args.id.as_str(), "took_ms": took.as_millis() });
    output::answer(output, &answer, |_| format!("{} runs, after {}", args.id, duration::show(took)))?;
    Ok(exit::OK)
}

async fn stop(output: Output, client: &Client, args: &StopArgs) -> Result<u8, Failure> {
    client.stop(&args.id, args.timeout).await?;
    output::answer(output, &json!({ "id": args.id.as_str() }), |_| format!("{} is gone", args.id))?;
    Ok(exit::OK)
}

async fn exec(settings: &Settings, client: &Client, args: ExecArgs) -> Result<u8, Failure> {
    let mut events = terminal::events()?;
    let plan = ExecPlan {
        id: args.id,
        container: args.container,
        userland: userland_of(settings, &args.process)?,
        command: command(&args.process),
    };
    let status = client.exec(&plan, streams(&args.process), &mut events).await?;
    Ok(exit::of_command(status))
}

async fn run_sandbox(
    output: Output,
    settings: &Settings,
    client: &Client,
    args: RunArgs,
) -> Result<u8, Failure> {
    let mut events = terminal::events()?;
    let plan = RunPlan {
        create: create_plan(&args.create)?,
        start_deadline: args.timeout,
        userland: userland_of(settings, &args.process)?,
        command: command(&args.process),
        afterwards: if args.keep { Afterwards::Keep } else { Afterwards::Stop },
    };
    let progress = progress(args.quiet || output == Output::Json);
    let outcome = run_plan(client, &plan, streams(&args.process), &mut events, &progress).await;
    report(output, &args, &plan, &outcome)?;
    settle(outcome)
}

/// The run's status: the command's own, unless something around it failed.
fn settle(outcome: Outcome) -> Result<u8, Failure> {
    match (outcome.command, outcome.cleanup) {
        (Ok(status), Ok(())) => Ok(exit::of_command(status)),
        (Err(error), Ok(())) => Err(error.into()),
        (Ok(0), Err(left)) => Err(left.into()),
        (Ok(status), Err(left)) => {
            eprintln!("peerpods: {}", chain(&left));
            Ok(exit::of_command(status))
        }
        (Err(error), Err(left)) => {
            eprintln!("peerpods: {}", chain(&left));
            Err(error.into())
        }
    }
}

/// The times, to stderr: stdout is the command's.
fn report(output: Output, args: &RunArgs, plan: &RunPlan, outcome: &Outcome) -> std::io::Result<()> {
    let mut stderr = std::io::stderr().lock();
    match output {
        Output::Json => {
            let report = json!({
                "id": plan.create.id.as_str(),
                "status": outcome.command.as_ref().ok(),
                "error": outcome.command.as_ref().err().map(|error| chain(error)),
                "left_behind": outcome.cleanup.as_ref().err().map(|error| chain(error)),
                "kept": plan.afterwards == Afterwards::Keep,
                "phases": outcome.timeline.entries(),
            });
            writeln!(stderr, "{report}")
        }
        Output::Text if args.quiet => Ok(()),
        Output::Text => {
            write!(stderr, "\n{}", outcome.timeline.table())?;
            if plan.afterwards == Afterwards::Keep && outcome.command.is_ok() {
                writeln!(
                    stderr,
                    "\nsandbox {} goes on running; `peerpods sandbox stop {0}` ends it",
                    plan.create.id
                )?;
            }
            Ok(())
        }
    }
}

fn progress(silent: bool) -> impl Fn(&str) + Sync {
    move |line| {
        if !silent {
            eprintln!("{line}");
        }
    }
}

fn create_plan(args: &CreateArgs) -> Result<CreatePlan, SandboxError> {
    let id = match &args.id {
        Some(id) => id.clone(),
        None => made_up_id(),
    };
    let pod_name = args.pod_name.clone().unwrap_or_else(|| format!("sandbox-{}", id.short()));
    let read = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path).map_err(|source| SandboxError::File { path: path.clone(), source })
    };
    let wishes = PodWishes {
        pod_name: pod_name.clone(),
        pod_namespace: args.pod_namespace.clone(),
        vcpus: args.vcpus,
        memory_mib: args.memory,
        image: args.image.clone(),
        machine_type: args.machine_type.clone(),
        initdata: args.initdata.as_ref().map(read).transpose()?,
        others: args.annotations.clone(),
    };
    Ok(CreatePlan {
        id,
        netns: args.netns.clone(),
        pod_network: args.pod_network,
        pod_name,
        annotations: annotations(&wishes),
    })
}

#[expect(clippy::expect_used, reason = "32 hexadecimal digits are a sandbox id")]
fn made_up_id() -> SandboxId {
    uuid::Uuid::new_v4().simple().to_string().parse().expect("32 hexadecimal digits")
}

fn command(args: &ProcessArgs) -> CommandSpec {
    CommandSpec {
        args: args.command.clone(),
        env: args.env.clone(),
        cwd: args.cwd.display().to_string(),
        terminal: if args.tty { Terminal::Tty(terminal::size()) } else { Terminal::None },
    }
}

fn streams(args: &ProcessArgs) -> Streams {
    Streams {
        terminal: if args.tty { OwnTerminal::Raw } else { OwnTerminal::AsIs },
        stdin: (!args.no_stdin).then(terminal::stdin),
        stdout: Box::new(tokio::io::stdout()),
        stderr: Box::new(tokio::io::stderr()),
    }
}

fn userland_of(settings: &Settings, args: &ProcessArgs) -> Result<String, SandboxError> {
    match (&args.userland, &settings.provider) {
        (Some(path), _) => Ok(path.clone()),
        (None, ProviderSettings::Qemu(qemu)) => {
            userland(&qemu.image).map_err(|source| SandboxError::File { path: qemu.image.clone(), source })
        }
        // An AMI tells nothing of it: the place our images have it at.
        #[cfg(feature = "aws")]
        (None, ProviderSettings::Aws(_)) => Ok(crate::sandbox::spec::DEFAULT_USERLAND.to_owned()),
    }
}

/// A sandbox as `list` prints it.
#[derive(Debug, Serialize)]
struct Listed {
    id: String,
    pod: String,
    namespace: String,
    state: String,
    provider: String,
    vm: String,
    vm_id: String,
    addresses: Vec<String>,
    netns: String,
    agent_socket: String,
    console: String,
    vni: u32,
    /// `token` or `stock`.
    guest_identity: String,
    created_unix_ms: u64,
    failure: String,
    troubles: Vec<Trouble>,
}

/// A step that fails and is tried again.
#[derive(Debug, Serialize)]
struct Trouble {
    step: String,
    tries: u32,
    error: String,
    for_ms: u64,
}

impl From<Sandbox> for Listed {
    fn from(sandbox: Sandbox) -> Self {
        Self {
            id: sandbox.id,
            pod: sandbox.pod_name,
            namespace: sandbox.pod_namespace,
            state: sandbox.state,
            provider: sandbox.provider,
            vm: sandbox.vm_name,
            vm_id: sandbox.vm_id,
            addresses: sandbox.addresses,
            netns: sandbox.netns,
            agent_socket: sandbox.agent_socket,
            console: sandbox.console,
            vni: sandbox.vni,
            guest_identity: sandbox.guest_identity,
            created_unix_ms: sandbox.created_unix_ms,
            failure: sandbox.failure,
            troubles: sandbox.troubles.into_iter().map(Trouble::from).collect(),
        }
    }
}

impl From<peerpods_proto::grpc::admin::Trouble> for Trouble {
    fn from(trouble: peerpods_proto::grpc::admin::Trouble) -> Self {
        Self { step: trouble.step, tries: trouble.tries, error: trouble.error, for_ms: trouble.for_ms }
    }
}

async fn list(output: Output, client: &Client) -> Result<u8, Failure> {
    let listed: Vec<Listed> = client.service.list().await?.into_iter().map(Listed::from).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    output::answer(output, &listed, |listed| {
        let rows: Vec<Vec<String>> = listed.iter().map(|one| row(one, now)).collect();
        output::table(&["SANDBOX", "POD", "STATE", "VM", "ADDRESS", "AGE"], &rows)
    })?;
    Ok(exit::OK)
}

fn row(one: &Listed, now: Duration) -> Vec<String> {
    let age = now.saturating_sub(Duration::from_millis(one.created_unix_ms)).as_secs();
    let tried = |t: &Trouble| format!("cannot {}, tried {} times, last: {}", t.step, t.tries, t.error);
    let failure = Some(one.failure.clone()).filter(|text| !text.is_empty());
    let told: Vec<String> = failure.into_iter().chain(one.troubles.iter().map(tried)).collect();
    let state =
        if told.is_empty() { one.state.clone() } else { format!("{} ({})", one.state, told.join("; ")) };
    vec![
        one.id.clone(),
        format!("{}/{}", one.namespace, one.pod),
        state,
        one.vm.clone(),
        one.addresses.join(","),
        duration::show(Duration::from_secs(age)),
    ]
}
