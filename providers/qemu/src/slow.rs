//! A file that takes long to open, for tests: whoever opens it on a thread of the runtime keeps that thread from all others.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use futures::FutureExt;
use nix::sys::stat::Mode;

/// Whether `work`, which opens `path`, gives its thread back while it waits for the file. The file is there only meanwhile; it is a
/// FIFO, which opens when somebody opens its other end.
pub(crate) fn leaves_the_thread<T>(path: &Path, work: impl Future<Output = T>) -> bool {
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let file = path.to_owned();
    let other_end = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        // Both ends, so that readers and writers are served and this one does not wait.
        let opened = OpenOptions::new().read(true).write(true).open(&file).unwrap();
        // Whoever comes later finds nothing to wait for.
        std::fs::remove_file(&file).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        drop(opened);
    });
    let left = work.now_or_never().is_none();
    other_end.join().unwrap();
    left
}
