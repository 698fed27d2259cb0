use proptest::prelude::*;

use super::*;

fn page_with(items: &[&[u8]]) -> Page {
    let mut page = Page::zeroed();
    page.init(16).unwrap();
    for item in items {
        page.add_item(item, 0, Placement::Shift).unwrap();
    }
    page
}

fn contents(page: &Page) -> Vec<Vec<u8>> {
    (1..=page.max_offset()).map(|number| page.item(number).map(<[u8]>::to_vec).unwrap_or_default()).collect()
}

#[test]
fn checksum_equals_what_checksum_impl_computes() {
    let mut page = Page::zeroed();
    for (i, byte) in page.0.iter_mut().enumerate() {
        *byte = u8::try_from((i * 7 + i / 256 + 3) % 256).unwrap();
    }
    assert_eq!((page.checksum(0), page.checksum(123_456)), (34_744, 43_510));
    let sum = page.checksum(7);
    page.stamp_checksum(7);
    assert_eq!((page.stored_checksum(), page.checksum(7)), (sum, sum), "the stored checksum must not count");
    assert!(page.checksum_is_valid(7) && !page.checksum_is_valid(8));
}

#[test]
fn new_page_passes_the_checksum_only_if_all_zero() {
    let mut page = Page::zeroed();
    page.stamp_checksum(3);
    assert!(page.checksum_is_valid(3));
    page.0[5000] = 1;
    assert!(!page.checksum_is_valid(3));
}

#[test]
fn items_grow_down_from_the_special_space_and_are_aligned() {
    let page = page_with(&[b"hello", b"longer than eight"]);
    assert_eq!((page.lower(), page.upper(), page.special_offset()), (32, 8176 - 8 - 24, 8176));
    assert_eq!(page.item(1).unwrap(), b"hello");
    assert_eq!(page.item_id(2).unwrap(), ItemId::normal(8144, 17));
}

#[test]
fn inserting_before_others_shifts_their_line_pointers() {
    let mut page = page_with(&[b"a", b"c"]);
    page.add_item(b"b", 2, Placement::Shift).unwrap();
    assert_eq!(contents(&page), [b"a", b"b", b"c"]);
}

#[test]
fn taken_line_pointer_is_not_overwritten() {
    let mut page = page_with(&[b"a"]);
    assert_eq!(page.add_item(b"b", 1, Placement::Heap), Err(PageError("line pointer is taken")));
    assert_eq!(page.add_item(b"b", 3, Placement::Heap), Err(PageError("line pointer past the end")));
    page.set_item_id(1, ItemId::UNUSED).unwrap();
    assert_eq!(page.add_item(b"b", 1, Placement::Heap), Ok(1));
}

#[test]
fn full_page_refuses_another_item() {
    let mut page = page_with(&[]);
    assert_eq!(page.add_item(&[1; 8144], 0, Placement::Shift), Ok(1));
    assert_eq!(page.add_item(b"x", 0, Placement::Shift), Err(PageError("no room for the item")));
}

#[test]
fn repairing_closes_gaps_orders_items_and_cuts_trailing_unused_pointers() {
    let mut page = page_with(&[b"one", b"two", b"three", b"four"]);
    page.set_item_id(2, ItemId::UNUSED).unwrap();
    page.set_item_id(4, ItemId::UNUSED).unwrap();
    page.repair_fragmentation(true).unwrap();
    assert_eq!(contents(&page), [&b"one"[..], b"", b"three"]);
    assert_eq!((page.max_offset(), page.upper()), (3, 8176 - 16));
    assert_ne!(page.flags() & HAS_FREE_LINES, 0);
}

#[test]
fn repairing_as_14_does_keeps_trailing_unused_pointers() {
    let mut page = page_with(&[b"one", b"two"]);
    page.set_item_id(2, ItemId::UNUSED).unwrap();
    page.repair_fragmentation(false).unwrap();
    assert_eq!(contents(&page), [&b"one"[..], b""]);
    assert_ne!(page.flags() & HAS_FREE_LINES, 0);
}

#[test]
fn truncating_keeps_one_line_pointer_at_least() {
    let mut page = page_with(&[b"one", b"two"]);
    page.set_item_id(1, ItemId::UNUSED).unwrap();
    page.set_item_id(2, ItemId::UNUSED).unwrap();
    page.truncate_line_pointer_array().unwrap();
    assert_eq!(page.max_offset(), 1);
    assert_ne!(page.flags() & HAS_FREE_LINES, 0);
}

#[derive(Debug, Clone)]
enum Op {
    Add(Vec<u8>, u16, u8),
    Delete(u16),
    DeleteNoCompact(u16),
    DeleteMany(Vec<u16>),
    Overwrite(u16, Vec<u8>),
    Repair,
    Truncate,
    SetLine(u16, u32),
}

fn any_op() -> impl Strategy<Value = Op> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300);
    let number = || prop_oneof![0..20_u16, any::<u16>()];
    prop_oneof![
        (bytes(), number(), 0..3_u8).prop_map(|(b, n, p)| Op::Add(b, n, p)),
        number().prop_map(Op::Delete),
        number().prop_map(Op::DeleteNoCompact),
        prop::collection::btree_set(1..20_u16, 0..8).prop_map(|set| Op::DeleteMany(set.into_iter().collect())),
        (number(), bytes()).prop_map(|(n, b)| Op::Overwrite(n, b)),
        Just(Op::Repair),
        Just(Op::Truncate),
        (number(), any::<u32>()).prop_map(|(n, raw)| Op::SetLine(n, raw)),
    ]
}

fn run(page: &mut Page, op: Op) -> Result<(), PageError> {
    match op {
        Op::Add(bytes, number, 0) => page.add_item(&bytes, number, Placement::Shift).map(|_| ()),
        Op::Add(bytes, number, 1) => page.add_item(&bytes, number, Placement::Overwrite).map(|_| ()),
        Op::Add(bytes, number, _) => page.add_item(&bytes, number, Placement::Heap).map(|_| ()),
        Op::Delete(number) => page.index_tuple_delete(number),
        Op::DeleteNoCompact(number) => page.index_tuple_delete_no_compact(number),
        Op::DeleteMany(numbers) => page.index_multi_delete(&numbers),
        Op::Overwrite(number, bytes) => page.index_tuple_overwrite(number, &bytes),
        Op::Repair => page.repair_fragmentation(true),
        Op::Truncate => page.truncate_line_pointer_array(),
        Op::SetLine(number, raw) => page.set_item_id(number, ItemId::from_raw(raw)),
    }
}

proptest! {
    #[test]
    fn operations_on_a_page_of_any_bytes_never_panic(
        noise in prop::collection::vec(any::<u8>(), 8192),
        header in proptest::option::of((0..9000_u16, 0..9000_u16, 0..9000_u16)),
        ops in prop::collection::vec(any_op(), 1..12),
    ) {
        let mut page = Page::zeroed();
        page.0.copy_from_slice(&noise);
        if let Some((lower, upper, special)) = header {
            for (at, value) in [(12, lower), (14, upper), (16, special & !7)] {
                page.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
            }
        }
        for op in ops {
            let _result = run(&mut page, op);
        }
    }

    #[test]
    fn deleting_index_items_one_by_one_or_at_once_leaves_the_same_items(
        items in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..100), 4..40),
        doomed in prop::collection::btree_set(1..40_u16, 0..20),
    ) {
        let refs: Vec<&[u8]> = items.iter().map(Vec::as_slice).collect();
        let doomed: Vec<u16> = doomed.into_iter().filter(|n| usize::from(*n) <= items.len()).collect();
        let (mut one_by_one, mut at_once) = (page_with(&refs), page_with(&refs));
        for number in doomed.iter().rev() {
            one_by_one.index_tuple_delete(*number).unwrap();
        }
        at_once.index_multi_delete(&doomed).unwrap();
        let mut number = 0;
        let left: Vec<_> = items.into_iter().filter(|_| { number += 1; !doomed.contains(&number) }).collect();
        prop_assert_eq!(contents(&one_by_one), left.clone());
        prop_assert_eq!(contents(&at_once), left);
        prop_assert_eq!(one_by_one.upper(), at_once.upper());
    }

    #[test]
    fn overwriting_an_item_leaves_the_others(
        items in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..100), 1..40),
        which in any::<prop::sample::Index>(),
        new in prop::collection::vec(any::<u8>(), 1..300),
    ) {
        let mut page = page_with(&items.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let which = which.index(items.len());
        page.index_tuple_overwrite(u16::try_from(which + 1).unwrap(), &new).unwrap();
        let mut expected = items;
        expected[which] = new;
        prop_assert_eq!(contents(&page), expected);
    }
}
