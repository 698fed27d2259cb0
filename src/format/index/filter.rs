//! Tells of most blocks that an index does not know them, without a look at its entries.
//!
//! From: `write`, which gives it the blocks.  To: `read`, for whoever asks many indexes for one block.
//! A split block Bloom filter: groups of eight 32-bit words, of which a block sets one bit in each word of one group, so that a question touches one
//! line of the processor's cache. Sixteen bits for each block let about one in a thousand pass that is not there.

use crate::pg::BlockTag;

/// Bytes of a group.
const GROUP_BYTES: usize = 32;

const BITS_EACH: usize = 16;

/// An index of more blocks has no filter: there are few such indexes, and theirs would take longer to fetch than what it saves.
const MAX_BLOCKS: usize = 1 << 20;

/// Odd numbers without meaning, one for each word.
const SALTS: [u32; 8] = [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// The filter of one index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter(Vec<[u32; 8]>);

impl Filter {
    /// Reads what [`Hashes::filter`] wrote. `None` if it cannot be that.
    pub(super) fn decode(bytes: &[u8]) -> Option<Filter> {
        let (groups, rest) = bytes.as_chunks::<GROUP_BYTES>();
        let group = |bytes: &[u8; GROUP_BYTES]| {
            let mut words = [0; 8];
            for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(*bytes);
            }
            words
        };
        (rest.is_empty() && !groups.is_empty()).then(|| Filter(groups.iter().map(group).collect()))
    }

    /// `false`: the index has no entry of this block.
    pub(super) fn may_have(&self, tag: BlockTag) -> bool {
        let hash = hash(tag);
        let Some(group) = self.0.get(group_of(hash, self.0.len())) else { return true };
        group.iter().zip(bits(hash)).all(|(word, bit)| word & bit != 0)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(self.0.as_slice())
    }
}

/// The hashes of the blocks that a filter is to know.
#[derive(Debug, Default)]
pub(super) struct Hashes(Vec<u64>);

impl Hashes {
    pub(super) fn add(&mut self, tag: BlockTag) {
        if self.0.len() <= MAX_BLOCKS {
            self.0.push(hash(tag));
        }
    }

    /// The filter's bytes; none for no blocks, and for too many.
    pub(super) fn filter(&self) -> Vec<u8> {
        if self.0.is_empty() || self.0.len() > MAX_BLOCKS {
            return Vec::new();
        }
        let count = self.0.len().saturating_mul(BITS_EACH).div_ceil(GROUP_BYTES.saturating_mul(8));
        let mut groups = vec![[0u32; 8]; count];
        for hash in &self.0 {
            if let Some(group) = groups.get_mut(group_of(*hash, count)) {
                group.iter_mut().zip(bits(*hash)).for_each(|(word, bit)| *word |= bit);
            }
        }
        groups.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// The upper half of a hash, as a part of `count`.
fn group_of(hash: u64, count: usize) -> usize {
    usize::try_from((hash >> 32).wrapping_mul(count as u64) >> 32).unwrap_or(0)
}

/// The bit in each word, by the lower half.
fn bits(hash: u64) -> impl Iterator<Item = u32> {
    let low = u32::try_from(hash & 0xFFFF_FFFF).unwrap_or(0);
    SALTS.into_iter().map(move |salt| 1u32.wrapping_shl(low.wrapping_mul(salt) >> 27))
}

/// Part of the format.
fn hash(tag: BlockTag) -> u64 {
    let BlockTag { rel, fork, block } = tag;
    let place = u64::from(rel.database) << 32 | u64::from(rel.tablespace);
    let first = mix(u64::from(rel.relation) << 32 | u64::from(block));
    mix(first ^ place.wrapping_mul(4).wrapping_add(fork as u64))
}

/// The finalizer of splitmix64: every bit of the result depends on every bit of `z`.
fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::{Fork, RelFileLocator};

    fn tag(relation: u32, block: u32) -> BlockTag {
        BlockTag { rel: RelFileLocator { tablespace: 1663, database: 5, relation }, fork: Fork::Main, block }
    }

    fn filter_of(tags: impl Iterator<Item = BlockTag>) -> Filter {
        let mut hashes = Hashes::default();
        tags.for_each(|tag| hashes.add(tag));
        Filter::decode(&hashes.filter()).unwrap()
    }

    #[test]
    fn knows_every_block_that_it_was_given_and_few_others() {
        let known = || (0..20_000).map(|n| tag(16384 + n % 7, n));
        let filter = filter_of(known());
        assert!(known().all(|tag| filter.may_have(tag)));
        let passed = (0..20_000).filter(|n| filter.may_have(tag(16384 + n % 7, 1_000_000 + n))).count();
        assert!(passed < 80, "{passed} of 20000 pass");
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        assert_eq!(hash(tag(16384, 7)), 0x0274_8fa2_b020_88e1);
        let mut hashes = Hashes::default();
        hashes.add(tag(16384, 7));
        assert_eq!(hex::encode(hashes.filter()), "0000000102000000000800000004000040000000001000000000800000002000");
    }

    #[test]
    fn an_index_of_too_many_blocks_has_none() {
        let mut hashes = Hashes(vec![7; MAX_BLOCKS]);
        assert!(!hashes.filter().is_empty());
        hashes.add(tag(1, 1));
        hashes.add(tag(1, 2));
        assert!(hashes.filter().is_empty() && Filter::decode(&hashes.filter()).is_none());
    }
}
