//! From manifest, programs and modules to the tree of the initramfs. Pure.

use crate::manifest::{Manifest, Symlink, TextFile, Userland};
use crate::modules::Module;
use crate::tree::{Node, Tree, TreeError};

/// Where the guest program lies; `/init` points to it.
const GUEST: &str = "usr/bin/peerpods-guest";
/// Where the guest program finds what to load; it reads the same path.
const MODULES_LOAD: &str = "usr/lib/peerpods/modules.load";

/// Programs that go into the image.
#[derive(Debug)]
pub(crate) struct Programs {
    /// `peerpods-guest`.
    pub(crate) guest: Vec<u8>,
    /// The agent's name, `kata-agent` or `miniagent`.
    pub(crate) agent_name: &'static str,
    /// The agent.
    pub(crate) agent: Vec<u8>,
    /// busybox.
    pub(crate) busybox: Vec<u8>,
}

/// Everything in the initramfs.
///
/// # Errors
/// When the manifest puts two things at one place.
pub(crate) fn tree(manifest: &Manifest, programs: Programs, modules: Vec<Module>) -> Result<Tree, TreeError> {
    let mut tree = Tree::default();
    for directory in &manifest.directories {
        tree.insert(directory, Node::Directory(directory_mode(directory)))?;
    }
    // Before /init runs the kernel opens the console; after a devtmpfs is mounted these are hidden.
    tree.insert("dev/console", Node::Device(0o600, 5, 1))?;
    tree.insert("dev/null", Node::Device(0o666, 1, 3))?;
    links(&mut tree, "", &manifest.symlinks)?;
    files(&mut tree, "", &manifest.files)?;
    tree.insert("init", Node::Symlink(format!("/{GUEST}")))?;
    tree.insert(GUEST, Node::File(0o755, programs.guest))?;
    tree.insert(&format!("usr/bin/{}", programs.agent_name), Node::File(0o755, programs.agent))?;
    userland(&mut tree, &manifest.userland, programs.busybox)?;
    load_modules(&mut tree, modules)?;
    Ok(tree)
}

fn directory_mode(path: &str) -> u32 {
    if path == "tmp" || path.ends_with("/tmp") { 0o1777 } else { 0o755 }
}

fn load_modules(tree: &mut Tree, modules: Vec<Module>) -> Result<(), TreeError> {
    let list: String = modules.iter().map(|module| format!("/{}\n", module.path)).collect();
    tree.insert(MODULES_LOAD, Node::File(0o644, list.into_bytes()))?;
    modules.into_iter().try_for_each(|module| tree.insert(&module.path, Node::File(0o644, module.bytes)))
}

fn userland(tree: &mut Tree, userland: &Userland, busybox: Vec<u8>) -> Result<(), TreeError> {
    let root = format!("{}/", userland.path);
    tree.insert(&format!("{root}tmp"), Node::Directory(0o1777))?;
    for directory in &userland.directories {
        tree.insert(&format!("{root}{directory}"), Node::Directory(directory_mode(directory)))?;
    }
    tree.insert(&format!("{root}bin/busybox"), Node::File(0o755, busybox))?;
    for applet in &userland.applets {
        tree.insert(&format!("{root}bin/{applet}"), Node::Symlink("busybox".to_owned()))?;
    }
    links(tree, &root, &userland.symlinks)?;
    files(tree, &root, &userland.files)
}

fn links(tree: &mut Tree, root: &str, links: &[Symlink]) -> Result<(), TreeError> {
    links
        .iter()
        .try_for_each(|link| tree.insert(&format!("{root}{}", link.path), Node::Symlink(link.target.clone())))
}

fn files(tree: &mut Tree, root: &str, files: &[TextFile]) -> Result<(), TreeError> {
    files.iter().try_for_each(|file| {
        tree.insert(&format!("{root}{}", file.path), Node::File(0o644, file.text.clone().into_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned() -> Tree {
        let manifest = Manifest::parse(crate::manifest::QEMU).unwrap();
        let programs = Programs {
            guest: b"guest".to_vec(),
            agent_name: "miniagent",
            agent: b"agent".to_vec(),
            busybox: b"busybox".to_vec(),
        };
        let module = |path: &str| Module { path: path.to_owned(), bytes: vec![1] };
        tree(&manifest, programs, vec![module("lib/modules/6/b.ko"), module("lib/modules/6/a.ko")]).unwrap()
    }

    #[test]
    fn init_is_the_guest_program_and_the_agent_lies_beside_it() {
        let tree = planned();
        assert_eq!(tree.get("init"), Some(&Node::Symlink("/usr/bin/peerpods-guest".to_owned())));
        assert_eq!(tree.get("usr/bin/peerpods-guest"), Some(&Node::File(0o755, b"guest".to_vec())));
        assert_eq!(tree.get("usr/bin/miniagent"), Some(&Node::File(0o755, b"agent".to_vec())));
        assert_eq!(tree.get("dev/console"), Some(&Node::Device(0o600, 5, 1)));
    }

    #[test]
    fn modules_are_listed_in_the_order_they_load() {
        let list = b"/lib/modules/6/b.ko\n/lib/modules/6/a.ko\n".to_vec();
        assert_eq!(planned().get("usr/lib/peerpods/modules.load"), Some(&Node::File(0o644, list)));
    }

    #[test]
    fn the_userland_is_a_root_file_system_of_its_own() {
        let tree = planned();
        let at = |path: &str| tree.get(&format!("usr/lib/peerpods/userland/{path}"));
        assert_eq!(at("bin/busybox"), Some(&Node::File(0o755, b"busybox".to_vec())));
        assert_eq!(at("bin/sh"), Some(&Node::Symlink("busybox".to_owned())));
        assert_eq!(at("tmp"), Some(&Node::Directory(0o1777)));
        for mount_point in ["proc", "sys", "dev", "run"] {
            assert_eq!(at(mount_point), Some(&Node::Directory(0o755)), "{mount_point}");
        }
        for target in ["etc/hosts", "etc/hostname", "etc/resolv.conf"] {
            assert!(matches!(at(target), Some(Node::File(0o644, _))), "{target}");
        }
    }
}
