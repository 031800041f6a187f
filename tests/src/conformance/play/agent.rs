//! The connections to the agent, and the calls that open the sandbox in it.

use std::time::Duration;

use peerpods_proto::ttrpc::agent::{
    CreateSandboxRequest, GuestDetailsRequest, GuestDetailsResponse, SetPolicyRequest, Storage,
};
use peerpods_proto::ttrpc::health::{CheckRequest, HealthCheckResponse, VersionCheckResponse};
use protobuf::well_known_types::empty::Empty;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::player::{Ended, Player};
use crate::conformance::Model;
use crate::shim::CHECK;
use crate::shim::go::NAMESPACE;
use crate::shim::wire::{Connection, Method};

/// What the Go shim gives calls that have no time of their own.
const CALL: Duration = Duration::from_secs(60);
/// What runtime-rs gives them all.
const RS_CALL: Duration = Duration::from_secs(30);
/// What the Go shim gives CreateSandbox and SetPolicy of a remote sandbox.
const REMOTE_REQUEST: Duration = Duration::from_secs(300);
/// `google.rpc.Code`: what an agent without policies answers to SetPolicy.
pub(super) const UNIMPLEMENTED: i32 = 12;
/// `dial_timeout`.
const DIAL: Duration = Duration::from_secs(30);

/// A method of the agent's service.
pub(super) const fn method(name: &'static str) -> Method {
    ("grpc.AgentService", name)
}

/// How long an ordinary call may take.
pub(super) fn patience(model: Model) -> Option<Duration> {
    Some(match model {
        Model::Go => CALL,
        Model::Rs => RS_CALL,
    })
}

/// Connects as soon as StartVM was answered. The Go shim tries again and again without a pause for `dial_timeout`, with a line in its log
/// each time; runtime-rs opens a second connection, to read the guest's log from, and never writes to it.
pub(super) async fn connect(player: &mut Player) -> Result<(), Ended> {
    let (began, mut tries) = (Instant::now(), 0_u32);
    let stream = loop {
        tries += 1;
        match UnixStream::connect(&player.agent_socket).await {
            Ok(stream) => break stream,
            Err(_) if began.elapsed() < DIAL => {}
            Err(error) => return refused(tries, &error.to_string()),
        }
    };
    if tries > 1 {
        return refused(tries, "and then it was there");
    }
    let forwarder = match player.model() {
        Model::Go => None,
        Model::Rs => match UnixStream::connect(&player.agent_socket).await {
            Ok(second) => Some(second),
            Err(error) => {
                let expected = "a second connection to be taken";
                return Player::wrong("StartVM", "facts/kata.md 0.6", expected, error.to_string());
            }
        },
    };
    let agent = Connection::over(stream);
    let agent = match player.model() {
        Model::Go => agent.marked(NAMESPACE.0, NAMESPACE.1),
        Model::Rs => agent,
    };
    player.attach(agent, forwarder);
    if player.model() == Model::Go {
        check(player, "Check").await?;
    }
    Ok(())
}

fn refused(tries: u32, came: &str) -> Result<(), Ended> {
    let expected = "the agent socket to be there when StartVM is answered";
    let came = format!("it was tried {tries} times: {came}");
    Player::wrong("StartVM", "facts/kata.md 1.4: the file need exist when StartVM returns", expected, came)
}

/// Check, with each shim's patience.
pub(super) async fn check(player: &mut Player, step: &'static str) -> Result<(), Ended> {
    let deadline = match player.model() {
        Model::Go => Duration::from_secs(30),
        Model::Rs => Duration::from_secs(90),
    };
    let answer: HealthCheckResponse =
        player.tell_agent(step, CHECK, &CheckRequest::new(), Some(deadline)).await?;
    serving(step, answer.status.value())
}

fn serving(step: &str, status: i32) -> Result<(), Ended> {
    if status == 1 {
        return Ok(());
    }
    Player::wrong(step, "facts/kata.md 2: Check answers SERVING(1)", "1", status.to_string())
}

/// SetPolicy (Go), CreateSandbox, GetGuestDetails.
pub(super) async fn open_sandbox(player: &mut Player) -> Result<(), Ended> {
    let model = player.model();
    if model == Model::Go {
        set_policy(player).await?;
    }
    let deadline = match model {
        Model::Go => Some(REMOTE_REQUEST),
        Model::Rs => patience(model),
    };
    let request = create_sandbox(&player.order().id, &player.order().pod);
    player.tell_agent::<Empty>("CreateSandbox", method("CreateSandbox"), &request, deadline).await?;
    redial(player).await?;
    let asked = GuestDetailsRequest { mem_block_size: true, mem_hotplug_probe: true, ..Default::default() };
    let details: GuestDetailsResponse =
        player.tell_agent("GetGuestDetails", method("GetGuestDetails"), &asked, patience(model)).await?;
    if details.agent_details.is_none() {
        let expected = "details of the agent";
        return Player::wrong("GetGuestDetails", "facts/kata.md 2.1 step 4", expected, "none");
    }
    if model == Model::Rs {
        check(player, "monitor.Check").await?;
        let version = ("grpc.Health", "Version");
        let answer: VersionCheckResponse =
            player.tell_agent("monitor.Version", version, &CheckRequest::new(), patience(model)).await?;
        if answer.grpc_version.is_empty() {
            let rule = "facts/kata.md 2.1: Version every 5 min";
            return Player::wrong("monitor.Version", rule, "a version", "an empty one");
        }
    }
    Ok(())
}

/// An agent without policies says so, and the pod goes on.
async fn set_policy(player: &mut Player) -> Result<(), Ended> {
    let policy = "package agent_policy\ndefault AllowRequestsFailingPolicy := true\n";
    let request = SetPolicyRequest { policy: policy.to_owned(), ..SetPolicyRequest::default() };
    let deadline = Some(REMOTE_REQUEST);
    let answer = player.ask_agent::<Empty>("SetPolicy", method("SetPolicy"), &request, deadline).await?;
    match answer {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(UNIMPLEMENTED) => Ok(()),
        Err(error) => {
            let rule = "facts/kata.md 3: SetPolicy without agent-policy = UNIMPLEMENTED";
            Player::wrong("SetPolicy", rule, "success or UNIMPLEMENTED (12)", error.to_string())
        }
    }
}

/// CreateSandbox empties the agent's directory; whoever comes later must reach the agent all the same.
async fn redial(player: &mut Player) -> Result<(), Ended> {
    let step = "redial.Check";
    let rule = "facts/kata.md 0.7: CreateSandbox wipes /run/kata-containers";
    let failed = |came: String| Player::wrong(step, rule, "an answer on a new connection", came);
    let second = match Connection::dial(&player.agent_socket).await {
        Ok(second) => second,
        Err(error) => return failed(error.to_string()),
    };
    let within = Some(Duration::from_secs(30));
    match second.call::<HealthCheckResponse>(CHECK, &CheckRequest::new(), within).await {
        Ok(answer) => serving(step, answer.status.value())?,
        Err(error) => return failed(error.to_string()),
    }
    // And the one there was, which is where faults come.
    check(player, step).await
}

fn create_sandbox(id: &str, hostname: &str) -> CreateSandboxRequest {
    let options = ["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"];
    let shm = Storage {
        driver: "ephemeral".to_owned(),
        source: "shm".to_owned(),
        fstype: "tmpfs".to_owned(),
        options: options.map(str::to_owned).to_vec(),
        mount_point: "/run/kata-containers/sandbox/shm".to_owned(),
        ..Storage::default()
    };
    let dns = ["search default.svc.cluster.local", "nameserver 10.96.0.10", "options ndots:5"];
    CreateSandboxRequest {
        hostname: hostname.chars().take(64).collect(),
        dns: dns.map(str::to_owned).to_vec(),
        storages: vec![shm],
        sandbox_id: id.to_owned(),
        ..CreateSandboxRequest::default()
    }
}
