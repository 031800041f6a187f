//! `apf.json`: what a guest is told about its pod.
//!
//! What is read is the same when it is written and read again, ours or stock's. Its Debug text, which goes to logs, never holds the private key. The guest's
//! plan for the network it describes is one device, every route and neighbour at most once, connected routes before those that go by a
//! gateway; or the network is refused.

use peerpods_podnet::fuzzing::Seen;
use peerpods_podvm::guest_config::ApfConfig;
use peerpods_podvm::network::PodNetwork;

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
    let most = 3 + network.routes.len() + network.neighbors.len();
    assert!((3..=most).contains(&steps.len()), "{steps:#?}");
    assert!(steps[0].starts_with("create the pod's interface"));
    let said = steps.iter().filter_map(|step| step.split_once(": AddRoute(")).map(|(said, _)| said);
    let routes: Vec<_> = said.collect();
    let first_via = routes.iter().position(|step| step.contains(" via ")).unwrap_or(routes.len());
    assert!(routes.iter().skip(first_via).all(|step| step.contains(" via ")), "{routes:#?}");
    let pod = network.pod_interface();
    assert_eq!((pod.address, pod.mac), (network.podip, network.pod_hw_addr));
}
