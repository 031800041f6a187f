//! Everything that can be wrong before the first VM, found at once and each with what to do about it.

use std::path::Path;

use ipnet::IpNet;
use peerpods_provider::{ErrorKind, Facts, ProviderError};

use crate::addresses::gateway;
use crate::birth::{UNDERLAY_MTU, USER_DATA_LIMIT};
use crate::failure::Failure;
use crate::net::Network;
use crate::provider::Node;
use crate::subnet::clashes;
use crate::tap::TUN_DEVICE;
use crate::{accel, program};

/// Free space in MiB below which a console and a few records may not fit.
const MIN_DISK_MIB: u64 = 64;

/// What was found: what cannot work, and what is worth a line in the log.
#[derive(Debug, Default)]
struct Findings {
    faults: Vec<String>,
    remarks: Vec<String>,
}

impl Findings {
    fn fault(&mut self, text: impl Into<String>) {
        self.faults.push(text.into());
    }

    /// A failure with its causes and its hint, in one line.
    fn failure(&mut self, failure: Failure) {
        let error = failure.into_provider(String::new());
        let mut text = error.message;
        let mut cause = error.source.as_ref().map(|c| c.as_ref() as &dyn std::error::Error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        self.faults.push(match error.hint {
            Some(hint) => format!("{text} (try: {hint})"),
            None => text,
        });
    }
}

pub(crate) async fn verify(node: &Node) -> Result<Facts, ProviderError> {
    let mut findings = Findings { faults: node.config.faults(), remarks: Vec::new() };
    host(&mut findings);
    disk(&mut findings, "state_dir", node.places.state());
    disk(&mut findings, "run_dir", node.places.run());
    qemu(&mut findings, node).await;
    if let Err(failure) = subnet(&mut findings, node).await {
        findings.failure(failure);
    }
    if !findings.faults.is_empty() {
        let text = findings.faults.join("; ");
        return Err(ProviderError::new(ErrorKind::Invalid, "verify this host for QEMU", text));
    }
    let subnet = node.config.subnet;
    let worker = IpNet::new(gateway(subnet).into(), subnet.prefix_len()).ok();
    Ok(Facts {
        user_data_limit: USER_DATA_LIMIT,
        worker_address: worker,
        underlay_mtu: UNDERLAY_MTU,
        remarks: findings.remarks,
    })
}

fn host(findings: &mut Findings) {
    if !nix::unistd::geteuid().is_root() {
        findings.fault("not root: taps and bridges need it; run as root");
    }
    if !Path::new(TUN_DEVICE).exists() {
        findings.fault(format!("there is no {TUN_DEVICE}: modprobe tun, or give the container the device"));
    }
    if !cfg!(target_arch = "x86_64") {
        findings.fault("pod VMs of this provider need an x86_64 host");
    }
}

fn disk(findings: &mut Findings, what: &str, path: &Path) {
    // What does not exist yet will be made where its nearest ancestor is.
    let Some(there) = path.ancestors().find(|p| p.exists()) else { return };
    match nix::sys::statvfs::statvfs(there) {
        Ok(fs) => {
            let free = fs.blocks_available().saturating_mul(fs.fragment_size()) / (1 << 20);
            if free < MIN_DISK_MIB {
                let at = path.display();
                findings
                    .fault(format!("{what} {at} has {free} MiB free, {MIN_DISK_MIB} are needed: make room"));
            }
        }
        Err(errno) => findings.fault(format!("{what} {} cannot be looked at: {errno}", path.display())),
    }
}

async fn qemu(findings: &mut Findings, node: &Node) {
    match program::version(&node.config.program).await {
        Ok(version) => findings.remarks.push(version),
        Err(failure) => findings.failure(failure),
    }
    match node.image(None).await {
        Ok(image) => findings.remarks.push(format!(
            "image {}: kernel {}, agent {}",
            image.dir.display(),
            image.description.kernel_release,
            image.description.agent
        )),
        Err(failure) => findings.failure(failure),
    }
    findings.remarks.push(match node.choice_without_probe() {
        Some(choice) => choice.to_string(),
        None => "guests run on KVM if the probe that now runs shows that they do, else on TCG".to_owned(),
    });
    if node.config.accel == crate::Accel::Kvm && accel::hopeless_here().is_some() {
        findings.remarks.push("KVM is configured, but this processor shows neither vmx nor svm".to_owned());
    }
}

async fn subnet(findings: &mut Findings, node: &Node) -> Result<(), Failure> {
    let (addresses, routes) = Network::open()?.in_use().await?;
    let found = clashes(node.config.subnet, &node.config.bridge, &addresses, &routes);
    findings.faults.extend(found.faults);
    findings.remarks.extend(found.remarks);
    Ok(())
}
