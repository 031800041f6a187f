//! Standard streams and terminals.

use peerpods_proto::ttrpc::agent::{CloseStdinRequest, TtyWinResizeRequest, WriteStreamRequest};
use peerpods_proto::ttrpc::oci;
use peerpods_test_require::require;
use ttrpc::Code;

use crate::harness::{Agent, NEEDS, process, read, refusal, soon};

fn write(id: &str, exec: &str, data: &[u8]) -> WriteStreamRequest {
    WriteStreamRequest {
        container_id: id.into(),
        exec_id: exec.into(),
        data: data.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_command_gives_its_output_its_errors_and_its_exit_code() {
    if !require("a_command_gives_its_output_its_errors_and_its_exit_code", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    agent.run("c", &["sh", "-c", "echo $GREETING; echo oops >&2; exit 7"]).await;
    assert_eq!(agent.stdout("c", "c").await, "hello\n");
    assert_eq!(agent.stderr("c", "c").await, "oops\n");
    assert_eq!(agent.wait("c", "").await.unwrap(), 7);
    assert_eq!(agent.wait("c", "c").await.unwrap(), 7, "also the second time");
}

/// A shim before 3.27 reads on until an error comes, a later one until nothing does: without the one or the other, no command ends.
#[tokio::test]
async fn the_end_of_output_is_told_once_by_nothing_and_then_by_errors() {
    if !require("the_end_of_output_is_told_once_by_nothing_and_then_by_errors", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    agent.run("c", &["sleep", "1000"]).await;
    agent.exec("c", "e", process(&["sh", "-c", "echo out; echo err >&2"])).await.unwrap();
    assert_eq!(agent.stdout("c", "e").await, "out\n", "up to a read of nothing");
    assert_eq!(agent.stderr("c", "e").await, "err\n");
    assert_eq!(agent.stderr("c", "e").await, "", "each stream has its own end");
    for _ in 0..2 {
        let (code, text) = refusal(agent.service.read_stdout(soon(), &read("c", "e")).await);
        assert_eq!(code, Code::INTERNAL);
        assert!(text.contains("eof"), "{text}");
    }
    let terminal = oci::Process { Terminal: true, ..process(&["echo", "hi"]) };
    agent.exec("c", "t", terminal).await.unwrap();
    assert_eq!(agent.stdout("c", "t").await, "hi\r\n");
    let (code, _) = refusal(agent.service.read_stdout(soon(), &read("c", "t")).await);
    assert_eq!(code, Code::INTERNAL);
}

#[tokio::test]
async fn what_is_written_to_cat_comes_back_until_its_input_ends() {
    if !require("what_is_written_to_cat_comes_back_until_its_input_ends", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    agent.run("c", &["cat"]).await;
    // More than a pipe holds, so that writing and reading must go on at the same time.
    let much = vec![b'x'; 300_000];
    let request = write("c", "c", &much);
    let (written, read) = tokio::join!(agent.service.write_stdin(soon(), &request), async {
        let mut read = String::new();
        while read.len() < much.len() {
            read.push_str(&agent.stdout_until("c", "c", "x").await);
        }
        read
    });
    assert_eq!(written.unwrap().len, 300_000);
    assert_eq!(read.len(), much.len());
    let close = CloseStdinRequest { container_id: "c".into(), exec_id: "c".into(), ..Default::default() };
    agent.service.close_stdin(soon(), &close).await.unwrap();
    assert_eq!(agent.wait("c", "c").await.unwrap(), 0);
    let (code, _) = refusal(agent.service.write_stdin(soon(), &write("c", "c", b"more")).await);
    assert_eq!(code, Code::INVALID_ARGUMENT);
}

#[tokio::test]
async fn an_empty_write_ends_the_input_as_runtime_rs_does_it() {
    if !require("an_empty_write_ends_the_input_as_runtime_rs_does_it", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    agent.run("c", &["cat"]).await;
    agent.service.write_stdin(soon(), &write("c", "c", b"")).await.unwrap();
    assert_eq!(agent.wait("c", "c").await.unwrap(), 0);
}

#[tokio::test]
async fn a_read_waits_for_output() {
    if !require("a_read_waits_for_output", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    agent.run("c", &["sh", "-c", "read line; echo got $line; sleep 1000"]).await;
    let output = agent.stdout_until("c", "c", "\n");
    tokio::pin!(output);
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), &mut output).await;
    assert!(early.is_err(), "there was nothing to read yet");
    agent.service.write_stdin(soon(), &write("c", "c", b"it\n")).await.unwrap();
    assert_eq!(output.await, "got it\n");
}

#[tokio::test]
async fn output_ends_with_the_process_though_a_child_keeps_the_pipe() {
    if !require("output_ends_with_the_process_though_a_child_keeps_the_pipe", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    agent.run("c", &["sleep", "1000"]).await;
    agent.exec("c", "e", process(&["sh", "-c", "sleep 1000 & echo done"])).await.unwrap();
    assert_eq!(agent.stdout("c", "e").await, "done\n");
    assert_eq!(agent.wait("c", "e").await.unwrap(), 0);
}

#[tokio::test]
async fn a_terminal_has_the_size_it_is_given_and_the_next_one() {
    if !require("a_terminal_has_the_size_it_is_given_and_the_next_one", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    let script = "stty size; trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.1; done";
    agent
        .run_with("c", &["sh", "-c", script], |request| {
            let process = request.OCI.mut_or_insert_default().Process.mut_or_insert_default();
            process.Terminal = true;
            process.ConsoleSize = Some(oci::Box { Height: 24, Width: 80, ..Default::default() }).into();
        })
        .await;
    assert_eq!(agent.stdout_until("c", "c", "ready\r\n").await, "24 80\r\nready\r\n");
    let (container_id, exec_id) = ("c".into(), "c".into());
    let resize = TtyWinResizeRequest { container_id, exec_id, row: 50, column: 132, ..Default::default() };
    agent.service.tty_win_resize(soon(), &resize).await.unwrap();
    assert_eq!(agent.stdout("c", "c").await, "50 132\r\n");
    assert_eq!(agent.wait("c", "c").await.unwrap(), 5);
}

#[tokio::test]
async fn typing_on_a_terminal_reaches_the_program_and_interrupts_it() {
    if !require("typing_on_a_terminal_reaches_the_program_and_interrupts_it", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    agent.run("c", &["sleep", "1000"]).await;
    let terminal = |args: &[&str]| oci::Process { Terminal: true, ..process(args) };
    agent.exec("c", "cat", terminal(&["cat"])).await.unwrap();
    agent.service.write_stdin(soon(), &write("c", "cat", b"hi\n")).await.unwrap();
    // Once as the terminal's echo, once from cat.
    agent.stdout_until("c", "cat", "hi\r\nhi\r\n").await;
    agent.service.write_stdin(soon(), &write("c", "cat", &[3])).await.unwrap();
    assert_eq!(agent.wait("c", "cat").await.unwrap(), 128 + 2);
    agent.exec("c", "cat2", terminal(&["cat"])).await.unwrap();
    agent.service.write_stdin(soon(), &write("c", "cat2", b"")).await.unwrap();
    assert_eq!(agent.wait("c", "cat2").await.unwrap(), 0);
}

#[tokio::test]
async fn a_process_without_terminal_has_no_size() {
    if !require("a_process_without_terminal_has_no_size", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    agent.run("c", &["sleep", "1000"]).await;
    let (container_id, exec_id) = ("c".into(), "c".into());
    let resize = TtyWinResizeRequest { container_id, exec_id, row: 1, column: 1, ..Default::default() };
    let (code, text) = refusal(agent.service.tty_win_resize(soon(), &resize).await);
    assert_eq!(code, Code::INVALID_ARGUMENT, "{text}");
}
