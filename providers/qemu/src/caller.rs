//! Whether anybody still waits for a work that runs in a task of its own.
//!
//! A birth whose caller was dropped before it began must not begin: the caller may have deleted since, and that was the last look
//! anybody takes. Nor must such a death begin: it might meet the VM that was made since. A work that began holds the VM's lock and
//! goes on to its end, so whoever comes next finds something whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::Failure;

/// The caller, as the work sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller(Arc<AtomicBool>);

/// Kept by the caller; dropping it says that the caller is gone.
pub(crate) struct Waiting(Caller);

impl Caller {
    pub(crate) fn waits(&self) -> Waiting {
        Waiting(self.clone())
    }

    /// To be asked right after the VM's lock was taken.
    pub(crate) fn still_waits(&self) -> Result<(), Failure> {
        if self.0.load(Ordering::SeqCst) { Err(Failure::Abandoned) } else { Ok(()) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::SeqCst);
    }
}
