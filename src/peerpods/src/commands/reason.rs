//! Where a program of a pod leaves the reason of its end, so that the kubelet shows it in the pod's status. On stderr it is as well.

use std::path::Path;

use peerpods_podvm::causes::chain;

use super::Failure;

/// Hands on what came of a command; a failure's reason is left in the file first, on one line, if a file is named.
pub(super) fn leave<T>(done: Result<T, Failure>, file: Option<&Path>) -> Result<T, Failure> {
    if let (Err(error), Some(path)) = (&done, file)
        && let Err(error) = std::fs::write(path, chain(error.as_ref()).replace('\n', " "))
    {
        tracing::warn!(path = %path.display(), %error, "the reason cannot be written there");
    }
    done
}
