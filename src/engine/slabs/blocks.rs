//! Which addresses are whose: blocks of powers of two, halved and put together again (the buddy system). Numbers only, no memory.

use std::collections::BTreeSet;

/// The smallest block, a page of WebAssembly's, as a power of two.
const SMALLEST: u32 = 16;
/// The largest, all that 32 bits can name.
pub(super) const LARGEST: u32 = 32;
const ORDERS: usize = (LARGEST - SMALLEST + 1) as usize;

/// A part of the space that is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub at: usize,
    order: u32,
}

impl Block {
    pub(super) fn bytes(self) -> usize {
        1 << self.order
    }
}

/// What is free of a space that begins at 0 and grows at its end by blocks of the largest kind.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    end: usize,
    /// By their order; what is nearest to the beginning goes first.
    free: [BTreeSet<usize>; ORDERS],
}

fn index(order: u32) -> usize {
    (order - SMALLEST) as usize
}

/// The order of a block for so many bytes; `None`: there is none so large.
fn order(bytes: usize) -> Option<u32> {
    let order = bytes.checked_next_power_of_two()?.ilog2().max(SMALLEST);
    (order <= LARGEST).then_some(order)
}

impl Blocks {
    /// Makes room for so many more blocks of the largest kind.
    pub(super) fn add(&mut self, largest: usize) {
        for _ in 0..largest {
            self.free[index(LARGEST)].insert(self.end);
            self.end += 1 << LARGEST;
        }
    }

    /// A block of so many bytes or more. `None`: there is no room.
    pub(super) fn take(&mut self, bytes: usize) -> Option<Block> {
        let order = order(bytes)?;
        let mut of = (order..=LARGEST).find(|of| !self.free[index(*of)].is_empty())?;
        let at = self.free[index(of)].pop_first()?;
        while of > order {
            of -= 1;
            self.free[index(of)].insert(at + (1 << of));
        }
        Some(Block { at, order })
    }

    /// Takes a block back, with the halves that it is one of, as far as both are free.
    pub(super) fn give_back(&mut self, block: Block) {
        let Block { mut at, mut order } = block;
        while order < LARGEST && self.free[index(order)].remove(&(at ^ (1 << order))) {
            at &= !(1 << order);
            order += 1;
        }
        let was_taken = self.free[index(order)].insert(at);
        assert!(was_taken, "a block is given back once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_block_is_as_large_as_it_has_to_be() {
        let mut blocks = Blocks::default();
        assert_eq!(blocks.take(1), None, "nothing is there yet");
        blocks.add(4);
        for (bytes, is) in [(0, 1 << 16), (1, 1 << 16), (65_536, 65_536), (65_537, 131_072), (1 << 32, 1 << 32)] {
            assert_eq!(blocks.take(bytes).unwrap().bytes(), is);
        }
        assert_eq!(blocks.take((1 << 32) + 1), None);
        assert_eq!(blocks.take(usize::MAX), None);
    }

    #[test]
    fn what_is_given_back_is_whole_again() {
        let mut blocks = Blocks::default();
        blocks.add(1);
        let all: Vec<Block> = (0..1 << (LARGEST - SMALLEST)).map(|_| blocks.take(65_536).unwrap()).collect();
        assert_eq!(blocks.take(1), None);
        all.iter().for_each(|block| blocks.give_back(*block));
        let whole = blocks.take(1 << 32).unwrap();
        assert_eq!((whole.at, blocks.take(1)), (0, None));
    }

    proptest! {
        /// Whatever is taken and given back: blocks lie within the space, on multiples of their size, and never on each other.
        #[test]
        fn blocks_never_overlap(steps in prop::collection::vec((0_usize..300 << 20, any::<prop::sample::Index>(), any::<bool>()), 1..200)) {
            let mut blocks = Blocks::default();
            let mut taken: Vec<Block> = vec![];
            for (bytes, which, give_back) in steps {
                if give_back && !taken.is_empty() {
                    blocks.give_back(taken.swap_remove(which.index(taken.len())));
                    continue;
                }
                let block = blocks.take(bytes).unwrap_or_else(|| {
                    blocks.add(1);
                    blocks.take(bytes).unwrap()
                });
                prop_assert!(block.bytes() >= bytes && block.at.is_multiple_of(block.bytes()));
                prop_assert!(block.at + block.bytes() <= blocks.end);
                for other in &taken {
                    prop_assert!(block.at + block.bytes() <= other.at || other.at + other.bytes() <= block.at);
                }
                taken.push(block);
            }
            let used: usize = taken.iter().map(|block| block.bytes()).sum();
            let free: usize = blocks.free.iter().zip(SMALLEST..).map(|(free, order)| free.len() << order).sum();
            prop_assert_eq!(used + free, blocks.end, "nothing is lost");
        }
    }
}
