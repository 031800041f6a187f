//! `peerpods gc …`: options to requests, answers to lines.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use peerpods_podvm::causes::chain;
use peerpods_proto::grpc::admin::{ListVmsResponse, Verdict, Vm};
use serde::Serialize;
use serde_json::json;

use super::{Failure, configured};
use crate::cli::Global;
use crate::cli::flags::{ConfigFlags, value};
use crate::cli::gc::{AdoptArgs, DeleteArgs, EndingArgs, GcAction, GcCommand};
use crate::config::duration;
use crate::exit;
use crate::gc::{Earnest, GcError, Purpose, Taken, Vms};
use crate::logging::Verbosity;
use crate::output::{self, Output};
use crate::sandbox::service::Service;

pub(super) async fn run(global: &Global, command: GcCommand) -> Result<u8, Failure> {
    let flags = ConfigFlags(command.socket.iter().filter_map(|path| value("socket", path)).collect());
    let settings = configured(global, &flags, Verbosity::Command)?;
    let vms = Vms::new(Service::new(settings.hypervisor.socket.clone()));
    match command.action {
        GcAction::List => list(global.output, &vms).await,
        GcAction::Delete(args) => delete(global.output, &vms, &args).await,
        GcAction::Adopt(args) => adopt(global.output, &vms, &args).await,
    }
}

/// A VM as `list` prints it.
#[derive(Debug, Serialize)]
struct Listed {
    id: String,
    name: String,
    sandbox: String,
    node: String,
    state: String,
    addresses: Vec<String>,
    verdict: &'static str,
    reason: String,
    seen_for_ms: u64,
    passes: u32,
    due_in_ms: Option<u64>,
}

impl From<Vm> for Listed {
    fn from(vm: Vm) -> Self {
        Self {
            verdict: word(vm.verdict()),
            id: vm.id,
            name: vm.name,
            sandbox: vm.sandbox,
            node: vm.node,
            state: vm.state,
            addresses: vm.addresses,
            reason: vm.reason,
            seen_for_ms: vm.seen_for_ms,
            passes: vm.passes,
            due_in_ms: vm.due_in_ms,
        }
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unspecified => "unknown",
        Verdict::Live => "live",
        Verdict::HeldByShim => "held",
        Verdict::OtherNode => "other-node",
        Verdict::NoNode => "no-node",
        Verdict::Orphan => "orphan",
    }
}

async fn list(output: Output, vms: &Vms) -> Result<u8, Failure> {
    let ListVmsResponse { vms, sweep } = vms.list().await?;
    let sweep = sweep.unwrap_or_default();
    let listed: Vec<Listed> = vms.into_iter().map(Listed::from).collect();
    let answer = json!({ "vms": listed, "sweep": {
        "mode": sweep.mode, "passes": sweep.passes, "failed_passes": sweep.failed_passes, "collected": sweep.collected,
    } });
    output::answer(output, &answer, |_| {
        let rows: Vec<Vec<String>> = listed.iter().map(row).collect();
        output::table(&["VM", "NAME", "SANDBOX", "NODE", "STATE", "VERDICT"], &rows)
    })?;
    Ok(exit::OK)
}

fn row(one: &Listed) -> Vec<String> {
    let node = if one.node.is_empty() { "-" } else { one.node.as_str() };
    let cells = [&one.id, &one.name, &one.sandbox, node, &one.state].map(str::to_owned);
    cells.into_iter().chain([verdict(one)]).collect()
}

/// The verdict and what follows from it, in a few words.
fn verdict(one: &Listed) -> String {
    let span = |ms: u64| duration::show(Duration::from_secs(ms / 1000));
    match (one.verdict, one.due_in_ms) {
        ("orphan", Some(due)) if one.passes == 0 => {
            format!("orphan, not seen by the sweep yet, deleted in {} at the earliest", span(due))
        }
        ("orphan", Some(0)) => {
            format!("orphan, seen for {}, deleted by the next pass", span(one.seen_for_ms))
        }
        ("orphan", Some(due)) => {
            format!("orphan, seen for {}, deleted in {} at the earliest", span(one.seen_for_ms), span(due))
        }
        ("orphan", None) => "orphan, not deleted by itself (gc is not on)".to_owned(),
        (word, _) => format!("{word}: {}", one.reason),
    }
}

/// What became of one VM, for programs.
#[derive(Debug, Serialize)]
struct Outcome {
    id: String,
    sandbox: Option<String>,
    vms: Vec<String>,
    outcome: &'static str,
    error: Option<String>,
}

async fn delete(output: Output, vms: &Vms, args: &DeleteArgs) -> Result<u8, Failure> {
    let wanted = if args.orphans { vms.orphans().await? } else { args.ids.clone() };
    let earnest = if args.dry_run { Earnest::DryRun } else { Earnest::Real };
    if earnest == Earnest::Real && !wanted.is_empty() && !confirmed(&wanted, &args.ending)? {
        return Ok(exit::FAILURE);
    }
    let mut outcomes = Vec::new();
    for id in wanted {
        outcomes.push(outcome(id.clone(), vms.delete(&id, earnest).await, earnest));
    }
    for one in outcomes.iter_mut().filter(|one| one.outcome == "deleting") {
        settle(vms, one, args.ending.timeout).await;
    }
    output::answer(output, &outcomes, |outcomes| told(outcomes))?;
    Ok(status(&outcomes))
}

async fn adopt(output: Output, vms: &Vms, args: &AdoptArgs) -> Result<u8, Failure> {
    let id = args.sandbox.to_string();
    if let (Some(netns), Some(vni)) = (&args.netns, args.vni) {
        let taken = vms.adopt(&args.sandbox, Purpose::Run { netns: netns.clone(), vni }).await?;
        let answer = json!({ "sandbox": taken.sandbox.as_str(), "vms": taken.vms, "outcome": "adopted" });
        output::answer(output, &answer, |_| format!("sandbox {id} is a sandbox of this node again"))?;
        return Ok(exit::OK);
    }
    if !confirmed(std::slice::from_ref(&id), &args.ending)? {
        return Ok(exit::FAILURE);
    }
    let mut one = outcome(id, vms.adopt(&args.sandbox, Purpose::Remove).await, Earnest::Real);
    settle(vms, &mut one, args.ending.timeout).await;
    let outcomes = [one];
    output::answer(output, &outcomes, |outcomes| told(outcomes))?;
    Ok(status(&outcomes))
}

fn outcome(id: String, taken: Result<Taken, GcError>, earnest: Earnest) -> Outcome {
    match taken {
        Ok(Taken { sandbox, vms }) => {
            let outcome = if earnest == Earnest::DryRun { "would-delete" } else { "deleting" };
            Outcome { id, sandbox: Some(sandbox.to_string()), vms, outcome, error: None }
        }
        Err(error) => {
            Outcome { id, sandbox: None, vms: Vec::new(), outcome: "refused", error: Some(chain(&error)) }
        }
    }
}

async fn settle(vms: &Vms, one: &mut Outcome, timeout: Duration) {
    let Some(Ok(sandbox)) = one.sandbox.as_ref().map(|id| id.parse()) else { return };
    match vms.wait_gone(&sandbox, timeout, |line| eprintln!("{line}")).await {
        Ok(()) => one.outcome = "deleted",
        Err(error) => one.error = Some(chain(&error)),
    }
}

fn status(outcomes: &[Outcome]) -> u8 {
    for error in outcomes.iter().filter_map(|one| one.error.as_ref()) {
        eprintln!("peerpods: {error}");
    }
    if outcomes.iter().all(|one| one.error.is_none()) { exit::OK } else { exit::FAILURE }
}

fn told(outcomes: &[Outcome]) -> String {
    if outcomes.is_empty() {
        return "there are no orphans".to_owned();
    }
    let done = outcomes.iter().filter(|one| one.error.is_none());
    let line = |one: &Outcome| {
        let what = if one.outcome == "deleted" { "is gone" } else { "would be deleted" };
        let sandbox = one.sandbox.as_deref().unwrap_or_default();
        format!("VM {} of sandbox {sandbox} {what}", one.vms.join(", "))
    };
    done.map(line).collect::<Vec<_>>().join("\n")
}

/// Whether the deletion is meant.
fn confirmed(ids: &[String], ending: &EndingArgs) -> Result<bool, GcError> {
    if ending.yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Err(GcError::NobodyToAsk);
    }
    eprint!("Delete the VMs of {}? [y/N] ", ids.join(", "));
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
