//! The objects a KataConfig brings, each a function of plain data. No I/O: what is there is compared elsewhere.

mod access;
mod classes;
mod files;
mod installer;
mod machine_config;
mod monitoring;
mod peer_pods;
mod webhook;

pub use access::security_context_constraints;
pub use classes::runtime_class;
pub use files::{crio_drop_in, shim_configuration};
pub use installer::{NodeFiles, installer, installer_account, name_for, remover, template_of};
pub use machine_config::{container_runtime_config, extension, peer_pods as peer_pod_machine_configs, pool};
pub use monitoring::{MonitoredHost, dashboard, monitor};
pub use peer_pods::{auth_secret, peer_pod_config};
pub use webhook::{upstreams_webhook, webhook, webhook_certificate, webhook_objects};

#[cfg(test)]
mod tests;
