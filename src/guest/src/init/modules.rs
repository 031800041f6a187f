//! Kernel modules, in the order the image's builder found.

use std::fs::{self, File};
use std::io;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use super::{InitError, failed};

/// One path per line; written by the image's builder (`images`), which resolved what depends on what.
const LIST: &str = "/usr/lib/peerpods/modules.load";

/// Loads every module of the list. An image whose kernel has everything built in has no list.
pub(super) fn load_all() -> Result<(), InitError> {
    let list = match fs::read_to_string(LIST) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(format!("read {LIST}"))(error)),
    };
    for path in paths(&list) {
        let step = || format!("load the kernel module {path}");
        let file = File::open(path).map_err(failed(step()))?;
        match finit_module(&file, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(failed(step())(error)),
        }
    }
    Ok(())
}

/// The lines that name a module. Pure.
fn paths(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_lines_and_remarks_are_no_modules() {
        let found: Vec<&str> = paths("# network\n/lib/a.ko\n\n  /lib/b.ko\n").collect();
        assert_eq!(found, ["/lib/a.ko", "/lib/b.ko"]);
    }
}
