//! `apf.json`: what a guest is told about its pod.
//!
//! What is read is the same when it is written and read again, ours or stock's. Its Debug text, which goes to logs, never holds the private key. The guest's
//! plan for the network it describes is one device, every route and neighbour at most once, connected routes before those that go by a
//! gateway; or the network is refused.

use peerpods_podnet::fuzzing::Seen;
use peerpods_podvm::guest_config::ApfConfig;
use peerpods_podvm::network::{Carried, PodNetwork};

use super::Target;
use crate::input::Input;

/// The target.
pub const TARGET: Target =
    Target { name: "apf", check, max_len: 1536, memory: 1 << 16, memory_per_byte: 512 };

fn check(data: &[u8]) {
    let text = Input(data).text();
    let config = match ApfConfig::from_json(&text) {
        Ok(config) => config,
        Err(error) => {
            return assert!(format!("{error:?}").len() < 3 * data.len() + 1024, "a long error");
        }
    };
    let again = ApfConfig::from_json(&config.to_json()).unwrap();
    assert_eq!(again, config, "written and read it is another");
    if let Some(key) = config.tls_server_key.as_ref().map(|key| key.expose())
        && key.len() > 16
    {
        let public = ApfConfig { tls_server_key: None, ..config.clone() };
        let elsewhere = format!("{public:?}").contains(key);
        assert!(elsewhere || !format!("{config:?}").contains(key), "the key is shown");
    }
    if let Some(network) = &config.pod_network {
        plan(network);
    }
}

fn plan(network: &PodNetwork) {
    let Ok(steps) = Seen::of(&[]).guest(network, 1500) else { return };
    let carried = network.carried();
    let of = |one: &Carried| {
        let Carried { interface, .. } = one;
        4 + 2 * interface.addresses().count() + interface.routes.len() + interface.neighbors.len()
    };
    let most = carried.iter().map(of).sum();
    assert!((3 * carried.len()..=most).contains(&steps.len()), "{steps:#?}");
    assert!(steps[0].starts_with("create the pod's interface"));
}
