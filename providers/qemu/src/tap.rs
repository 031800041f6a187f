//! Making a tap device that stays when nobody holds it. The kernel takes this by ioctl only, not by netlink.
//!
//! Source of the numbers: the kernel's `include/uapi/linux/if_tun.h`.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

/// Where taps are made.
pub(crate) const TUN_DEVICE: &str = "/dev/net/tun";

/// `TUNSETIFF`, `_IOW('T', 202, int)`: the number lies about its argument, which is a pointer to `ifreq`.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
/// `TUNSETPERSIST`, `_IOW('T', 203, int)`: the argument is the value itself.
const TUNSETPERSIST: libc::c_ulong = 0x4004_54cb;

nix::ioctl_write_ptr_bad!(
    /// Attaches a descriptor of [`TUN_DEVICE`] to a device of this name, made if it does not exist.
    tun_set_iff,
    TUNSETIFF,
    libc::ifreq
);
nix::ioctl_write_int_bad!(
    /// Makes the attached device stay.
    tun_set_persist,
    TUNSETPERSIST
);

/// Makes the tap `name`, or leaves the one that is there.
///
/// Fails with EBUSY while a QEMU holds a device of this name.
#[expect(unsafe_code, reason = "the two ioctls have no safe wrapper")]
pub(crate) fn make(name: &str) -> io::Result<()> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            // Both fit in the field the kernel reads.
            ifru_flags: (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short,
        },
    };
    if name.len() >= libc::IFNAMSIZ || name.is_empty() {
        return Err(Errno::EINVAL.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let device = OpenOptions::new().read(true).write(true).open(Path::new(TUN_DEVICE))?;
    // SAFETY: the descriptor is open, and `request` is a whole `ifreq` with a NUL-terminated name that outlives the call.
    unsafe { tun_set_iff(std::os::fd::AsRawFd::as_raw_fd(&device), &request) }?;
    // SAFETY: the descriptor is open and attached; the argument is a plain number.
    unsafe { tun_set_persist(std::os::fd::AsRawFd::as_raw_fd(&device), 1) }?;
    Ok(())
}
