//! The worker's decisions upon what the kernel answered, for `tests/fuzz`.

use std::path::Path;

use peerpods_podvm::network::PodInterface;

use super::plan::{self, Side, State};
use super::{BRIDGE, device_name, interface, is_ours};
use crate::kernel::fuzzing::Object;
use crate::kernel::tc::Received;
use crate::kernel::{Address, KernelRoute, Link};
use crate::tunnel::TunnelSpec;
use crate::vxlan::Found;

macro_rules! as_of {
    ($object:expr, $kind:ident) => {
        if let Object::$kind(of) = $object { Some(of.clone()) } else { None }
    };
}

/// The pod's interface, or why there is none.
pub(crate) fn pod(objects: &[Object]) -> Result<PodInterface, String> {
    let (links, netns) = (links(objects), Path::new("/ns"));
    let addresses: Vec<Address> = objects.iter().filter_map(|o| as_of!(o, Address)).collect();
    let routes: Vec<KernelRoute> = objects.iter().filter_map(|o| as_of!(o, Route)).collect();
    let found = interface::Found { netns, links: &links, addresses: &addresses, routes: &routes };
    let picked = interface::pick(&found).map_err(|e| e.to_string())?;
    let neighbours = |of: &Link| -> Vec<_> {
        let seen = objects.iter().filter_map(|o| match o {
            Object::Neighbour { link, ip, mac } if *link == of.index => Some((*ip, *mac)),
            _ => None,
        });
        seen.collect()
    };
    for link in picked.secondary {
        // A further interface that cannot be described is left out of the pod's network.
        let _left_out = interface::describe(&found, link, &neighbours(link));
    }
    interface::describe(&found, picked.primary, &neighbours(picked.primary)).map_err(|e| e.to_string())
}

/// What laying the tunnel would do, and removing it.
pub(crate) fn steps(objects: &[Object], spec: &TunnelSpec) -> (Vec<String>, Vec<String>) {
    let links = links(objects);
    let named = |name: &str| links.iter().find(|link| link.name == name);
    let side =
        |link: &Link| Side { link: link.index, mtu: link.mtu, received: received(objects, link.index) };
    let device = named(&device_name(spec.ordinal)).and_then(|link| Found::of(link.clone(), Some(0)));
    let device_received = device.as_ref().map(|d| received(objects, d.index)).unwrap_or_default();
    let state = State {
        pod: named(&spec.pod_interface).map(side),
        device,
        device_received,
        bridge: named(BRIDGE).map(|link| link.index),
        others: links.iter().any(|l| is_ours(l) && l.name != BRIDGE && l.name != device_name(spec.ordinal)),
    };
    let texts = |steps: Vec<plan::Step>| steps.iter().map(|step| format!("{step}: {step:?}")).collect();
    (texts(plan::setup(&state, spec, &[])), texts(plan::teardown(&state)))
}

fn links(objects: &[Object]) -> Vec<Link> {
    objects.iter().filter_map(|o| as_of!(o, Link)).collect()
}

fn received(objects: &[Object], index: u32) -> Received {
    let here = |link: i32| u32::try_from(link) == Ok(index);
    let mut received = Received::default();
    for object in objects {
        match object {
            Object::Qdisc { link, qdisc } if here(*link) => received.qdisc = Some(*qdisc),
            Object::Filter { link, filter } if here(*link) => received.filters.push(filter.clone()),
            _ => {}
        }
    }
    received
}
