//! What goes over the link, and what does not.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use peerpods_agentlink::Link;
use peerpods_proto::ttrpc::agent::{CreateContainerRequest, CreateSandboxRequest, ReadStreamRequest};
use peerpods_proto::ttrpc::agent_ttrpc::AgentServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::support::{Guest, NETNS, Sandbox, connections_to, within};
use super::wire::{answer, bare_agent, connected, frame, health_frame};

#[tokio::test(flavor = "multi_thread")]
async fn bytes_sent_one_by_one_before_the_guest_is_known_all_arrive() {
    let guest = Guest::on().await;
    let agent = guest.agent().await;
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let mut shim = sandbox.raw_shim().await;
    let bytes = health_frame();
    let (early, late) = bytes.split_at(bytes.len() / 2);
    for byte in early {
        shim.write_all(&[*byte]).await.unwrap();
        sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(connections_to(guest.address), 0);
    let connected = sandbox.links.connect(&sandbox.spec, &guest.target()).await.unwrap();
    assert!(connected.port_open_after <= connected.agent_after && connected.attempts >= 1);
    shim.write_all(late).await.unwrap();
    assert_eq!(answer(&mut shim).await.status.code, 0);
    assert_eq!(agent.asked.connections.load(Ordering::SeqCst), 2, "one for the check, one for the shim");
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_two_connections_each_get_their_own_answers() {
    let guest = Guest::on().await;
    let _agent = guest.agent().await;
    let sandbox = connected(&guest).await;
    let ask = |number: u8| {
        let sandbox = &sandbox;
        async move {
            let letter = char::from(b'a' + number % 26).to_string();
            let client = AgentServiceClient::new(sandbox.shim().await);
            let request =
                ReadStreamRequest { container_id: letter.clone(), len: 70_000, ..Default::default() };
            let read = client.read_stdout(within(30), &request).await.unwrap().data;
            assert!(read.len() == 70_000 && read.iter().all(|b| *b == letter.as_bytes()[0]));
        }
    };
    futures::future::join_all((0..32).map(ask)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_on_one_connection_do_not_wait_for_each_other() {
    let guest = Guest::on().await;
    let _agent = guest.agent().await;
    let sandbox = connected(&guest).await;
    let client = AgentServiceClient::new(sandbox.shim().await);
    let request = ReadStreamRequest { container_id: "a".to_owned(), len: 1, ..Default::default() };
    let started = Instant::now();
    let calls = (0..64).map(|_| client.read_stdout(within(30), &request));
    assert!(futures::future::join_all(calls).await.iter().all(Result::is_ok));
    // Each takes the agent 20 ms.
    assert!(started.elapsed() < Duration::from_millis(64 * 20 / 2), "took {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_dials_nobody_until_it_speaks() {
    let guest = Guest::on().await;
    let agent = guest.agent().await;
    let sandbox = connected(&guest).await;
    let before = connections_to(guest.address);
    let mut silent = sandbox.raw_shim().await;
    sleep(Duration::from_millis(400)).await;
    assert_eq!(connections_to(guest.address), before);
    assert_eq!(agent.asked.connections.load(Ordering::SeqCst), 1);
    silent.write_all(&health_frame()).await.unwrap();
    assert_eq!(answer(&mut silent).await.status.code, 0);
    assert_eq!(connections_to(guest.address), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_arrives_with_the_pods_network_and_what_nobody_here_knows() {
    let guest = Guest::on().await;
    let agent = guest.agent().await;
    let sandbox = connected(&guest).await;
    let mut request = CreateContainerRequest { container_id: "c1".to_owned(), ..Default::default() };
    request.OCI.mut_or_insert_default().Annotations.insert("k".to_owned(), "v".to_owned());
    request.special_fields.mut_unknown_fields().add_varint(777, 42);
    let client = AgentServiceClient::new(sandbox.shim().await);
    client.create_container(within(10), &request).await.unwrap();
    let seen = agent.asked.containers.lock().unwrap().remove(0);
    let namespaces = &seen.OCI.Linux.Namespaces;
    assert_eq!((namespaces[0].Type.as_str(), namespaces[0].Path.as_str()), ("network", NETNS));
    assert_eq!((namespaces.len(), seen.container_id.as_str()), (1, "c1"));
    assert_eq!(seen.OCI.Annotations.get("k").map(String::as_str), Some("v"));
    assert!(seen.special_fields.unknown_fields().get(777).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_arrives_without_dns() {
    let guest = Guest::on().await;
    let agent = guest.agent().await;
    let sandbox = connected(&guest).await;
    let request = CreateSandboxRequest {
        hostname: "web".to_owned(),
        dns: vec!["nameserver 10.0.0.1".to_owned()],
        ..Default::default()
    };
    let client = AgentServiceClient::new(sandbox.shim().await);
    client.create_sandbox(within(10), &request).await.unwrap();
    let seen = agent.asked.sandboxes.lock().unwrap().remove(0);
    assert_eq!((seen.hostname.as_str(), seen.dns.len()), ("web", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_nobody_here_has_heard_of_gets_the_agents_own_answer() {
    let guest = Guest::on().await;
    let _agent = guest.agent().await;
    let sandbox = connected(&guest).await;
    let mut shim = sandbox.raw_shim().await;
    shim.write_all(&frame("future.Service", "Do", vec![1, 2, 3])).await.unwrap();
    let status = answer(&mut shim).await.status;
    assert!(status.message.contains("future.Service"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_has_said_all_still_gets_its_answer_and_then_eof() {
    let guest = Guest::on().await;
    let sandbox = Sandbox::new();
    let (mut shim, mut agent) = bare_agent(&guest, &sandbox).await;
    shim.shutdown().await.unwrap();
    assert_eq!(agent.read(&mut [0; 8]).await.unwrap(), 0, "the agent did not see the end");
    sleep(Duration::from_millis(100)).await;
    agent.write_all(b"late answer").await.unwrap();
    drop(agent);
    let mut read = Vec::new();
    shim.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"late answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_ends_the_shims_connection_at_once() {
    let guest = Guest::on().await;
    let agent = guest.agent().await;
    let sandbox = connected(&guest).await;
    let mut shim = sandbox.raw_shim().await;
    shim.write_all(&health_frame()).await.unwrap();
    answer(&mut shim).await;
    agent.die().await;
    let end = timeout(Duration::from_secs(3), shim.read(&mut [0; 8])).await;
    assert_eq!(end.expect("the shim waits for a dead agent").unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_comes_up_late_is_waited_for() {
    let guest = Guest::on().await;
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let target = guest.target();
    let late = async {
        sleep(Duration::from_millis(1500)).await;
        guest.agent().await
    };
    let (_agent, connected) = tokio::join!(late, sandbox.links.connect(&sandbox.spec, &target));
    let connected = connected.unwrap();
    assert!(connected.port_open_after < Duration::from_millis(700), "{connected:?}");
    let waited = connected.agent_after;
    assert!(waited > Duration::from_millis(1400) && waited < Duration::from_millis(2500), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_told_to_stop_closes_what_it_has() {
    let mut guest = Guest::on().await;
    let _agent = guest.agent().await;
    let sandbox = connected(&guest).await;
    let mut shim = sandbox.raw_shim().await;
    shim.write_all(&health_frame()).await.unwrap();
    answer(&mut shim).await;
    guest.shutdown.cancel();
    timeout(Duration::from_secs(5), guest.served.take().unwrap()).await.unwrap().unwrap();
    assert_eq!(shim.read(&mut [0; 8]).await.unwrap_or(0), 0);
}
