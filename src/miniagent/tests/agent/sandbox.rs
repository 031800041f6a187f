//! The sandbox, the guest, and the agent's own life.

use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use peerpods_proto::ttrpc::agent::{
    CopyFileRequest, CreateSandboxRequest, DestroySandboxRequest, GetMetricsRequest, GetOOMEventRequest,
    GuestDetailsRequest, ListInterfacesRequest, RemoveStaleVirtiofsShareMountsRequest, SetPolicyRequest,
    Storage, WriteStreamRequest,
};
use peerpods_proto::ttrpc::health::{CheckRequest, health_check_response::ServingStatus};
use peerpods_test_require::require;
use ttrpc::Code;

use crate::harness::{Agent, Cgroups, NEEDS, PATIENCE, mount, process, refusal, soon};

#[tokio::test]
async fn health_is_answered_before_there_is_a_sandbox() {
    if !require("health_is_answered_before_there_is_a_sandbox", NEEDS) {
        return;
    }
    let agent = Agent::start_bare(Cgroups::None).await;
    let check = agent.health.check(soon(), &CheckRequest::new()).await.unwrap();
    assert_eq!(check.status.enum_value(), Ok(ServingStatus::SERVING));
    let version = agent.health.version(soon(), &CheckRequest::new()).await.unwrap();
    assert_eq!(version.agent_version, env!("CARGO_PKG_VERSION"));
    let mode = std::fs::metadata(agent.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// The Go shim takes an error for a container that cannot be stopped.
#[tokio::test]
async fn there_are_no_stale_mounts_of_a_shared_file_system() {
    if !require("there_are_no_stale_mounts_of_a_shared_file_system", NEEDS) {
        return;
    }
    let agent = Agent::start_bare(Cgroups::None).await;
    let request = RemoveStaleVirtiofsShareMountsRequest::new();
    agent.service.remove_stale_virtiofs_share_mounts(soon(), &request).await.unwrap();
}

#[tokio::test]
async fn a_call_we_do_not_know_is_unimplemented_by_name() {
    if !require("a_call_we_do_not_know_is_unimplemented_by_name", NEEDS) {
        return;
    }
    let agent = Agent::start_bare(Cgroups::None).await;
    let (code, text) = refusal(agent.service.list_interfaces(soon(), &ListInterfacesRequest::new()).await);
    assert_eq!(code, Code::UNIMPLEMENTED);
    assert!(text.contains("ListInterfaces"), "{text}");
    let (code, _) = refusal(agent.service.set_policy(soon(), &SetPolicyRequest::new()).await);
    assert_eq!(code, Code::UNIMPLEMENTED);
}

#[tokio::test]
async fn destroying_the_sandbox_ends_containers_long_polls_and_the_agent() {
    if !require("destroying_the_sandbox_ends_containers_long_polls_and_the_agent", NEEDS) {
        return;
    }
    let mut agent = Agent::start().await;
    agent.run("c", &["sleep", "1000"]).await;
    let service = agent.service.clone();
    let oom = tokio::spawn(async move {
        service.get_oom_event(ttrpc::context::Context::default(), &GetOOMEventRequest::new()).await
    });
    agent.service.destroy_sandbox(soon(), &DestroySandboxRequest::new()).await.unwrap();
    assert_eq!(agent.exit_code().await, Some(0));
    assert!(oom.await.unwrap().is_err());
    assert!(!agent.socket().exists());
}

#[tokio::test]
async fn told_to_terminate_the_agent_ends_its_containers_and_itself() {
    if !require("told_to_terminate_the_agent_ends_its_containers_and_itself", NEEDS) {
        return;
    }
    let mut agent = Agent::start().await;
    agent.run("c", &["sleep", "4343"]).await;
    agent.signal_agent(Signal::SIGTERM);
    assert_eq!(agent.exit_code().await, Some(0));
    assert!(!is_running("sleep 4343"));
}

#[tokio::test]
async fn a_killed_agent_leaves_no_process() {
    if !require("a_killed_agent_leaves_no_process", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    agent.run("c", &["sleep", "4444"]).await;
    agent.exec("c", "e", process(&["sleep", "4545"])).await.unwrap();
    assert!(is_running("sleep 4444") && is_running("sleep 4545"));
    // Its namespaces stay, so that it is not their end that ends the processes.
    agent.linger();
    agent.signal_agent(Signal::SIGKILL);
    let begun = std::time::Instant::now();
    while is_running("sleep 4444") || is_running("sleep 4545") {
        assert!(begun.elapsed() < PATIENCE, "still running");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_refused() {
    if !require("a_stale_socket_is_replaced_and_a_live_one_refused", NEEDS) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("agent.sock")).unwrap());
    let first = Agent::start_in(dir, Cgroups::None).await;
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_miniagent"))
        .env("KATA_AGENT_SERVER_ADDR", format!("unix://{}", first.socket().display()))
        .output()
        .unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("is served by another process"), "{said}");
    first.health.check(soon(), &CheckRequest::new()).await.unwrap();
}

#[tokio::test]
async fn a_container_outlives_the_connection_that_made_it() {
    if !require("a_container_outlives_the_connection_that_made_it", NEEDS) {
        return;
    }
    let mut agent = Agent::start().await;
    agent.run("c", &["sh", "-c", "read line; echo $line; exit 9"]).await;
    agent.reconnect().await;
    let request =
        WriteStreamRequest { container_id: "c".into(), data: b"again\n".into(), ..Default::default() };
    agent.service.write_stdin(soon(), &request).await.unwrap();
    assert_eq!(agent.stdout("c", "").await, "again\n");
    assert_eq!(agent.wait("c", "").await.unwrap(), 9);
}

fn is_running(command: &str) -> bool {
    let ps = std::process::Command::new("ps").args(["-eo", "args"]).output().unwrap();
    String::from_utf8_lossy(&ps.stdout).lines().any(|line| line == command)
}

#[tokio::test]
async fn a_new_sandbox_begins_with_an_empty_directory_and_its_shared_memory() {
    if !require("a_new_sandbox_begins_with_an_empty_directory_and_its_shared_memory", NEEDS) {
        return;
    }
    let agent = Agent::start_bare(Cgroups::None).await;
    let file = copy("old", b"x");
    agent.service.copy_file(soon(), &file).await.unwrap();
    let shm = Storage {
        driver: "ephemeral".into(),
        source: "shm".into(),
        fstype: "tmpfs".into(),
        mount_point: "/run/kata-containers/sandbox/shm".into(),
        options: ["noexec", "nosuid", "nodev", "mode=1777", "size=65536k"].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    let request = CreateSandboxRequest { sandbox_id: "sb".into(), storages: vec![shm], ..Default::default() };
    agent.service.create_sandbox(soon(), &request).await.unwrap();
    agent
        .run_with("c", &["sh", "-c", "ls /shared; mount | cat"], |request| {
            let mounts = &mut request.OCI.mut_or_insert_default().Mounts;
            mounts.push(mount("/shared", "bind", "/run/kata-containers", &["bind"]));
            mounts.push(mount("/dev/shm", "bind", "/run/kata-containers/sandbox/shm", &["rbind"]));
        })
        .await;
    let output = agent.stdout("c", "").await;
    assert!(output.starts_with("sandbox\n"), "the old file's directory is still there: {output}");
    assert!(output.contains("shm on /dev/shm type tmpfs (rw,nosuid,nodev,noexec"), "{output}");
}

#[tokio::test]
async fn the_guest_tells_what_it_can_and_how_it_is() {
    if !require("the_guest_tells_what_it_can_and_how_it_is", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    let details = agent.service.get_guest_details(soon(), &GuestDetailsRequest::new()).await.unwrap();
    assert_eq!(
        details.agent_details.storage_handlers,
        ["ephemeral", "image_guest_pull", "local", "overlayfs"]
    );
    assert!(!details.agent_details.supports_seccomp);
    let metrics = agent.service.get_metrics(soon(), &GetMetricsRequest::new()).await.unwrap().metrics;
    assert!(metrics.contains("kata_agent_threads 1"), "{metrics}");
    assert!(metrics.contains("kata_guest_meminfo{item=\"MemTotal\"}"), "{metrics}");
}

fn copy(name: &str, data: &[u8]) -> CopyFileRequest {
    CopyFileRequest {
        path: format!("/run/kata-containers/shared/containers/{name}"),
        file_size: i64::try_from(data.len()).unwrap(),
        file_mode: 0o100_644,
        dir_mode: 0o750,
        data: data.to_vec(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_copied_file_is_seen_by_a_container_and_one_outside_is_refused() {
    if !require("a_copied_file_is_seen_by_a_container_and_one_outside_is_refused", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    agent.service.copy_file(soon(), &copy("c-resolv.conf", b"nameserver 192.0.2.1\n")).await.unwrap();
    for bad in ["/run/kata-containers/shared/containers/../../outside", "/etc/outside", "relative", ""] {
        let request = CopyFileRequest { path: bad.into(), ..copy("", b"x") };
        let (code, text) = refusal(agent.service.copy_file(soon(), &request).await);
        assert_eq!(code, Code::INVALID_ARGUMENT, "{text}");
    }
    agent
        .run_with("c", &["cat", "/etc/resolv.conf"], |request| {
            let source = "/run/kata-containers/shared/containers/c-resolv.conf";
            let bind = mount("/etc/resolv.conf", "bind", source, &["bind", "ro"]);
            request.OCI.mut_or_insert_default().Mounts.push(bind);
        })
        .await;
    assert_eq!(agent.stdout("c", "").await, "nameserver 192.0.2.1\n");
}
