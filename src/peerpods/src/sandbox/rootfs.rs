//! The storages of a container's root file system: a directory of the guest below, a writable layer of the container's own above. Pure.

use std::path::Path;

use peerpods_proto::ttrpc::agent::Storage;

/// What to set up, in this order, for an overlay on `userland` at `target`. Its layer lies in `own`, a directory of the agent's.
///
/// The layer's two directories are storages themselves, and the overlay names them. The kata-agent has an option that would add
/// both, `io.katacontainers.fs-opt.overlay-rw`, but it passes that option on to the kernel as well, whose overlay refuses to be
/// mounted with it (seen with 4.0.0 on Linux 6.1: EINVAL).
#[must_use]
pub fn overlay(userland: &str, own: &Path, target: &str) -> Vec<Storage> {
    let directory = |name: &str| own.join(name).display().to_string();
    let [upper, work] = ["upper", "work"].map(directory);
    let options = [("lowerdir", userland), ("upperdir", &upper), ("workdir", &work)];
    let overlay = Storage {
        driver: "overlayfs".to_owned(),
        source: "overlay".to_owned(),
        fstype: "overlay".to_owned(),
        options: options.map(|(key, value)| format!("{key}={value}")).to_vec(),
        mount_point: target.to_owned(),
        ..Storage::default()
    };
    let local = |mount_point: String| Storage {
        driver: "local".to_owned(),
        source: "local".to_owned(),
        fstype: "local".to_owned(),
        options: vec!["mode=0755".to_owned()],
        mount_point,
        ..Storage::default()
    };
    vec![local(upper), local(work), overlay]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layers_directories_are_made_before_the_overlay_that_names_them() {
        let storages = overlay("/userland", Path::new("/own"), "/own/rootfs");
        let drivers: Vec<&str> = storages.iter().map(|storage| storage.driver.as_str()).collect();
        assert_eq!(drivers, ["local", "local", "overlayfs"]);
        let places: Vec<&str> = storages.iter().map(|storage| storage.mount_point.as_str()).collect();
        assert_eq!(places, ["/own/upper", "/own/work", "/own/rootfs"]);
    }

    #[test]
    fn the_overlay_has_only_options_the_kernel_knows() {
        let storages = overlay("/userland", Path::new("/own"), "/own/rootfs");
        let last = storages.last().unwrap();
        assert_eq!(last.options, ["lowerdir=/userland", "upperdir=/own/upper", "workdir=/own/work"]);
    }
}
