//! Bytes in the order they came, in blocks: what was held in a burst goes back to the system piece by piece, where one large buffer would
//! stay with the allocator of a process that is idle for the rest of its life.

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
                self.blocks.push_back(Vec::with_capacity(bytes.len().min(BLOCK)));
            }
            let Some(last) = self.blocks.back_mut() else { return };
            let fits = bytes.len().min(BLOCK - last.len());
            let (now, later) = bytes.split_at(fits);
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
        self.len = self.len.saturating_sub(count);
        if self.len == 0 {
            *self = Self::default();
            return;
        }
        self.gone += count;
        while self.gone >= BLOCK {
            self.blocks.pop_front();
            self.gone -= BLOCK;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_plain_buffer_holds(steps in prop::collection::vec((any::<bool>(), 0usize..50_000), 0..40)) {
            let (mut queue, mut plain, mut next) = (Queue::default(), Vec::new(), 0u8);
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
            }
        }
    }
}
