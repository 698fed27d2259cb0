//! Compressed posting lists: the segments that a GIN posting-tree leaf is made of.
//!
//! From: `redo::gin::recompress`, which moves whole segments about and merges new items into one.
//! A segment is the first item (6 bytes), the number of encoded bytes (u16), and the varbyte-encoded distances between
//! consecutive items, padded with a zero byte to an even length. An item counts as block number * 2048 + offset number.
//! The encoding must come out byte for byte as Postgres makes it. Source: ginpostinglist.c, ginblock.h (14 to 18).

/// First item and length word before the encoded bytes.
const HEADER_BYTES: usize = 8;
/// Bits of an item's number that hold the offset number (`MaxHeapTuplesPerPageBits`).
const OFFSET_BITS: u32 = 11;
/// Bytes of the longest encoded distance (43 bits, seven a byte).
const MAX_VARBYTE: usize = 7;

/// A heap position as one number, in heap order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item(u64);

impl Item {
    /// Reads an `ItemPointerData` (block number in two halves, high one first, then the offset number); `None` where
    /// the offset number needs more than 11 bits, which no posting list can hold.
    pub(super) fn from_pointer(bytes: [u8; 6]) -> Option<Item> {
        let half = |at: usize| u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let offset = half(4);
        (offset >> OFFSET_BITS == 0).then_some(Item((half(0) << 16 | half(2)) << OFFSET_BITS | offset))
    }

    /// The `ItemPointerData` of this item.
    fn to_pointer(self) -> [u8; 6] {
        let offset = (self.0 & ((1 << OFFSET_BITS) - 1)).to_le_bytes();
        let block = (self.0 >> OFFSET_BITS).to_le_bytes();
        [block[2], block[3], block[0], block[1], offset[0], offset[1]]
    }
}

/// Bytes of the segment that `bytes` begins with; `None` if it is cut short.
pub(super) fn segment_len(bytes: &[u8]) -> Option<usize> {
    let [.., low, high] = *bytes.first_chunk::<HEADER_BYTES>()?;
    let len = HEADER_BYTES + usize::from(u16::from_le_bytes([low, high])).next_multiple_of(2);
    (len <= bytes.len()).then_some(len)
}

/// The items of one segment, in order; `None` if it does not decode.
pub(super) fn decode(segment: &[u8]) -> Option<Vec<Item>> {
    let [first @ .., low, high] = *segment.first_chunk::<HEADER_BYTES>()?;
    let encoded = segment.get(HEADER_BYTES..)?.get(..usize::from(u16::from_le_bytes([low, high])))?;
    let mut item = Item::from_pointer(first)?;
    let mut items = vec![item];
    let mut rest = encoded;
    while !rest.is_empty() {
        let len = rest.iter().take(MAX_VARBYTE).position(|byte| byte & 0x80 == 0)? + 1;
        let (varbyte, after) = rest.split_at_checked(len)?;
        let distance = varbyte.iter().rev().fold(0, |sum, byte| sum << 7 | u64::from(byte & 0x7F));
        item = Item(item.0.checked_add(distance).filter(|sum| sum >> (32 + OFFSET_BITS) == 0)?);
        items.push(item);
        rest = after;
    }
    Some(items)
}

/// One segment of all `items`, which must rise strictly; `None` if they do not, if there are none, or if the encoded
/// bytes would not fit in a page.
pub(super) fn encode(items: &[Item]) -> Option<Vec<u8>> {
    let (first, rest) = items.split_first()?;
    let mut segment = first.to_pointer().to_vec();
    segment.extend([0, 0]);
    let mut previous = *first;
    for item in rest {
        let mut distance = item.0.checked_sub(previous.0).filter(|distance| *distance > 0)?;
        while distance > 0x7F {
            segment.push(0x80 | distance.to_le_bytes()[0] & 0x7F);
            distance >>= 7;
        }
        segment.push(distance.to_le_bytes()[0]);
        previous = *item;
    }
    let encoded_len = u16::try_from(segment.len() - HEADER_BYTES).ok().filter(|len| usize::from(*len) <= crate::pg::relation::BLCKSZ)?;
    segment[6..HEADER_BYTES].copy_from_slice(&encoded_len.to_le_bytes());
    if encoded_len % 2 != 0 {
        segment.push(0);
    }
    Some(segment)
}

/// Two rising lists as one, an item of both only once.
pub(super) fn merge(one: &[Item], other: &[Item]) -> Vec<Item> {
    let mut all = [one, other].concat();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(block: u32, offset: u16) -> Item {
        Item(u64::from(block) << OFFSET_BITS | u64::from(offset))
    }

    #[test]
    fn a_segment_has_the_bytes_that_postgres_writes() {
        // (0,1) (0,2) (0,200) (1,1): distances 1, 198, 2048 - 199.
        let segment = encode(&[item(0, 1), item(0, 2), item(0, 200), item(1, 1)]).expect("rising");
        assert_eq!(segment, [0, 0, 0, 0, 1, 0, 5, 0, 0x01, 0xC6, 0x01, 0xB9, 0x0E, 0]);
        assert_eq!(segment_len(&segment), Some(14));
    }

    #[test]
    fn items_that_do_not_rise_are_refused() {
        assert_eq!(encode(&[item(1, 1), item(1, 1)]), None);
        assert_eq!(encode(&[item(1, 2), item(1, 1)]), None);
        assert_eq!(encode(&[]), None);
    }

    #[test]
    fn a_distance_longer_than_seven_bytes_does_not_decode() {
        let mut segment = vec![0, 0, 0, 0, 1, 0, 8, 0];
        segment.extend([0xFF; 8]);
        assert_eq!(decode(&segment), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(mut numbers in prop::collection::vec(1u64..1 << 43, 1..300)) {
            numbers.sort_unstable();
            numbers.dedup();
            let items: Vec<Item> = numbers.into_iter().map(Item).collect();
            let segment = encode(&items).expect("rising");
            prop_assert_eq!(segment_len(&segment), Some(segment.len()));
            prop_assert_eq!(decode(&segment), Some(items));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(items) = decode(&bytes) {
                encode(&items);
            }
            segment_len(&bytes);
        }
    }
}
