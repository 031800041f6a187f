//! The pod's containers, as a shim makes, feeds, measures and removes them: the pause container, and one that serves.

use std::path::Path;
use std::time::Duration;

use peerpods_proto::ttrpc::agent::{
    CopyFileRequest, CreateContainerRequest, GetDiagnosticDataRequest, GetDiagnosticDataResponse,
    GetMetricsRequest, GetOOMEventRequest, Metrics, RemoveContainerRequest,
    RemoveStaleVirtiofsShareMountsRequest, SignalProcessRequest, StartContainerRequest,
    StatsContainerRequest, StatsContainerResponse, UpdateContainerRequest, WaitProcessRequest,
    WaitProcessResponse,
};
use peerpods_proto::ttrpc::oci::{LinuxCPU, LinuxMemory, LinuxResources};
use protobuf::MessageField;
use protobuf::well_known_types::empty::Empty;

use super::agent::{method, patience};
use super::player::{Ended, Player};
use super::processes::{self, Output};
use crate::conformance::Model;
use crate::conformance::play::spec;

/// The Go shim sends files in pieces; runtime-rs sends each whole.
const GO_PIECE: usize = 1 << 20;
/// Go's own way to say 0750 and a directory, which the Go shim sends as it is.
const GO_DIRECTORY: u32 = 1 << 31 | 0o750;
/// A file of several pieces, which with its envelope still fits one message.
const LARGE: usize = (4 << 20) - 4096;
/// What `kill` sends.
const SIGTERM: u32 = 15;
const SIGKILL: u32 = 9;
/// What the serving container makes of SIGTERM.
const TERMINATED: i32 = 3;
/// 128 plus the signal's number.
const KILLED: i32 = 137;
const RULE: &str = "facts/kata.md 2.1: the RPC sequence";

/// The pause container, and the calls that wait for the sandbox's whole life.
pub(super) async fn pause(player: &mut Player) -> Result<(), Ended> {
    let id = player.order().id.clone();
    copy(player, "pause.CopyFile", &spec::hosts_file(&id), b"127.0.0.1 localhost\n").await?;
    copy(player, "pause.CopyFile", &spec::resolv_conf(&id), b"nameserver 10.96.0.10\n").await?;
    let request = spec::container(player.order(), &id, spec::Role::Pause);
    create(player, "pause.CreateContainer", &request).await?;
    let oom = GetOOMEventRequest::new();
    player.polls.oom = Some(player.poll("GetOOMEvent", method("GetOOMEvent"), &oom).await?);
    player.polls.pause = Some(wait(player, "pause.WaitProcess", &id).await?);
    start(player, "pause.StartContainer", &id).await
}

/// The serving container: it says who it is, and what network it sees.
pub(super) async fn app(player: &mut Player) -> Result<(), Ended> {
    let id = app_id(player);
    copy(player, "app.CopyFile", &spec::hosts_file(&id), b"10.0.0.7 conformance-peer\n").await?;
    // A large secret or config map.
    copy(player, "app.CopyFile", &spec::shared(&id, "large"), &vec![b'x'; LARGE]).await?;
    let request = spec::container(player.order(), &id, spec::Role::App);
    create(player, "app.CreateContainer", &request).await?;
    start(player, "app.StartContainer", &id).await?;
    player.polls.app = Some(wait(player, "app.WaitProcess", &id).await?);
    processes::read_until(player, "app.ReadStderr", (&id, &id), Output::Stderr, "complaint").await?;
    let mut wanted = vec!["10.0.0.7 conformance-peer".to_owned(), "serving".to_owned()];
    wanted.extend(player.order().address.clone());
    let text = processes::read_until(player, "app.ReadStdout", (&id, &id), Output::Stdout, "serving").await?;
    for wanted in wanted {
        if !text.contains(&wanted) {
            let rule = "facts/kata.md 0.8: containers are in the pod's network";
            let expected = format!("output with {wanted:?}");
            return Player::wrong("app.ReadStdout", rule, expected, format!("{text:?}"));
        }
    }
    Ok(())
}

/// What kubelet and a scrape ask for, a resize of the pod, and a config map that changed.
pub(super) async fn figures(player: &mut Player) -> Result<(), Ended> {
    let (id, within) = (app_id(player), patience(player.model()));
    let request = StatsContainerRequest { container_id: id.clone(), ..Default::default() };
    let name = method("StatsContainer");
    player.tell_agent::<StatsContainerResponse>("StatsContainer", name, &request, within).await?;
    let metrics: Metrics =
        player.tell_agent("GetMetrics", method("GetMetrics"), &GetMetricsRequest::new(), within).await?;
    if !metrics.metrics.contains("kata_") {
        let rule = "facts/kata.md 4: kata_agent_* and kata_guest_*";
        return Player::wrong("GetMetrics", rule, "families named kata_*", shortened(&metrics.metrics));
    }
    let cpu = LinuxCPU { Quota: 50_000, Period: 100_000, Shares: 512, ..Default::default() };
    let memory = LinuxMemory { Limit: 64 << 20, ..Default::default() };
    let resources = LinuxResources {
        CPU: MessageField::some(cpu),
        Memory: MessageField::some(memory),
        ..Default::default()
    };
    let request = UpdateContainerRequest {
        container_id: id.clone(),
        resources: MessageField::some(resources),
        ..Default::default()
    };
    player.tell_agent::<Empty>("UpdateContainer", method("UpdateContainer"), &request, within).await?;
    copy(player, "update.CopyFile", &spec::shared(&id, "config"), b"changed\n").await
}

/// The pod's end, container by container.
pub(super) async fn stop(player: &mut Player) -> Result<(), Ended> {
    stop_app(player).await?;
    let sandbox = player.order().id.clone();
    signal(player, "pause.SignalProcess", &sandbox, SIGKILL).await?;
    let over = player.polls.pause.take();
    ended(over, "pause.WaitProcess", KILLED).await?;
    end(player, "pause.again.SignalProcess", &sandbox, KILLED).await?;
    remove(player, "pause.RemoveContainer", &sandbox).await?;
    remove_stale(player, "pause.RemoveStaleMounts").await
}

async fn stop_app(player: &mut Player) -> Result<(), Ended> {
    let id = app_id(player);
    signal(player, "app.SignalProcess", &id, SIGTERM).await?;
    processes::read_end(player, "app.ReadEnd", (&id, &id), Output::Stdout).await?;
    processes::read_end(player, "app.ReadEnd", (&id, &id), Output::Stderr).await?;
    let over = player.polls.app.take();
    ended(over, "app.WaitProcess", TERMINATED).await?;
    diagnose(player, &id).await?;
    end(player, "app.again.SignalProcess", &id, TERMINATED).await?;
    remove(player, "app.RemoveContainer", &id).await?;
    remove_stale(player, "app.RemoveStaleMounts").await
}

/// Whatever an agent says to that, the shim only warns.
async fn diagnose(player: &mut Player, id: &str) -> Result<(), Ended> {
    let request = GetDiagnosticDataRequest {
        log_type: "termination_log".to_owned(),
        container_id: id.to_owned(),
        ..Default::default()
    };
    let (step, within) = ("GetDiagnosticData", patience(player.model()));
    player.ask_agent::<GetDiagnosticDataResponse>(step, method(step), &request, within).await.map(drop)
}

/// The Go shim kills every container that it removes, also one that has ended, and asks for the status again.
async fn end(player: &mut Player, step: &'static str, id: &str, status: i32) -> Result<(), Ended> {
    if player.model() != Model::Go {
        return Ok(());
    }
    signal(player, step, id, SIGKILL).await?;
    let again = wait(player, "again.WaitProcess", id).await?;
    ended(Some(again), "again.WaitProcess", status).await
}

fn app_id(player: &Player) -> String {
    let mut id = player.order().id.clone();
    // Another 64 digits.
    id.replace_range(..1, if id.starts_with('a') { "b" } else { "a" });
    id
}

async fn create(
    player: &mut Player,
    step: &'static str,
    request: &CreateContainerRequest,
) -> Result<(), Ended> {
    // `create_container_timeout` is a minute with Go, half of that with runtime-rs.
    let within = patience(player.model());
    player.tell_agent::<Empty>(step, method("CreateContainer"), request, within).await.map(drop)
}

async fn start(player: &mut Player, step: &'static str, id: &str) -> Result<(), Ended> {
    let request = StartContainerRequest { container_id: id.to_owned(), ..Default::default() };
    let within = patience(player.model());
    player.tell_agent::<Empty>(step, method("StartContainer"), &request, within).await.map(drop)
}

async fn wait(
    player: &mut Player,
    step: &'static str,
    id: &str,
) -> Result<crate::shim::wire::InFlight, Ended> {
    let request =
        WaitProcessRequest { container_id: id.to_owned(), exec_id: id.to_owned(), ..Default::default() };
    player.poll(step, method("WaitProcess"), &request).await
}

async fn signal(player: &mut Player, step: &'static str, id: &str, signal: u32) -> Result<(), Ended> {
    let exec_id = match player.model() {
        Model::Go => String::new(),
        Model::Rs => id.to_owned(),
    };
    let request = SignalProcessRequest { container_id: id.to_owned(), exec_id, signal, ..Default::default() };
    let within = patience(player.model());
    player.tell_agent::<Empty>(step, method("SignalProcess"), &request, within).await.map(drop)
}

async fn remove(player: &mut Player, step: &'static str, id: &str) -> Result<(), Ended> {
    let (model, within) = (player.model(), patience(player.model()));
    let timeout = if model == Model::Go { 0 } else { 10 };
    let request = RemoveContainerRequest { container_id: id.to_owned(), timeout, ..Default::default() };
    player.tell_agent::<Empty>(step, method("RemoveContainer"), &request, within).await.map(drop)
}

/// What the Go shim asks for after each container, shared file system or not. An agent that has no such call does no harm.
async fn remove_stale(player: &mut Player, step: &'static str) -> Result<(), Ended> {
    if player.model() != Model::Go {
        return Ok(());
    }
    let (name, request) = ("RemoveStaleVirtiofsShareMounts", RemoveStaleVirtiofsShareMountsRequest::new());
    let within = patience(Model::Go);
    player.ask_agent::<Empty>(step, method(name), &request, within).await.map(drop)
}

/// The status of a process that was waited for from its beginning.
async fn ended(
    poll: Option<crate::shim::wire::InFlight>,
    step: &'static str,
    status: i32,
) -> Result<(), Ended> {
    let Some(poll) = poll else { return Ok(()) };
    let answer = tokio::time::timeout(Duration::from_secs(60), poll.answer::<WaitProcessResponse>()).await;
    let came = match answer {
        Ok(Ok(answer)) if answer.status == status => return Ok(()),
        Ok(Ok(answer)) => answer.status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer for a minute".to_owned(),
    };
    Player::wrong(step, RULE, format!("the process' status {status}"), came)
}

/// A file for a container: its directory first, then its contents.
async fn copy(player: &mut Player, step: &'static str, path: &Path, contents: &[u8]) -> Result<(), Ended> {
    const DIRECTORY: u32 = 0o040_000;
    const FILE: u32 = 0o100_000;
    let (model, within) = (player.model(), patience(player.model()));
    let message = |path: &Path, mode, offset: usize, data: &[u8], size: usize| CopyFileRequest {
        path: path.display().to_string(),
        file_size: i64::try_from(size).unwrap_or_default(),
        file_mode: mode,
        dir_mode: match model {
            Model::Go => GO_DIRECTORY,
            Model::Rs => 0o750,
        },
        offset: i64::try_from(offset).unwrap_or_default(),
        data: data.to_vec(),
        ..CopyFileRequest::default()
    };
    let parent = path.parent().unwrap_or(path);
    if parent != Path::new(spec::SHARED) {
        let directory = message(parent, DIRECTORY | 0o755, 0, &[], 0);
        player.tell_agent::<Empty>(step, method("CopyFile"), &directory, within).await?;
    }
    let piece = if model == Model::Go { GO_PIECE } else { contents.len().max(1) };
    for (n, part) in contents.chunks(piece).enumerate() {
        let request = message(path, FILE | 0o644, n * piece, part, contents.len());
        player.tell_agent::<Empty>(step, method("CopyFile"), &request, within).await?;
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}
