//! The guest's decisions upon what the kernel answered, for `tests/fuzz`.

use peerpods_podvm::network::PodNetwork;

use super::plan::{self, Device, State, Underlay};
use crate::kernel::fuzzing::Object;
use crate::vxlan::Found;

/// What would be done for the network, or why it is refused.
pub(crate) fn steps(
    objects: &[Object],
    network: &PodNetwork,
    underlay_mtu: u32,
) -> Result<Vec<String>, String> {
    let underlay = Underlay { mtu: underlay_mtu, ipv6: true, local: None };
    let mut texts = Vec::new();
    for wanted in plan::wanted(network, underlay).map_err(|e| e.to_string())? {
        let state = State { device: device(objects, &wanted.interface.name) };
        let steps = plan::setup(&state, &wanted);
        texts.extend(steps.iter().map(|step| format!("{step}: {step:?}")));
    }
    Ok(texts)
}

fn device(objects: &[Object], name: &str) -> Option<Device> {
    let found = objects.iter().find_map(|object| match object {
        Object::Link(link) if link.name == name => Found::of(link.clone(), Some(0)),
        _ => None,
    })?;
    let mut device = Device { found, addresses: Vec::new(), routes: Vec::new(), neighbours: Vec::new() };
    for object in objects {
        match object {
            Object::Address(a) if a.link == device.found.index => device.addresses.push(a.net),
            Object::Route(r) if r.link == Some(device.found.index) => device.routes.push(r.clone()),
            Object::Neighbour { link, ip, mac } if *link == device.found.index => {
                device.neighbours.push((*ip, *mac));
            }
            _ => {}
        }
    }
    Some(device)
}
