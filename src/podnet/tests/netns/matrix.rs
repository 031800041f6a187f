//! The network matrix: every shape of a pod's network that CNI plugins make, laid through the tunnel, with traffic both ways.
//! `make network-matrix` prints it, one line a shape.

use std::time::Instant;

use peerpods_podnet::{GuestTunnel, Tunnel, TunnelSpec, VxlanTunnel, guest};
use peerpods_podvm::network::{Carried, ObservedPod, PodNetwork, vxlan_overhead};
use peerpods_test_require::require;

use crate::bed::{NEEDS, Ns, PORT, assert_same, dump, inside, ip, on, ping, settled};
use crate::shapes::{ALL, Shape};
use crate::steps::steps;
use crate::traffic::{tcp_echo, udp_echo, whole_ping};

/// One shape, laid: worker, VM, the pod's namespaces at both ends.
pub(crate) struct Laid {
    pub(crate) worker: Ns,
    pub(crate) vm: Ns,
    pub(crate) pod: Ns,
    pub(crate) podns: Ns,
    pub(crate) observed: ObservedPod,
    pub(crate) network: PodNetwork,
    pub(crate) specs: Vec<TunnelSpec>,
}

fn words(netns: &str, line: &str) {
    ip(&[&["-n", netns], line.split(' ').collect::<Vec<_>>().as_slice()].concat());
}

fn pair(worker: &str, outside: &str, other: &str, inside: &str, mtu: u32, mac: &str) {
    let line = format!(
        "link add {outside} address {mac} mtu {mtu} type veth peer name {inside} mtu {mtu} netns {other}"
    );
    words(worker, &line);
    for (netns, link) in [(worker, outside), (other, inside)] {
        words(netns, &format!("link set {link} up"));
    }
    for (netns, link) in [(worker, outside), (other, inside)] {
        settled(netns, link);
    }
}

impl Laid {
    /// Makes the pod's network as its plugin would, without a tunnel.
    pub(crate) fn bare(shape: &Shape) -> Self {
        let [worker, vm, pod] = ["w", "v", "p"].map(Ns::make);
        let podns = Ns(crate::bed::unique("g"));
        for ns in [&worker, &vm, &pod] {
            // Duplicate detection takes a second, which is not what is tried out here.
            on(&ns.0, || std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0").unwrap());
        }
        pair(&worker.0, "und0", &vm.0, "und0", shape.underlay.0, "02:00:00:00:01:01");
        let ends = if shape.underlay.1 {
            ["fd00:200::1/64", "fd00:200::2/64"]
        } else {
            ["10.200.0.1/24", "10.200.0.2/24"]
        };
        for (ns, end) in [(&worker.0, ends[0]), (&vm.0, ends[1])] {
            words(ns, &format!("addr add {end} dev und0{}", if shape.underlay.1 { " nodad" } else { "" }));
        }
        let mac = "ee:ee:ee:ee:ee:ee";
        pair(&worker.0, "h0", &pod.0, "eth0", shape.mtu, mac);
        if shape.second {
            pair(&worker.0, "m0", &pod.0, "net1", shape.mtu, "02:00:00:00:02:02");
        }
        for command in shape.commands {
            let (place, line) = command.split_once(' ').unwrap();
            words(if place == "W" { &worker.0 } else { &pod.0 }, &line.replace("{gwmac}", mac));
        }
        let path = pod.path();
        let observed = inside(&worker.0, || async { VxlanTunnel::new().observe(&path).await.unwrap() });
        let mut all = vec![observed.primary.clone()];
        all.extend(observed.secondary.clone());
        let own = ends[0].parse::<ipnet::IpNet>().unwrap();
        let largest = shape.underlay.0 - vxlan_overhead(own.addr());
        let carried = all.iter().enumerate().map(|(n, interface)| {
            let mut interface = interface.clone();
            interface.mtu = interface.mtu.min(largest);
            Carried { vxlan_id: 555_000 + n as u32, interface }
        });
        let mut carried: Vec<Carried> = carried.collect();
        let specs = all.iter().enumerate().map(|(ordinal, interface)| TunnelSpec {
            vni: 555_000 + ordinal as u32,
            port: PORT,
            local: Some(own.addr()),
            remote: ends[1].parse::<ipnet::IpNet>().unwrap().addr(),
            pod_interface: interface.name.clone(),
            ordinal,
        });
        let specs = specs.collect();
        let network = PodNetwork::new(carried.remove(0), carried, own, PORT);
        // As it comes to the guest.
        let network = serde_json::from_str(&serde_json::to_string(&network).unwrap()).unwrap();
        Self { worker, vm, pod, podns, observed, network, specs }
    }

    pub(crate) fn lay(&self) {
        self.lay_worker();
        let (podns, guest) = (self.podns.path(), GuestTunnel { podns: self.podns.path() });
        inside(&self.vm.0, || async {
            guest::ensure_podns(&podns).await.unwrap();
            guest.setup(&self.network).await.unwrap();
        });
    }

    pub(crate) fn lay_worker(&self) {
        let path = self.pod.path();
        inside(&self.worker.0, || async {
            for spec in &self.specs {
                VxlanTunnel::new().setup(&path, spec).await.unwrap();
            }
        });
    }

    fn remove(&self) {
        let (path, guest) = (self.pod.path(), GuestTunnel { podns: self.podns.path() });
        inside(&self.worker.0, || async {
            for spec in &self.specs {
                VxlanTunnel::new().teardown(&path, spec).await.unwrap();
            }
        });
        inside(&self.vm.0, || async { guest.teardown(&self.network).await.unwrap() });
    }

    /// What the pod may send towards `to`.
    fn mtu_towards(&self, to: &str) -> u32 {
        let route = ip(&["-n", &self.podns.0, "route", "get", to]);
        let own = route.split(" mtu ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        let mut after = route.split(" dev ");
        let device = after.nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
        let carried = self.network.carried();
        let interface = carried.iter().find(|c| c.interface.name == device).unwrap();
        own.unwrap_or(interface.interface.mtu)
    }
}

/// Traffic both ways between the pod and an address on its worker; what failed.
fn try_out(laid: &Laid, pod: &str, node: &str) -> (u32, Vec<String>) {
    let mut failed = Vec::new();
    let mtu = laid.mtu_towards(node);
    for (way, from, to, address) in [
        ("to the pod", &laid.worker.0, &laid.podns.0, pod),
        ("from the pod", &laid.podns.0, &laid.worker.0, node),
    ] {
        let mut check = |what: &str, good: bool| {
            if !good {
                failed.push(format!("{what} {way} ({address})"));
            }
        };
        check("ping", ping(from, address, &[]));
        check("UDP", udp_echo(from, to, address, 100));
        check("DF at the MTU", whole_ping(from, address, mtu, 2));
        check("fragments", udp_echo(from, to, address, mtu as usize + 1500));
        check("no DF above the MTU", !whole_ping(from, address, mtu + 1, 1));
        if ping(from, address, &[]) {
            tcp_echo(from, to, address, 100_000);
        }
    }
    (mtu, failed)
}

#[test]
fn every_shape_of_a_pods_network_is_carried_both_ways() {
    if !require("every_shape_of_a_pods_network_is_carried_both_ways", NEEDS) {
        return;
    }
    println!("{:<36} {:<58} {:>5}  both ways", "shape", "pod addresses", "MTU");
    let mut broken = Vec::new();
    for shape in ALL {
        let began = Instant::now();
        let laid = Laid::bare(shape);
        let before = dump(&laid.pod.0);
        laid.lay();
        let (mut mtus, mut failed) = (Vec::new(), Vec::new());
        for (pod, node) in shape.pairs {
            let (mtu, of_pair) = try_out(&laid, pod, node);
            mtus.push(mtu);
            failed.extend(of_pair);
        }
        let once = [dump(&laid.pod.0), dump(&laid.podns.0)].concat();
        let again = steps(&[&laid.pod.0, &laid.podns.0], || laid.lay());
        assert_eq!(again, Vec::<String>::new(), "{}", shape.name);
        assert_same(&[dump(&laid.pod.0), dump(&laid.podns.0)].concat(), &once, shape.name);
        laid.remove();
        assert_same(&dump(&laid.pod.0), &before, shape.name);
        mtus.dedup();
        let addresses: Vec<&str> = shape.pairs.iter().map(|(pod, _)| *pod).collect();
        let found = if failed.is_empty() {
            "ping TCP UDP fragments DF=MTU DF>MTU-refused: ok".to_owned()
        } else {
            format!("FAILED: {}", failed.join(", "))
        };
        println!(
            "{:<36} {:<58} {:>5}  {found}  {:.1} s",
            shape.name,
            addresses.join(" "),
            mtus.iter().map(u32::to_string).collect::<Vec<_>>().join("/"),
            began.elapsed().as_secs_f32()
        );
        broken.extend(failed.into_iter().map(|what| format!("{}: {what}", shape.name)));
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_guest_has_the_pods_addresses_routes_and_neighbours_of_every_shape() {
    if !require("the_guest_has_the_pods_addresses_routes_and_neighbours_of_every_shape", NEEDS) {
        return;
    }
    for shape in ALL {
        let laid = Laid::bare(shape);
        laid.lay();
        // Read with the same code as the pod's own namespace on the worker, from the VM.
        let podns = laid.podns.path();
        let seen = inside(&laid.vm.0, || async { VxlanTunnel::new().observe(&podns).await });
        let Ok(seen) = seen else { panic!("{}: {seen:?}", shape.name) };
        for (there, here) in std::iter::once((&laid.observed.primary, &seen.primary))
            .chain(laid.observed.secondary.iter().zip(&seen.secondary))
        {
            let of = |i: &peerpods_podvm::network::PodInterface| {
                let mut routes: Vec<String> = i
                    .routes
                    .iter()
                    .map(|r| {
                        format!("{} via {:?} metric {} src {:?} mtu {}", r.dst, r.gw, r.metric, r.src, r.mtu)
                    })
                    .collect();
                routes.sort();
                let neighbours: Vec<_> = i.neighbors.iter().map(|n| (n.ip, n.hw_addr)).collect();
                (i.name.clone(), i.mac, i.addresses().collect::<Vec<_>>(), routes, neighbours)
            };
            assert_eq!(of(here), of(there), "{}", shape.name);
        }
        assert_eq!(seen.secondary.len(), laid.observed.secondary.len(), "{}", shape.name);
        assert!(!ip(&["-n", &laid.podns.0, "-6", "addr"]).contains("tentative"), "{}", shape.name);
    }
}
