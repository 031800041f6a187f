//! The initramfs as bytes: a cpio archive in the `newc` format the kernel unpacks.

use std::io::{self, Write};

use cpio::newc::{Builder, ModeFileType, trailer};

use crate::tree::{Node, Tree};

/// Writes the tree as an archive. Owner 0:0, time 0, and inodes counted from one, so that the same tree is the same bytes.
///
/// # Errors
/// When a file is larger than the format can say (4 GiB).
pub(crate) fn write(tree: &Tree) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    for (ino, (path, node)) in (1..).zip(tree.nodes()) {
        write_node(&mut out, path, ino, node)?;
    }
    trailer(&mut out)?;
    Ok(out)
}

fn write_node(out: &mut Vec<u8>, path: &str, ino: u32, node: &Node) -> io::Result<()> {
    let entry = Builder::new(path).ino(ino).uid(0).gid(0).mtime(0);
    let (entry, data): (Builder, &[u8]) = match node {
        Node::Directory(mode) => {
            (entry.nlink(2).mode(*mode).set_mode_file_type(ModeFileType::Directory), &[])
        }
        Node::File(mode, data) => {
            (entry.nlink(1).mode(*mode).set_mode_file_type(ModeFileType::Regular), data)
        }
        Node::Symlink(target) => {
            (entry.nlink(1).mode(0o777).set_mode_file_type(ModeFileType::Symlink), target.as_bytes())
        }
        Node::Device(mode, major, minor) => {
            let entry = entry.nlink(1).mode(*mode).set_mode_file_type(ModeFileType::Char);
            (entry.rdev_major(*major).rdev_minor(*minor), &[])
        }
    };
    let size = u32::try_from(data.len()).map_err(|_| io::Error::other(format!("/{path} is over 4 GiB")))?;
    let mut writer = entry.write(out, size);
    writer.write_all(data)?;
    writer.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.insert("dev/console", Node::Device(0o600, 5, 1)).unwrap();
        tree.insert("init", Node::Symlink("usr/bin/guest".to_owned())).unwrap();
        tree.insert("usr/bin/guest", Node::File(0o755, b"program".to_vec())).unwrap();
        tree
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = write(&tree()).unwrap();
        let mut rest = bytes.as_slice();
        let mut seen = Vec::new();
        loop {
            let mut reader = cpio::newc::Reader::new(rest).unwrap();
            let entry = reader.entry().clone();
            if entry.is_trailer() {
                break;
            }
            assert_eq!((entry.uid(), entry.gid(), entry.mtime()), (0, 0, 0));
            let mut data = Vec::new();
            reader.read_to_end(&mut data).unwrap();
            seen.push((entry.name().to_owned(), entry.mode(), data));
            rest = reader.finish().unwrap();
        }
        let modes: Vec<(&str, u32)> = seen.iter().map(|(name, mode, _)| (name.as_str(), *mode)).collect();
        assert_eq!(
            modes,
            [
                ("dev", 0o040_755),
                ("dev/console", 0o020_600),
                ("init", 0o120_777),
                ("usr", 0o040_755),
                ("usr/bin", 0o040_755),
                ("usr/bin/guest", 0o100_755),
            ]
        );
        assert_eq!(seen[2].2, b"usr/bin/guest");
        assert_eq!(seen[5].2, b"program");
    }

    #[test]
    fn the_same_tree_is_the_same_bytes_in_whatever_order_it_was_made() {
        let mut other = Tree::default();
        let nodes: Vec<(String, Node)> = tree().nodes().map(|(p, n)| (p.to_owned(), n.clone())).collect();
        for (path, node) in nodes.into_iter().rev() {
            other.insert(&path, node).unwrap();
        }
        assert_eq!(write(&tree()).unwrap(), write(&other).unwrap());
    }
}
