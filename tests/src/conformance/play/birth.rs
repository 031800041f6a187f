//! CreateVM and StartVM, with each shim's values.

use std::collections::HashMap;

use peerpods_proto::ttrpc::hypervisor::{CreateVMResponse, StartVMResponse};

use super::Runtime;
use super::player::{Ended, Player};
use crate::conformance::Model;
use crate::shim::go::{CREATE_VM, START_VM, create_request, start_request};
use crate::shim::wire::CallError;
use crate::shim::{annotations, go, rs};

/// What must not be in a path that both shims take apart as part of a URL.
const URL_CHARACTERS: [char; 5] = [':', '%', '?', '#', ' '];
/// What fits a socket address, with its final zero.
const SOCKET_PATH_MAX: usize = 107;

/// The nine annotations, always all of them.
pub(super) fn annotations_of(player: &Player) -> HashMap<String, String> {
    let order = player.order();
    let mut all = annotations(&order.pod);
    let hypervisor = |key: &str| format!("io.katacontainers.config.hypervisor.{key}");
    match order.model {
        Model::Go => {
            if order.runtime == Runtime::Crio {
                let whole = format!("k8s_{}_default_3d8e7c0e-3a5f-4b11-9d5c-6a1c2f1f0f6e_0", order.pod);
                all.insert("io.kubernetes.cri.sandbox-name".to_owned(), whole);
            }
        }
        Model::Rs => {
            // An f32, and the configuration's memory.
            all.insert(hypervisor("default_vcpus"), "1.5".to_owned());
            all.insert(hypervisor("default_memory"), "2048".to_owned());
        }
    }
    all
}

pub(super) async fn create(player: &mut Player) -> Result<(), Ended> {
    let order = player.order();
    let request = create_request(&order.id, &order.netns, annotations_of(player));
    let answer: Result<CreateVMResponse, _> = player.ask("CreateVM", CREATE_VM, &request, None).await?;
    let answer = hypervisor_answer(player, "CreateVM", answer)?;
    let path = answer.agentSocketPath;
    let fault = match path.as_str() {
        "" => Some("it is empty"),
        p if !p.starts_with('/') => Some("it is not absolute"),
        p if p.len() > SOCKET_PATH_MAX => Some("it does not fit a socket address"),
        p if p.contains(URL_CHARACTERS) => Some("a shim's URL would be cut at a character of it"),
        _ => None,
    };
    if let Some(fault) = fault {
        let expected = "an absolute path of at most 107 bytes without ':', '%', '?', '#' and ' '";
        return Player::wrong(
            "CreateVM",
            "facts/kata.md 1.4: agentSocketPath rules",
            expected,
            format!("{path:?}: {fault}"),
        );
    }
    player.agent_socket = path.into();
    Ok(())
}

pub(super) async fn start(player: &mut Player) -> Result<(), Ended> {
    let request = start_request(&player.order().id);
    let deadline = match player.model() {
        Model::Go => go::START_DEADLINE,
        Model::Rs => rs::START_DEADLINE,
    };
    let answer: Result<StartVMResponse, _> =
        player.ask("StartVM", START_VM, &request, Some(deadline)).await?;
    hypervisor_answer(player, "StartVM", answer).map(drop)
}

/// A service that was restarted under a call cannot answer it.
fn hypervisor_answer<A>(
    player: &Player,
    step: &'static str,
    answer: Result<A, CallError>,
) -> Result<A, Ended> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(_) if player.restarted => Err(Ended::Played(step)),
        Err(error) => Player::wrong(step, "facts/kata.md 1.4: call order", "success", error.to_string()),
    }
}
