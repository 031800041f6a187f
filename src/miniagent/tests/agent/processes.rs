//! Processes: how they begin, are signalled and waited for, and end.

use std::process::Command;
use std::time::Duration;

use peerpods_proto::ttrpc::agent::WriteStreamRequest;
use peerpods_test_require::require;
use ttrpc::Code;

use crate::harness::{Agent, NEEDS, process, refusal, soon};

const KILL: u32 = 9;
const TERM: u32 = 15;
const USR1: u32 = 10;

#[tokio::test]
async fn an_exec_runs_in_the_container_and_is_waited_for_before_and_after() {
    if !require("an_exec_runs_in_the_container_and_is_waited_for_before_and_after", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    agent.run("c", &["sh", "-c", "echo 1 > /tmp/mark; while :; do sleep 1; done"]).await;
    let script = "read line; ls /tmp; cat /proc/1/cmdline; hostname; exit 3";
    agent.exec("c", "e", process(&["sh", "-c", script])).await.unwrap();
    let (taken, _) = refusal(agent.exec("c", "e", process(&["true"])).await);
    assert_eq!(taken, Code::ALREADY_EXISTS);
    let early = agent.wait("c", "e");
    tokio::pin!(early);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut early).await.is_err());
    let line = WriteStreamRequest {
        container_id: "c".into(),
        exec_id: "e".into(),
        data: b"go\n".to_vec(),
        ..Default::default()
    };
    agent.service.write_stdin(soon(), &line).await.unwrap();
    assert_eq!(early.await.unwrap(), 3);
    assert_eq!(agent.wait("c", "e").await.unwrap(), 3);
    let output = agent.stdout("c", "e").await;
    assert!(output.starts_with("mark\nsh\0-c\0echo 1"), "{output}");
    assert!(output.ends_with("pod-host\n"), "{output}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    if !require("a_program_that_is_not_there_is_named", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    for missing in ["nonesuch", "/bin/nonesuch"] {
        let (code, text) = refusal(agent.create("c", &[missing], |_| {}).await);
        assert_eq!(code, Code::NOT_FOUND, "{text}");
        assert!(text.contains("nonesuch"), "{text}");
    }
    agent.run("c", &["sleep", "1000"]).await;
    let (code, text) = refusal(agent.exec("c", "e", process(&["nonesuch"])).await);
    assert_eq!(code, Code::NOT_FOUND, "{text}");
    assert!(text.contains("executable file not found in $PATH"), "{text}");
    let (code, _) = refusal(agent.wait("c", "e").await);
    assert_eq!(code, Code::NOT_FOUND, "it never was");
}

#[tokio::test]
async fn signals_reach_the_process_they_are_meant_for() {
    if !require("signals_reach_the_process_they_are_meant_for", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    let script = "trap 'exit 4' USR1; echo ready; while :; do sleep 0.1; done";
    agent
        .run("c", &["sh", "-c", "trap 'echo asked; exit 6' TERM; echo ready; while :; do sleep 0.1; done"])
        .await;
    agent.exec("c", "e", process(&["sh", "-c", script])).await.unwrap();
    agent.stdout_until("c", "e", "ready").await;
    agent.signal("c", "e", USR1).await.unwrap();
    assert_eq!(agent.wait("c", "e").await.unwrap(), 4);
    agent.signal("c", "e", USR1).await.unwrap();
    agent.stdout_until("c", "c", "ready").await;
    agent.signal("c", "", TERM).await.unwrap();
    assert_eq!(agent.wait("c", "").await.unwrap(), 6);
    let (code, _) = refusal(agent.signal("c", "none", KILL).await);
    assert_eq!(code, Code::NOT_FOUND);
    let (code, _) = refusal(agent.signal("c", "", 999).await);
    assert_eq!(code, Code::INVALID_ARGUMENT);
}

#[tokio::test]
async fn a_container_that_ignores_everything_dies_of_kill_and_of_term() {
    if !require("a_container_that_ignores_everything_dies_of_kill_and_of_term", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    for (id, signal) in [("a", KILL), ("b", TERM)] {
        agent.run(id, &["sleep", "1000"]).await;
        agent.exec(id, "e", process(&["sleep", "1000"])).await.unwrap();
        agent.signal(id, "", signal).await.unwrap();
        assert_eq!(agent.wait(id, "").await.unwrap(), 128 + 9);
        assert_eq!(agent.wait(id, "e").await.unwrap(), 128 + 9, "the first process takes the others with it");
    }
}

#[tokio::test]
async fn a_removed_container_leaves_nothing_and_its_id_is_free() {
    if !require("a_removed_container_leaves_nothing_and_its_id_is_free", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    agent.run("c", &["sleep", "4242"]).await;
    let (code, _) = refusal(agent.create("c", &["true"], |_| {}).await);
    assert_eq!(code, Code::ALREADY_EXISTS);
    agent.remove("c").await.unwrap();
    let (code, _) = refusal(agent.remove("c").await);
    assert_eq!(code, Code::INVALID_ARGUMENT);
    // One that was never started can be removed, too.
    agent.create("c", &["true"], |_| {}).await.unwrap();
    agent.remove("c").await.unwrap();
    agent.run("c", &["true"]).await;
    assert_eq!(agent.wait("c", "").await.unwrap(), 0);
    let ps = Command::new("ps").args(["-eo", "args"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&ps.stdout).contains("sleep 4242"));
}
