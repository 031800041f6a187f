//! What the pods' webhook is set up with: the environment of upstream's, checked whole. The environment itself is read by the caller.

use std::collections::BTreeSet;

use super::super::faults::{Fault, shown};
use super::super::names;

/// The class whose pods get VMs unless others are named.
pub const DEFAULT_CLASS: &str = "kata-remote-cc";
/// The classes, separated by commas, as the guide spells it.
pub const TARGET_RUNTIME_CLASS: &str = "TARGET_RUNTIME_CLASS";
/// The same as upstream's program spells it.
pub const TARGET_RUNTIMECLASS: &str = "TARGET_RUNTIMECLASS";
/// The resource that counts VMs.
pub const POD_VM_EXTENDED_RESOURCE: &str = "POD_VM_EXTENDED_RESOURCE";
/// An instance type that every pod is marked with. Without it none is.
pub const POD_VM_INSTANCE_TYPE: &str = "POD_VM_INSTANCE_TYPE";

/// What pods are changed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The runtime classes whose pods get VMs; never empty.
    pub classes: BTreeSet<String>,
    /// The resource that counts VMs.
    pub resource: String,
    /// What every pod is marked with.
    pub instance_type: Option<String>,
    /// Namespaces whose pods are left alone.
    pub excluded: BTreeSet<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            classes: [DEFAULT_CLASS.to_owned()].into(),
            resource: peerpods_crds::VM_RESOURCE.to_owned(),
            instance_type: None,
            excluded: BTreeSet::new(),
        }
    }
}

impl Settings {
    /// Settings from variables. Both spellings of the classes count: a name under either is taken.
    ///
    /// # Errors
    /// Every variable whose value cannot be used, by its name.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let given =
            |name: &str| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let mut classes = BTreeSet::new();
        for name in [TARGET_RUNTIMECLASS, TARGET_RUNTIME_CLASS] {
            for class in given(name).iter().flat_map(|text| text.split(',')).map(str::trim) {
                match names::subdomain(class) {
                    Ok(()) => drop(classes.insert(class.to_owned())),
                    Err(wanted) => faults.push(Fault::new(name, format!("{}: {wanted}", shown(class)))),
                }
            }
        }
        let default = Self::default();
        let resource = given(POD_VM_EXTENDED_RESOURCE).unwrap_or(default.resource);
        if let Err(wanted) = names::extended_resource(&resource) {
            faults.push(Fault::new(POD_VM_EXTENDED_RESOURCE, format!("{}: {wanted}", shown(&resource))));
        }
        if classes.is_empty() {
            classes = default.classes;
        }
        let instance_type = given(POD_VM_INSTANCE_TYPE);
        let settings = Self { classes, resource, instance_type, excluded: default.excluded };
        if faults.is_empty() { Ok(settings) } else { Err(faults) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<Settings, Vec<Fault>> {
        Settings::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn classes(variables: &[(&str, &str)]) -> Vec<String> {
        from(variables).unwrap().classes.into_iter().collect()
    }

    #[test]
    fn without_variables_the_guides_class_and_resource_hold_and_no_instance_type() {
        assert_eq!(from(&[]).unwrap(), Settings::default());
        assert_eq!(from(&[(TARGET_RUNTIMECLASS, " ")]).unwrap().classes, Settings::default().classes);
        assert_eq!(Settings::default().resource, "kata.peerpods.io/vm");
    }

    #[test]
    fn either_spelling_of_the_class_is_read_and_more_than_one_name() {
        assert_eq!(classes(&[(TARGET_RUNTIME_CLASS, "a")]), ["a"]);
        assert_eq!(classes(&[(TARGET_RUNTIMECLASS, "b")]), ["b"]);
        assert_eq!(classes(&[(TARGET_RUNTIMECLASS, "b, c"), (TARGET_RUNTIME_CLASS, "a")]), ["a", "b", "c"]);
    }

    #[test]
    fn every_value_that_cannot_be_used_is_named_by_its_variable() {
        let faults =
            from(&[(TARGET_RUNTIME_CLASS, "Kata,,ok"), (POD_VM_EXTENDED_RESOURCE, "vm")]).unwrap_err();
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, [TARGET_RUNTIME_CLASS, TARGET_RUNTIME_CLASS, POD_VM_EXTENDED_RESOURCE]);
    }

    #[test]
    fn an_instance_type_is_only_there_when_it_was_given() {
        assert_eq!(
            from(&[(POD_VM_INSTANCE_TYPE, "t3.small")]).unwrap().instance_type.as_deref(),
            Some("t3.small")
        );
    }
}
