//! The files on a node, as the machine config operator gets them. Their contents are `peerpods_podvm::node_files`', which the installer of
//! clusters without that operator places as well.

use peerpods_podvm::node_files::{self, Handler};

use crate::settings::Settings;

/// Where the shim's configuration lies on a node.
pub(super) const SHIM_CONFIGURATION: &str = node_files::SHIM_CONFIGURATION;
/// The shim that OpenShift's extension brings.
const SHIM: &str = "/usr/bin/containerd-shim-kata-v2";

/// The shim's configuration, TOML.
#[must_use]
pub fn shim_configuration(settings: &Settings) -> String {
    node_files::shim_configuration(settings.hypervisor_timeout)
}

/// CRI-O's drop-in with the handler of each class, TOML.
#[must_use]
pub fn crio_drop_in(classes: &[String]) -> String {
    let handler = |class: &String| Handler {
        name: class.clone(),
        shim: SHIM.to_owned(),
        configuration: SHIM_CONFIGURATION.to_owned(),
    };
    // The log level has an object of its own there.
    node_files::crio_drop_in(&classes.iter().map(handler).collect::<Vec<_>>(), None)
}
