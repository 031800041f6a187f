//! The operator's keys and the webhook's. Names and meanings of the variables are those of OpenShift sandboxed containers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use peerpods_operator::deploy::workload::IMAGE;
use peerpods_operator::settings::Settings;
use peerpods_operator::webhook::certificates::Source;
use peerpods_operator::webhook::configuration::PORT;
use peerpods_operator::webhook::pods;

use super::door::Door;
use super::keys;
use super::kinds::{self, Kind};
use super::settings::clouds;

/// What the operator and the webhook are told.
#[derive(Debug, Clone)]
pub struct OperatorSettings {
    /// The controllers.
    pub controllers: Settings,
    /// What the webhook does with pods.
    pub pods: pods::Settings,
    /// Where the API server asks.
    pub webhook_address: SocketAddr,
    /// Who makes the webhook's certificate.
    pub certificate: Source,
}

const ADDRESS: Kind<SocketAddr> =
    Kind { read: |w| kinds::parsed(w), show: |address| address.to_string().into() };

const CERTIFICATE: Kind<Source> =
    Kind { read: |w| kinds::parsed(w), show: |source| source.to_string().into() };

/// Keys that the webhook judges together, by the variables it knows them by.
const OF_PODS: [&str; 4] =
    ["peer-pod-classes", "peer-pod-classes-too", "webhook.resource", "webhook.instance-type"];

/// Reads the keys.
pub fn assemble(door: &mut Door) -> OperatorSettings {
    let pods = pods(door);
    let default = Settings::default();
    let controllers = Settings {
        namespace: door.take("namespace", default.namespace.clone(), &kinds::TEXT),
        image: door.take("operator.image", IMAGE.to_owned(), &kinds::TEXT),
        monitor_image: door.take("operator.monitor-image", default.monitor_image.clone(), &kinds::TEXT),
        extension: door.take("operator.extension", default.extension.clone(), &kinds::TEXT),
        peer_pod_classes: pods.classes.iter().cloned().collect(),
        providers: clouds(),
        ..default
    };
    let here = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let webhook_address = SocketAddr::new(here, u16::try_from(PORT).unwrap_or_default());
    OperatorSettings {
        controllers,
        pods,
        webhook_address: door.take("webhook.address", webhook_address, &ADDRESS),
        certificate: door.take("webhook.certificate", Source::default(), &CERTIFICATE),
    }
}

fn pods(door: &mut Door) -> pods::Settings {
    let mut variables = BTreeMap::new();
    for name in OF_PODS {
        let value = door.take_optional(name, &kinds::TEXT);
        variables.extend(keys::find(name).zip(value).map(|(key, value)| (key.variable, value)));
    }
    match pods::Settings::from_variables(|name| variables.get(name).cloned()) {
        Ok(settings) => settings,
        Err(faults) => {
            for fault in faults {
                let key = keys::KEYS.iter().find(|key| key.variable == fault.field);
                door.refuse(key.map_or("peer-pod-classes", |key| key.name), fault.reason);
            }
            pods::Settings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use peerpods_operator::webhook::certificates::CERTIFICATE_VARIABLE;

    use super::*;

    #[test]
    fn variables_are_those_that_the_operator_and_its_webhook_use() {
        let variable = |key: &str| keys::find(key).map(|key| key.variable);
        assert_eq!(variable("webhook.certificate"), Some(CERTIFICATE_VARIABLE));
        assert_eq!(variable("peer-pod-classes"), Some(pods::settings::TARGET_RUNTIMECLASS));
        assert_eq!(variable("peer-pod-classes-too"), Some(pods::settings::TARGET_RUNTIME_CLASS));
        assert_eq!(variable("webhook.resource"), Some(pods::settings::POD_VM_EXTENDED_RESOURCE));
        assert_eq!(variable("webhook.instance-type"), Some(pods::settings::POD_VM_INSTANCE_TYPE));
    }
}
