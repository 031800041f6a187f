//! How many bytes a piece of work has on the heap at most: an allocator that counts, so that a bound on memory is a property like any
//! other. Counts each thread by itself.

#![allow(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // Fails only while a thread ends.
    let _ = NOW.try_with(|now| {
        now.set(now.get().wrapping_add(change));
        let _ = MOST.try_with(|most| most.set(most.get().max(now.get())));
    });
}

fn size(layout: Layout) -> isize {
    isize::try_from(layout.size()).unwrap_or(isize::MAX)
}

// SAFETY: every call is the system allocator's; counting touches no memory of the callers.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(size(layout));
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(size(layout).wrapping_neg());
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(isize::try_from(new_size).unwrap_or(isize::MAX).wrapping_sub(size(layout)));
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, new_size) }
    }
}

/// Does the work, and says how many bytes this thread had on the heap at most, over what it had before.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.get();
    MOST.set(before);
    let done = work();
    (done, usize::try_from(MOST.get().wrapping_sub(before)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::peak;

    #[test]
    fn the_most_there_was_at_once_is_counted() {
        let ((), most) = peak(|| {
            drop(vec![0_u8; 50_000]);
            let mut grown = vec![1_u8; 10_000];
            grown.reserve_exact(60_000);
        });
        assert!((60_000..140_000).contains(&most), "{most}");
        assert_eq!(peak(|| ()).1, 0);
    }
}
