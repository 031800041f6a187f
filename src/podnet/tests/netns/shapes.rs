//! Pods' networks as CNI plugins make them, each as the commands that make it.

/// What a plugin makes of a pod. In commands, `W` begins those on the worker and `P` those in the pod; `{gwmac}` is the MAC address of
/// the pod's peer on the worker.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    /// The underlay's MTU, and whether it is IPv6.
    pub(crate) underlay: (u32, bool),
    /// The MTU of the pod's interface.
    pub(crate) mtu: u32,
    /// The pod has a second interface, `net1`, whose peer on the worker is `m0`.
    pub(crate) second: bool,
    pub(crate) commands: &'static [&'static str],
    /// Addresses of the pod, each with one beyond its gateway.
    pub(crate) pairs: &'static [(&'static str, &'static str)],
}

const PLAIN: Shape =
    Shape { name: "", underlay: (1500, false), mtu: 1500, second: false, commands: &[], pairs: &[] };

const FLANNEL: [&str; 7] = [
    "W link add cni0 type bridge",
    "W link set h0 master cni0",
    "W link set cni0 up",
    "W addr add 10.244.1.1/24 dev cni0",
    "P addr add 10.244.1.7/24 dev eth0",
    "P route add default via 10.244.1.1",
    "P route add 10.244.0.0/16 via 10.244.1.1",
];

/// Every shape of the matrix.
pub(crate) const ALL: &[Shape] = &[
    Shape {
        name: "Flannel /24 behind a bridge",
        mtu: 1450,
        commands: &FLANNEL,
        pairs: &[("10.244.1.7", "10.244.1.1")],
        ..PLAIN
    },
    Shape {
        name: "ptp plugin, GKE /32",
        mtu: 1460,
        commands: &[
            "W addr add 10.244.2.1/32 dev h0",
            "W route add 10.244.2.5/32 dev h0",
            "P addr add 10.244.2.5/32 dev eth0",
            "P route add 10.244.2.1 dev eth0 scope link src 10.244.2.5",
            "P route add 10.244.2.0/24 via 10.244.2.1 src 10.244.2.5",
            "P route add default via 10.244.2.1",
        ],
        pairs: &[("10.244.2.5", "10.244.2.1")],
        ..PLAIN
    },
    Shape {
        name: "Calico /32 and /128, onlink",
        commands: &[
            "W addr add 10.99.0.1/32 dev lo",
            "W addr add fd00:99::1/128 dev lo",
            "W route add 10.244.7.5/32 dev h0",
            "W route add fd00:7::5/128 dev h0",
            "P addr add 10.244.7.5/32 dev eth0",
            "P addr add fd00:7::5/128 dev eth0 nodad",
            "P neigh add 169.254.1.1 lladdr {gwmac} dev eth0 nud permanent",
            "P neigh add fe80::ecee:eeff:feee:eeee lladdr {gwmac} dev eth0 nud permanent",
            "P route add default via 169.254.1.1 dev eth0 onlink",
            "P -6 route add default via fe80::ecee:eeff:feee:eeee dev eth0",
        ],
        pairs: &[("10.244.7.5", "10.99.0.1"), ("fd00:7::5", "fd00:99::1")],
        ..PLAIN
    },
    Shape {
        name: "AWS VPC CNI /32, jumbo 9001",
        underlay: (9001, false),
        mtu: 9001,
        commands: &[
            "W addr add 192.168.0.1/32 dev lo",
            "W route add 192.168.32.9/32 dev h0",
            "P addr add 192.168.32.9/32 dev eth0",
            "P neigh add 169.254.1.1 lladdr {gwmac} dev eth0 nud permanent",
            "P route add 169.254.1.1 dev eth0 scope link",
            "P route add default via 169.254.1.1 dev eth0",
        ],
        pairs: &[("192.168.32.9", "192.168.0.1")],
        ..PLAIN
    },
    Shape {
        name: "Cilium /32, route with an MTU",
        underlay: (9001, false),
        commands: &[
            "W addr add 10.0.1.170/32 dev h0",
            "W route add 10.0.1.34/32 dev h0 mtu lock 1450",
            "P addr add 10.0.1.34/32 dev eth0",
            "P route add 10.0.1.170 dev eth0 scope link",
            "P route add default via 10.0.1.170 mtu 1450",
            "W addr add 10.98.0.1/32 dev lo",
        ],
        pairs: &[("10.0.1.34", "10.98.0.1")],
        ..PLAIN
    },
    Shape {
        name: "OVN-Kubernetes, two gateways",
        mtu: 1400,
        commands: &[
            "W addr add 10.128.2.1/23 dev h0",
            "W addr add 10.128.2.3/23 dev h0",
            "W addr add 100.64.0.9/32 dev lo",
            "W addr add 172.30.0.1/32 dev lo",
            "P addr add 10.128.2.15/23 dev eth0",
            "P route add default via 10.128.2.1",
            "P route add 10.128.0.0/14 via 10.128.2.1",
            "P route add 172.30.0.0/16 via 10.128.2.1",
            "P route add 169.254.0.5 via 10.128.2.1",
            "P route add 100.64.0.0/16 via 10.128.2.3",
        ],
        pairs: &[("10.128.2.15", "172.30.0.1"), ("10.128.2.15", "100.64.0.9")],
        ..PLAIN
    },
    Shape {
        name: "Azure CNI, transparent",
        commands: &[
            "W addr add 10.224.0.4/32 dev lo",
            "W route add 10.224.0.33/32 dev h0",
            "P addr add 10.224.0.33/16 dev eth0",
            "P route del 10.224.0.0/16 dev eth0",
            "P neigh add 169.254.1.1 lladdr {gwmac} dev eth0 nud permanent",
            "P route add 169.254.1.1/32 dev eth0 scope link",
            "P route add default via 169.254.1.1 dev eth0",
        ],
        pairs: &[("10.224.0.33", "10.224.0.4")],
        ..PLAIN
    },
    Shape {
        name: "IPv6 only, gateway fe80::1",
        commands: &[
            "W addr add fe80::1/64 dev h0 nodad",
            "W addr add fd00:96::1/128 dev lo",
            "W route add fd00:244:1::5/128 dev h0",
            "P addr add fd00:244:1::5/64 dev eth0 nodad",
            "P -6 route add default via fe80::1 dev eth0",
        ],
        pairs: &[("fd00:244:1::5", "fd00:96::1")],
        ..PLAIN
    },
    Shape {
        name: "dual stack, global gateways",
        commands: &[
            "W addr add 10.244.0.1/24 dev h0",
            "W addr add fd00:10:244::1/64 dev h0 nodad",
            "P addr add 10.244.0.5/24 dev eth0",
            "P addr add fd00:10:244::5/64 dev eth0 nodad",
            "P route add default via 10.244.0.1",
            "P -6 route add default via fd00:10:244::1 dev eth0 src fd00:10:244::5",
        ],
        pairs: &[("10.244.0.5", "10.244.0.1"), ("fd00:10:244::5", "fd00:10:244::1")],
        ..PLAIN
    },
    Shape {
        name: "two addresses, two default routes",
        commands: &[
            "W addr add 10.244.5.1/24 dev h0",
            "W addr add 10.244.6.1/24 dev h0",
            "W addr add 10.97.0.1/32 dev lo",
            "P addr add 10.244.5.5/24 dev eth0",
            "P addr add 10.244.6.5/24 dev eth0",
            "P route add default via 10.244.5.1 metric 100",
            "P route add default via 10.244.6.1 metric 200",
        ],
        pairs: &[("10.244.5.5", "10.97.0.1"), ("10.244.6.5", "10.244.6.1")],
        ..PLAIN
    },
    Shape {
        name: "Multus: eth0 and net1",
        second: true,
        mtu: 1450,
        commands: &[
            FLANNEL[0],
            FLANNEL[1],
            FLANNEL[2],
            FLANNEL[3],
            FLANNEL[4],
            FLANNEL[5],
            FLANNEL[6],
            "W addr add 192.168.77.1/24 dev m0",
            "W addr add fd00:77::1/64 dev m0 nodad",
            "W addr add 10.77.0.1/32 dev lo",
            "P addr add 192.168.77.5/24 dev net1",
            "P addr add fd00:77::5/64 dev net1 nodad",
            "P route add 10.77.0.0/16 via 192.168.77.1 dev net1",
        ],
        pairs: &[("10.244.1.7", "10.244.1.1"), ("192.168.77.5", "10.77.0.1"), ("fd00:77::5", "fd00:77::1")],
        ..PLAIN
    },
    Shape {
        name: "dual stack on an IPv6 underlay",
        underlay: (1500, true),
        // On IPv6 the tunnel's own packets are never cut up, so the plugin's MTU has to fit for datagrams larger than it.
        mtu: 1430,
        commands: &[
            "W addr add 10.244.0.1/24 dev h0",
            "W addr add fd00:10:244::1/64 dev h0 nodad",
            "P addr add 10.244.0.5/24 dev eth0",
            "P addr add fd00:10:244::5/64 dev eth0 nodad",
            "P route add default via 10.244.0.1",
            "P -6 route add default via fd00:10:244::1",
        ],
        pairs: &[("10.244.0.5", "10.244.0.1"), ("fd00:10:244::5", "fd00:10:244::1")],
        ..PLAIN
    },
];
