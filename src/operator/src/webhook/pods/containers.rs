//! The containers of a pod with the paths of their fields.

use k8s_openapi::api::core::v1::{Container, PodSpec};

/// A container and where it stands.
pub(super) struct Member<'a> {
    /// Its field's path, as in `spec.initContainers[0]`.
    pub(super) field: String,
    /// The same as a JSON pointer.
    pub(super) pointer: String,
    /// The container.
    pub(super) container: &'a Container,
}

/// Init containers, then containers.
pub(super) fn all(spec: &PodSpec) -> impl Iterator<Item = Member<'_>> {
    let of = |list: &'static str| {
        move |(n, container)| Member {
            field: format!("spec.{list}[{n}]"),
            pointer: format!("/spec/{list}/{n}"),
            container,
        }
    };
    let init = spec.init_containers.iter().flatten().enumerate().map(of("initContainers"));
    init.chain(spec.containers.iter().enumerate().map(of("containers")))
}
