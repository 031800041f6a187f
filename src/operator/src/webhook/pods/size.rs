//! How large a pod's VM has to be, from what its containers ask for.
//!
//! Kubernetes' formula, and upstream's preference for limits, meet in what goes into the formula. The formula is the scheduler's: the
//! larger of all containers and sidecars together, and each init container with the sidecars that were started before it. What goes in is,
//! for each container and resource, the limit where there is one and the request otherwise: a container may use up to its limit, and in a
//! VM there is nobody to borrow from. (Upstream, cloud-api-adaptor 0.9, prefers limits as well, but of the sums, so that one container
//! without a limit is forgotten, and adds init containers up.) What a pod asks for as a whole (`spec.resources`) holds instead of the sum:
//! its limit as it is, its request as the least.
//!
//! The overhead of the runtime class is about the node and does not count. Namespaces' defaults (`LimitRange`) are in the containers by
//! now, so they count as if the user had written them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource;

use crate::quantity::Quantity;
use crate::webhook::faults::{Fault, shown};

/// How processors are asked for.
pub const CPU: &str = "cpu";
/// How memory is asked for.
pub const MEMORY: &str = "memory";
/// How whole GPUs are asked for. Parts of one (`nvidia.com/mig-…`) are none: a VM gets whole ones.
pub const GPUS: [&str; 5] =
    ["nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915", "gpu.intel.com/xe", "habana.ai/gaudi"];

/// What is asked for. Nothing of a part means that it was not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Processors.
    pub cpu: Quantity,
    /// Bytes of memory.
    pub memory: Quantity,
    /// GPUs.
    pub gpus: Quantity,
}

impl Wanted {
    fn plus(self, other: Self) -> Self {
        self.with(other, Quantity::plus)
    }

    fn max(self, other: Self) -> Self {
        self.with(other, Ord::max)
    }

    fn with(self, other: Self, both: fn(Quantity, Quantity) -> Quantity) -> Self {
        Self {
            cpu: both(self.cpu, other.cpu),
            memory: both(self.memory, other.memory),
            gpus: both(self.gpus, other.gpus),
        }
    }
}

/// Whether an init container goes on beside the others.
#[must_use]
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What the pod's VM has to hold.
///
/// # Errors
/// Every quantity that cannot be read.
pub fn of(spec: &PodSpec) -> Result<Wanted, Vec<Fault>> {
    let mut reader = Reader::default();
    let sum = reader.containers(spec);
    let wanted = reader.whole_pod(spec.resources.as_ref(), sum);
    if reader.faults.is_empty() { Ok(wanted) } else { Err(reader.faults) }
}

#[derive(Default)]
struct Reader {
    faults: Vec<Fault>,
}

type Amounts = BTreeMap<String, resource::Quantity>;

impl Reader {
    fn containers(&mut self, spec: &PodSpec) -> Wanted {
        let (mut sidecars, mut starting) = (Wanted::default(), Wanted::default());
        for (n, container) in spec.init_containers.iter().flatten().enumerate() {
            let own = self.container(&format!("spec.initContainers[{n}].resources"), container);
            let then = sidecars.plus(own);
            starting = starting.max(then);
            if is_sidecar(container) {
                sidecars = then;
            }
        }
        let mut running = sidecars;
        for (n, container) in spec.containers.iter().enumerate() {
            running = running.plus(self.container(&format!("spec.containers[{n}].resources"), container));
        }
        running.max(starting)
    }

    fn container(&mut self, field: &str, container: &Container) -> Wanted {
        let Some(resources) = &container.resources else { return Wanted::default() };
        let (limits, requests) = self.both(field, resources);
        limits.max(requests)
    }

    fn whole_pod(&mut self, resources: Option<&ResourceRequirements>, sum: Wanted) -> Wanted {
        let Some(resources) = resources else { return sum };
        let (limits, requests) = self.both("spec.resources", resources);
        let either = |limit: Quantity, request: Quantity, sum: Quantity| {
            if limit.is_zero() { request.max(sum) } else { limit }
        };
        Wanted {
            cpu: either(limits.cpu, requests.cpu, sum.cpu),
            memory: either(limits.memory, requests.memory, sum.memory),
            // Kubernetes knows none for a pod as a whole.
            gpus: sum.gpus,
        }
    }

    fn both(&mut self, field: &str, resources: &ResourceRequirements) -> (Wanted, Wanted) {
        let empty = Amounts::new();
        let limits = self.amounts(&format!("{field}.limits"), resources.limits.as_ref().unwrap_or(&empty));
        let requests =
            self.amounts(&format!("{field}.requests"), resources.requests.as_ref().unwrap_or(&empty));
        (limits, requests)
    }

    fn amounts(&mut self, field: &str, amounts: &Amounts) -> Wanted {
        let mut of = |name: &str| match amounts.get(name).map(|amount| Quantity::parse(&amount.0)) {
            Some(Ok(quantity)) => quantity,
            None => Quantity::default(),
            Some(Err(error)) => {
                let value = amounts.get(name).map(|amount| shown(&amount.0)).unwrap_or_default();
                self.faults.push(Fault::new(format!("{field}[{name}]"), format!("{value}: {error}")));
                Quantity::default()
            }
        };
        let gpus = GPUS.into_iter().map(&mut of).fold(Quantity::default(), Quantity::plus);
        Wanted { cpu: of(CPU), memory: of(MEMORY), gpus }
    }
}

#[cfg(test)]
mod tests;
