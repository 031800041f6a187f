//! From what was observed to findings, each with what to do. Pure.

use peerpods_provider_qemu::Accel;

use super::{Directory, Facts, Finding, Level, SocketState, guard, placement};
use crate::sandbox::netns::overlap;

/// The oldest QEMU this was tried with.
const OLDEST_QEMU: u32 = 7;

/// Everything that was looked at, in the order in which to mend it.
#[must_use]
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut all = vec![root(facts), netlink(facts), guard::tunnels(facts), guard::pods(facts)];
    match &facts.cloud {
        Some(found) => all.extend(found.iter().cloned()),
        None => all.extend([tun(facts), qemu(facts), acceleration(facts), image(facts), subnet(facts)]),
    }
    all.extend([placement::program(facts), placement::finding(facts), socket(facts), health(facts)]);
    all.extend(orphans(facts));
    all.extend(facts.directories.iter().map(directory));
    all
}

/// Said only where a service can be asked.
fn orphans(facts: &Facts) -> Option<Finding> {
    let orphans = facts.orphans.as_ref()?;
    Some(match orphans.len() {
        0 => ok("orphans", "every VM of this node has its sandbox"),
        count => bad(
            "orphans",
            Level::Warning,
            format!("{count} VMs of this node have no sandbox: {}", orphans.join(", ")),
            "`peerpods gc list` says when they are deleted, `peerpods gc delete --orphans` deletes them now",
        ),
    })
}

pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { check, level: Level::Ok, found: found.into(), fix: None }
}

pub(super) fn bad(
    check: &'static str,
    level: Level,
    found: impl Into<String>,
    fix: impl Into<String>,
) -> Finding {
    Finding { check, level, found: found.into(), fix: Some(fix.into()) }
}

fn root(facts: &Facts) -> Finding {
    match facts.euid {
        0 => ok("root", "runs as root"),
        uid => bad(
            "root",
            Level::Error,
            format!("runs as user {uid}"),
            "run it as root: namespaces and netlink need it",
        ),
    }
}

fn netlink(facts: &Facts) -> Finding {
    match &facts.netlink {
        Ok(()) => ok("netlink", "a network namespace and a VXLAN device in it were made and removed"),
        Err(reason) => bad(
            "netlink",
            Level::Error,
            reason,
            "load the module (modprobe vxlan), and run with CAP_SYS_ADMIN and CAP_NET_ADMIN",
        ),
    }
}

fn tun(facts: &Facts) -> Finding {
    match &facts.tun {
        Ok(()) => ok("tun", "/dev/net/tun can be opened"),
        Err(reason) => bad(
            "tun",
            Level::Error,
            format!("/dev/net/tun: {reason}"),
            "modprobe tun, or give the container the device",
        ),
    }
}

fn qemu(facts: &Facts) -> Finding {
    let (path, version) = match &facts.qemu {
        Ok(found) => found,
        Err(reason) => {
            return bad("qemu", Level::Error, reason, "apt-get install qemu-system-x86, or set qemu.program");
        }
    };
    let found = format!("{}: {version}", path.display());
    match major(version) {
        Some(number) if number >= OLDEST_QEMU => ok("qemu", found),
        Some(_) => bad(
            "qemu",
            Level::Warning,
            found,
            format!("older than any tried; install QEMU {OLDEST_QEMU} or later"),
        ),
        None => bad("qemu", Level::Warning, found, "its version cannot be read; is this QEMU?"),
    }
}

/// The first number after `version` in QEMU's own line, such as `QEMU emulator version 10.0.2 (Debian …)`.
fn major(line: &str) -> Option<u32> {
    let number = line.split_once("version ")?.1;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn acceleration(facts: &Facts) -> Finding {
    const CHECK: &str = "acceleration";
    const SLOW: &str =
        "works, some ten times slower than KVM; for KVM use bare metal or nested virtualisation";
    match (facts.accel, &facts.kvm, facts.virtualisation) {
        (Accel::Tcg, _, _) => ok(CHECK, "TCG, as configured"),
        (Accel::Kvm, Err(reason), _) => bad(
            CHECK,
            Level::Error,
            format!("qemu.accel is kvm and /dev/kvm cannot be opened: {reason}"),
            "modprobe kvm_intel or kvm_amd, or set qemu.accel to auto",
        ),
        (Accel::Kvm, Ok(()), None) => bad(
            CHECK,
            Level::Warning,
            "KVM, as configured, though the processor shows neither vmx nor svm",
            "if VMs do not boot, set qemu.accel to auto",
        ),
        (Accel::Kvm, Ok(()), Some(flag)) => ok(CHECK, format!("KVM ({flag}), as configured")),
        (Accel::Auto, Err(reason), _) => {
            bad(CHECK, Level::Warning, format!("TCG, because /dev/kvm cannot be opened: {reason}"), SLOW)
        }
        (Accel::Auto, Ok(()), None) => bad(
            CHECK,
            Level::Warning,
            "TCG, because the processor shows neither vmx nor svm, so /dev/kvm is of no use",
            SLOW,
        ),
        (Accel::Auto, Ok(()), Some(flag)) => {
            ok(CHECK, format!("KVM ({flag}), if the probe at first use shows that a guest runs; else TCG"))
        }
    }
}

fn image(facts: &Facts) -> Finding {
    let place = facts.image_dir.display();
    match &facts.image {
        Ok(what) => ok("image", format!("{place}: {what}")),
        Err(reason) => bad(
            "image",
            Level::Error,
            reason,
            "peerpods image build --target qemu, or set qemu.image to a directory that holds one",
        ),
    }
}

fn socket(facts: &Facts) -> Finding {
    let place = facts.socket.display();
    match &facts.socket_state {
        SocketState::Free => ok("socket", format!("{place} is free")),
        SocketState::Live(version) => ok("socket", format!("{place} is served, version {version}")),
        SocketState::Stale => bad(
            "socket",
            Level::Warning,
            format!("{place} is left over; nobody listens"),
            "nothing to do: the service replaces it when it starts",
        ),
        SocketState::Blocked(reason) => bad(
            "socket",
            Level::Error,
            format!("{place}: {reason}"),
            "end the program that holds it, remove the file, or set socket to another path",
        ),
    }
}

fn health(facts: &Facts) -> Finding {
    const CHECK: &str = "health";
    match (&facts.health, &facts.socket_state) {
        (None, _) => ok(CHECK, "off, as configured"),
        (Some((address, Ok(()))), _) => ok(CHECK, format!("{address} is free")),
        (Some((address, Err(_))), SocketState::Live(_)) => {
            ok(CHECK, format!("{address} is in use while the service runs"))
        }
        (Some((address, Err(reason))), _) => bad(
            CHECK,
            Level::Error,
            format!("{address}: {reason}"),
            "set health-address to one that is free, or to off",
        ),
    }
}

fn subnet(facts: &Facts) -> Finding {
    let (subnet, bridge) = &facts.subnet;
    let routes = match &facts.routes {
        Ok(routes) => routes,
        Err(reason) => {
            return bad("subnet", Level::Warning, reason, "check by hand that nothing else uses qemu.subnet");
        }
    };
    match routes.iter().find(|(interface, other)| interface != bridge && overlap(subnet, other)) {
        None => ok("subnet", format!("{subnet} on {bridge} clashes with no route")),
        Some((interface, other)) => bad(
            "subnet",
            Level::Error,
            format!("{subnet} overlaps {other} on {interface}"),
            "set qemu.subnet to one that is free",
        ),
    }
}

fn directory(directory: &Directory) -> Finding {
    let place = format!("{} ({})", directory.path.display(), directory.purpose);
    match &directory.free {
        Err(reason) => bad(
            "directory",
            Level::Error,
            format!("{place}: {reason}"),
            "make it writable for root, or configure another",
        ),
        Ok(free) if *free < directory.wanted => bad(
            "directory",
            Level::Warning,
            format!("{place}: {} MiB free", free >> 20),
            format!("free at least {} MiB", directory.wanted >> 20),
        ),
        Ok(free) => ok("directory", format!("{place}: {} MiB free", free >> 20)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::doctor) fn healthy() -> Facts {
        Facts {
            cloud: None,
            euid: 0,
            netlink: Ok(()),
            guard: Ok(guard::Guard::Whole),
            block: Ok(()),
            tun: Ok(()),
            kvm: Ok(()),
            virtualisation: Some("vmx"),
            accel: Accel::Auto,
            qemu: Ok(("/usr/bin/qemu".into(), "QEMU emulator version 10.0.2 (Debian 1:10.0.2)".to_owned())),
            image: Ok("kernel 6.1".to_owned()),
            image_dir: "/images".into(),
            socket: "/run/h.sock".into(),
            socket_state: SocketState::Free,
            health: Some((crate::health::DEFAULT_ADDRESS, Ok(()))),
            directories: vec![Directory {
                purpose: "state",
                path: "/s".into(),
                free: Ok(1 << 30),
                wanted: 1 << 20,
            }],
            link_program: Ok("/usr/bin/peerpods-link".into()),
            link_placement: placement::healthy(),
            subnet: ("10.158.0.0/24".parse().unwrap(), "ppbr0".to_owned()),
            orphans: None,
            routes: Ok(vec![("ppbr0".to_owned(), "10.158.0.0/24".parse().unwrap())]),
        }
    }

    fn level(facts: &Facts, check: &str) -> Level {
        findings(facts).into_iter().find(|finding| finding.check == check).unwrap().level
    }

    #[test]
    fn a_healthy_node_has_nothing_to_mend() {
        let findings = findings(&healthy());
        assert!(findings.iter().all(|f| f.level == Level::Ok && f.fix.is_none()), "{findings:#?}");
    }

    #[test]
    fn where_a_cloud_makes_vms_its_findings_are_told_and_nothing_of_qemu_counts() {
        let found = vec![bad("aws subnet", Level::Error, "there is none", "name another")];
        let facts = Facts { qemu: Err("no".to_owned()), cloud: Some(found), ..healthy() };
        assert_eq!(level(&facts, "aws subnet"), Level::Error);
        assert!(findings(&facts).iter().all(|finding| finding.check != "qemu"));
    }

    #[test]
    fn every_fault_is_an_error_with_a_fix() {
        let broken = Facts {
            euid: 1000,
            netlink: Err("no".to_owned()),
            block: Err("no".to_owned()),
            tun: Err("no".to_owned()),
            qemu: Err("no".to_owned()),
            kvm: Err("no".to_owned()),
            accel: Accel::Kvm,
            image: Err("no".to_owned()),
            link_program: Err("no".to_owned()),
            link_placement: (placement::healthy().0, Err("no".to_owned())),
            socket_state: SocketState::Blocked("no".to_owned()),
            health: Some((crate::health::DEFAULT_ADDRESS, Err("no".to_owned()))),
            routes: Ok(vec![("eth0".to_owned(), "10.0.0.0/8".parse().unwrap())]),
            directories: vec![Directory {
                purpose: "state",
                path: "/s".into(),
                free: Err("no".to_owned()),
                wanted: 0,
            }],
            ..healthy()
        };
        // Tunnels work without their guard: a warning, tried in `guard`.
        let mut findings = findings(&broken);
        findings.retain(|finding| finding.check != "nftables");
        assert!(findings.iter().all(|f| f.level == Level::Error && f.fix.is_some()), "{findings:#?}");
    }

    #[test]
    fn a_kvm_device_without_the_processor_behind_it_means_tcg() {
        let facts = Facts { virtualisation: None, ..healthy() };
        let finding = findings(&facts).into_iter().find(|f| f.check == "acceleration").unwrap();
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.found.starts_with("TCG"), "{finding:?}");
        assert_eq!(level(&Facts { accel: Accel::Tcg, ..facts }, "acceleration"), Level::Ok);
    }

    #[test]
    fn vms_nobody_owns_are_named() {
        assert!(!findings(&healthy()).iter().any(|f| f.check == "orphans"), "there is no service to ask");
        assert_eq!(level(&Facts { orphans: Some(Vec::new()), ..healthy() }, "orphans"), Level::Ok);
        let facts = Facts { orphans: Some(vec!["lost".to_owned()]), ..healthy() };
        let finding = findings(&facts).into_iter().find(|f| f.check == "orphans").unwrap();
        assert!(finding.level == Level::Warning && finding.found.contains("lost"), "{finding:?}");
    }

    #[test]
    fn an_old_or_strange_qemu_and_a_stale_socket_are_warnings() {
        for version in ["QEMU emulator version 5.2.0", "something else"] {
            let facts = Facts { qemu: Ok(("/q".into(), version.to_owned())), ..healthy() };
            assert_eq!(level(&facts, "qemu"), Level::Warning, "{version}");
        }
        assert_eq!(level(&Facts { socket_state: SocketState::Stale, ..healthy() }, "socket"), Level::Warning);
        assert_eq!(
            level(&Facts { socket_state: SocketState::Live("1".to_owned()), ..healthy() }, "socket"),
            Level::Ok
        );
    }
}
