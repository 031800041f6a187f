//! Bytes in the order they came, in blocks: what was held in a burst goes back to the system piece by piece, where one large buffer would
//! stay with the allocator of a process that is idle for the rest of its life.
//!
//! A block that is done with is kept for the next bytes until [`Queue::rest`]: given back at once, the same pages would be asked of the
//! kernel again for every 16 KiB of a stream, which cost as much as its encryption.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::record::{HEAD, MAX_DATA};

/// A block's size: as one DATA it fills one TLS record.
pub(super) const BLOCK: usize = MAX_DATA - HEAD - 8;

/// The queue. All blocks but the last are full.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    blocks: VecDeque<Vec<u8>>,
    /// How much of the first block is gone.
    gone: usize,
    len: usize,
    /// Done with; whole ones only. With the blocks there are never more than there were blocks at one time.
    spare: Vec<Vec<u8>>,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len();
        while !bytes.is_empty() {
            if self.blocks.back().is_none_or(|last| last.len() >= BLOCK) {
                let small = || Vec::with_capacity(bytes.len().min(BLOCK));
                self.blocks.push_back(self.spare.pop().unwrap_or_else(small));
            }
            let Some(last) = self.blocks.back_mut() else { return };
            let fits = bytes.len().min(BLOCK - last.len());
            let (now, later) = bytes.split_at(fits);
            if last.capacity() - last.len() < fits {
                last.reserve_exact(BLOCK - last.len());
            }
            last.extend_from_slice(now);
            bytes = later;
        }
    }

    /// What lies at `at` from the beginning, to the end of its block; empty beyond the end.
    pub(crate) fn part(&self, at: usize) -> &[u8] {
        let at = self.gone.saturating_add(at);
        self.blocks.get(at / BLOCK).and_then(|block| block.get(at % BLOCK..)).unwrap_or_default()
    }

    /// The beginning of what it holds, as many blocks as there is room for; says how many.
    pub(crate) fn parts<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let mut gone = self.gone;
        let mut count = 0;
        for (slot, block) in into.iter_mut().zip(&self.blocks) {
            *slot = IoSlice::new(block.get(gone..).unwrap_or_default());
            gone = 0;
            count += 1;
        }
        count
    }

    /// How many bytes fill the last block and so many more.
    pub(crate) fn fill(&self, blocks: usize) -> usize {
        let last = self.blocks.back().map_or(0, |last| (BLOCK - last.len()) % BLOCK);
        last + blocks * BLOCK
    }

    /// Removes so many bytes from the beginning.
    pub(crate) fn drop_front(&mut self, count: usize) {
        let count = count.min(self.len);
        self.len -= count;
        self.gone += count;
        if self.len == 0 {
            self.gone = 0;
            while let Some(block) = self.blocks.pop_front() {
                self.keep(block);
            }
        }
        while self.gone >= BLOCK {
            self.gone -= BLOCK;
            self.blocks.pop_front().into_iter().for_each(|block| self.keep(block));
        }
    }

    fn keep(&mut self, mut block: Vec<u8>) {
        if block.capacity() >= BLOCK {
            block.clear();
            self.spare.push(block);
        }
    }

    /// How many blocks are kept for bytes to come.
    #[cfg(test)]
    pub(crate) fn spare(&self) -> usize {
        self.spare.len()
    }

    /// Gives back what is kept for bytes to come.
    pub(crate) fn rest(&mut self) {
        self.spare = Vec::new();
        if self.is_empty() {
            self.blocks = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_that_are_done_with_are_used_again_and_given_back_when_asked() {
        let mut queue = Queue::default();
        queue.push(&[1; 3 * BLOCK]);
        let used = queue.part(0).as_ptr();
        queue.drop_front(2 * BLOCK + 1);
        assert_eq!((queue.blocks.len(), queue.spare.len()), (1, 2));
        queue.push(&[2; 2 * BLOCK]);
        assert_eq!((queue.blocks.len(), queue.spare.len()), (3, 0));
        assert!(queue.blocks.iter().any(|block| block.as_ptr() == used));
        queue.drop_front(queue.len());
        assert_eq!((queue.blocks.len(), queue.spare.len()), (0, 3));
        queue.rest();
        assert_eq!(queue.spare.capacity() + queue.blocks.capacity(), 0);
        queue.push(b"a little");
        queue.drop_front(8);
        assert!(queue.spare.is_empty(), "a little block is not worth keeping");
    }

    proptest! {
        #[test]
        fn it_holds_what_a_plain_buffer_holds(steps in prop::collection::vec((any::<bool>(), 0usize..50_000), 0..40)) {
            let (mut queue, mut plain, mut next, mut most) = (Queue::default(), Vec::new(), 0u8, 0);
            for (push, count) in steps {
                if push {
                    let bytes: Vec<u8> = (0..count).map(|_| { next = next.wrapping_add(1); next }).collect();
                    queue.push(&bytes);
                    plain.extend(bytes);
                } else {
                    let count = count.min(plain.len());
                    queue.drop_front(count);
                    plain.drain(..count);
                }
                let mut read = Vec::new();
                while !queue.part(read.len()).is_empty() {
                    let at = read.len();
                    read.extend_from_slice(queue.part(at));
                }
                let mut parts = [IoSlice::new(&[]); 3];
                let count = queue.parts(&mut parts);
                let begins = parts[..count].iter().flat_map(|part| part.iter().copied()).collect::<Vec<_>>();
                prop_assert!(plain.starts_with(&begins) && (count == 3 || begins.len() == plain.len()));
                prop_assert_eq!(queue.len(), plain.len());
                prop_assert!(read == plain);
                prop_assert!(queue.blocks.len() <= plain.len() / BLOCK + 2);
                most = most.max(queue.blocks.len());
                prop_assert!(queue.blocks.len() + queue.spare.len() <= most);
                prop_assert!(queue.spare.iter().all(Vec::is_empty));
            }
            queue.rest();
            prop_assert!(queue.spare.is_empty() && queue.len() == plain.len());
        }
    }
}
