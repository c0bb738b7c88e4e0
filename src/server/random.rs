//! Randomness for challenges, cookies and the jitter of delays, from the operating system.
//!
//! A block is fetched at a time and each byte used once and wiped, so a login does not cost a system call. There is
//! one block per thread and the process never forks, so no two requests can see the same bytes.

use crate::sasl::Seed;
use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};
use zeroize::Zeroize;

const BLOCK_BYTES: usize = 1_024;

struct Block {
    bytes: [u8; BLOCK_BYTES],
    used: usize,
}

thread_local! {
    static BLOCK: RefCell<Block> = const { RefCell::new(Block { bytes: [0; BLOCK_BYTES], used: BLOCK_BYTES }) };
}

/// 128 random bits.
///
/// # Panics
/// When the operating system has no randomness, in which case nobody may log in. The daemon asks once before it
/// starts; Linux does not fail after that.
#[must_use]
pub fn random() -> [u8; 16] {
    BLOCK.with_borrow_mut(|block| {
        if block.used + 16 > BLOCK_BYTES {
            getrandom::fill(&mut block.bytes).expect("it worked when the daemon started");
            block.used = 0;
        }
        let fresh = &mut block.bytes[block.used..block.used + 16];
        let mut random = [0; 16];
        random.copy_from_slice(fresh);
        fresh.zeroize();
        block.used += 16;
        random
    })
}

/// Fresh bits and the time, for a challenge.
#[must_use]
pub fn seed() -> Seed {
    let unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Seed { random: random(), unix_seconds }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_million_challenges_are_all_different() {
        let mut seen = HashSet::new();
        assert!((0..1_000_000).all(|_| seen.insert(random())));
    }
}
