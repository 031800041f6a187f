//! The options of an OCI mount, sorted into what the kernel takes as flags, as propagation, and as text. Pure.

use nix::mount::MsFlags;

/// Mount options, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `MS_*` bits.
    pub flags: u64,
    /// `MS_*` bits of propagation; 0 for none asked.
    pub propagation: u64,
    /// Whether a bind mount was asked, and whether with what is mounted below.
    pub bind: Option<Depth>,
    /// Everything else, comma-separated, for the file system.
    pub data: String,
}

/// How much of a tree a bind mount takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The one mount.
    Single,
    /// The mounts below as well.
    Recursive,
}

/// An option that sets flags, and one that takes them back.
const FLAGS: [(&str, MsFlags, Switch); 24] = [
    ("ro", MsFlags::MS_RDONLY, Switch::On),
    ("rw", MsFlags::MS_RDONLY, Switch::Off),
    ("nosuid", MsFlags::MS_NOSUID, Switch::On),
    ("suid", MsFlags::MS_NOSUID, Switch::Off),
    ("nodev", MsFlags::MS_NODEV, Switch::On),
    ("dev", MsFlags::MS_NODEV, Switch::Off),
    ("noexec", MsFlags::MS_NOEXEC, Switch::On),
    ("exec", MsFlags::MS_NOEXEC, Switch::Off),
    ("sync", MsFlags::MS_SYNCHRONOUS, Switch::On),
    ("async", MsFlags::MS_SYNCHRONOUS, Switch::Off),
    ("dirsync", MsFlags::MS_DIRSYNC, Switch::On),
    ("mand", MsFlags::MS_MANDLOCK, Switch::On),
    ("nomand", MsFlags::MS_MANDLOCK, Switch::Off),
    ("noatime", MsFlags::MS_NOATIME, Switch::On),
    ("atime", MsFlags::MS_NOATIME, Switch::Off),
    ("nodiratime", MsFlags::MS_NODIRATIME, Switch::On),
    ("diratime", MsFlags::MS_NODIRATIME, Switch::Off),
    ("relatime", MsFlags::MS_RELATIME, Switch::On),
    ("norelatime", MsFlags::MS_RELATIME, Switch::Off),
    ("strictatime", MsFlags::MS_STRICTATIME, Switch::On),
    ("nostrictatime", MsFlags::MS_STRICTATIME, Switch::Off),
    ("silent", MsFlags::MS_SILENT, Switch::On),
    ("loud", MsFlags::MS_SILENT, Switch::Off),
    ("defaults", MsFlags::empty(), Switch::On),
];

#[derive(Clone, Copy)]
enum Switch {
    On,
    Off,
}

/// How mounts propagate, by option.
const PROPAGATION: [(&str, MsFlags); 8] = [
    ("private", MsFlags::MS_PRIVATE),
    ("rprivate", MsFlags::MS_PRIVATE.union(MsFlags::MS_REC)),
    ("shared", MsFlags::MS_SHARED),
    ("rshared", MsFlags::MS_SHARED.union(MsFlags::MS_REC)),
    ("slave", MsFlags::MS_SLAVE),
    ("rslave", MsFlags::MS_SLAVE.union(MsFlags::MS_REC)),
    ("unbindable", MsFlags::MS_UNBINDABLE),
    ("runbindable", MsFlags::MS_UNBINDABLE.union(MsFlags::MS_REC)),
];

/// Sorts options; the later of two that contradict each other wins.
#[must_use]
pub fn sort(options: &[String]) -> MountOptions {
    let mut flags = MsFlags::empty();
    let mut sorted = MountOptions::default();
    let mut data = Vec::new();
    for option in options {
        let option = option.as_str();
        if let Some((_, bits, switch)) = FLAGS.iter().find(|(name, ..)| *name == option) {
            match switch {
                Switch::On => flags.insert(*bits),
                Switch::Off => flags.remove(*bits),
            }
        } else if let Some((_, bits)) = PROPAGATION.iter().find(|(name, _)| *name == option) {
            sorted.propagation = bits.bits();
        } else {
            match option {
                "bind" => sorted.bind = Some(Depth::Single),
                "rbind" => sorted.bind = Some(Depth::Recursive),
                other => data.push(other),
            }
        }
    }
    sorted.flags = flags.bits();
    sorted.data = data.join(",");
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(options: &[&str]) -> MountOptions {
        sort(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_become_flags_propagation_and_data() {
        let made = sorted(&["nosuid", "noexec", "rslave", "mode=1777", "size=64m"]);
        assert_eq!(made.flags, (MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC).bits());
        assert_eq!(made.propagation, (MsFlags::MS_SLAVE | MsFlags::MS_REC).bits());
        assert_eq!(made.data, "mode=1777,size=64m");
        assert_eq!(made.bind, None);
    }

    #[test]
    fn the_later_of_two_contradicting_options_wins() {
        assert_eq!(sorted(&["ro", "rw"]).flags, 0);
        assert_eq!(sorted(&["rw", "ro"]).flags, MsFlags::MS_RDONLY.bits());
        assert_eq!(sorted(&["bind", "rbind"]).bind, Some(Depth::Recursive));
    }
}
