//! What a pod cannot reach: its own VM, and the cloud's metadata services; whatever its containers do in their namespace.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use peerpods_podnet::{Tunnel, VxlanTunnel, guest};
use peerpods_podvm::metadata::{MetadataAccess, SERVICES};
use peerpods_test_require::require;

use crate::bed::{Bed, NEEDS, Pod, Underlay, VM_IP, inside, ip, must, on};

const SERVICE: &str = "169.254.169.254";
const NODE_DNS: &str = "169.254.20.10";

/// The worker forwards, as a node does, and answers at these addresses, as if they were behind it.
fn bed() -> (Bed, Pod) {
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    let worker = bed.worker.0.as_str();
    must("ip", &["netns", "exec", worker, "sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    for address in [SERVICE, "168.63.129.16", NODE_DNS] {
        ip(&["-n", worker, "addr", "add", &format!("{address}/32"), "dev", "lo"]);
    }
    ip(&["-n", &bed.vm.0, "route", "replace", "default", "via", "10.200.0.1"]);
    (bed, pod)
}

fn worker_ip() -> IpAddr {
    "10.200.0.1".parse().unwrap()
}

fn listen(netns: &str, address: &str, port: u16) -> TcpListener {
    on(netns, || TcpListener::bind((address.parse::<IpAddr>().unwrap(), port)).unwrap())
}

fn connect(pod: &Pod, address: &str, port: u16) -> Result<(), ErrorKind> {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    let tried = on(&pod.podns.0, || TcpStream::connect_timeout(&address, Duration::from_millis(1500)));
    tried.map(drop).map_err(|e| e.kind())
}

#[test]
fn a_pod_reaches_neither_metadata_services_nor_its_own_vm_whatever_it_changes() {
    if !require("a_pod_reaches_neither_metadata_services_nor_its_own_vm", NEEDS) {
        return;
    }
    let (bed, pod) = bed();
    let worker = bed.worker.0.as_str();
    let _services =
        [listen(worker, SERVICE, 80), listen(worker, "168.63.129.16", 80), listen(worker, "10.244.0.1", 80)];
    let _agent = listen(&bed.vm.0, "0.0.0.0", 15150);
    pod.setup();
    // Nothing in the pod's namespace refuses anything here: this is what is left when a container removed all of that.
    for (address, port) in [(SERVICE, 80), ("168.63.129.16", 80), (VM_IP, 15150)] {
        assert_eq!(connect(&pod, address, port), Err(ErrorKind::TimedOut), "{address}");
    }
    assert_eq!(connect(&pod, "10.244.0.1", 80), Ok(()), "the node is reached as from any pod");

    // The same pod with the switch on, and without any block, so that the above is known to be the block's doing.
    let allowed = VxlanTunnel::with_metadata_access(MetadataAccess::Allowed);
    inside(worker, || async { allowed.setup(&pod.netns.path, &pod.spec).await.unwrap() });
    assert_eq!(connect(&pod, SERVICE, 80), Ok(()));
    assert_eq!(connect(&pod, "168.63.129.16", 80), Ok(()));
    assert_eq!(connect(&pod, VM_IP, 15150), Err(ErrorKind::TimedOut), "never the VM");
    let filters = must("tc", &["-n", &pod.netns.name, "filter", "show", "dev", "vxlan1", "ingress"]);
    assert_eq!(
        filters.matches("pref 1 bpf chain 0 handle").count(),
        1,
        "one in place of the other: {filters}"
    );
    let blocks = ["-n", pod.netns.name.as_str(), "filter", "del", "dev", "vxlan1", "ingress", "pref", "1"];
    must("tc", &blocks);
    assert_eq!(connect(&pod, VM_IP, 15150), Ok(()), "by way of the worker");
    pod.setup_worker().unwrap();
    assert_eq!(connect(&pod, SERVICE, 80), Err(ErrorKind::TimedOut), "a repeated setup puts it back");
}

#[test]
fn dns_is_answered_at_node_local_and_metadata_addresses() {
    if !require("dns_is_answered_at_node_local_and_metadata_addresses", NEEDS) {
        return;
    }
    let (bed, pod) = bed();
    pod.setup();
    inside(&bed.vm.0, || async { guest::refuse(&pod.podns.path(), worker_ip(), &SERVICES).await.unwrap() });
    for address in [NODE_DNS, SERVICE, "168.63.129.16"] {
        let server = on(&bed.worker.0, || UdpSocket::bind((address, 53)).unwrap());
        let over_tcp = listen(&bed.worker.0, address, 53);
        let asked = std::thread::spawn(move || {
            let (mut buffer, wait) = ([0; 64], Some(Duration::from_secs(5)));
            server.set_read_timeout(wait).unwrap();
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(&buffer[..length], from).unwrap();
            let (mut stream, _) = over_tcp.accept().unwrap();
            stream.write_all(b"name").unwrap();
        });
        let client = on(&pod.podns.0, || UdpSocket::bind("0.0.0.0:0").unwrap());
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client.send_to(b"who", (address, 53)).unwrap();
        let mut answer = [0; 8];
        assert_eq!(client.recv_from(&mut answer).unwrap().0, 3, "{address}");
        let mut stream = on(&pod.podns.0, || TcpStream::connect((address, 53)).unwrap());
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "name", "{address}");
        asked.join().unwrap();
    }
}

#[test]
fn a_program_in_the_pod_is_told_at_once_what_it_cannot_reach() {
    if !require("a_program_in_the_pod_is_told_at_once", NEEDS) {
        return;
    }
    let (bed, pod) = bed();
    pod.setup();
    for _ in 0..2 {
        inside(&bed.vm.0, || async {
            guest::refuse(&pod.podns.path(), worker_ip(), &SERVICES).await.unwrap()
        });
    }
    for (address, port) in [(SERVICE, 80), ("168.63.129.16", 32526), ("fd00:ec2::254", 80), (VM_IP, 15150)] {
        assert_eq!(connect(&pod, address, port), Err(ErrorKind::PermissionDenied), "{address}");
    }
    assert!(pod.vm_answers());
}

#[test]
fn a_bridge_of_the_vm_that_is_not_on_the_pods_network_is_not_refused() {
    if !require("a_bridge_of_the_vm_that_is_not_on_the_pods_network_is_not_refused", NEEDS) {
        return;
    }
    let (bed, pod) = bed();
    ip(&["-n", &bed.vm.0, "link", "add", "docker0", "type", "bridge"]);
    ip(&["-n", &bed.vm.0, "addr", "add", "172.17.0.1/16", "dev", "docker0"]);
    ip(&["-n", &bed.vm.0, "link", "set", "docker0", "up"]);
    ip(&["-n", &bed.worker.0, "addr", "add", "172.17.0.1/32", "dev", "lo"]);
    let _somebody = listen(&bed.worker.0, "172.17.0.1", 80);
    pod.setup();
    inside(&bed.vm.0, || async { guest::refuse(&pod.podns.path(), worker_ip(), &SERVICES).await.unwrap() });
    assert_eq!(connect(&pod, "172.17.0.1", 80), Ok(()), "another's, of the same address");
    assert_eq!(connect(&pod, VM_IP, 15150), Err(ErrorKind::PermissionDenied));
}

#[test]
fn over_ipv6_a_pod_reaches_the_metadata_service_no_more_than_over_ipv4() {
    if !require("over_ipv6_a_pod_reaches_the_metadata_service_no_more_than_over_ipv4", NEEDS) {
        return;
    }
    const SERVICE6: &str = "fd00:ec2::254";
    let (bed, pod) = bed();
    let (worker, ns) = (bed.worker.0.as_str(), pod.netns.name.as_str());
    Underlay::V6.give(worker, &pod.netns.node_interface, "fd00:244::1");
    Underlay::V6.give(ns, "eth0", "fd00:244::5");
    ip(&["-n", ns, "-6", "route", "add", "default", "via", "fd00:244::1"]);
    ip(&["-n", worker, "addr", "add", &format!("{SERVICE6}/128"), "dev", "lo", "nodad"]);
    let (_service, _dns) = (listen(worker, SERVICE6, 80), listen(worker, SERVICE6, 53));
    let _node = listen(worker, "fd00:244::1", 80);
    pod.setup();
    assert_eq!(connect(&pod, "fd00:244::1", 80), Ok(()), "the node is reached");
    assert_eq!(connect(&pod, SERVICE6, 80), Err(ErrorKind::TimedOut));
    assert_eq!(connect(&pod, SERVICE6, 53), Ok(()), "and its resolver");
    let allowed = VxlanTunnel::with_metadata_access(MetadataAccess::Allowed);
    inside(worker, || async { allowed.setup(&pod.netns.path, &pod.spec).await.unwrap() });
    assert_eq!(connect(&pod, SERVICE6, 80), Ok(()));
}

#[test]
fn what_an_older_program_left_at_the_device_is_taken_over() {
    if !require("what_an_older_program_left_at_the_device_is_taken_over", NEEDS) {
        return;
    }
    let (bed, pod) = bed();
    let _service = listen(&bed.worker.0, SERVICE, 80);
    pod.setup();
    let filters = || must("tc", &["-n", &pod.netns.name, "filter", "show", "dev", "vxlan1", "ingress"]);
    let whole = filters();
    assert!(whole.contains("bpf") && whole.contains("mirred"), "{whole}");
    for pref in ["1", "2"] {
        must("tc", &["-n", &pod.netns.name, "filter", "del", "dev", "vxlan1", "ingress", "pref", pref]);
    }
    let older = [
        "-n",
        &pod.netns.name,
        "filter",
        "add",
        "dev",
        "vxlan1",
        "ingress",
        "pref",
        "1",
        "protocol",
        "all",
        "u32",
    ];
    let redirect = ["match", "u32", "0", "0", "action", "mirred", "egress", "redirect", "dev", "eth0"];
    must("tc", &[&older[..], &redirect].concat());
    assert_eq!(connect(&pod, SERVICE, 80), Ok(()), "as the older program left it");
    pod.setup_worker().unwrap();
    assert_eq!(connect(&pod, SERVICE, 80), Err(ErrorKind::TimedOut));
    let kinds = |text: &str| text.split_whitespace().filter(|w| ["bpf", "u32", "mirred"].contains(w)).count();
    assert_eq!(kinds(&filters()), kinds(&whole), "{}", filters());
    assert!(pod.vm_answers());
}
