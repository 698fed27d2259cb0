use super::*;
use crate::pg::wal::fabricate::{Draft, Segments, Writer, layout};
use crate::pg::{BlockTag, Fork, RelFileLocator};

const LSN: fn(&Writer) -> Lsn = |w| w.layout.segment_size.start(5);

fn noop(len: usize) -> Draft {
    let draft = Draft::new(Rmgr::XLOG, 0x20, 0, (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect());
    let rel = RelFileLocator { tablespace: 1663, database: 5, relation: 16384 };
    if len.is_multiple_of(2) { draft } else { draft.block(1, BlockTag { rel, fork: Fork::Main, block: 7 }, true, b"data") }
}

/// All records (start, end, length) from `start` on, and the end.
fn read_all(segments: &Segments, layout: Layout, path: TimelinePath, start: Lsn) -> (Vec<(Lsn, Lsn, usize)>, End) {
    let mut reader = Reader::at_page(segments.clone(), layout, path, start);
    let mut all = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        assert!(record.decode(layout.major).is_ok());
        all.push((record.lsn, record.end, record.bytes.len()));
    }
    assert!(reader.next().unwrap().is_none());
    (all, reader.end().unwrap())
}

fn single() -> TimelinePath {
    TimelinePath::single(Timeline(1))
}

#[test]
fn records_of_every_length_come_back_across_pages_and_segments() {
    let mut w = Writer::new(layout(Major::V15), 5);
    let start = LSN(&w);
    let mut expected = Vec::new();
    // Lengths that leave 8, 16, 24 bytes on a page, that end a page exactly, and that span several pages and segments.
    for len in (0..8200).step_by(37).chain([20_000, 2_500_000, 8127, 8128, 8120, 0, 1]) {
        let draft = noop(len);
        let (lsn, end) = w.push(&draft);
        expected.push((lsn, end, draft.bytes(Lsn(0)).len()));
    }
    let (all, end) = read_all(&w.segments, w.layout, single(), start);
    assert_eq!(all, expected);
    assert_eq!(end.at, w.next_lsn());
    assert_eq!(end.reason, EndReason::Zero);
}

#[test]
fn reading_can_begin_at_any_page_and_at_any_record() {
    let mut w = Writer::new(layout(Major::V18), 5);
    let all: Vec<(Lsn, Lsn)> = (0..600).map(|i| w.push(&noop(i * 61))).collect();
    let last = w.next_lsn();
    for page in (LSN(&w).0..last.0).step_by(8192 * 7).map(Lsn) {
        let (found, _) = read_all(&w.segments, w.layout, single(), page);
        let expected = all.iter().position(|(lsn, _)| *lsn >= page).map_or(0, |i| all.len() - i);
        assert_eq!(found.len(), expected, "from {page}");
    }
    for (lsn, end) in &all {
        let mut reader = Reader::at_record(w.segments.clone(), w.layout, single(), *lsn);
        assert_eq!(reader.next().unwrap().map(|r| (r.lsn, r.end)), Some((*lsn, *end)));
    }
    let inside = Lsn(all[5].0.0 + 8);
    let mut reader = Reader::at_record(w.segments.clone(), w.layout, single(), inside);
    assert!(reader.next().unwrap().is_none());
    assert!(Reader::at_record(w.segments.clone(), w.layout, single(), Lsn(all[5].0.0 + 3)).next().unwrap().is_none());
}

#[test]
fn a_switch_takes_up_the_rest_of_its_segment() {
    let mut w = Writer::new(layout(Major::V14), 5);
    w.push(&noop(100));
    let (_, end) = w.push(&Draft::new(Rmgr::XLOG, 0x40, 0, Vec::new()));
    let (next, _) = w.push(&noop(3));
    let (all, _) = read_all(&w.segments, w.layout, single(), LSN(&w));
    assert_eq!(all[1].1, w.layout.segment_size.start(6));
    assert_eq!(end, w.layout.segment_size.start(6));
    assert_eq!(all[2].0, next);
}

#[test]
fn an_overwritten_record_is_left_out() {
    let mut w = Writer::new(layout(Major::V16), 5);
    let first = w.push(&noop(7000)).0;
    w.push_torn(&noop(9000));
    let instead = w.push(&Draft::new(Rmgr::XLOG, 0xD0, 0, vec![0; 16])).0;
    let (all, end) = read_all(&w.segments, w.layout, single(), LSN(&w));
    assert_eq!(all.iter().map(|r| r.0).collect::<Vec<_>>(), [first, instead]);
    assert_eq!(end.reason, EndReason::Zero);
}

#[test]
fn a_timeline_is_followed_over_its_fork() {
    let mut w = Writer::new(layout(Major::V17), 5);
    for _ in 0..300 {
        w.push(&noop(5000));
    }
    let fork = w.fork(Timeline(2));
    let before = w.segments.clone();
    for _ in 0..300 {
        w.push(&noop(5000));
    }
    let path = TimelinePath::parse(Timeline(2), &format!("1\t{fork}\tpromoted\n")).unwrap();
    let (all, end) = read_all(&w.segments, w.layout, path.clone(), LSN(&w));
    assert_eq!((all.len(), end.reason), (600, EndReason::Zero));
    // Without the new timeline's files the WAL ends at the fork, whatever the old timeline holds behind it.
    let old = Segments(before.0.into_iter().filter(|(s, _)| s.timeline == Timeline(1)).collect());
    let (all, end) = read_all(&old, w.layout, path, LSN(&w));
    let missing = WalSegment { timeline: Timeline(2), no: w.layout.segment_size.segment_no(fork) };
    assert_eq!((all.len(), end), (300, End { at: fork, reason: EndReason::Missing(missing) }));
}

#[test]
fn the_end_tells_damage_from_what_was_never_written() {
    let mut w = Writer::new(layout(Major::V18), 5);
    let all: Vec<(Lsn, Lsn)> = (0..300).map(|_| w.push(&noop(6000))).collect();
    let segment = WalSegment { timeline: Timeline(1), no: 5 };
    let ends = |change: &dyn Fn(&mut Segments)| {
        let mut segments = w.segments.clone();
        change(&mut segments);
        read_all(&segments, w.layout, single(), LSN(&w)).1
    };
    let at = usize::try_from(w.layout.segment_size.offset(all[10].0)).unwrap();

    let end = ends(&|s| s.0.get_mut(&segment).unwrap()[at + 100] ^= 1);
    assert!(matches!(end, End { at, reason: EndReason::Crc { .. } } if at == all[10].0), "{end}");
    assert!(!end.reason.is_plain());

    let end = ends(&|s| s.0.get_mut(&segment).unwrap().truncate(at + 24));
    assert!(matches!(end.reason, EndReason::Short(_)) && end.at == all[9].0.max(end.at), "{end}");

    let end = ends(&|s| drop(s.0.remove(&WalSegment { timeline: Timeline(1), no: 6 })));
    assert!(matches!(end.reason, EndReason::Missing(WalSegment { no: 6, .. })), "{end}");
    assert!(end.at < w.layout.segment_size.start(6), "the record that reaches into the missing segment is not given out");

    let next_page = at.next_multiple_of(PAGE_BYTES);
    let end = ends(&|s| s.0.get_mut(&segment).unwrap()[next_page..next_page + PAGE_BYTES].fill(0));
    assert!(matches!(end.reason, EndReason::Page { why: BadPage::Zero, .. }), "{end}");
    let end = ends(&|s| s.0.get_mut(&segment).unwrap()[next_page + 9] ^= 1);
    assert!(matches!(end.reason, EndReason::Page { why: BadPage::Stale { .. }, .. }) && end.reason.is_plain(), "{end}");
    let end = ends(&|s| s.0.get_mut(&segment).unwrap()[next_page + 16] ^= 1);
    assert!(matches!(end.reason, EndReason::Continuation { .. }), "{end}");
    let end = ends(&|s| s.0.get_mut(&segment).unwrap()[next_page + 4] = 9);
    assert!(matches!(end.reason, EndReason::Page { why: BadPage::Timeline { .. }, .. }), "{end}");
    let end = ends(&|s| s.0.get_mut(&segment).unwrap()[at + 8] ^= 8);
    assert!(matches!(end.reason, EndReason::Prev { .. }), "{end}");
    let end = ends(&|s| s.0.get_mut(&segment).unwrap()[at + 17] = 77);
    assert_eq!(end.reason, EndReason::Rmgr(77));
    let end = ends(&|s| s.0.get_mut(&segment).unwrap()[at..at + 4].copy_from_slice(&[7, 0, 0, 0]));
    assert_eq!(end.reason, EndReason::Length { total_len: 7 });
}

proptest::proptest! {
    #[test]
    fn arbitrary_changes_never_panic(changes in proptest::collection::vec((0usize..100_000, 0u8..=255), 1..40)) {
        let mut w = Writer::new(layout(Major::V15), 5);
        for i in 0..60 {
            w.push(&noop(i * 50));
        }
        let file = w.segments.0.values_mut().next().unwrap();
        for (at, value) in changes {
            file[at] = value;
        }
        let mut reader = Reader::at_page(w.segments.clone(), w.layout, single(), LSN(&w));
        while let Some(record) = reader.next().unwrap() {
            drop(record.decode(Major::V15));
        }
        proptest::prop_assert!(reader.end().is_some());
    }

    #[test]
    fn arbitrary_bytes_as_a_record_never_panic(body in proptest::collection::vec(0u8..=255, 0..200), major in 0usize..5) {
        let len = u32::try_from(body.len() + 24).unwrap();
        let mut bytes = len.to_le_bytes().to_vec();
        bytes.resize(24, 0);
        bytes.extend(body);
        drop(Record::decode(Major::ALL[major], Lsn(8), Lsn(16), &bytes));
    }
}
