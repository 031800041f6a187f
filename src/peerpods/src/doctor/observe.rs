//! Looking at the machine. Nothing here decides whether what it sees is good.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use peerpods_agentlink::process::placement::Choice;
use peerpods_podvm::image::GuestAdmission;
use peerpods_provider_qemu::QemuConfig;

use super::{Directory, Facts, Finding, SocketState, guard, netlink};
use crate::config::{ProviderSettings, Settings};
use crate::gc::Vms;
use crate::programs::Places;
use crate::roles::link_program;
use crate::sandbox::netns;
use crate::sandbox::service::Service;

/// How long a service may take to say its version.
const ANSWER: Duration = Duration::from_secs(5);

/// Gathers all facts.
///
/// # Errors
/// Only when a helper thread dies; what is wrong with the machine is in the facts.
pub async fn observe(settings: &Settings) -> Result<Facts, tokio::task::JoinError> {
    let socket_state = socket(&settings.hypervisor.socket).await;
    let orphans = match &socket_state {
        SocketState::Live(_) => orphans(&settings.hypervisor.socket).await,
        _ => None,
    };
    let placement = settings.link_placement.decide().await;
    let cloud = cloud(settings).await;
    let settings = settings.clone();
    let facts =
        tokio::task::spawn_blocking(move || facts(&settings, socket_state, orphans, placement)).await?;
    Ok(Facts { cloud, ..facts })
}

/// What is found of the cloud that makes the VMs.
async fn cloud(settings: &Settings) -> Option<Vec<Finding>> {
    match &settings.provider {
        ProviderSettings::Qemu(_) => None,
        #[cfg(feature = "aws")]
        ProviderSettings::Aws(config) => Some(super::aws::findings(config, settings).await),
    }
}

async fn orphans(socket: &Path) -> Option<Vec<String>> {
    let vms = Vms::new(Service::new(socket.to_owned()));
    tokio::time::timeout(ANSWER, vms.orphans()).await.ok()?.ok()
}

fn facts(
    settings: &Settings,
    socket_state: SocketState,
    orphans: Option<Vec<String>>,
    placement: Result<Choice, String>,
) -> Facts {
    let qemu = match &settings.provider {
        ProviderSettings::Qemu(qemu) => qemu.clone(),
        // Not judged where a cloud makes the VMs.
        #[cfg(feature = "aws")]
        ProviderSettings::Aws(_) => QemuConfig::default(),
    };
    Facts {
        cloud: None,
        euid: nix::unistd::geteuid().as_raw(),
        netlink: netlink::try_out(),
        guard: guard::try_out_tunnels(),
        block: guard::try_out_pods(),
        tun: opens("/dev/net/tun"),
        kvm: opens("/dev/kvm"),
        virtualisation: virtualisation(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        accel: qemu.accel,
        qemu: qemu_version(&qemu.program),
        image: image(&qemu.image),
        image_dir: qemu.image.clone(),
        socket: settings.hypervisor.socket.clone(),
        socket_state,
        orphans,
        health: settings.health_address.map(|address| (address, listens(address))),
        directories: directories(settings, &qemu),
        link_program: link_program(settings).map_err(|error| error.to_string()),
        link_placement: (settings.link_placement.wanted, placement),
        subnet: (qemu.subnet, qemu.bridge.clone()),
        routes: routes(),
    }
}

fn listens(address: SocketAddr) -> Result<(), String> {
    std::net::TcpListener::bind(address).map(drop).map_err(|error| error.to_string())
}

fn opens(path: &str) -> Result<(), String> {
    OpenOptions::new().read(true).write(true).open(path).map(drop).map_err(|error| error.to_string())
}

/// The processor's flag for hardware virtualisation, from the text of `/proc/cpuinfo`.
#[must_use]
pub fn virtualisation(cpuinfo: &str) -> Option<&'static str> {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?.split_once(':')?.1;
    ["vmx", "svm"].into_iter().find(|flag| flags.split_ascii_whitespace().any(|word| word == *flag))
}

fn qemu_version(program: &Path) -> Result<(PathBuf, String), String> {
    let path = Places::of_this_process().find(program).map_err(|error| error.to_string())?;
    let failed = |what: String| format!("{}: {what}", path.display());
    let output = Command::new(&path).arg("--version").output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("--version ended with {}", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok((path.clone(), text.lines().next().unwrap_or_default().to_owned()))
}

fn image(directory: &Path) -> Result<String, String> {
    match peerpods_images::verify(directory) {
        Ok(image) => {
            let identity = match image.guest_admission() {
                GuestAdmission::Token => "its guest makes its own key",
                GuestAdmission::Unknown => {
                    "its guest gets its key in user data (build the image anew for one that makes its own)"
                }
            };
            Ok(format!("kernel {}, {}; {identity}", image.kernel_release, image.agent))
        }
        Err(error) => Err(error.to_string()),
    }
}

async fn socket(path: &Path) -> SocketState {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return SocketState::Free,
        Err(error) => return SocketState::Blocked(error.to_string()),
        Ok(found) if !found.file_type().is_socket() => {
            return SocketState::Blocked("is there and is no socket".to_owned());
        }
        Ok(_) => {}
    }
    match tokio::net::UnixStream::connect(path).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return SocketState::Stale,
        Err(error) => return SocketState::Blocked(error.to_string()),
        Ok(_) => {}
    }
    match tokio::time::timeout(ANSWER, Service::new(path.to_owned()).version()).await {
        Ok(Ok(version)) => SocketState::Live(version),
        Ok(Err(_)) | Err(_) => {
            SocketState::Blocked("somebody listens and does not answer Version".to_owned())
        }
    }
}

fn directories(settings: &Settings, qemu: &QemuConfig) -> Vec<Directory> {
    const VM_RECORDS: &str = "VM records and consoles";
    const VM_SOCKETS: &str = "VM control sockets";
    let local = matches!(settings.provider, ProviderSettings::Qemu(_));
    let hypervisor = &settings.hypervisor;
    let socket_dir = hypervisor.socket.parent().unwrap_or(Path::new("/"));
    [
        ("state", hypervisor.state_dir.as_path(), 64 << 20),
        (VM_RECORDS, qemu.state_dir.as_path(), 256 << 20),
        (VM_SOCKETS, qemu.run_dir.as_path(), 16 << 20),
        ("agent sockets", hypervisor.pods_dir.as_path(), 16 << 20),
        ("the shim's socket", socket_dir, 1 << 20),
        ("the sandbox client", settings.client_dir.as_path(), 1 << 20),
    ]
    .into_iter()
    .filter(|(purpose, ..)| local || ![VM_RECORDS, VM_SOCKETS].contains(purpose))
    .map(|(purpose, path, wanted)| Directory { purpose, path: path.to_owned(), free: free(path), wanted })
    .collect()
}

/// Bytes free where `path` is or will be, after a file was made there and removed again.
fn free(path: &Path) -> Result<u64, String> {
    let existing = path.ancestors().find(|parent| parent.is_dir()).unwrap_or(Path::new("/"));
    let trial = existing.join(format!(".peerpods-doctor-{}", std::process::id()));
    File::create_new(&trial).map_err(|error| format!("not writable: {error}"))?;
    fs::remove_file(&trial).map_err(|error| format!("a file made there cannot be removed: {error}"))?;
    let free = statvfs(existing).map_err(|errno| format!("its size cannot be read: {errno}"))?;
    Ok(free.blocks_available().saturating_mul(free.fragment_size()))
}

fn routes() -> Result<Vec<(String, ipnet::Ipv4Net)>, String> {
    let table = fs::read_to_string("/proc/net/route");
    table
        .map(|table| netns::routes(&table))
        .map_err(|error| format!("the host's routes cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_a_whole_word_of_the_first_flags_line() {
        let with = |flags: &str| format!("model name\t: svm\nflags\t\t: fpu {flags} sse\n");
        assert_eq!(virtualisation(&with("vmx")), Some("vmx"));
        assert_eq!(virtualisation(&with("svm")), Some("svm"));
        assert_eq!(virtualisation(&with("svm_lock vmxnet")), None);
        assert_eq!(virtualisation(""), None);
    }

    #[test]
    fn writability_is_asked_of_the_nearest_parent_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        assert!(free(&directory.path().join("a/b/c")).unwrap() > 0);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_socket_is_free_stale_or_blocked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        assert_eq!(socket(&path).await, SocketState::Free);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert_eq!(socket(&path).await, SocketState::Stale);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(matches!(socket(&path).await, SocketState::Blocked(_)));
    }
}
