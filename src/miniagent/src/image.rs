//! Images, in a VM that pulls none.
//!
//! For each container of a peer pod the Go shim names an image and expects the agent to get it (`image_guest_pull`). We have two
//! names: `pause`, which the shim gives to every pod's first container, and [`USERLAND`]. Both are the userland of our VM images.

use std::path::PathBuf;

use peerpods_proto::ttrpc::agent;

/// The storage driver that asks for an image.
pub const DRIVER: &str = "image_guest_pull";

/// The image of containers that run in the VM's userland: the last part of the name of any repository, with any tag or digest.
pub const USERLAND: &str = "peerpods-userland";

/// What the shim calls the image of a pod's first container, whatever the node's container runtime was told.
const PAUSE: &str = "pause";

/// Where the VM has its userland.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Userland(pub PathBuf);

impl Default for Userland {
    /// As our VM images have it.
    fn default() -> Self {
        Self(PathBuf::from("/usr/lib/peerpods/userland"))
    }
}

/// Whether the VM has this image.
#[must_use]
pub fn is_here(reference: &str) -> bool {
    let (name, _digest) = reference.split_once('@').unwrap_or((reference, ""));
    let last = name.rsplit('/').next().unwrap_or(name);
    let (last, _tag) = last.split_once(':').unwrap_or((last, ""));
    reference == PAUSE || last == USERLAND
}

/// Whether it asks for the image of a pod's first container.
#[must_use]
pub fn is_pause(storage: &agent::Storage) -> bool {
    storage.driver == DRIVER && storage.source == PAUSE
}

/// What a pod's first container runs in place of the `/pause` of an image that we do not have. A shell, because it takes in the
/// zombies of a pod that shares its process namespace.
#[must_use]
pub fn pause() -> Vec<String> {
    ["/bin/sh", "-c", "while :; do sleep 3600; done"].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_userland_is_known_in_any_repository_and_version() {
        for name in
            ["peerpods-userland", "localhost:5000/x/peerpods-userland:1", "a/peerpods-userland@sha256:00"]
        {
            assert!(is_here(name), "{name}");
        }
        for name in
            ["", "peerpods-userland/x", "my-peerpods-userland", "registry.k8s.io/pause:3.9", "pause:1"]
        {
            assert!(!is_here(name), "{name}");
        }
        assert!(is_here("pause"));
    }
}
