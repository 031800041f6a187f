//! Commands in a container: one that is fed through a pipe, and one with a terminal.

use std::time::Duration;

use peerpods_proto::ttrpc::agent::{
    CloseStdinRequest, ExecProcessRequest, ReadStreamRequest, ReadStreamResponse, SignalProcessRequest,
    TtyWinResizeRequest, WaitProcessRequest, WaitProcessResponse, WriteStreamRequest, WriteStreamResponse,
};
use protobuf::MessageField;
use protobuf::well_known_types::empty::Empty;

use super::agent::{method, patience};
use super::player::{Ended, Player};
use super::spec;
use crate::conformance::Model;
use crate::shim::wire::{CallError, Method};

const RULE: &str = "facts/kata.md 2.1: the RPC sequence";
/// What both shims ask for at once.
const CHUNK: u32 = 32 * 1024;
/// How long output may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Answers every line, and tells how it ended.
const ECHO: [&str; 3] = ["sh", "-c", "while read -r line; do echo \"got $line\"; done; exit 7"];
/// Says the terminal's size when asked.
const SIZE: [&str; 3] = ["sh", "-c", "read -r _; stty size; while :; do sleep 1; done"];

/// A process' stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    Stdout,
    Stderr,
}

impl Output {
    fn method(self) -> Method {
        match self {
            Self::Stdout => method("ReadStdout"),
            Self::Stderr => method("ReadStderr"),
        }
    }
}

/// `kubectl exec -i`.
pub(super) async fn exec(player: &mut Player) -> Result<(), Ended> {
    let (container, within) = (player.order().id.clone(), patience(player.model()));
    let process = (container.as_str(), "conformance-exec");
    begin(player, "exec.ExecProcess", process, &ECHO, None).await?;
    write(player, "exec.WriteStdin", process, b"first\n").await?;
    read_until(player, "exec.ReadStdout", process, Output::Stdout, "got first").await?;
    if player.model() == Model::Go {
        let request = CloseStdinRequest {
            container_id: container.clone(),
            exec_id: process.1.to_owned(),
            ..Default::default()
        };
        let name = method("CloseStdin");
        player.tell_agent::<Empty>("exec.CloseStdin", name, &request, within).await?;
    } else {
        // runtime-rs ends the input with an empty write.
        write(player, "exec.EmptyWrite", process, b"").await?;
    }
    read_end(player, "exec.ReadEnd", process, Output::Stdout).await?;
    read_end(player, "exec.ReadEnd", process, Output::Stderr).await?;
    wait(player, "exec.WaitProcess", process, 7).await
}

/// `kubectl exec -it`, a window that changes, and a client that hangs up.
pub(super) async fn terminal(player: &mut Player) -> Result<(), Ended> {
    let (container, within) = (player.order().id.clone(), patience(player.model()));
    let process = (container.as_str(), "conformance-tty");
    let both = |row, column| TtyWinResizeRequest {
        container_id: container.clone(),
        exec_id: process.1.to_owned(),
        row,
        column,
        ..Default::default()
    };
    begin(player, "tty.ExecProcess", process, &SIZE, Some((24, 80))).await?;
    let (name, resize) = (method("TtyWinResize"), both(40, 120));
    player.tell_agent::<Empty>("tty.TtyWinResize", name, &resize, within).await?;
    write(player, "tty.WriteStdin", process, b"\n").await?;
    read_until(player, "tty.ReadStdout", process, Output::Stdout, "40 120").await?;
    let kill = SignalProcessRequest {
        container_id: container.clone(),
        exec_id: process.1.to_owned(),
        signal: 9,
        ..Default::default()
    };
    player.tell_agent::<Empty>("tty.SignalProcess", method("SignalProcess"), &kill, within).await?;
    wait(player, "tty.WaitProcess", process, 137).await
}

async fn begin(
    player: &mut Player,
    step: &'static str,
    (container, exec): (&str, &str),
    args: &[&str],
    terminal: Option<(u32, u32)>,
) -> Result<(), Ended> {
    let request = ExecProcessRequest {
        container_id: container.to_owned(),
        exec_id: exec.to_owned(),
        process: MessageField::some(spec::process(args, terminal)),
        ..Default::default()
    };
    let within = patience(player.model());
    player.tell_agent::<Empty>(step, method("ExecProcess"), &request, within).await.map(drop)
}

async fn write(
    player: &mut Player,
    step: &'static str,
    (container, exec): (&str, &str),
    data: &[u8],
) -> Result<(), Ended> {
    let request = WriteStreamRequest {
        container_id: container.to_owned(),
        exec_id: exec.to_owned(),
        data: data.to_vec(),
        ..Default::default()
    };
    let answer: WriteStreamResponse = player.tell_agent(step, method("WriteStdin"), &request, None).await?;
    let taken = usize::try_from(answer.len).unwrap_or(usize::MAX);
    if taken == data.len() {
        return Ok(());
    }
    Player::wrong(step, RULE, format!("{} bytes to be taken", data.len()), taken.to_string())
}

/// Reads until the text has `wanted` in it; answers all of it.
pub(super) async fn read_until(
    player: &mut Player,
    step: &'static str,
    (container, exec): (&str, &str),
    output: Output,
    wanted: &str,
) -> Result<String, Ended> {
    let request = ReadStreamRequest {
        container_id: container.to_owned(),
        exec_id: exec.to_owned(),
        len: CHUNK,
        ..Default::default()
    };
    let name = output.method();
    let mut text = String::new();
    let began = tokio::time::Instant::now();
    while !text.contains(wanted) {
        let asked = player.ask_agent::<ReadStreamResponse>(step, name, &request, None);
        let Ok(answer) = tokio::time::timeout(PATIENCE, asked).await else {
            return missing(step, wanted, &text, "no more output for a minute");
        };
        match answer? {
            Ok(answer) if answer.data.is_empty() => return missing(step, wanted, &text, "the stream ended"),
            Ok(answer) => text.push_str(&String::from_utf8_lossy(&answer.data)),
            Err(error @ CallError::Status { .. }) => {
                return missing(step, wanted, &text, &format!("the stream ended: {error}"));
            }
            Err(error) => return missing(step, wanted, &text, &error.to_string()),
        }
        if began.elapsed() > PATIENCE {
            return missing(step, wanted, &text, "other output for a minute");
        }
    }
    Ok(text)
}

/// Reads to the end, which is told by nothing (the kata-agent since 3.27) or by an error (before). Both shims ask for the status only then,
/// and a Go shim before 3.27 asks once more after nothing: whoever lets it wait has a command that never ends.
pub(super) async fn read_end(
    player: &mut Player,
    step: &'static str,
    (container, exec): (&str, &str),
    output: Output,
) -> Result<(), Ended> {
    let rule = "facts/kata.md 2.1: output to its end, then the status";
    let mut left = if player.model() == Model::Go { 2 } else { 1 };
    while left > 0 {
        let request = ReadStreamRequest {
            container_id: container.to_owned(),
            exec_id: exec.to_owned(),
            len: CHUNK,
            ..Default::default()
        };
        let asked = player.ask_agent::<ReadStreamResponse>(step, output.method(), &request, None);
        let Ok(answer) = tokio::time::timeout(PATIENCE, asked).await else {
            return Player::wrong(step, rule, "the end of output", "no answer for a minute");
        };
        match answer? {
            Ok(answer) if answer.data.is_empty() => left -= 1,
            Ok(_) => {}
            Err(CallError::Status { .. }) => return Ok(()),
            Err(error) => return Player::wrong(step, rule, "the end of output", error.to_string()),
        }
    }
    Ok(())
}

fn missing<T>(step: &str, wanted: &str, text: &str, why: &str) -> Result<T, Ended> {
    Player::wrong(step, RULE, format!("output with {wanted:?}"), format!("{text:?}, then {why}"))
}

async fn wait(
    player: &mut Player,
    step: &'static str,
    (container, exec): (&str, &str),
    status: i32,
) -> Result<(), Ended> {
    let request = WaitProcessRequest {
        container_id: container.to_owned(),
        exec_id: exec.to_owned(),
        ..Default::default()
    };
    let answer: WaitProcessResponse = player.tell_agent(step, method("WaitProcess"), &request, None).await?;
    if answer.status == status {
        return Ok(());
    }
    Player::wrong(step, RULE, format!("status {status}"), answer.status.to_string())
}
