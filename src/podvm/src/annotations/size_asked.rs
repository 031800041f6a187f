//! The size alone, for who has a pod's own annotations and not what a shim made of them: the webhook.

use std::collections::HashMap;

use super::{AnnotationErrors, Reader, keys, values};

/// The size that annotations ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SizeAsked {
    /// Virtual processors, rounded up; `None` when not asked for.
    pub vcpus: Option<u32>,
    /// Memory in MiB, rounded up; `None` when not asked for.
    pub memory_mib: Option<u64>,
    /// GPUs; 0 when not asked for.
    pub gpus: u32,
}

impl SizeAsked {
    /// Reads the three annotations, whatever else there is.
    ///
    /// # Errors
    /// All faults at once.
    pub fn from_annotations(annotations: &HashMap<String, String>) -> Result<Self, AnnotationErrors> {
        let mut reader = Reader { annotations, faults: Vec::new() };
        let size = Self::read(&mut reader);
        if reader.faults.is_empty() { Ok(size) } else { Err(AnnotationErrors(reader.faults)) }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            vcpus: reader.optional(keys::VCPUS, values::vcpus).flatten(),
            memory_mib: reader.optional(keys::MEMORY, values::memory_mib).flatten(),
            gpus: reader.optional(keys::GPUS, values::gpus).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entries: &[(&str, &str)]) -> Result<SizeAsked, AnnotationErrors> {
        let annotations =
            entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        SizeAsked::from_annotations(&annotations)
    }

    #[test]
    fn a_size_is_read_without_the_pods_name() {
        let size = read(&[(keys::VCPUS, "1.5"), (keys::MEMORY, "2GiB"), (keys::GPUS, "1"), ("other", "x")]);
        assert_eq!(size.unwrap(), SizeAsked { vcpus: Some(2), memory_mib: Some(2048), gpus: 1 });
        assert_eq!(read(&[]).unwrap(), SizeAsked::default());
    }

    #[test]
    fn every_part_that_cannot_be_read_is_named() {
        let AnnotationErrors(faults) = read(&[(keys::VCPUS, "many"), (keys::GPUS, "-1")]).unwrap_err();
        let named: Vec<&str> = faults.iter().map(|fault| fault.key).collect();
        assert_eq!(named, [keys::VCPUS, keys::GPUS]);
    }
}
