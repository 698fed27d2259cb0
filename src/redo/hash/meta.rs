//! The metapage of a hash index (`HashMetaPageData`, hash.h): how many tuples and buckets, and where its bitmaps are.

use crate::pg::BlockNo;
use crate::pg::page::{HEADER_LEN, Page};

use super::super::data::Data;
use super::super::fault::Fault;
use super::super::index::{NO_BLOCK, check_special};
use super::{META, NO_BUCKET, SPECIAL, init_page};

const TUPLES: usize = HEADER_LEN + 8;
const FILL_FACTOR: usize = HEADER_LEN + 16;
const MAX_BUCKET: usize = HEADER_LEN + 24;
const HIGH_MASK: usize = HEADER_LEN + 28;
const LOW_MASK: usize = HEADER_LEN + 32;
const SPLIT_POINT: usize = HEADER_LEN + 36;
const FIRST_FREE: usize = HEADER_LEN + 40;
const BITMAP_COUNT: usize = HEADER_LEN + 44;
const HASH_FUNCTION: usize = HEADER_LEN + 48;
/// `hashm_spares`: overflow pages before each split point.
const SPARES: usize = HEADER_LEN + 52;
const MAX_SPLIT_POINTS: u32 = 98;
/// `hashm_mapp`: where the bitmaps are.
const BITMAPS: usize = SPARES + 4 * 98;
const MAX_BITMAPS: u32 = 1024;
/// `sizeof(HashMetaPageData)`, padded to 8.
const END: usize = HEADER_LEN + 4544;

const MAGIC: u32 = 0x0644_0640;
const VERSION: u32 = 4;
/// What fits between header and special space, the power of two that a bitmap takes of it, and that in bits as a shift.
const SIZES: [u16; 3] = [8152, 4096, 15];

/// `HASH_SPLITPOINT_GROUPS_WITH_ONE_PHASE`; later groups double in [`PHASES`] steps.
const SINGLE_PHASE_GROUPS: u32 = 10;
const PHASES: u32 = 4;

/// What SPLIT_ALLOCATE_PAGE brings along for the metapage.
const UPDATE_MASKS: u8 = 1 << 0;
const UPDATE_SPLIT_POINT: u8 = 1 << 1;

/// `_hash_init_metabuffer`.
pub(super) fn init(page: &mut Page, tuples: f64, hash_function: u32, fill_factor: u16) -> Result<(), Fault> {
    let buckets = initial_buckets(tuples / f64::from(fill_factor));
    let split_point = split_point_of(buckets);
    let high_mask = (buckets + 1).next_power_of_two() - 1;
    init_page(page, NO_BLOCK, NO_BUCKET, META)?;
    page.put(HEADER_LEN, &MAGIC.to_le_bytes())?;
    page.put(HEADER_LEN + 4, &VERSION.to_le_bytes())?;
    page.put(FILL_FACTOR, &fill_factor.to_le_bytes())?;
    for (at, size) in (FILL_FACTOR + 2..MAX_BUCKET).step_by(2).zip(SIZES) {
        page.put(at, &size.to_le_bytes())?;
    }
    put(page, MAX_BUCKET, buckets - 1)?;
    put(page, HIGH_MASK, high_mask)?;
    put(page, LOW_MASK, high_mask >> 1)?;
    put(page, SPLIT_POINT, split_point)?;
    put(page, HASH_FUNCTION, hash_function)?;
    put(page, spare(split_point)?, 1)?;
    Ok(page.set_lower(END)?)
}

/// The first bitmap lies behind the first buckets (INIT_BITMAP_PAGE).
pub(super) fn add_first_bitmap(page: &mut Page) -> Result<(), Fault> {
    check_special(page, SPECIAL)?;
    let block = page.u32_at(MAX_BUCKET)?.wrapping_add(2);
    add_bitmap(page, block)
}

/// One more overflow page, unless an old one was `reused`; its bitmap may be new as well, at `new_bitmap`.
pub(super) fn add_overflow(page: &mut Page, first_free: u32, reused: bool, new_bitmap: Option<BlockNo>) -> Result<(), Fault> {
    set_first_free(page, first_free)?;
    if reused {
        return Ok(());
    }
    let at = spare(page.u32_at(SPLIT_POINT)?)?;
    let added = if new_bitmap.is_some() { 2 } else { 1 };
    put(page, at, page.u32_at(at)?.wrapping_add(added))?;
    new_bitmap.map_or(Ok(()), |block| add_bitmap(page, block))
}

/// One more bucket; `changes` says which of masks (low, high) and split point (number, spare pages) `data` holds.
pub(super) fn begin_split(page: &mut Page, new_bucket: u32, changes: u8, mut data: Data<'_>) -> Result<(), Fault> {
    check_special(page, SPECIAL)?;
    put(page, MAX_BUCKET, new_bucket)?;
    if changes & UPDATE_MASKS != 0 {
        put(page, LOW_MASK, data.u32()?)?;
        put(page, HIGH_MASK, data.u32()?)?;
    }
    if changes & UPDATE_SPLIT_POINT != 0 {
        let split_point = data.u32()?;
        put(page, spare(split_point)?, data.u32()?)?;
        put(page, SPLIT_POINT, split_point)?;
    }
    Ok(())
}

/// Sets `hashm_firstfree`: the first bit, over all bitmaps, that may be clear.
pub(super) fn set_first_free(page: &mut Page, bit: u32) -> Result<(), Fault> {
    check_special(page, SPECIAL)?;
    put(page, FIRST_FREE, bit)
}

/// Changes the number of tuples, a `double`.
pub(super) fn change_tuples(page: &mut Page, new: impl FnOnce(f64) -> f64) -> Result<(), Fault> {
    check_special(page, SPECIAL)?;
    let tuples = new(f64::from_bits(page.u64_at(TUPLES)?));
    Ok(page.put(TUPLES, &tuples.to_bits().to_le_bytes())?)
}

fn add_bitmap(page: &mut Page, block: BlockNo) -> Result<(), Fault> {
    let count = page.u32_at(BITMAP_COUNT)?;
    if count >= MAX_BITMAPS {
        return Err(Fault::Damaged("more bitmaps than a hash index can have"));
    }
    put(page, BITMAPS + 4 * count as usize, block)?;
    put(page, BITMAP_COUNT, count + 1)
}

/// Where the spare pages of a split point are counted.
fn spare(split_point: u32) -> Result<usize, Fault> {
    let known = split_point < MAX_SPLIT_POINTS;
    if known { Ok(SPARES + 4 * split_point as usize) } else { Err(Fault::Damaged("no such split point")) }
}

fn put(page: &mut Page, at: usize, value: u32) -> Result<(), Fault> {
    Ok(page.put(at, &value.to_le_bytes())?)
}

/// At least `wanted` buckets, 2 to 2^30, rounded up to where a phase of a split point ends.
fn initial_buckets(wanted: f64) -> u32 {
    if wanted <= 2.0 {
        return 2;
    }
    if wanted >= f64::from(1_u32 << 30) {
        return 1 << 30;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 2 and 2^30, or no number: C cuts it as well")]
    let wanted = (wanted as u32).max(2);
    buckets_until(split_point_of(wanted))
}

/// The split point phase that bucket number `buckets`, from 1, belongs to (`_hash_spareindex`).
fn split_point_of(buckets: u32) -> u32 {
    let group = u32::BITS - buckets.saturating_sub(1).leading_zeros();
    if group < SINGLE_PHASE_GROUPS {
        return group;
    }
    let phase = (buckets.saturating_sub(1) >> (group - 3)) % PHASES;
    SINGLE_PHASE_GROUPS + (group - SINGLE_PHASE_GROUPS) * PHASES + phase
}

/// Buckets up to the end of a split point phase (`_hash_get_totalbuckets`).
fn buckets_until(phase: u32) -> u32 {
    if phase < SINGLE_PHASE_GROUPS {
        return 1 << phase;
    }
    let past = phase - SINGLE_PHASE_GROUPS;
    let before_group = 1 << (SINGLE_PHASE_GROUPS + past / PHASES - 1);
    before_group + (before_group / PHASES) * (past % PHASES + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_rounded_up_to_a_phase_of_a_split_point() {
        for (wanted, buckets) in [(0.0, 2), (2.0, 2), (3.9, 4), (5.0, 8), (512.0, 512), (513.0, 640), (700.0, 768), (1025.0, 1280)] {
            assert_eq!(initial_buckets(wanted), buckets, "{wanted}");
        }
        assert_eq!(initial_buckets(f64::INFINITY), 1 << 30);
        assert_eq!(initial_buckets(f64::NAN), 2);
    }

    #[test]
    fn split_points_have_four_phases_from_the_tenth_group_on() {
        assert_eq!([1, 2, 3, 4, 5, 512].map(split_point_of), [0, 1, 2, 2, 3, 9]);
        assert_eq!([513, 640, 641, 1024, 1025].map(split_point_of), [10, 10, 11, 13, 14]);
    }
}
