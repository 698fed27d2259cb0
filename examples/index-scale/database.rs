//! The database of 10 TB: which files it has, and which blocks the transactions of one segment of WAL touch.

use std::collections::BTreeMap;

use bygone::format::index::{Entry, WalChunk};
use bygone::pg::{BlockTag, Fork, RelFileLocator};

/// 200 relations of 50 GB: 10,000 files of 1 GB.
pub(crate) const LARGE: u32 = 200;
pub(crate) const LARGE_FILES: u32 = 50;
pub(crate) const BLOCKS_IN_FILE: u32 = 131_072;
/// 100,000 relations of 1 to 16 blocks.
pub(crate) const SMALL: u32 = 100_000;

const FIRST_LARGE: u32 = 1_000_000;
const FIRST_SMALL: u32 = 2_000_000;

/// The database `postgres` of Postgres 15 and later: its directory is there.
const DATABASE: u32 = 5;

/// Random blocks of large relations that a segment touches; blocks that most segments touch; blocks at relations' ends; blocks of small relations.
const RANDOM: u32 = 1200;
const HOT: u32 = 600;
const APPENDED: u32 = 400;
const IN_SMALL: u32 = 150;
/// There are so many hot blocks.
const ALL_HOT: u64 = 20_000;
/// Relations that grow, one after the other.
const GROWING: u32 = 20;

pub(crate) fn large(n: u32) -> RelFileLocator {
    RelFileLocator { tablespace: 1663, database: DATABASE, relation: FIRST_LARGE + n }
}

pub(crate) fn small(n: u32) -> RelFileLocator {
    RelFileLocator { relation: FIRST_SMALL + n, ..large(0) }
}

pub(crate) fn small_blocks(n: u32) -> u32 {
    1 + n % 16
}

/// Numbers without meaning, the same in each run (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Below `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % sides
    }

    fn roll32(&mut self, sides: u32) -> u32 {
        u32::try_from(self.roll(sides.into())).unwrap_or(0)
    }
}

fn block(rel: RelFileLocator, block: u32) -> BlockTag {
    BlockTag { rel, fork: Fork::Main, block }
}

/// A block anywhere in a large relation; small numbers are likelier.
pub(crate) fn random_block(dice: &mut Dice) -> BlockTag {
    let relation = dice.roll32(LARGE).min(dice.roll32(LARGE));
    block(large(relation), dice.roll32(LARGE_FILES * BLOCKS_IN_FILE))
}

/// What segment `no` has to say, sorted.
///
/// With a checkpoint every 30 segments a block that most segments leave alone comes with its image (`full_page_writes`) whenever it is touched. Of the hot
/// ones, of which a segment touches one in 33, two thirds are seen for the first time since a checkpoint.
pub(crate) fn entries(no: u64, chunks: std::ops::Range<u64>) -> Vec<Entry> {
    let mut dice = Dice::new(no);
    let mut all: BTreeMap<(BlockTag, u64), bool> = BTreeMap::new();
    let mut add = |tag: BlockTag, dice: &mut Dice, rebuilds: bool| {
        let chunk = chunks.start + dice.roll(chunks.end - chunks.start);
        *all.entry((tag, chunk)).or_default() |= rebuilds;
    };
    for _ in 0..RANDOM {
        add(random_block(&mut dice), &mut dice, true);
    }
    for _ in 0..HOT {
        let mut which = Dice::new(dice.roll(ALL_HOT));
        let (tag, times) = (random_block(&mut which), 1 + dice.roll(4));
        let first = dice.roll(3) < 2;
        for n in 0..times {
            add(tag, &mut dice, first && n == 0);
        }
    }
    let growing = large(LARGE - 1 - u32::try_from(no % u64::from(GROWING)).unwrap_or(0));
    let from = u32::try_from(no / u64::from(GROWING)).unwrap_or(0) * APPENDED;
    for n in 0..APPENDED {
        add(block(growing, from + n), &mut dice, true);
    }
    for _ in 0..IN_SMALL {
        let n = dice.roll32(SMALL);
        let tag = block(small(n), dice.roll32(small_blocks(n)));
        add(tag, &mut dice, true);
    }
    all.into_iter().map(|((tag, chunk), rebuilds)| Entry { tag, chunk: WalChunk(chunk), rebuilds }).collect()
}
