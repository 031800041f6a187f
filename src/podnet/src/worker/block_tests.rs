use proptest::prelude::*;

use super::*;

const VM4: &str = "10.158.0.7";
const VM6: &str = "fd00:158::7";

fn blocked(vm: &str) -> Blocked {
    Blocked::new(vm.parse().unwrap(), MetadataAccess::Blocked)
}

/// Runs the program as the kernel would on what is behind an Ethernet header. `None`: it loaded from beyond the packet's end.
fn run(program: &[u8], protocol: u32, packet: &[u8]) -> Option<u32> {
    let lines: Vec<(u16, u8, u8, u32)> = program
        .chunks_exact(8)
        .map(|l| (u16::from_ne_bytes([l[0], l[1]]), l[2], l[3], u32::from_ne_bytes([l[4], l[5], l[6], l[7]])))
        .collect();
    let (mut at, mut value) = (0, 0_u32);
    loop {
        let (code, yes, no, operand) = lines[at];
        let load = |size: usize| {
            if operand == PROTOCOL {
                return Some(protocol);
            }
            let from = (operand - NETWORK) as usize;
            Some(packet.get(from..from + size)?.iter().fold(0, |all, byte| all << 8 | u32::from(*byte)))
        };
        at += 1;
        let mut jump = |is: bool| at += usize::from(if is { yes } else { no });
        match code {
            LOAD_WORD => value = load(4)?,
            LOAD_HALF => value = load(2)?,
            LOAD_BYTE => value = load(1)?,
            LOAD_LENGTH => value = ETHERNET_HEADER + u32::try_from(packet.len()).unwrap(),
            JUMP_EQUAL => jump(value == operand),
            JUMP_AT_LEAST => jump(value >= operand),
            JUMP_ANY_BIT => jump(value & operand != 0),
            RETURN => return Some(operand),
            _ => panic!("{code:#x}"),
        }
    }
}

fn to(address: &str, transport: u32, port: u16) -> (u32, Vec<u8>) {
    let ports = [&[0x80, 0][..], &port.to_be_bytes(), &[0; 16]].concat();
    let transport = u8::try_from(transport).unwrap();
    match address.parse().unwrap() {
        IpAddr::V4(v4) => {
            let head = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, transport, 0, 0, 10, 244, 0, 5];
            (IPV4, [&head[..], &v4.octets(), &ports].concat())
        }
        IpAddr::V6(v6) => {
            let head = [0x60, 0, 0, 0, 0, 20, transport, 64];
            (IPV6, [&head[..], &[0xfd; 16], &v6.octets(), &ports].concat())
        }
    }
}

fn verdict(blocked: &Blocked, packet: &(u32, Vec<u8>)) -> &'static str {
    match run(&blocked.program(), packet.0, &packet.1) {
        Some(PASS) => "pass",
        Some(DROP) => "drop",
        other => panic!("{other:?}"),
    }
}

#[test]
fn metadata_services_are_dropped_but_for_dns_and_the_vm_altogether() {
    for (address, http, dns) in [
        ("169.254.169.254", "drop", "pass"),
        ("168.63.129.16", "drop", "pass"),
        ("fd00:ec2::254", "drop", "pass"),
        (VM4, "drop", "drop"),
        ("169.254.169.253", "pass", "pass"),
        ("169.254.20.10", "pass", "pass"),
        ("10.158.0.8", "pass", "pass"),
        ("fd00:ec2::253", "pass", "pass"),
        ("fd00:ec2::23", "pass", "pass"),
        (VM6, "pass", "pass"),
    ] {
        for transport in [UDP, TCP] {
            assert_eq!(verdict(&blocked(VM4), &to(address, transport, 80)), http, "{address}");
            assert_eq!(verdict(&blocked(VM4), &to(address, transport, 53)), dns, "{address} DNS");
        }
    }
    assert_eq!(verdict(&blocked(VM4), &to("169.254.169.254", 1, 53)), "drop", "ICMP has no ports");
}

#[test]
fn a_vm_with_an_ipv6_address_is_kept_from_its_pod_too() {
    assert_eq!(verdict(&blocked(VM6), &to(VM6, TCP, 15150)), "drop");
    assert_eq!(verdict(&blocked(VM6), &to(VM4, TCP, 15150)), "pass");
    assert_eq!(verdict(&blocked("::ffff:10.158.0.7"), &to(VM4, TCP, 15150)), "drop");
}

#[test]
fn allowed_services_pass_and_the_vm_does_not() {
    let allowed = Blocked::new(VM4.parse().unwrap(), MetadataAccess::Allowed);
    for address in ["169.254.169.254", "168.63.129.16", "fd00:ec2::254"] {
        assert_eq!(verdict(&allowed, &to(address, TCP, 80)), "pass", "{address}");
    }
    assert_eq!(verdict(&allowed, &to(VM4, TCP, 15150)), "drop");
}

#[test]
fn fragments_options_extension_headers_and_tags_hide_nothing() {
    let blocked = blocked(VM4);
    let mut later_fragment = to("169.254.169.254", UDP, 53);
    later_fragment.1[7] = 1;
    assert_eq!(verdict(&blocked, &later_fragment), "drop", "its bytes there are no port");
    let mut first_fragment = to("169.254.169.254", TCP, 80);
    first_fragment.1[6] = 0x20;
    assert_eq!(verdict(&blocked, &first_fragment), "drop");
    let mut options = to("169.254.169.254", UDP, 53);
    options.1[0] = 0x46;
    assert_eq!(verdict(&blocked, &options), "drop", "the port is elsewhere");
    let mut extension = to("fd00:ec2::254", UDP, 53);
    extension.1[6] = 44;
    assert_eq!(verdict(&blocked, &extension), "drop");
    for tag in VLAN_TAGS {
        assert_eq!(verdict(&blocked, &(tag, vec![0; 60])), "drop", "a second tag");
    }
    assert_eq!(verdict(&blocked, &(0x0806, vec![0; 28])), "pass", "ARP");
}

#[test]
fn a_packet_too_short_for_its_ports_is_dropped_and_not_handed_to_the_namespace() {
    for address in ["169.254.169.254", "fd00:ec2::254"] {
        let (protocol, packet) = to(address, UDP, 53);
        let header = packet.len() - 20;
        for length in header..header + 4 {
            assert_eq!(
                verdict(&blocked(VM4), &(protocol, packet[..length].to_vec())),
                "drop",
                "{address} {length}"
            );
        }
    }
}

#[test]
fn every_jump_has_its_place() {
    for vm in [VM4, VM6] {
        let program = blocked(vm).program();
        let lines: Vec<&[u8]> = program.chunks_exact(8).collect();
        assert_eq!(program.len() % 8, 0);
        for (at, line) in lines.iter().enumerate() {
            let code = u16::from_ne_bytes([line[0], line[1]]);
            if [JUMP_EQUAL, JUMP_AT_LEAST, JUMP_ANY_BIT].contains(&code) {
                assert_ne!(line[2], line[3], "line {at} decides nothing");
                assert!(at + 1 + usize::from(line[2].max(line[3])) < lines.len());
            }
        }
        assert_eq!(u16::from_ne_bytes([lines.last().unwrap()[0], 0]), RETURN);
    }
}

proptest! {
    #[test]
    fn nothing_for_a_blocked_address_passes_but_dns(
        rest in proptest::collection::vec(any::<u8>(), 40..80),
        which in 0_usize..2,
    ) {
        let mut packet = rest;
        let (protocol, at, address) = [
            (IPV4, 16, vec![169, 254, 169, 254]),
            (IPV6, 24, "fd00:ec2::254".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec()),
        ][which].clone();
        packet[at..at + address.len()].copy_from_slice(&address);
        let header = if which == 0 { 20 } else { 40 };
        let is_dns = packet.get(header + 2..header + 4) == Some(&[0, 53]);
        let found = run(&blocked(VM4).program(), protocol, &packet);
        prop_assert!(found == Some(DROP) || (is_dns && found == Some(PASS)), "{found:?}");
    }
}
