//! The files of an initramfs as data: sorted, owned by root, without times, so that the same content is the same archive.

use std::collections::BTreeMap;

/// Two things want the same place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The path is taken by something else.
    #[error("two different things of the image are called /{0}")]
    Clash(String),
    /// Something lies below a path that is no directory.
    #[error("/{below} cannot be put into the image, because /{parent} is no directory there")]
    NotADirectory {
        /// What was to be put there.
        below: String,
        /// What is in the way.
        parent: String,
    },
}

/// One thing in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// A directory with its permissions.
    Directory(u32),
    /// A file with its permissions.
    File(u32, Vec<u8>),
    /// A symbolic link and its target.
    Symlink(String),
    /// A character device: permissions, major, minor.
    Device(u32, u32, u32),
}

/// Paths relative to the root → what lies there. A parent always sorts before what it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// Puts something at `path` (no leading slash), making the directories above it.
    ///
    /// # Errors
    /// When the place is taken by something else.
    pub(crate) fn insert(&mut self, path: &str, node: Node) -> Result<(), TreeError> {
        for (at, _) in path.match_indices('/') {
            let parent = &path[..at];
            match self.0.get(parent) {
                Some(Node::Directory(_)) => {}
                None => {
                    self.0.insert(parent.to_owned(), Node::Directory(0o755));
                }
                Some(_) => {
                    return Err(TreeError::NotADirectory {
                        below: path.to_owned(),
                        parent: parent.to_owned(),
                    });
                }
            }
        }
        match self.0.get(path) {
            Some(old) if *old != node => Err(TreeError::Clash(path.to_owned())),
            _ => {
                self.0.insert(path.to_owned(), node);
                Ok(())
            }
        }
    }

    /// Everything, sorted.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// What lies at `path`.
    #[cfg(test)]
    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_made_and_come_first() {
        let mut tree = Tree::default();
        tree.insert("usr/lib/x", Node::File(0o644, vec![1])).unwrap();
        tree.insert("usr-x", Node::Symlink("usr".to_owned())).unwrap();
        let paths: Vec<&str> = tree.nodes().map(|(path, _)| path).collect();
        assert_eq!(paths, ["usr", "usr-x", "usr/lib", "usr/lib/x"]);
    }

    #[test]
    fn two_things_at_one_place_are_refused() {
        let mut tree = Tree::default();
        tree.insert("bin", Node::Symlink("usr/bin".to_owned())).unwrap();
        tree.insert("bin", Node::Symlink("usr/bin".to_owned())).unwrap();
        assert_eq!(tree.insert("bin", Node::Directory(0o755)), Err(TreeError::Clash("bin".to_owned())));
        let below = tree.insert("bin/sh", Node::File(0o755, vec![]));
        assert!(matches!(below, Err(TreeError::NotADirectory { parent, .. }) if parent == "bin"));
    }
}
