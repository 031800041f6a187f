//! Kernel modules: which files are needed for the names the manifest wants, and in which order they load.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use elf::ElfBytes;
use elf::endian::LittleEndian;

/// Why the modules cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// A wanted module, or one it depends on, is neither a file of the package nor built in.
    #[error("the kernel package has no module {name} (wanted by {by})")]
    Missing {
        /// The module.
        name: String,
        /// Who wants it: another module, or the manifest.
        by: String,
    },
    /// Modules that depend on one another.
    #[error("the kernel module {0} depends on itself")]
    Cycle(String),
    /// A file that is no module.
    #[error("the kernel module {name} cannot be read: {reason}")]
    Broken {
        /// The module.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The modules of one kernel package.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    files: BTreeMap<String, File>,
    built_in: BTreeSet<String>,
}

#[derive(Debug)]
struct File {
    path: String,
    bytes: Vec<u8>,
}

/// One module, ready to be put into an image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Module {
    /// Where it lies, relative to the root and without a suffix for compression.
    pub(crate) path: String,
    /// The uncompressed module.
    pub(crate) bytes: Vec<u8>,
}

impl Modules {
    /// Sorts the files below `lib/modules/<release>/` of a package into modules and the list of what is built in.
    pub(crate) fn from_files(files: BTreeMap<String, Vec<u8>>) -> Self {
        let mut found = Self::default();
        for (path, bytes) in files {
            if path.ends_with("/modules.builtin") {
                found.built_in.extend(String::from_utf8_lossy(&bytes).lines().filter_map(name_of));
            } else if let Some(name) = name_of(&path) {
                found.files.insert(name, File { path, bytes });
            }
        }
        found
    }

    /// The wanted modules and all they depend on, in the order they load.
    ///
    /// # Errors
    /// When one is missing or broken.
    pub(crate) fn resolve(&self, wanted: &[String]) -> Result<Vec<Module>, ModuleError> {
        let depends = |name: &str| -> Result<Option<Vec<String>>, ModuleError> {
            if self.built_in.contains(name) {
                return Ok(Some(Vec::new()));
            }
            self.files.get(name).map(|file| dependencies(name, &plain(name, file)?)).transpose()
        };
        let order = load_order(wanted, depends)?;
        order
            .iter()
            .filter_map(|name| Some((name, self.files.get(name)?)))
            .map(|(n, f)| module(n, f))
            .collect()
    }
}

fn module(name: &str, file: &File) -> Result<Module, ModuleError> {
    let path = file.path.strip_suffix(".xz").unwrap_or(&file.path).to_owned();
    Ok(Module { path, bytes: plain(name, file)? })
}

/// The order in which modules load: each after what it depends on, else as wanted. Pure; `depends` answers `None` for a module
/// nobody has.
fn load_order(
    wanted: &[String],
    depends: impl Fn(&str) -> Result<Option<Vec<String>>, ModuleError>,
) -> Result<Vec<String>, ModuleError> {
    let mut walk = Walk { depends, open: BTreeSet::new(), order: Vec::new() };
    for name in wanted {
        walk.visit(&normal(name), "the image's manifest")?;
    }
    Ok(walk.order)
}

struct Walk<F> {
    depends: F,
    open: BTreeSet<String>,
    order: Vec<String>,
}

impl<F: Fn(&str) -> Result<Option<Vec<String>>, ModuleError>> Walk<F> {
    fn visit(&mut self, name: &str, by: &str) -> Result<(), ModuleError> {
        if self.order.iter().any(|done| done == name) {
            return Ok(());
        }
        if !self.open.insert(name.to_owned()) {
            return Err(ModuleError::Cycle(name.to_owned()));
        }
        let missing = || ModuleError::Missing { name: name.to_owned(), by: by.to_owned() };
        for dependency in (self.depends)(name)?.ok_or_else(missing)? {
            self.visit(&dependency, name)?;
        }
        self.open.remove(name);
        self.order.push(name.to_owned());
        Ok(())
    }
}

/// The module a path names, `-` read as `_` as the kernel does; `None` for other files.
fn name_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.strip_suffix(".xz").unwrap_or(file).strip_suffix(".ko")?;
    Some(normal(stem))
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn plain(name: &str, file: &File) -> Result<Vec<u8>, ModuleError> {
    if !file.path.ends_with(".xz") {
        return Ok(file.bytes.clone());
    }
    let mut out = Vec::new();
    lzma_rust2::XzReader::new(file.bytes.as_slice(), true)
        .read_to_end(&mut out)
        .map_err(|error| ModuleError::Broken { name: name.to_owned(), reason: error.to_string() })?;
    Ok(out)
}

/// What the module's `.modinfo` section says it depends on.
fn dependencies(name: &str, bytes: &[u8]) -> Result<Vec<String>, ModuleError> {
    let broken = |reason: &str| ModuleError::Broken { name: name.to_owned(), reason: reason.to_owned() };
    let file = ElfBytes::<LittleEndian>::minimal_parse(bytes).map_err(|e| broken(&e.to_string()))?;
    let header = file.section_header_by_name(".modinfo").map_err(|e| broken(&e.to_string()))?;
    let header = header.ok_or_else(|| broken("it has no .modinfo section"))?;
    let (section, _) = file.section_data(&header).map_err(|e| broken(&e.to_string()))?;
    Ok(depends_of_modinfo(section))
}

/// Reads `depends=a,b` from a `.modinfo` section: texts `key=value`, each ended by a zero byte.
fn depends_of_modinfo(section: &[u8]) -> Vec<String> {
    section
        .split(|byte| *byte == 0)
        .filter_map(|text| std::str::from_utf8(text).ok()?.strip_prefix("depends="))
        .flat_map(|list| list.split(','))
        .filter(|name| !name.is_empty())
        .map(normal)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(wanted: &[&str], table: &[(&str, &[&str])]) -> Result<Vec<String>, ModuleError> {
        let wanted: Vec<String> = wanted.iter().map(|&w| w.to_owned()).collect();
        load_order(&wanted, |name| {
            let found = table.iter().find(|(n, _)| *n == name);
            Ok(found.map(|(_, depends)| depends.iter().map(|&d| d.to_owned()).collect()))
        })
    }

    const TABLE: &[(&str, &[&str])] = &[
        ("virtio", &[]),
        ("virtio_ring", &["virtio"]),
        ("virtio_pci", &["virtio_ring", "virtio"]),
        ("virtio_rng", &["virtio"]),
        ("a", &["b"]),
        ("b", &["a"]),
        ("needy", &["gone"]),
    ];

    #[test]
    fn a_module_loads_after_what_it_depends_on_and_once() {
        assert_eq!(
            order(&["virtio_pci", "virtio-rng", "virtio"], TABLE).unwrap(),
            ["virtio", "virtio_ring", "virtio_pci", "virtio_rng"]
        );
    }

    #[test]
    fn a_cycle_is_an_error_and_not_a_hang() {
        assert!(matches!(order(&["a"], TABLE), Err(ModuleError::Cycle(name)) if name == "a"));
    }

    #[test]
    fn a_missing_module_names_who_wanted_it() {
        let direct = order(&["nope"], TABLE).unwrap_err().to_string();
        assert!(direct.contains("nope") && direct.contains("manifest"), "{direct}");
        let indirect = order(&["needy"], TABLE).unwrap_err().to_string();
        assert!(indirect.contains("gone") && indirect.contains("needy"), "{indirect}");
    }

    #[test]
    fn modinfo_is_read_with_dashes_as_underscores() {
        assert_eq!(depends_of_modinfo(b"license=GPL\0depends=a-b,c\0name=x\0"), ["a_b", "c"]);
        assert!(depends_of_modinfo(b"depends=\0\0").is_empty());
    }

    #[test]
    fn names_come_from_paths_with_either_suffix() {
        assert_eq!(name_of("lib/modules/6/kernel/drivers/virtio-rng.ko"), Some("virtio_rng".to_owned()));
        assert_eq!(name_of("kernel/net/vxlan.ko.xz"), Some("vxlan".to_owned()));
        assert_eq!(name_of("lib/modules/6/modules.order"), None);
    }

    #[test]
    fn what_is_built_in_needs_no_file() {
        let files =
            [("lib/modules/6/modules.builtin".to_owned(), b"kernel/drivers/virtio/virtio_pci.ko\n".to_vec())];
        let modules = Modules::from_files(files.into());
        assert_eq!(modules.resolve(&["virtio_pci".to_owned()]).unwrap(), []);
    }

    #[test]
    fn a_file_that_is_no_module_is_named() {
        let files = [("lib/modules/6/kernel/x.ko".to_owned(), b"text".to_vec())];
        let error = Modules::from_files(files.into()).resolve(&["x".to_owned()]).unwrap_err();
        assert!(matches!(error, ModuleError::Broken { name, .. } if name == "x"));
    }
}
