//! A sandbox's whole life through the shim's API, with the real tunnel, link processes, guest daemon and agent; the VM is a network
//! namespace. Needs root and the guest programs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use peerpods_proto::grpc;
use peerpods_provider::fake::{Calls, Fault, Operation};
use peerpods_test_require::{Need, require};
use peerpods_tests::node::{Node, Pod, eventually, in_private_network, output, processes_naming, run};
use peerpods_tests::shim::{admin_get, annotations, check_agent, grpc_channel};
use ttrpc::Code;

const NEEDS: &[Need] = &[
    Need::Root,
    Need::NetworkNamespaces,
    Need::Program("ip"),
    Need::Program("ping"),
    Need::Variable("PEERPODS_TEST_GUEST_PROGRAMS"),
];

fn id(n: u32) -> String {
    format!("{n:08x}").repeat(8)
}

fn code<T: std::fmt::Debug>(answer: ttrpc::Result<T>) -> (Code, String) {
    match answer {
        Err(ttrpc::Error::RpcStatus(status)) => (status.code(), status.message),
        other => panic!("expected an error status, got {other:?}"),
    }
}

#[test]
fn a_pod_is_created_started_reached_and_leaves_nothing() {
    if !require("a_pod_is_created_started_reached_and_leaves_nothing", NEEDS) {
        return;
    }
    in_private_network(|| async {
        let mut node = Node::with_guests(|_| {}).await;
        let (pod, shim) = (Pod::new(1).await, node.shim());
        let socket = shim.create(&id(1), &pod.path).await.unwrap();
        assert!(socket.exists(), "the agent socket exists at once");
        assert_eq!(node.cloud.born(), 0, "CreateVM costs nothing");
        shim.start(&id(1)).await.unwrap();
        assert_eq!(check_agent(&socket).await.unwrap(), 1);
        let ping = output("ping", &["-c", "2", "-W", "2", &pod.address.to_string()]);
        assert!(ping.contains("2 received"), "{ping}");
        let told = admin_get(&node.socket(), &id(1)).await.unwrap();
        assert_eq!(
            (told.state.as_str(), told.provider.as_str(), told.addresses.len()),
            ("running", "fake", 1)
        );
        assert!(told.phases.iter().any(|p| p.name == "agent answered"), "{:?}", told.phases);
        shim.stop(&id(1)).await.unwrap();
        node.assert_nothing_left().await;
        let gone = admin_get(&node.socket(), &id(1)).await.unwrap_err();
        assert_eq!(gone.code(), tonic::Code::NotFound);
        node.shut_down().await;
    });
}

/// Connects from inside the pod's namespace in the VM.
fn connect(podns: &str, address: &str) -> std::io::Result<()> {
    let (path, address) = (std::path::PathBuf::from(podns), address.parse().unwrap());
    let tried = std::thread::spawn(move || {
        let file = std::fs::File::open(path).unwrap();
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(1500)).map(drop)
    });
    tried.join().unwrap()
}

#[test]
fn a_pod_is_kept_from_its_vm_and_from_metadata_services_and_others_from_the_pod() {
    const TEST: &str = "a_pod_is_kept_from_its_vm_and_from_metadata_services_and_others_from_the_pod";
    if !require(TEST, NEEDS) || !require(TEST, &[Need::Program("nft"), Need::Program("sysctl")]) {
        return;
    }
    in_private_network(|| async {
        let mut node = Node::with_guests(|_| {}).await;
        run("ip", &["address", "add", "169.254.169.254/32", "dev", "lo"]);
        run("sysctl", &["-qw", "net.ipv4.ip_forward=1"]);
        let _service = std::net::TcpListener::bind("169.254.169.254:80").unwrap();
        let _shop = std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
        let (pod, shim) = (Pod::new(1).await, node.shim());
        let socket = shim.create(&id(1), &pod.path).await.unwrap();
        shim.start(&id(1)).await.unwrap();
        assert_eq!(check_agent(&socket).await.unwrap(), 1);
        let table = output("nft", &["list", "table", "inet", "peerpods"]);
        assert!(table.contains(&pod.path.display().to_string()), "{table}");
        let vm = admin_get(&node.socket(), &id(1)).await.unwrap().addresses.remove(0);
        let guests = processes_naming(&node.dir.path().display().to_string());
        // The guest has mounts of its own, and its own processes see its namespace there.
        let is_guest = |line: &&String| {
            line.split(": ")
                .nth(1)
                .is_some_and(|c| c.starts_with('/') && c.contains("peerpods-guest --user-data"))
        };
        let guest = guests.iter().find(is_guest).unwrap_or_else(|| panic!("{guests:#?}"));
        let pid = guest.split([' ', ':']).nth(1).unwrap();
        let podns = guest.split("--podns ").nth(1).unwrap().split(' ').next().unwrap();
        let podns = &format!("/proc/{pid}/root{podns}");

        assert!(connect(podns, "10.152.1.1:8080").is_ok(), "the node is reached as from any pod");
        for address in ["169.254.169.254:80".to_owned(), format!("{vm}:15150")] {
            let refused = connect(podns, &address).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied, "{address}: told at once");
        }
        // A container with the right to it takes the guest's rules away, and the worker's are left.
        run("nsenter", &[&format!("--net={podns}"), "ip", "rule", "flush"]);
        run("nsenter", &[&format!("--net={podns}"), "ip", "rule", "add", "table", "main"]);
        assert!(connect(podns, "10.152.1.1:8080").is_ok());
        for address in ["169.254.169.254:80".to_owned(), format!("{vm}:15150")] {
            let lost = connect(podns, &address).unwrap_err();
            assert_eq!(lost.kind(), std::io::ErrorKind::TimedOut, "{address}: reached by way of the worker");
        }
        shim.stop(&id(1)).await.unwrap();
        node.assert_nothing_left().await;
        assert_eq!(output("nft", &["list", "tables"]), "", "the table goes with the last tunnel");
        node.shut_down().await;
    });
}

#[test]
fn a_firewall_that_somebody_flushed_guards_every_running_pod_again() {
    const TEST: &str = "a_firewall_that_somebody_flushed_guards_every_running_pod_again";
    if !require(TEST, NEEDS) || !require(TEST, &[Need::Program("nft")]) {
        return;
    }
    in_private_network(|| async {
        let mut node = Node::with_guests(|config| config.keep_interval = Duration::from_millis(200)).await;
        let (one, two, shim) = (Pod::new(1).await, Pod::new(2).await, node.shim());
        for (n, pod) in [(1, &one), (2, &two)] {
            shim.create(&id(n), &pod.path).await.unwrap();
            shim.start(&id(n)).await.unwrap();
        }
        run("nft", &["flush", "ruleset"]);
        let guarded = || output("nft", &["list", "ruleset"]).matches(", pod ").count();
        eventually("both pods are guarded again", || async { guarded() == 2 }).await;
        shim.stop(&id(1)).await.unwrap();
        eventually("the one that goes is not kept", || async { guarded() == 1 }).await;
        shim.stop(&id(2)).await.unwrap();
        node.assert_nothing_left().await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(output("nft", &["list", "tables"]), "");
        node.shut_down().await;
    });
}

#[test]
fn what_a_lost_record_left_is_collected_when_the_service_starts() {
    const TEST: &str = "what_a_lost_record_left_is_collected_when_the_service_starts";
    if !require(TEST, NEEDS) || !require(TEST, &[Need::Program("nft")]) {
        return;
    }
    in_private_network(|| async {
        use peerpods_podnet::{Tunnel as _, TunnelSpec, VxlanTunnel};
        let lost = Pod::new(9).await;
        let remote = "10.151.0.9".parse().unwrap();
        let pod_interface = "eth0".to_owned();
        let spec = TunnelSpec { vni: 600_000, port: 9000, local: None, remote, pod_interface, ordinal: 0 };
        VxlanTunnel::new().setup(&lost.path, &spec).await.unwrap();
        lost.remove().await;
        assert!(output("nft", &["list", "tables"]).contains("peerpods"));
        let mut node = Node::with_bare_vms(|_| {}).await;
        assert_eq!(output("nft", &["list", "tables"]), "");
        node.shut_down().await;
    });
}

/// Runs `ip` with the words of a line.
fn ip(line: &str) -> String {
    output("ip", &line.split(' ').collect::<Vec<_>>())
}

#[test]
fn a_dual_stack_pod_with_a_second_interface_is_reached_on_every_address_and_leaves_nothing() {
    if !require("a_dual_stack_pod_with_a_second_interface_is_reached_on_every_address", NEEDS) {
        return;
    }
    in_private_network(|| async {
        let mut node = Node::with_guests(|_| {}).await;
        let (pod, shim) = (Pod::new(13).await, node.shim());
        let ns = pod.path.file_name().unwrap().to_string_lossy().into_owned();
        let route = ip(&format!("-o route get {}", pod.address));
        let outside = route.split(" dev ").nth(1).unwrap().split(' ').next().unwrap();
        for line in [
            format!("addr add fd00:13::1/64 dev {outside} nodad"),
            format!("-n {ns} addr add fd00:13::2/64 dev eth0 nodad"),
            format!("-n {ns} -6 route add default via fd00:13::1"),
            format!("link add ppm13 type veth peer name net1 netns {ns}"),
            "addr add 192.168.13.1/24 dev ppm13".to_owned(),
            "link set ppm13 up".to_owned(),
            format!("-n {ns} addr add 192.168.13.2/24 dev net1"),
            format!("-n {ns} link set net1 up"),
        ] {
            drop(ip(&line));
        }
        shim.create(&id(13), &pod.path).await.unwrap();
        shim.start(&id(13)).await.unwrap();
        for address in [pod.address.to_string().as_str(), "fd00:13::2", "192.168.13.2"] {
            let ping = output("ping", &["-n", "-c", "2", "-i", "0.2", "-W", "2", address]);
            assert!(ping.contains("2 received"), "{address}: {ping}");
        }
        let told = admin_get(&node.socket(), &id(13)).await.unwrap();
        let laid = told.phases.iter().find(|p| p.name == "tunnel laid").unwrap();
        assert!(laid.detail.contains(", "), "two identifiers: {}", laid.detail);
        // A second pod gets another identifier, also after a restart of the service.
        node.shut_down().await;
        node.boot().await;
        let (second, shim) = (Pod::new(14).await, node.shim());
        shim.create(&id(14), &second.path).await.unwrap();
        shim.start(&id(14)).await.unwrap();
        let other = admin_get(&node.socket(), &id(14)).await.unwrap();
        let other = other.phases.iter().find(|p| p.name == "tunnel laid").unwrap().detail.clone();
        assert!(!laid.detail.contains(other.trim_start_matches("VNI ")), "{} and {other}", laid.detail);
        for n in [13, 14] {
            shim.stop(&id(n)).await.unwrap();
        }
        node.assert_nothing_left().await;
        let links = ip(&format!("-n {ns} -o link"));
        assert!(links.contains("net1") && !links.contains("vxlan") && !links.contains("pp-pmtu"), "{links}");
        node.shut_down().await;
    });
}

#[test]
fn twenty_sandboxes_at_once_in_any_order_leave_nothing() {
    if !require("twenty_sandboxes_at_once_in_any_order_leave_nothing", NEEDS) {
        return;
    }
    in_private_network(|| async {
        let mut node = Node::with_guests(|config| config.start_deadline = Duration::from_secs(120)).await;
        let mut lives = Vec::new();
        let mut pods = Vec::new();
        for n in 0..20_u8 {
            let (shim, pod) = (node.shim(), Pod::new(n).await);
            let (path, id) = (pod.path.clone(), id(u32::from(n)));
            pods.push(pod);
            lives.push(tokio::spawn(async move {
                let socket = shim.create(&id, &path).await.unwrap();
                match n % 4 {
                    // Never started.
                    0 => {}
                    // Stopped in the middle of its start.
                    1 => {
                        let (starter, starting) = (shim.clone(), id.clone());
                        let start = tokio::spawn(async move { starter.start(&starting).await });
                        tokio::time::sleep(Duration::from_millis(u64::from(n) * 40)).await;
                        shim.stop(&id).await.unwrap();
                        // Either it was quicker than the stop, or it was called off; never silence.
                        drop(start.await.unwrap());
                    }
                    _ => {
                        shim.start(&id).await.unwrap();
                        assert_eq!(check_agent(&socket).await.unwrap(), 1);
                    }
                }
                shim.stop(&id).await.unwrap();
                shim.stop(&id).await.unwrap();
            }));
        }
        for life in lives {
            life.await.unwrap();
        }
        node.assert_nothing_left().await;
        node.shut_down().await;
        for pod in &pods {
            let links = output("nsenter", &[&format!("--net={}", pod.path.display()), "ip", "-o", "link"]);
            assert!(links.contains("eth0") && !links.contains("vxlan"), "{links}");
        }
    });
}

#[test]
fn grpc_and_ttrpc_clients_use_the_socket_at_the_same_time() {
    if !require("grpc_and_ttrpc_clients_use_the_socket_at_the_same_time", NEEDS) {
        return;
    }
    in_private_network(|| async {
        let mut node = Node::with_guests(|_| {}).await;
        let (pod, shim) = (Pod::new(3).await, node.shim());
        let channel = grpc_channel(&node.socket()).await.unwrap();
        let mut client = grpc::hypervisor::hypervisor_client::HypervisorClient::new(channel);
        let created = client
            .create_vm(grpc::hypervisor::CreateVmRequest {
                id: id(7),
                annotations: annotations("web"),
                network_namespace_path: pod.path.display().to_string(),
            })
            .await
            .unwrap()
            .into_inner();
        let start = client.start_vm(grpc::hypervisor::StartVmRequest { id: id(7) });
        // Both wait for the same start, over different protocols.
        let sandbox = id(7);
        let (over_grpc, over_ttrpc) = tokio::join!(start, shim.start(&sandbox));
        over_grpc.unwrap();
        over_ttrpc.unwrap();
        assert_eq!(node.cloud.born(), 1, "two StartVM, one VM");
        assert_eq!(
            shim.create(&id(7), &pod.path).await.unwrap().display().to_string(),
            created.agent_socket_path
        );
        let version =
            client.version(grpc::hypervisor::VersionRequest { version: String::new() }).await.unwrap();
        assert_eq!(version.into_inner().version, shim.version().await.unwrap());
        client.stop_vm(grpc::hypervisor::StopVmRequest { id: id(7) }).await.unwrap();
        node.assert_nothing_left().await;
        node.shut_down().await;
    });
}

#[test]
fn a_service_that_ends_unwinds_a_start_in_flight_and_its_successor_goes_on_with_a_running_pod() {
    if !require(
        "a_service_that_ends_unwinds_a_start_in_flight_and_its_successor_goes_on_with_a_running_pod",
        NEEDS,
    ) {
        return;
    }
    in_private_network(|| async {
        let mut node = Node::with_guests(|config| config.drain_timeout = Duration::from_secs(1)).await;
        let (pod, shim) = (Pod::new(4).await, node.shim());
        let socket = shim.create(&id(4), &pod.path).await.unwrap();
        shim.start(&id(4)).await.unwrap();
        let held = tokio::net::UnixStream::connect(&socket).await.unwrap();
        let second = Pod::new(12).await;
        node.cloud.script(Operation::Create, Calls::Nth(2), Fault::StayPending(Duration::from_secs(60)));
        shim.create(&id(12), &second.path).await.unwrap();
        let (starter, starting) = (shim.clone(), id(12));
        let start = tokio::spawn(async move { starter.start(&starting).await });
        eventually("the second VM is made", || async { node.cloud.born() == 2 }).await;
        node.shut_down().await;
        start.await.unwrap().unwrap_err();
        assert_eq!(node.cloud.machines().len(), 1, "the VM of the start in flight is gone");
        assert_eq!(check_agent(&socket).await.unwrap(), 1, "the link does not need the service");
        node.boot().await;
        assert_eq!(admin_get(&node.socket(), &id(4)).await.unwrap().state, "running");
        assert!(
            admin_get(&node.socket(), &id(12)).await.is_err(),
            "nothing of the start in flight is on record"
        );
        assert_eq!(check_agent(&socket).await.unwrap(), 1);
        let mut byte = [0];
        let silence = tokio::time::timeout(Duration::from_millis(300), held.readable()).await;
        assert!(silence.is_err() || held.try_read(&mut byte).is_err(), "the shim's connection saw EOF");
        node.shim().stop(&id(4)).await.unwrap();
        node.assert_nothing_left().await;
        node.shut_down().await;
    });
}

#[test]
fn bad_input_gets_one_clear_error_and_leaves_nothing() {
    if !require("bad_input_gets_one_clear_error_and_leaves_nothing", NEEDS) {
        return;
    }
    in_private_network(|| async {
        let mut node = Node::with_bare_vms(|config| config.start_deadline = Duration::from_secs(3)).await;
        let (pod, shim) = (Pod::new(5).await, node.shim());

        let (status, text) = code(shim.start(&id(1)).await);
        assert_eq!(status, Code::NOT_FOUND);
        assert!(text.contains(&id(1)), "{text}");
        shim.stop(&id(1)).await.unwrap();

        for bad in ["a/b".to_owned(), "x".repeat(300), String::new(), "..".to_owned()] {
            let (status, text) = code(shim.create(&bad, &pod.path).await);
            assert_eq!(status, Code::INVALID_ARGUMENT, "{text}");
            assert!(text.contains("sandbox id"), "{text}");
            assert_eq!(code(shim.start(&bad).await).0, Code::INVALID_ARGUMENT);
        }

        let (status, text) = code(shim.create(&id(2), "/run/netns/no-such-namespace".as_ref()).await);
        assert_eq!(status, Code::FAILED_PRECONDITION);
        assert!(text.contains("/run/netns/no-such-namespace"), "{text}");
        let (status, text) = code(shim.create(&id(2), "".as_ref()).await);
        assert_eq!(status, Code::INVALID_ARGUMENT);
        assert!(text.contains("hostNetwork"), "{text}");

        let (status, text) = code(shim.create(&id(2), "/proc/thread-self/ns/net".as_ref()).await);
        assert_eq!(status, Code::FAILED_PRECONDITION);
        assert!(text.contains("hostNetwork"), "the node's own namespace: {text}");

        let bare = Pod::new(6).await;
        let name = bare.path.file_name().unwrap().to_string_lossy().into_owned();
        drop(output("ip", &["-n", &name, "addr", "flush", "dev", "eth0"]));
        let (status, text) = code(shim.create(&id(2), &bare.path).await);
        assert_eq!(status, Code::FAILED_PRECONDITION);
        assert!(text.contains("no address"), "{text}");

        let mut wrong = annotations("web");
        wrong.insert("io.katacontainers.config.hypervisor.default_vcpus".into(), "many".into());
        wrong.insert("io.katacontainers.config.hypervisor.default_memory".into(), "-5".into());
        let (status, text) = code(shim.create_with(&id(2), &pod.path, wrong).await);
        assert_eq!(status, Code::INVALID_ARGUMENT);
        assert!(text.contains("default_vcpus") && text.contains("default_memory"), "both at once: {text}");
        assert_eq!(node.leftovers(), Vec::<String>::new());

        shim.create(&id(3), &pod.path).await.unwrap();
        shim.create(&id(3), &pod.path).await.unwrap();
        let (status, text) = code(shim.create_with(&id(3), &pod.path, annotations("other")).await);
        assert_eq!(status, Code::ALREADY_EXISTS, "{text}");

        // Nothing listens behind a bare VM: the port never opens.
        let (status, text) = code(shim.start(&id(3)).await);
        assert_eq!(status, Code::DEADLINE_EXCEEDED, "{text}");
        assert!(text.contains("15150") || text.contains("agent"), "{text}");
        node.assert_nothing_left().await;
        shim.stop(&id(3)).await.unwrap();
        node.shut_down().await;
    });
}

#[test]
fn a_sandbox_nobody_starts_and_a_pod_whose_network_is_gone_are_unwound() {
    if !require("a_sandbox_nobody_starts_and_a_pod_whose_network_is_gone_are_unwound", NEEDS) {
        return;
    }
    in_private_network(|| async {
        let mut node = Node::with_guests(|config| config.unstarted_ttl = Duration::from_secs(2)).await;
        let (idle, gone, shim) = (Pod::new(8).await, Pod::new(9).await, node.shim());
        shim.create(&id(8), &idle.path).await.unwrap();
        shim.create(&id(9), &gone.path).await.unwrap();
        shim.start(&id(9)).await.unwrap();
        gone.remove().await;
        node.assert_nothing_left().await;
        assert_eq!(code(shim.start(&id(8)).await).0, Code::NOT_FOUND);
        node.shut_down().await;
    });
}

#[test]
fn a_vm_that_dies_while_starting_is_told_at_once() {
    if !require("a_vm_that_dies_while_starting_is_told_at_once", NEEDS) {
        return;
    }
    in_private_network(|| async {
        let mut node = Node::with_bare_vms(|config| config.start_deadline = Duration::from_secs(25)).await;
        node.cloud.script(Operation::Create, Calls::All, Fault::DieAfter(Duration::from_millis(200)));
        let (pod, shim) = (Pod::new(10).await, node.shim());
        shim.create(&id(10), &pod.path).await.unwrap();
        let began = Instant::now();
        let (status, text) = code(shim.start(&id(10)).await);
        assert_eq!(status, Code::UNAVAILABLE, "{text}");
        assert!(text.contains("stopped by itself"), "{text}");
        assert!(
            began.elapsed() < Duration::from_secs(15),
            "the deadline was waited for: {:?}",
            began.elapsed()
        );
        node.assert_nothing_left().await;
        node.shut_down().await;
    });
}

#[test]
fn a_caller_that_goes_away_calls_its_start_off() {
    if !require("a_caller_that_goes_away_calls_its_start_off", NEEDS) {
        return;
    }
    in_private_network(|| async {
        let mut node = Node::with_bare_vms(|_| {}).await;
        let (pod, shim) = (Pod::new(11).await, node.shim());
        shim.create(&id(11), &pod.path).await.unwrap();
        let (starter, starting) = (shim.clone(), id(11));
        let start = tokio::spawn(async move { starter.start(&starting).await });
        eventually("a VM is made", || async { node.cloud.born() == 1 }).await;
        start.abort();
        node.assert_nothing_left().await;
        node.shut_down().await;
    });
}
