//! What `scripts/redo-check` cannot make a server write, and that nothing makes the redo of an index panic.

use proptest::prelude::*;

use super::super::{Context, Effect, RedoError, Target, apply};
use super::*;
use crate::pg::wal::{BlockRef, Image, Record, Rmgr};
use crate::pg::{BlockTag, Fork, Lsn, Major, RelFileLocator};

const END: Lsn = Lsn(0x1_0000_1100);
const BEFORE: Lsn = Lsn(0x99);

/// Block `id` of a record is block 10 + `id` of the index.
fn block(id: u8) -> BlockRef<'static> {
    let rel = RelFileLocator { tablespace: 1663, database: 5, relation: 16_384 };
    let tag = BlockTag { rel, fork: Fork::Main, block: 10 + BlockNo::from(id) };
    BlockRef { id, tag, will_init: false, image: None, data: None }
}

fn record<'a>(rmgr: Rmgr, op: u8, blocks: Vec<BlockRef<'a>>, main_data: &'a [u8]) -> Record<'a> {
    Record {
        lsn: Lsn(END.0 - 0x100),
        end: END,
        prev: Lsn(1),
        total_len: 0,
        xid: 700,
        rmgr,
        info: op,
        origin: None,
        toplevel_xid: None,
        blocks,
        main_data,
    }
}

fn apply_in(major: Major, record: &Record<'_>, id: u8, page: &mut Page) -> Result<Effect, RedoError> {
    apply(&Context { major, hint_bits_logged: true }, record, Target::Block(id), page)
}

fn redo(record: &Record<'_>, id: u8, page: &mut Page) {
    assert_eq!(apply_in(Major::V18, record, id, page), Ok(Effect::Applied));
}

fn damage(record: &Record<'_>, id: u8, page: &mut Page) -> &'static str {
    match apply_in(Major::V18, record, id, page) {
        Err(RedoError::Damaged { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

fn empty_page(special_len: usize) -> Page {
    let mut page = Page::zeroed();
    page.init(special_len).unwrap();
    page.set_lsn(BEFORE);
    page
}

fn words<const N: usize>(words: [u16; N]) -> Vec<u8> {
    words.into_iter().flat_map(u16::to_le_bytes).collect()
}

mod hash {
    use super::*;

    fn meta_page() -> Page {
        let main = [&100_f64.to_bits().to_le_bytes()[..], &400_u32.to_le_bytes(), &75_u16.to_le_bytes()].concat();
        let mut page = Page::zeroed();
        redo(&record(Rmgr::HASH, 0x00, vec![BlockRef { will_init: true, ..block(0) }], &main), 0, &mut page);
        page
    }

    #[test]
    fn second_bitmap_is_filled_and_listed() {
        let mut blocks: Vec<_> = [0, 1, 3, 4].map(block).into();
        blocks[2].will_init = true;
        blocks[3].data = Some(&[9, 0, 0, 0]);
        let main = [&4096_u16.to_le_bytes()[..], &[0, 0]].concat();
        let record = record(Rmgr::HASH, 0x30, blocks, &main);

        let mut bitmap = Page::zeroed();
        redo(&record, 3, &mut bitmap);
        assert_eq!((bitmap.slice(24, 4096).unwrap(), bitmap.lower()), (&[0xFF; 4096][..], 24 + 4096));

        let mut meta = meta_page();
        meta.set_lsn(BEFORE);
        redo(&record, 4, &mut meta);
        assert_eq!(meta.u32_at(24 + 40), Ok(9), "first free bit");
        assert_eq!((meta.u32_at(24 + 44), meta.u32_at(24 + 444)), (Ok(1), Ok(13)), "bitmaps, and where the first is");
        assert_eq!(meta.u32_at(24 + 52 + 4), Ok(3), "spare pages: the one there was, the overflow page and the bitmap");
    }

    #[test]
    fn page_behind_a_freed_one_links_back_over_it() {
        let main = [&5_u32.to_le_bytes()[..], &7_u32.to_le_bytes(), &[0; 4]].concat();
        let mut page = empty_page(16);
        redo(&record(Rmgr::HASH, 0x80, vec![block(4)], &main), 4, &mut page);
        assert_eq!(page.u32_at(8176), Ok(5));
    }

    #[test]
    fn write_page_that_takes_nothing_keeps_its_lsn_from_17_on() {
        let main = [0; 12];
        let record = record(Rmgr::HASH, 0x80, vec![block(1)], &main);
        for (major, lsn) in [(Major::V16, END), (Major::V17, BEFORE)] {
            let mut page = empty_page(16);
            assert_eq!(apply_in(major, &record, 1, &mut page), Ok(Effect::Applied));
            assert_eq!(page.lsn(), lsn, "{major}");
        }
    }

    #[test]
    fn bucket_restored_from_an_image_still_takes_the_flags_of_its_split() {
        let stored = empty_page(16);
        let image = Image { apply: true, hole_offset: 0, hole_len: 0, compression: None, bytes: &stored.0[..] };
        let main = [&3_u32.to_le_bytes()[..], &words([0x22, 0x12]), &[0]].concat();
        let record = record(Rmgr::HASH, 0x40, vec![BlockRef { image: Some(image), ..block(0) }], &main);
        let mut page = Page::zeroed();
        redo(&record, 0, &mut page);
        assert_eq!((page.u32_at(8176), page.u16_at(8176 + 12), page.lsn()), (Ok(3), Ok(0x22), END));
    }

    #[test]
    fn page_that_is_only_locked_is_left_alone() {
        for op in [0x70, 0x80, 0x90] {
            let mut page = empty_page(16);
            redo(&record(Rmgr::HASH, op, vec![block(0)], &[0; 12]), 0, &mut page);
            assert!(page == empty_page(16));
        }
    }
}

mod gist {
    use super::*;

    #[test]
    fn left_child_restored_from_an_image_still_learns_that_its_split_is_over() {
        let mut stored = empty_page(16);
        stored.put(8176 + 12, &0x09_u16.to_le_bytes()).unwrap();
        let image = Image { apply: true, hole_offset: 0, hole_len: 0, compression: None, bytes: &stored.0[..] };
        let record = record(Rmgr::GIST, 0x00, vec![block(0), BlockRef { image: Some(image), ..block(1) }], &[0; 4]);
        let mut page = Page::zeroed();
        redo(&record, 1, &mut page);
        assert_eq!(page.u16_at(8176 + 12), Ok(0x01));
        assert_eq!((page.u32_at(8176), page.u32_at(8180)), (Ok(1), Ok(0x1100)), "the NSN is the record's end, high half first");
    }

    #[test]
    fn numbers_to_delete_follow_a_flag_from_16_on() {
        let old = [&[0; 4][..], &words([1, 2])].concat();
        let new = [&[0; 4][..], &words([1, 0xFFFF, 2])].concat();
        for (major, main) in [(Major::V15, old), (Major::V16, new)] {
            let mut page = empty_page(16);
            for byte in [1, 2, 3] {
                page.add_item(&[byte; 8], 0, Placement::Shift).unwrap();
            }
            assert_eq!(apply_in(major, &record(Rmgr::GIST, 0x10, vec![block(0)], &main), 0, &mut page), Ok(Effect::Applied));
            assert_eq!((page.item(1).unwrap()[0], page.item(2).unwrap()[0], page.max_offset()), (1, 3, 2), "{major}");
        }
    }
}

mod gin {
    use super::*;

    /// Items (0,1) (0,2) and (0,9) (1,1): distances 1, and 2048 - 8 as a varbyte.
    const SEGMENTS: [&[u8]; 2] = [&[0, 0, 0, 0, 1, 0, 1, 0, 1, 0], &[0, 0, 0, 0, 9, 0, 2, 0, 0xF8, 0x0F]];

    fn leaf(content: &[u8]) -> Page {
        let mut page = empty_page(8);
        page.put(8190, &0x83_u16.to_le_bytes()).unwrap();
        page.put(32, content).unwrap();
        page.set_lower(32 + content.len()).unwrap();
        page
    }

    fn recompress(actions: &[u8], page: &mut Page) -> Result<Vec<u8>, &'static str> {
        let record = record(Rmgr::GIN, 0x90, vec![BlockRef { data: Some(actions), ..block(0) }], &[]);
        match apply_in(Major::V18, &record, 0, page) {
            Ok(_) => Ok(page.slice(32, page.lower() - 32).unwrap().to_vec()),
            Err(RedoError::Damaged { what, .. }) => Err(what),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn actions_name_segments_by_the_numbers_they_had_before() {
        let delete_first_insert_at_end = [&[2, 0, 0, 1, 2, 2][..], SEGMENTS[0]].concat();
        let after = recompress(&delete_first_insert_at_end, &mut leaf(&SEGMENTS.concat()));
        assert_eq!(after, Ok([SEGMENTS[1], SEGMENTS[0]].concat()));
    }

    #[test]
    fn items_are_merged_into_their_segment() {
        let add_3_to_first = [1, 0, 0, 4, 1, 0, 0, 0, 0, 0, 3, 0];
        let after = recompress(&add_3_to_first, &mut leaf(&SEGMENTS.concat()));
        assert_eq!(after, Ok([&[0, 0, 0, 0, 1, 0, 2, 0, 1, 1], SEGMENTS[1]].concat()));
    }

    #[test]
    fn leaf_from_before_9_4_is_compressed_first() {
        let items = [[0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 2, 0]].concat();
        let mut page = leaf(&items);
        page.put(8188, &words([2, 0x03])).unwrap();
        let insert_second = [&[1, 0, 1, 2][..], SEGMENTS[1]].concat();
        assert_eq!(recompress(&insert_second, &mut page), Ok(SEGMENTS.concat()));
        assert_eq!((page.u16_at(8188), page.u16_at(8190)), (Ok(0), Ok(0x83)));
    }

    #[test]
    fn actions_that_do_not_fit_the_page_are_refused() {
        let try_on = |actions: &[u8]| recompress(actions, &mut leaf(&SEGMENTS.concat()));
        assert_eq!(try_on(&[1, 0, 2, 1]), Err("no such segment in a posting list"));
        assert_eq!(try_on(&[2, 0, 1, 1, 0, 1]), Err("actions on a posting list are out of order"));
        assert_eq!(try_on(&[1, 0, 0, 9]), Err("unknown action on a posting list"));
        assert_eq!(try_on(&[1, 0, 0, 2, 0, 0]), Err("segment is cut short"));
        assert_eq!(recompress(&[0, 0], &mut empty_page(8)), Err("the page is not a leaf of a posting tree"));
    }

    #[test]
    fn split_without_its_image_is_refused() {
        let record = record(Rmgr::GIN, 0x30, vec![block(0)], &[]);
        assert_eq!(damage(&record, 0, &mut empty_page(8)), "the image of the page is missing");
    }
}

mod spgist {
    use super::*;

    /// An inner tuple without prefix and with one node that leads nowhere.
    const INNER: [u8; 16] = [1 << 3, 0, 0, 0, 16, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 8, 0];
    /// A leaf tuple of 16 bytes.
    const LEAF: [u8; 16] = [16 << 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];

    #[test]
    fn parent_on_the_page_that_an_inner_tuple_moves_to_follows_at_once() {
        let main = [&words([1, 2])[..], &[0, 1], &words([1, 0, 0]), &[0; 8], &INNER].concat();
        let mut page = empty_page(8);
        page.add_item(&INNER, 1, Placement::Shift).unwrap();
        redo(&record(Rmgr::SPGIST, 0x30, vec![block(0), block(1)], &main), 1, &mut page);
        assert_eq!(page.item(1).unwrap()[8..14], item_pointer(11, 2));
        assert_eq!(page.item(2), Ok(&INNER[..]));
    }

    #[test]
    fn source_of_a_split_can_be_made_anew() {
        let counts = words([0, 0, 1]);
        let flags = [1, 0, 1, 0, 0, 0, 0, 0];
        let main = [&counts[..], &flags, &words([0, 0, 0]), &[0; 8], &words([1]), &[0], &INNER, &LEAF].concat();
        let mut page = empty_page(8);
        page.add_item(&INNER, 1, Placement::Shift).unwrap();
        redo(&record(Rmgr::SPGIST, 0x50, vec![block(0), block(2)], &main), 0, &mut page);
        assert_eq!((page.max_offset(), page.item(1)), (1, Ok(&LEAF[..])));
        assert_eq!((page.u16_at(8184), page.u16_at(8190)), (Ok(4), Ok(0xFF82)));
    }

    #[test]
    fn redirects_to_forget_follow_a_flag_from_16_on() {
        let old = [&words([1, 0])[..], &[0; 4], &words([1])].concat();
        let new = [&words([1, 0])[..], &[0; 4], &[1, 0], &words([1])].concat();
        for (major, main) in [(Major::V15, old), (Major::V16, new)] {
            let mut page = empty_page(8);
            page.add_item(&[1 | 16 << 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 2, 0, 9, 9, 9, 9], 1, Placement::Shift).unwrap();
            page.put(8186, &words([1, 0])).unwrap();
            assert_eq!(apply_in(major, &record(Rmgr::SPGIST, 0x80, vec![block(0)], &main), 0, &mut page), Ok(Effect::Applied));
            assert_eq!(page.item(1).unwrap()[..12], [3 | 16 << 2, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0], "{major}");
            assert_eq!((page.u16_at(8186), page.u16_at(8188)), (Ok(0), Ok(1)));
        }
    }

    #[test]
    fn only_a_placeholder_makes_way_for_a_tuple() {
        let main = [&[0, 0][..], &words([1, 0, 0, 0]), &LEAF].concat();
        let mut page = empty_page(8);
        page.add_item(&LEAF, 1, Placement::Shift).unwrap();
        let record = record(Rmgr::SPGIST, 0x10, vec![block(0)], &main);
        assert_eq!(damage(&record, 0, &mut page), "the tuple to be replaced is not a placeholder");
    }
}

#[test]
fn brin_map_without_pages_in_a_range_is_refused() {
    let record = record(Rmgr::BRIN, 0x50, vec![block(0)], &[0; 10]);
    assert_eq!(damage(&record, 0, &mut empty_page(8)), "a range of no pages");
}

#[test]
fn page_of_another_kind_of_relation_is_refused() {
    for (rmgr, op) in [(Rmgr::HASH, 0xA0), (Rmgr::GIST, 0x60), (Rmgr::GIN, 0x50), (Rmgr::SPGIST, 0x70)] {
        let record = record(rmgr, op, vec![block(0)], &[0; 12]);
        assert_eq!(damage(&record, 0, &mut empty_page(24)), "the page is of another kind of relation");
    }
}

/// A page of items that could be tuples of any of the access methods, with arbitrary special space.
fn index_page() -> impl Strategy<Value = (Rmgr, Page)> {
    let kinds = [(Rmgr::BRIN, 8), (Rmgr::GIN, 8), (Rmgr::GIST, 16), (Rmgr::HASH, 16), (Rmgr::SPGIST, 8)];
    let items = prop::collection::vec((prop::collection::vec(small_byte(), 1..6), 8..48_usize), 0..12);
    (prop::sample::select(kinds.to_vec()), items, prop::collection::vec(small_byte(), 16), 0..40_usize).prop_map(
        |((rmgr, special_len), items, special, content)| {
            let mut page = empty_page(special_len);
            for (pattern, len) in items {
                let item: Vec<u8> = pattern.iter().cycle().take(len).copied().collect();
                page.add_item(&item, 0, Placement::Shift).unwrap();
            }
            page.special_mut().unwrap().copy_from_slice(&special[..special_len]);
            if page.max_offset() == 0 {
                page.set_lower(HEADER_AND_BOUND + content).unwrap();
            }
            (rmgr, page)
        },
    )
}

/// Where a posting tree's page begins its content.
const HEADER_AND_BOUND: usize = 32;

fn small_byte() -> impl Strategy<Value = u8> {
    prop_oneof![4 => 0..4_u8, 2 => 0..64_u8, 1 => any::<u8>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_record_of_an_index_on_a_page_of_it_never_panics(
        (rmgr, mut page) in index_page(),
        info in any::<u8>(),
        id in 0..7_u8,
        all_blocks in any::<bool>(),
        major in prop::sample::select(Major::ALL.to_vec()),
        main in prop::collection::vec(small_byte(), 0..120),
        data in prop::collection::vec(small_byte(), 0..120),
    ) {
        let others = (0..7).filter(|other| all_blocks && *other != id).map(block);
        let mut blocks: Vec<BlockRef<'_>> = others.collect();
        blocks.push(BlockRef { data: Some(&data), ..block(id) });
        let record = record(rmgr, info, blocks, &main);
        let _outcome = apply_in(major, &record, id, &mut page);
    }
}
