//! How a life ends: by DestroySandbox and StopVM, or by what each shim does about a call that went wrong.

use std::time::{Duration, Instant};

use peerpods_proto::ttrpc::agent::DestroySandboxRequest;
use peerpods_proto::ttrpc::health::{CheckRequest, HealthCheckResponse};
use peerpods_proto::ttrpc::hypervisor::StopVMResponse;
use protobuf::well_known_types::empty::Empty;

use super::agent::{method, patience};
use super::player::{Ended, Player};
use super::{Kind, Said};
use crate::conformance::Model;
use crate::shim::go::{STOP_VM, stop_request};
use crate::shim::rs::{STOP_DEADLINE, lateness_is_the_machines};
use crate::shim::wire::CallError;
use crate::shim::{CHECK, GoShim};

/// A pod's ordinary end. Only Go says goodbye to the agent. Then StopVM: runtime-rs' is sent twice, from two places at once.
pub(super) async fn end(player: &mut Player) -> Result<(), Ended> {
    if let Some(complaint) = player.monitored() {
        let rule = "facts/kata.md 0.5: EOF on the agent socket kills the pod";
        return Player::wrong("monitor", rule, "a healthy agent to the end", complaint);
    }
    player.tell(&Said::Checked(player.checks()));
    player.dismiss_monitor().await;
    if player.model() == Model::Go {
        let (request, within) = (DestroySandboxRequest::new(), patience(Model::Go));
        let name = method("DestroySandbox");
        player.tell_agent::<Empty>("DestroySandbox", name, &request, within).await?;
    }
    match stop(player, "StopVM").await? {
        // A restart of the service leaves runtime-rs with a dead connection; it only warns.
        Err(_) if player.restarted && player.model() == Model::Rs => return Ok(()),
        Err(_) if player.restarted => return stop_again(player).await,
        answer => answered(answer)?,
    }
    stop_again(player).await
}

/// StopVM; how long it took is told. Once more when a deadline passed that the machine is to blame for.
async fn stop(player: &mut Player, step: &'static str) -> Result<Result<StopVMResponse, CallError>, Ended> {
    let answer = stop_once(player, step).await?;
    let socket = player.order().socket.clone();
    match answer {
        Err(error) if lateness_is_the_machines(&error, &socket).await => stop_once(player, step).await,
        answer => Ok(answer),
    }
}

async fn stop_once(
    player: &mut Player,
    step: &'static str,
) -> Result<Result<StopVMResponse, CallError>, Ended> {
    let request = stop_request(&player.order().id);
    let deadline = match player.model() {
        Model::Go => None,
        Model::Rs => Some(STOP_DEADLINE),
    };
    let began = Instant::now();
    let answer = player.ask(step, STOP_VM, &request, deadline).await?;
    player.tell(&Said::StopTook(began.elapsed().as_secs_f64() * 1e3));
    Ok(answer)
}

/// It is asked for again: by kubelet through the Go shim, by runtime-rs' other path.
async fn stop_again(player: &mut Player) -> Result<(), Ended> {
    match stop(player, "StopVM.again").await? {
        Err(CallError::Closed(_)) if player.restarted && player.model() == Model::Rs => Ok(()),
        answer => answered(answer),
    }
}

fn answered(answer: Result<StopVMResponse, CallError>) -> Result<(), Ended> {
    let rule = "facts/kata.md R4: StopVM answers in under 1 s, idempotent, OK for unknown";
    match answer {
        Ok(_) => Ok(()),
        Err(error) => Player::wrong("StopVM", rule, "success", error.to_string()),
    }
}

/// What a shim does after the fault at `step`.
pub(super) async fn give_up(player: &mut Player, step: &'static str) -> Result<(), Ended> {
    let kind = player.order().fault.as_ref().map(|fault| fault.kind);
    if kind == Some(Kind::TimedOut) && player.is_attached() {
        still_answers(player, step).await?;
    }
    match (player.model(), step, kind) {
        // Go says nothing after a failed CreateVM. A StopVM whose caller left is carried out all the same.
        (Model::Go, "CreateVM", _) | (_, "StopVM", Some(Kind::Closed | Kind::Reset | Kind::TimedOut)) => {
            Ok(())
        }
        (Model::Go, ..) => {
            player.hang_up().await;
            stop_again(player).await
        }
        (Model::Rs, ..) => {
            let first = stop(player, "StopVM.again").await?;
            // Without its connection it cannot ask, and does not mind.
            if !matches!(first, Err(CallError::Closed(_))) {
                answered(first)?;
                stop_again(player).await?;
            }
            player.hang_up().await;
            Ok(())
        }
    }
}

/// A call that was given up must not take its connection with it.
async fn still_answers(player: &mut Player, step: &'static str) -> Result<(), Ended> {
    let within = Some(Duration::from_secs(30));
    let name = "after a timeout";
    let answer: Result<HealthCheckResponse, _> =
        player.ask_agent(name, CHECK, &CheckRequest::new(), within).await?;
    // The agent is over after DestroySandbox, and its VM once the service has heard StopVM, whoever still waits for an answer.
    if step == "DestroySandbox" || step.starts_with("StopVM") {
        return Ok(());
    }
    match answer {
        Ok(_) => Ok(()),
        Err(error) => {
            let rule = "facts/kata.md 2: there is no cancel frame, a call times out alone";
            Player::wrong(step, rule, "the connection to go on", error.to_string())
        }
    }
}

/// Stops the sandbox whatever state it is in, once the life has failed.
pub(super) async fn clean_up(player: &mut Player) {
    player.hang_up().await;
    let shim = GoShim::new(player.order().socket.clone());
    let stopped = shim.stop(&player.order().id);
    // The failure that led here is the one that is told.
    drop(tokio::time::timeout(Duration::from_secs(10), stopped).await);
}
