//! Network namespaces as open files: finding, making and removing named ones, and netlink sockets inside them.
//!
//! Owns the rule that no runtime thread changes its namespace: whatever needs `setns` or `unshare` runs on a thread that ends with it.
//! An open socket, like an open file, keeps its namespace alive; both are closed when the values here are dropped.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use tokio::sync::oneshot;

use crate::kernel::Rtnl;
use crate::tunnel::TunnelError;

/// The network namespace of the thread that opens it.
const OWN: &str = "/proc/thread-self/ns/net";

/// An open network namespace.
#[derive(Debug, Clone)]
pub(crate) struct Netns {
    path: PathBuf,
    file: Arc<File>,
}

impl Netns {
    /// Opens the namespace mounted at `path`. A file that is none (left behind when it was unmounted) counts as absent.
    pub(crate) async fn open(path: &Path) -> Result<Self, TunnelError> {
        let wanted = path.to_owned();
        let opened = on_thread(move || open_namespace(&wanted)).await;
        match opened.map_err(failed(format!("open the network namespace {}", path.display())))? {
            Some(file) => Ok(Self { path: path.to_owned(), file: Arc::new(file) }),
            None => Err(TunnelError::NoNetns { path: path.to_owned() }),
        }
    }

    /// The calling thread's own namespace.
    pub(crate) fn own() -> Result<Self, TunnelError> {
        let file = File::open(OWN).map_err(failed("open this machine's own network namespace"))?;
        Ok(Self { path: PathBuf::from(OWN), file: Arc::new(file) })
    }

    /// Whether it is the calling thread's own.
    pub(crate) fn is_own(&self) -> Result<bool, TunnelError> {
        let same = || {
            let (this, own) = (self.file.metadata()?, std::fs::metadata(OWN)?);
            Ok((this.dev(), this.ino()) == (own.dev(), own.ino()))
        };
        same().map_err(failed(format!("identify the network namespace {}", self.path.display())))
    }

    /// Where it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// For a netlink attribute; valid as long as `self`.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// A netlink connection whose socket is in this namespace, whatever thread uses it later.
    pub(crate) async fn connect(&self) -> Result<Rtnl, TunnelError> {
        let file = Arc::clone(&self.file);
        let runtime = tokio::runtime::Handle::current();
        on_thread(move || {
            setns(&*file, CloneFlags::CLONE_NEWNET)?;
            let _runtime = runtime.enter();
            Rtnl::open()
        })
        .await
        .map_err(failed(format!("open a netlink socket in {}", self.path.display())))
    }
}

/// IPv6 in a namespace.
impl Netns {
    /// Has devices made from here on take no address and no route by themselves, neither from router advertisements nor by making up a
    /// link-local one, and count theirs without looking for duplicates. False when the kernel has no IPv6, or gives these devices none.
    pub(crate) async fn quiet_ipv6(&self) -> Result<bool, TunnelError> {
        let file = Arc::clone(&self.file);
        on_thread(move || {
            setns(&*file, CloneFlags::CLONE_NEWNET)?;
            if sysctl("all", DISABLED)?.is_some_and(|on| on == "1")
                || sysctl("default", DISABLED)?.is_none_or(|on| on == "1")
            {
                return Ok(false);
            }
            QUIET.iter().try_fold(true, |all, (key, value)| Ok(all && set_sysctl(key, value)?))
        })
        .await
        .map_err(failed(format!("configure IPv6 in {}", self.path.display())))
    }

    /// A socket that sees every frame of this namespace's devices.
    pub(crate) async fn packet_socket(&self) -> Result<OwnedFd, TunnelError> {
        let file = Arc::clone(&self.file);
        on_thread(move || {
            setns(&*file, CloneFlags::CLONE_NEWNET)?;
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            Ok(socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?)
        })
        .await
        .map_err(failed(format!("open a packet socket in {}", self.path.display())))
    }
}

/// Where `/proc/sys/net` is that of the namespace of the thread that opens a file there.
const IPV6: &str = "/proc/sys/net/ipv6/conf";
/// Set by a person, or for all namespaces by the kernel's option `ipv6.disable_ipv6`.
const DISABLED: &str = "disable_ipv6";
const QUIET: [(&str, &str); 4] =
    [("accept_ra", "0"), ("autoconf", "0"), ("accept_dad", "0"), ("addr_gen_mode", "1")];

/// `None` when the kernel has no such setting.
fn sysctl(of: &str, key: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(Path::new(IPV6).join(of).join(key)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        now => Ok(Some(now?.trim().to_owned())),
    }
}

fn set_sysctl(key: &str, value: &str) -> io::Result<bool> {
    match sysctl("default", key)? {
        None => Ok(false),
        Some(now) if now == value => Ok(true),
        Some(_) => fs::write(Path::new(IPV6).join("default").join(key), value).map(|()| true),
    }
}

/// Makes a fresh namespace at `path`, unless there is one. Tells whether it made it.
pub(crate) async fn make(path: &Path) -> Result<bool, TunnelError> {
    let wanted = path.to_owned();
    on_thread(move || make_namespace(&wanted))
        .await
        .map_err(failed(format!("make the network namespace {}", path.display())))
}

/// Unmounts and removes what is at `path`. Ok when there is nothing.
pub(crate) async fn remove(path: &Path) -> Result<(), TunnelError> {
    let wanted = path.to_owned();
    on_thread(move || remove_namespace(&wanted))
        .await
        .map_err(failed(format!("remove the network namespace {}", path.display())))
}

fn open_namespace(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        other => other?,
    };
    let kind = fstatfs(&file)?.filesystem_type();
    Ok((kind == NSFS_MAGIC).then_some(file))
}

fn make_namespace(path: &Path) -> io::Result<bool> {
    if open_namespace(path)?.is_some() {
        return Ok(false);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    // Only a place to mount on; one left from before serves as well.
    OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    if let Err(e) = mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>) {
        // The mount's failure is what matters; the empty file does no harm if it stays.
        let _ = fs::remove_file(path);
        return Err(e.into());
    }
    Ok(true)
}

fn remove_namespace(path: &Path) -> io::Result<()> {
    loop {
        // MNT_DETACH: other mount namespaces and open files must not keep the name.
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(e) => return Err(e.into()),
        }
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Runs `work` on a thread of its own, which ends with it: what it does to its own namespaces cannot reach anyone else.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (answer, answered) = oneshot::channel();
    std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        // No receiver: the caller was dropped, and so is what was opened.
        let _ = answer.send(work());
    })?;
    answered.await.unwrap_or_else(|_| Err(io::Error::other("the thread died")))
}

fn failed(step: impl Into<String>) -> impl FnOnce(io::Error) -> TunnelError {
    move |source| TunnelError::Kernel { step: step.into(), source }
}
