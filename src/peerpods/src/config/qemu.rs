//! The `[qemu]` table: the provider's own configuration, read key by key so that a fault names its place.

use ipnet::Ipv4Net;
use peerpods_provider_qemu::{Accel, QemuConfig};

use super::door::Door;
use super::keys;
use super::kinds::{self, Kind};

const ACCELS: &[(&str, Accel)] = &[("auto", Accel::Auto), ("kvm", Accel::Kvm), ("tcg", Accel::Tcg)];

const ACCEL: Kind<Accel> =
    Kind { read: |w| kinds::word(w, ACCELS), show: |accel| kinds::name_of(*accel, ACCELS).into() };

const SUBNET: Kind<Ipv4Net> = Kind {
    read: |w| kinds::parsed(w).map_err(|_| "expected an IPv4 subnet such as 10.158.0.0/24".to_owned()),
    show: |subnet| subnet.to_string().into(),
};

const COUNT: Kind<u32> = Kind {
    read: |w| kinds::parsed(w).map_err(|_| "expected a whole number".to_owned()),
    show: |count| (*count).into(),
};

const MIB: Kind<u64> = Kind {
    read: |w| kinds::parsed(w).map_err(|_| "expected a whole number of MiB".to_owned()),
    show: |mib| (*mib).into(),
};

/// Reads the table through the door.
pub fn assemble(door: &mut Door) -> QemuConfig {
    let default = QemuConfig::default();
    let config = QemuConfig {
        program: door.take("qemu.program", default.program, &kinds::PROGRAM),
        accel: door.take("qemu.accel", default.accel, &ACCEL),
        image: door.take("qemu.image", default.image, &kinds::PATH),
        images_dir: door.take_optional("qemu.images-dir", &kinds::PATH),
        state_dir: door.take("qemu.state-dir", default.state_dir, &kinds::PATH),
        run_dir: door.take("qemu.run-dir", default.run_dir, &kinds::PATH),
        bridge: door.take("qemu.bridge", default.bridge, &kinds::INTERFACE),
        subnet: door.take("qemu.subnet", default.subnet, &SUBNET),
        default_vcpus: door.take("qemu.default-vcpus", default.default_vcpus, &COUNT),
        default_memory_mib: door.take("qemu.default-memory-mib", default.default_memory_mib, &MIB),
        min_memory_mib: door.take("qemu.min-memory-mib", default.min_memory_mib, &MIB),
        max_vcpus: door.take("qemu.max-vcpus", default.max_vcpus, &COUNT),
        max_memory_mib: door.take("qemu.max-memory-mib", default.max_memory_mib, &MIB),
        console_limit_mib: door.take("qemu.console-limit-mib", default.console_limit_mib, &MIB),
    };
    for fault in config.faults() {
        door.refuse(key_of(&fault), fault);
    }
    config
}

/// The provider's sentences begin with the field they are about.
fn key_of(fault: &str) -> &'static str {
    let field = fault.split(' ').next().unwrap_or_default().replace('_', "-");
    keys::find(&format!("qemu.{field}")).map_or("provider", |key| key.name)
}
