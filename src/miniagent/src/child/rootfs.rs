//! From the VM's root directory to the container's.
//!
//! What is bound from the VM is picked up as detached mounts *before* the root changes, and every path in the container is looked
//! up *after* it: so no symbolic link of an image can lead a mount outside of it.

use std::fs;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{devices, mounts};
use crate::control::Failure;
use crate::plan::ContainerPlan;

/// Makes the container's root directory ours, with everything in it that the plan asks for. The mount namespace must be new.
pub(super) fn enter(container: &ContainerPlan) -> Result<(), Failure> {
    detach_from_the_vm()?;
    set_kernel_parameters(container)?;
    let picked = mounts::pick_up(&container.mounts)?;
    change_root(&container.rootfs)?;
    for (plan, source) in container.mounts.iter().zip(picked) {
        mounts::attach(plan, source)?;
    }
    devices::make(&container.devices)?;
    container.readonly_paths.iter().try_for_each(|path| mounts::make_readonly(path))?;
    container.masked.iter().try_for_each(|path| mounts::mask(path))?;
    if container.readonly {
        mounts::remount_root_readonly()?;
    }
    Ok(())
}

/// Nothing that is mounted here may show in the VM; what the VM mounts or unmounts later may show here.
fn detach_from_the_vm() -> Result<(), Failure> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .map_err(|error| Failure::setup("detach mounts from the VM's", error))
}

/// Through the VM's /proc, which shows the namespaces of whoever looks.
fn set_kernel_parameters(container: &ContainerPlan) -> Result<(), Failure> {
    for (name, value) in &container.sysctl {
        if name.split(['.', '/']).any(str::is_empty) {
            return Err(Failure::setup(
                format!("set the kernel parameter {name:?}"),
                "not a parameter's name",
            ));
        }
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(path, value)
            .map_err(|error| Failure::setup(format!("set the kernel parameter {name}"), error))?;
    }
    Ok(())
}

fn change_root(rootfs: &Path) -> Result<(), Failure> {
    let fail = |what: &str, error: nix::Error| Failure::setup(format!("{what} {rootfs:?}"), error);
    // pivot_root takes only a mount point.
    mount(Some(rootfs), rootfs, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|error| fail("bind the root directory", error))?;
    nix::unistd::chdir(rootfs).map_err(|error| fail("enter the root directory", error))?;
    // The old root ends up on top of the new one, and is taken away from there.
    nix::unistd::pivot_root(".", ".").map_err(|error| fail("make the root directory", error))?;
    mount(None::<&str>, ".", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(|error| fail("let go of the VM's root above", error))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(|error| fail("leave the VM's root above", error))?;
    nix::unistd::chdir("/").map_err(|error| fail("enter the root directory", error))
}
