//! The data checksum: 32 interleaved FNV-1a sums over the page, folded to 16 bits (checksum_impl.h).

use crate::pg::BlockNo;

use super::{BLCKSZ, CHECKSUM, Page};

const LANES: usize = 32;
/// Bytes that go into each lane once.
const ROW: usize = LANES * 4;
/// What counts of the first row: the stored checksum is taken for zero.
const FIRST_ROW: [u32; LANES] = {
    let mut masks = [u32::MAX; LANES];
    masks[CHECKSUM / 4] = 0xFFFF_0000;
    masks
};
const FNV_PRIME: u32 = 16_777_619;

/// The starting value of each lane (`checksumBaseOffsets`): part of the on-disk format.
const BASE: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

fn mix(sum: u32, value: u32) -> u32 {
    let mixed = sum ^ value;
    mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17)
}

/// The sums of a page's lanes, before they are folded.
fn sums(page: &[u8; BLCKSZ]) -> [u32; LANES] {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[expect(
            unsafe_code,
            reason = "a third of the time where pages are copied in long reads, which checksums would otherwise dominate"
        )]
        // SAFETY: the processor has AVX2, the only thing that the function asks for.
        return unsafe { sums_avx2(page) };
    }
    sums_of(page)
}

/// [`sums_of`], compiled for 256-bit registers: SSE2, which every x86-64 has, cannot multiply four numbers at once.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sums_avx2(page: &[u8; BLCKSZ]) -> [u32; LANES] {
    sums_of(page)
}

#[inline(always)]
fn sums_of(page: &[u8; BLCKSZ]) -> [u32; LANES] {
    let mut sums = BASE;
    let mut add = |row: &[u8], masks: &[u32; LANES]| {
        for ((sum, word), mask) in sums.iter_mut().zip(row.as_chunks::<4>().0).zip(masks) {
            *sum = mix(*sum, u32::from_le_bytes(*word) & mask);
        }
    };
    let (first, rest) = page.split_at(ROW);
    add(first, &FIRST_ROW);
    rest.chunks_exact(ROW).for_each(|row| add(row, &[u32::MAX; LANES]));
    sums
}

impl Page {
    /// The checksum that block `block` with these bytes must carry, 1 to 65535 (`pg_checksum_page`). The stored one does not matter.
    #[must_use]
    pub fn checksum(&self, block: BlockNo) -> u16 {
        let sums = sums(&self.0);
        let folded = sums.iter().fold(0, |all, sum| all ^ mix(mix(*sum, 0), 0)) ^ block;
        u16::try_from(folded % 65_535 + 1).unwrap_or(u16::MAX)
    }

    /// Does the stored checksum fit? A new page has none and passes if it is all zero, as `PageIsVerified` has it.
    #[must_use]
    pub fn checksum_is_valid(&self, block: BlockNo) -> bool {
        if self.is_new() { *self.0 == [0; BLCKSZ] } else { self.stored_checksum() == self.checksum(block) }
    }

    /// Stamps the checksum; a new page keeps none (`PageSetChecksumInplace` with checksums on).
    pub fn stamp_checksum(&mut self, block: BlockNo) {
        if !self.is_new() {
            self.set_stored_checksum(self.checksum(block));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_processor_computes_the_same_sums() {
        let mut state = 1u32;
        let page = std::array::from_fn(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_le_bytes()[3]
        });
        assert_eq!(sums(&page), sums_of(&page));
    }
}
