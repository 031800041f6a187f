//! Making a VM: recorded first, then made step by step; what fails is unwound, what is cut off is begun anew or deleted later.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use ipnet::IpNet;
use peerpods_podvm::underlay::Underlay;
use peerpods_provider::{Instance, UserData, VmKey, VmSpec};

use crate::accel::Accelerator;
use crate::addresses::{self, gateway};
use crate::caller::Caller;
use crate::command::Machine;
use crate::config::Size;
use crate::failure::Failure;
use crate::holding::Holding;
use crate::image::Image;
use crate::lock::{self, Scope};
use crate::net::Network;
use crate::places::{Names, Places, mac_of};
use crate::process::Process;
use crate::provider::{Node, blocking};
use crate::record::{Phase, Record, private_dir, private_file, remove_file};
use crate::{look, program, removal};

/// MTU of tap and bridge, which are the kernel's own.
pub(crate) const UNDERLAY_MTU: u32 = 1500;
/// Largest user data in bytes. `fw_cfg` itself takes far more; this bounds what a guest has to hold.
pub(crate) const USER_DATA_LIMIT: usize = 1 << 20;

/// What of a VM is settled before anything is made.
struct Plan {
    size: Size,
    image: Image,
    accelerator: Accelerator,
}

pub(crate) async fn create(
    node: &Node,
    key: &VmKey,
    spec: &VmSpec,
    caller: &Caller,
) -> Result<Instance, Failure> {
    let names = Names::of(&node.places, key);
    // A VM that is there is answered whatever is asked for now.
    if let Some(there) = existing(node, key, &names).await? {
        return Ok(there);
    }
    let plan = plan(node, spec).await?;
    private_dir(node.places.state())?;
    let _turn = lock::take(&node.places.lock(), Scope::Vm(&names)).await?;
    caller.still_waits()?;
    if let Some(there) = existing(node, key, &names).await? {
        return Ok(there);
    }
    match make(node, key, spec, &names, &plan).await {
        Ok(record) => look::observe(node, &record).await,
        Err(failure) => {
            if let Err(left) = removal::remove(node, key, &names).await {
                tracing::warn!(%key, error = &left as &dyn std::error::Error, "unwinding failed; delete continues");
            }
            Err(failure)
        }
    }
}

/// The VM that is there, unless it was cut off while it was made.
async fn existing(node: &Node, key: &VmKey, names: &Names) -> Result<Option<Instance>, Failure> {
    match Record::load(&node.places, names, key).await? {
        Some(record) if record.phase == Phase::Started => look::observe(node, &record).await.map(Some),
        _ => Ok(None),
    }
}

async fn plan(node: &Node, spec: &VmSpec) -> Result<Plan, Failure> {
    let size = node.config.size(spec.size).map_err(Failure::Refused)?;
    let len = spec.user_data.expose().len();
    if len > USER_DATA_LIMIT {
        let text = format!("user data has {len} bytes; at most {USER_DATA_LIMIT} are taken");
        return Err(Failure::Refused(text));
    }
    if let Some(kind) = spec.machine_type.as_deref().filter(|kind| !["", "q35"].contains(kind)) {
        let text = format!("there is no machine type {kind:?} here: ask for vCPUs and memory instead");
        return Err(Failure::Refused(text));
    }
    let image = node.image(spec.image.as_deref().filter(|name| !name.is_empty())).await?;
    if let Some(free) = free_memory().filter(|free| *free < size.memory_mib) {
        return Err(Failure::NoMemory { asked: size.memory_mib, free });
    }
    let accelerator = node.choice(&image).await.accelerator;
    Ok(Plan { size, image, accelerator })
}

/// What the kernel thinks could be had without swapping, in MiB.
fn free_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}

async fn make(
    node: &Node,
    key: &VmKey,
    spec: &VmSpec,
    names: &Names,
    plan: &Plan,
) -> Result<Record, Failure> {
    // A process from a birth that was cut off has other user data than we have.
    for process in Process::find(&names.uuid).await? {
        process.end().await?;
    }
    let record = intend(node, key, spec, names, plan).await?;
    wire(node, names, &record).await?;
    write_files(&node.places, names, &spec.user_data).await?;
    program::start(&node.config.program, &machine(node, names, &record, plan).await?).await?;
    let qmp = node.places.qmp(names);
    fs::set_permissions(&qmp, Permissions::from_mode(0o600))
        .map_err(Failure::file("close to others", &qmp))?;
    // QEMU has read it; a secret lies around no longer than it must.
    remove_file(&node.places.user_data(names))?;
    let record = Record { phase: Phase::Started, ..record };
    record.store(&node.places, names).await?;
    Ok(record)
}

/// Chooses the address and writes the record, in one turn with everybody else on this host.
async fn intend(
    node: &Node,
    key: &VmKey,
    spec: &VmSpec,
    names: &Names,
    plan: &Plan,
) -> Result<Record, Failure> {
    let _turn = lock::take(&node.places.lock(), Scope::Host).await?;
    let others = Holding::of_others(&node.places, names).await?;
    let config = &node.config;
    let taken: BTreeSet<Ipv4Addr> = others.iter().filter_map(|other| other.address).collect();
    let free = addresses::choose(config.subnet, &taken, names.seed);
    let full = Failure::SubnetFull { subnet: config.subnet, room: addresses::room(config.subnet) };
    let record = Record {
        format: Record::FORMAT,
        key: key.clone(),
        name: spec.name.clone(),
        phase: Phase::Making,
        address: free.ok_or(full)?,
        subnet: config.subnet,
        bridge: config.bridge.clone(),
        image: plan.image.dir.clone(),
        size: plan.size,
        tags: spec.tags.clone(),
    };
    record.store(&node.places, names).await?;
    Ok(record)
}

/// Bridge and tap. The bridge under the host's lock: somebody may just be removing it with the last VM.
async fn wire(node: &Node, names: &Names, record: &Record) -> Result<(), Failure> {
    let network = Network::open()?;
    let _turn = lock::take(&node.places.lock(), Scope::Host).await?;
    let bridge = network.ensure_bridge(&record.bridge, record.subnet).await?;
    network.ensure_tap(&names.tap, bridge).await
}

async fn write_files(places: &Places, names: &Names, user_data: &UserData) -> Result<(), Failure> {
    let (places, names, user_data) = (places.clone(), names.clone(), user_data.clone());
    blocking(move || {
        private_dir(&places.consoles())?;
        private_dir(&places.vm(&names))?;
        let console = places.console(&names);
        // Made by us, so that its mode is ours; QEMU appends.
        let made = OpenOptions::new().append(true).create(true).mode(0o600).open(&console);
        made.map_err(Failure::file("make the console file", &console))?;
        let path = places.user_data(&names);
        let write = || private_file(&path)?.write_all(user_data.expose());
        write().map_err(Failure::file("write the user data", &path))
    })
    .await
}

async fn machine(node: &Node, names: &Names, record: &Record, plan: &Plan) -> Result<Machine, Failure> {
    let length = record.subnet.prefix_len();
    let address = IpNet::new(record.address.into(), length)
        .map_err(|e| Failure::Refused(format!("{} / {length}: {e}", record.address)))?;
    Ok(Machine {
        name: record.name.clone(),
        uuid: names.uuid.clone(),
        size: plan.size,
        accelerator: plan.accelerator,
        seccomp: node.seccomp().await,
        kernel: plan.image.kernel(),
        initramfs: plan.image.initramfs(),
        kernel_arguments: plan.image.description.kernel_arguments.clone(),
        underlay: Underlay { address, gateway: gateway(record.subnet).into(), mtu: UNDERLAY_MTU },
        mac: mac_of(record.address),
        tap: names.tap.clone(),
        console: node.places.console(names),
        qmp: node.places.qmp(names),
        pid_file: node.places.pid_file(names),
        user_data: node.places.user_data(names),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{places, record};
    use crate::slow::leaves_the_thread;

    #[tokio::test]
    async fn a_slow_disk_keeps_nobody_else_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let names = Names::of(&places, &record("a").key);
        private_dir(&places.consoles()).unwrap();
        let user_data = UserData::new("secret");
        let work = write_files(&places, &names, &user_data);
        assert!(leaves_the_thread(&places.console(&names), work));
    }
}
