//! What the kernel answers over netlink: devices, addresses, routes, neighbours, traffic control, ids of namespaces.
//!
//! Every datagram is decoded to an end, the same each time, and to no more messages than it has room for. What is made of it is plain: texts come from the datagram,
//! memory follows its length. Whatever namespace it describes, the worker has a plan or a reason; the plan removes no filter but of
//! our own priority and no device but our own, and a tunnel is joined at both ends. A pod that is found there reaches the guest as it was described
//! (through `apf.json`), and the guest has a plan or a reason.

use std::net::Ipv4Addr;

use peerpods_podnet::TunnelSpec;
use peerpods_podnet::fuzzing::Seen;
use peerpods_podvm::guest_config::ApfConfig;
use peerpods_podvm::network::{Carried, PodInterface, PodNetwork};

use super::Target;

/// The target.
pub const TARGET: Target =
    Target { name: "netlink", check, max_len: 6144, memory: 1 << 17, memory_per_byte: 512 };

fn check(data: &[u8]) {
    let seen = Seen::of(data);
    assert!(seen.messages <= data.len() / 16, "{} messages in {} bytes", seen.messages, data.len());
    assert!(seen.texts().iter().all(|text| text.len() < 16 * data.len() + 4096));
    let pod = seen.pod();
    let interface = pod.as_ref().map_or_else(|_| "eth0".to_owned(), |pod| pod.name.clone());
    let spec = TunnelSpec {
        vni: 555_000,
        port: 9000,
        local: Some(Ipv4Addr::new(10, 158, 0, 1).into()),
        remote: Ipv4Addr::new(10, 158, 0, 2).into(),
        pod_interface: interface,
        ordinal: 0,
    };
    worker(&seen, &spec);
    match pod {
        Ok(pod) => guest(&seen, &pod, &spec),
        Err(reason) => assert!(reason.len() < 2 * data.len() + 1024),
    }
}

fn worker(seen: &Seen, spec: &TunnelSpec) {
    let (setup, teardown) = seen.worker(spec);
    for step in setup.iter().chain(&teardown) {
        assert!(!step.contains("RemoveFilter") || step.contains("priority: 1,"), "{step}: not ours to remove");
    }
    let redirects = setup.iter().filter(|step| step.contains("AddRedirect")).count();
    assert!(redirects <= 2, "{setup:#?}");
    if setup.iter().any(|step| step.contains("CreateDevice")) {
        assert_eq!(redirects, 2, "a new device that is joined at one end only: {setup:#?}");
    }
    assert!(teardown.iter().all(|step| !step.contains("Create") && !step.contains("Add")), "{teardown:#?}");
}

fn guest(seen: &Seen, pod: &PodInterface, spec: &TunnelSpec) {
    let primary = Carried { vxlan_id: spec.vni, interface: pod.clone() };
    let network = PodNetwork::new(primary, Vec::new(), "10.158.0.1/24".parse().unwrap(), spec.port);
    let told = network.carried();
    let config = ApfConfig { pod_network: Some(network), ..ApfConfig::default() };
    let read = ApfConfig::from_json(&config.to_json()).unwrap().pod_network.unwrap();
    assert_eq!(read.carried(), told, "the guest is told of another interface");
    for there in [seen, &Seen::of(&[])] {
        if let Ok(steps) = there.guest(&read, 1500) {
            let wanted = 2 * pod.addresses().count() + pod.routes.len() + pod.neighbors.len();
            assert!(steps.len() <= 8 + 2 * there.messages + wanted, "{steps:#?}");
        }
    }
}
