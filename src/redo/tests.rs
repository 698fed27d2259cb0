//! The rules common to all pages, and that nothing a record or a page holds can make redo panic.

use proptest::prelude::*;

use super::*;
use crate::pg::page::Placement;
use crate::pg::wal::{BlockRef, Image};

const TAG: BlockTag = BlockTag { rel: RelFileLocator { tablespace: 1663, database: 5, relation: 16_384 }, fork: Fork::Main, block: 7 };
const CONTEXT: Context = Context { major: Major::V18, hint_bits_logged: true };

fn reference(id: u8) -> BlockRef<'static> {
    BlockRef { id, tag: TAG, will_init: false, image: None, data: None }
}

fn record<'a>(rmgr: Rmgr, info: u8, blocks: Vec<BlockRef<'a>>, main_data: &'a [u8]) -> Record<'a> {
    Record {
        lsn: Lsn(0x1000),
        end: Lsn(0x1100),
        prev: Lsn(0xF00),
        total_len: 0,
        xid: 700,
        rmgr,
        info,
        origin: None,
        toplevel_xid: None,
        blocks,
        main_data,
    }
}

/// A heap insertion of a tuple without columns as line pointer 1.
fn insertion(will_init: bool) -> Record<'static> {
    let info = if will_init { 0x80 } else { 0 };
    record(Rmgr::HEAP, info, vec![BlockRef { will_init, data: Some(&[0, 0, 0, 0, 24, 0]), ..reference(0) }], &[1, 0, 0])
}

fn empty_page() -> Page {
    let mut page = Page::zeroed();
    page.init(0).unwrap();
    page
}

#[test]
fn record_is_applied_and_stamps_the_page() {
    let mut page = empty_page();
    assert_eq!(apply(&CONTEXT, &insertion(false), Target::Block(0), &mut page), Ok(Effect::Applied));
    assert_eq!((page.lsn(), page.max_offset()), (Lsn(0x1100), 1));
    assert_eq!(page.item(1).unwrap()[..4], 700_u32.to_le_bytes());
}

#[test]
fn page_that_has_the_change_is_left_alone() {
    let mut page = empty_page();
    page.set_lsn(Lsn(0x1100));
    assert_eq!(apply(&CONTEXT, &insertion(false), Target::Block(0), &mut page), Ok(Effect::AlreadyApplied));
    assert_eq!(page.max_offset(), 0);
}

#[test]
fn page_that_was_never_made_is_skipped_unless_the_record_makes_it() {
    let mut page = Page::zeroed();
    assert_eq!(apply(&CONTEXT, &insertion(false), Target::Block(0), &mut page), Ok(Effect::NoPage));
    assert_eq!(page, Page::zeroed());
    assert_eq!(apply(&CONTEXT, &insertion(true), Target::Block(0), &mut page), Ok(Effect::Applied));
    assert_eq!(page.max_offset(), 1);
}

#[test]
fn record_that_makes_the_page_ignores_what_stood_there() {
    let mut page = Page(Box::new([0xAB; 8192]));
    apply(&CONTEXT, &insertion(true), Target::Block(0), &mut page).unwrap();
    let mut fresh = Page::zeroed();
    apply(&CONTEXT, &insertion(true), Target::Block(0), &mut fresh).unwrap();
    assert!(page == fresh);
}

#[test]
fn image_replaces_the_page_whatever_its_lsn() {
    let mut stored = empty_page();
    stored.add_item(b"from the image", 0, Placement::Shift).unwrap();
    let image = Image { apply: true, hole_offset: 0, hole_len: 0, compression: None, bytes: &stored.0[..] };
    let record = record(Rmgr::XLOG, 0xB0, vec![BlockRef { image: Some(image), ..reference(0) }], &[]);
    let mut page = empty_page();
    page.set_lsn(Lsn(u64::MAX));
    assert_eq!(apply(&CONTEXT, &record, Target::Block(0), &mut page), Ok(Effect::Applied));
    assert_eq!((page.item(1).unwrap(), page.lsn()), (&b"from the image"[..], Lsn(0x1100)));
}

#[test]
fn image_that_is_only_there_for_checking_is_not_applied() {
    let stored = [1; 8192];
    let image = Image { apply: false, hole_offset: 0, hole_len: 0, compression: None, bytes: &stored };
    let mut record = insertion(false);
    record.blocks[0].image = Some(image);
    let mut page = empty_page();
    apply(&CONTEXT, &record, Target::Block(0), &mut page).unwrap();
    assert_eq!(page.max_offset(), 1);
}

#[test]
fn operation_without_a_routine_is_refused_by_name() {
    let record = record(Rmgr(200), 0x10, vec![reference(0)], &[]);
    let refused = RedoError::Unsupported { rmgr: 200, op: 0x10, major: Major::V18, lsn: Lsn(0x1000) };
    assert_eq!(apply(&CONTEXT, &record, Target::Block(0), &mut empty_page()), Err(refused));
}

#[test]
fn record_that_does_not_fit_the_page_is_refused_by_name() {
    let mut page = empty_page();
    page.add_item(&[0; 30], 0, Placement::Shift).unwrap();
    let refused = RedoError::Damaged { lsn: Lsn(0x1000), tag: TAG, what: "line pointer is taken" };
    assert_eq!(apply(&CONTEXT, &insertion(false), Target::Block(0), &mut page), Err(refused));
}

#[test]
fn reference_that_the_record_lacks_is_refused() {
    let error = apply(&CONTEXT, &insertion(false), Target::Block(3), &mut empty_page());
    assert!(matches!(error, Err(RedoError::Damaged { what: "record has no such block reference", .. })));
}

#[test]
fn map_bits_cleared_without_a_reference_leave_the_lsn() {
    let mut map = empty_page();
    map.set_lsn(Lsn(5));
    map.0[24 + 1] = 0b1111_1111; // heap blocks 4 to 7
    let mut record = insertion(false);
    record.main_data = &[1, 0, 1];
    assert_eq!(apply(&CONTEXT, &record, Target::UnregisteredVm(0), &mut map), Ok(Effect::Applied));
    assert_eq!((map.0[25], map.lsn()), (0b0011_1111, Lsn(5)), "block 7 of the heap has the two highest bits");
}

const PAGE_RMGRS: [Rmgr; 11] = [
    Rmgr::XLOG,
    Rmgr::HEAP,
    Rmgr::HEAP2,
    Rmgr::BTREE,
    Rmgr::HASH,
    Rmgr::GIN,
    Rmgr::GIST,
    Rmgr::SEQUENCE,
    Rmgr::SPGIST,
    Rmgr::BRIN,
    Rmgr::GENERIC,
];

/// Bytes in which small numbers are common: random ones would rarely pass a length check.
fn record_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => Just(0_u8), 3 => 0..9_u8, 1 => any::<u8>()];
    prop::collection::vec(byte, 0..200)
}

/// Noise under a header that is often sound, with line pointers that often point at something.
fn any_page() -> impl Strategy<Value = Page> {
    let header = (0..60_u16, 0..4000_u16, prop_oneof![Just(8192_u16), Just(8184), Just(8176), any::<u16>()]);
    (prop::collection::vec(any::<u8>(), 8192), header, any::<bool>()).prop_map(|(noise, (lines, upper, special), sound)| {
        let mut page = Page::zeroed();
        page.0.copy_from_slice(&noise);
        page.set_lsn(Lsn(1));
        if sound {
            let upper = 4000 + upper;
            for (at, value) in [(12, 24 + lines * 4), (14, upper & !7), (16, special)] {
                page.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
            }
            for line in 0..usize::from(lines) {
                let at = usize::from(upper & !7) + line % 40 * 40;
                let id = crate::pg::page::ItemId::normal(at, 8 * (1 + line % 5));
                page.0[24 + line * 4..28 + line * 4].copy_from_slice(&id.raw().to_le_bytes());
            }
        }
        page
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_record_on_any_page_never_panics(
        rmgr in prop::sample::select(PAGE_RMGRS.to_vec()),
        info in any::<u8>(),
        id in 0..8_u8,
        also in prop::collection::btree_set(0..8_u8, 0..5),
        (will_init, in_map) in (prop::bool::weighted(0.2), prop::bool::weighted(0.1)),
        major in prop::sample::select(Major::ALL.to_vec()),
        (main, data) in (record_bytes(), prop::option::of(record_bytes())),
        mut page in any_page(),
    ) {
        let fork = if in_map { Fork::Vm } else { Fork::Main };
        let mut blocks: Vec<BlockRef<'_>> = also.into_iter().filter(|other| *other != id).map(reference).collect();
        blocks.push(BlockRef { will_init, data: data.as_deref(), tag: BlockTag { fork, ..TAG }, ..reference(id) });
        let record = record(rmgr, info, blocks, &main);
        let context = Context { major, hint_bits_logged: true };
        let _outcome = apply(&context, &record, Target::Block(id), &mut page);
        let _outcome = apply(&context, &record, Target::UnregisteredVm(0), &mut page);
        mask::mask(rmgr, TAG, &mut page);
    }
}
