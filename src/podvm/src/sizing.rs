//! How large a pod's VM is to be: what it asked for, filled up from defaults and held to bounds.
//!
//! Choosing an instance type of that size is the provider's business.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::annotations::PodRequest;

/// A VM's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// GPUs.
    #[serde(default)]
    pub gpus: u32,
}

/// What a node or provider gives. Made by [`SizePolicy::new`], so that `minimum ≤ default ≤ maximum` in every part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizePolicy {
    default: Size,
    minimum: Size,
    maximum: Size,
}

/// One of the three parts of a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Virtual processors.
    Vcpus,
    /// Memory in MiB.
    MemoryMib,
    /// GPUs.
    Gpus,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vcpus => "vCPUs",
            Self::MemoryMib => "MiB of memory",
            Self::Gpus => "GPUs",
        })
    }
}

/// A part that was asked for and is not to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfBounds {
    /// Which part.
    pub part: Part,
    /// How much was asked for.
    pub asked: u64,
    /// The nearest that is allowed.
    pub nearest: u64,
}

impl fmt::Display for OutOfBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} asked for, the nearest allowed is {}", self.asked, self.part, self.nearest)
    }
}

/// Why a size cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// The pod asks for more than is allowed; every such part at once.
    #[error("the pod VM would be too large: {}", list(.0))]
    TooLarge(Vec<OutOfBounds>),
    /// The policy contradicts itself.
    #[error(
        "the bounds on {part} contradict each other: minimum {minimum}, default {default}, maximum {maximum}"
    )]
    Policy {
        /// Which part.
        part: Part,
        /// Its lower bound.
        minimum: u64,
        /// Its default.
        default: u64,
        /// Its upper bound.
        maximum: u64,
    },
}

fn list(faults: &[OutOfBounds]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Size {
    fn parts(self) -> [(Part, u64); 3] {
        [
            (Part::Vcpus, u64::from(self.vcpus)),
            (Part::MemoryMib, self.memory_mib),
            (Part::Gpus, u64::from(self.gpus)),
        ]
    }
}

impl SizePolicy {
    /// A policy, checked.
    ///
    /// # Errors
    /// When a minimum is above its default or a default above its maximum.
    pub fn new(minimum: Size, default: Size, maximum: Size) -> Result<Self, SizeError> {
        for (((part, minimum), (_, default)), (_, maximum)) in
            minimum.parts().into_iter().zip(default.parts()).zip(maximum.parts())
        {
            if minimum > default || default > maximum {
                return Err(SizeError::Policy { part, minimum, default, maximum });
            }
        }
        Ok(Self { default, minimum, maximum })
    }

    /// The size for a pod. Each part asked for counts by itself; what is not asked for is the default.
    ///
    /// A pod that asks for less than the minimum gets the minimum: shims pass on container limits, and a pod limited to 64 MiB
    /// still needs a VM that boots.
    ///
    /// # Errors
    /// When a part exceeds its maximum; the error names each such part and the nearest allowed value.
    pub fn size_for(&self, request: &PodRequest) -> Result<Size, SizeError> {
        let wanted = Size {
            vcpus: request.vcpus.unwrap_or(self.default.vcpus).max(self.minimum.vcpus),
            memory_mib: request.memory_mib.unwrap_or(self.default.memory_mib).max(self.minimum.memory_mib),
            gpus: Some(request.gpus).filter(|n| *n > 0).unwrap_or(self.default.gpus).max(self.minimum.gpus),
        };
        let faults: Vec<OutOfBounds> = wanted
            .parts()
            .into_iter()
            .zip(self.maximum.parts())
            .filter(|((_, asked), (_, maximum))| asked > maximum)
            .map(|((part, asked), (_, nearest))| OutOfBounds { part, asked, nearest })
            .collect();
        if faults.is_empty() { Ok(wanted) } else { Err(SizeError::TooLarge(faults)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(vcpus: u32, memory_mib: u64, gpus: u32) -> Size {
        Size { vcpus, memory_mib, gpus }
    }

    fn policy() -> SizePolicy {
        SizePolicy::new(size(1, 256, 0), size(2, 2048, 0), size(16, 65_536, 1)).unwrap()
    }

    fn request(vcpus: Option<u32>, memory_mib: Option<u64>, gpus: u32) -> PodRequest {
        PodRequest {
            pod_name: "pod".into(),
            pod_namespace: "ns".into(),
            machine_type: None,
            image: None,
            vcpus,
            memory_mib,
            gpus,
            gpu_model: None,
            initdata: None,
            unattended: false,
        }
    }

    #[test]
    fn what_is_not_asked_for_is_the_default_part_by_part() {
        assert_eq!(policy().size_for(&request(None, None, 0)), Ok(size(2, 2048, 0)));
        assert_eq!(policy().size_for(&request(Some(4), None, 0)), Ok(size(4, 2048, 0)));
        assert_eq!(policy().size_for(&request(None, Some(512), 1)), Ok(size(2, 512, 1)));
    }

    #[test]
    fn a_pod_that_asks_for_less_than_boots_gets_the_minimum() {
        assert_eq!(policy().size_for(&request(Some(1), Some(64), 0)), Ok(size(1, 256, 0)));
    }

    #[test]
    fn what_exceeds_the_maximum_is_refused_and_the_nearest_allowed_is_named() {
        let error = policy().size_for(&request(Some(17), Some(70_000), 1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the pod VM would be too large: 17 vCPUs asked for, the nearest allowed is 16; 70000 MiB of memory asked for, the nearest allowed is 65536"
        );
        assert_eq!(policy().size_for(&request(Some(16), Some(65_536), 1)), Ok(size(16, 65_536, 1)));
    }

    #[test]
    fn bounds_that_contradict_each_other_are_refused() {
        assert!(SizePolicy::new(size(4, 0, 0), size(2, 0, 0), size(8, 0, 0)).is_err());
        let error = SizePolicy::new(size(1, 1, 0), size(2, 9, 0), size(8, 8, 0)).unwrap_err();
        assert!(
            error.to_string().contains("MiB of memory") && error.to_string().contains("default 9"),
            "{error}"
        );
    }
}
