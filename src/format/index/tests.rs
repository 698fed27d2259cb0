use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::*;
use crate::pg::wal::fabricate::{Draft, Segments, Writer, layout};
use crate::pg::wal::{EndReason, Layout, Reader, TimelinePath};
use crate::pg::{Fork, RelFileLocator, Timeline};

const REL: RelFileLocator = RelFileLocator { tablespace: 1663, database: 5, relation: 16384 };

fn tag(relation: u32, fork: Fork, block: u32) -> BlockTag {
    BlockTag { rel: RelFileLocator { relation, ..REL }, fork, block }
}

fn segment(no: u64) -> WalSegment {
    WalSegment { timeline: Timeline(1), no }
}

/// WAL of about 5 segments: changes of many blocks, commits, a file cut, a record that is longer than a segment.
fn written() -> Writer {
    let mut w = Writer::new(layout(Major::V15), 5);
    for i in 0..3000u32 {
        let data = vec![7; (i as usize * 37) % 2500];
        let changed = tag(16384 + i % 5, Fork::Main, i % 97);
        w.push(&Draft::new(Rmgr::HEAP, 0x00, 700 + i / 4, vec![1, 0, 0]).block(0, changed, i % 40 == 0, &[&[1], &data[..]].concat()));
        if i % 4 == 3 {
            w.push(&Draft::new(Rmgr::TRANSACTION, 0x00, 700 + i / 4, (1000 + i64::from(i)).to_le_bytes().to_vec()));
        }
        if i % 500 == 100 {
            w.push(&Draft::new(Rmgr::XLOG, 0x20, 0, vec![9; 30_000]));
        }
        if i == 1500 {
            let mut cut = 3u32.to_le_bytes().to_vec();
            cut.extend([1663u32, 5, 16385, 7].iter().flat_map(|n| n.to_le_bytes()));
            w.push(&Draft::new(Rmgr::STORAGE, 0x20, 0, cut));
            // Longer than a segment, and it refers to a block.
            w.push(&Draft::new(Rmgr::GENERIC, 0x00, 0, vec![8; 1_300_000]).block(0, tag(99, Fork::Main, 1), false, b"x"));
        }
    }
    w
}

/// Every entry that a walk over the records gives.
fn by_hand(segments: &Segments, layout: Layout) -> Vec<Entry> {
    let mut reader = Reader::at_page(segments.clone(), layout, TimelinePath::single(Timeline(1)), layout.segment_size.start(5));
    let mut all: BTreeMap<(BlockTag, WalChunk), bool> = BTreeMap::new();
    while let Some(raw) = reader.next().unwrap() {
        let record = raw.decode(layout.major).unwrap();
        for block in &record.blocks {
            *all.entry((block.tag, WalChunk::of(record.lsn))).or_default() |= block.will_init;
        }
    }
    all.into_iter().map(|((tag, chunk), rebuilds)| Entry { tag, chunk, rebuilds }).collect()
}

fn built_with(segments: &Segments, layout: Layout, no: u64, commit_times: bool) -> Built {
    let file = Bytes::from(segments.0[&segment(no)].clone());
    let mut wal = InMemory { segment: segment(no), file, previous: &mut segments.clone() };
    build(Subject { layout, segment: segment(no), commit_times }, &mut wal).unwrap().unwrap()
}

fn built(segments: &Segments, layout: Layout, no: u64) -> Built {
    built_with(segments, layout, no, false)
}

fn opened(segments: &Segments, layout: Layout) -> Vec<Index<Vec<u8>>> {
    segments.0.keys().map(|s| Index::open(built(segments, layout, s.no).bytes).unwrap()).collect()
}

fn all_entries(index: &Index<Vec<u8>>) -> Vec<Entry> {
    let mut all = Vec::new();
    index
        .entries(&mut |e| {
            all.push(e);
            true
        })
        .unwrap();
    all
}

fn all_statuses(index: &Index<Vec<u8>>) -> BTreeMap<u32, u8> {
    let mut all = BTreeMap::new();
    index
        .statuses(&mut |number, bits| {
            let xids = (0..STATUS_XIDS).map(|i| (number * STATUS_XIDS + i, bits[i as usize / 4] >> (i % 4 * 2) & 3));
            all.extend(xids.filter(|(_, status)| *status != 0));
        })
        .unwrap();
    all
}

fn all_log(index: &Index<Vec<u8>>) -> Vec<LogItem> {
    let mut all = Vec::new();
    index
        .log(Lsn(0), &mut |item| {
            all.push(item);
            true
        })
        .unwrap();
    all
}

#[test]
fn the_indexes_of_all_segments_hold_every_block_reference() {
    let w = written();
    let indexes = opened(&w.segments, w.layout);
    assert!(indexes.len() > 3);
    let mut all: BTreeMap<(BlockTag, WalChunk), bool> = BTreeMap::new();
    for entry in indexes.iter().flat_map(all_entries) {
        *all.entry((entry.tag, entry.chunk)).or_default() |= entry.rebuilds;
    }
    let all: Vec<Entry> = all.into_iter().map(|((tag, chunk), rebuilds)| Entry { tag, chunk, rebuilds }).collect();
    assert_eq!(all, by_hand(&w.segments, w.layout));
    // A record is filed where it begins, in the index of the segment in which it ends.
    let long = all.iter().find(|e| e.tag.rel.relation == 99).unwrap();
    let holder = indexes.iter().find(|index| all_entries(index).contains(long)).unwrap();
    assert!(long.chunk.end() < holder.about().first.start(w.layout.segment_size));
    for index in &indexes {
        let first = match index.summaries()[0].head {
            Head::Included(lsn) => WalChunk::of(lsn),
            _ => WalChunk::of(index.about().first.start(w.layout.segment_size)),
        };
        let end = index.about().first.start(w.layout.segment_size).0 + (1 << 20);
        assert!(all_entries(index).iter().all(|e| e.chunk >= first && e.chunk.start().0 < end));
    }
}

#[test]
fn a_lookup_finds_the_chunks_of_its_range() {
    let w = written();
    let by_hand = by_hand(&w.segments, w.layout);
    let merged = Index::open(merge_in_memory(&opened(&w.segments, w.layout)).unwrap()).unwrap();
    assert_eq!(all_entries(&merged), by_hand);
    let merged = merged.with_filter().unwrap();
    let tags: BTreeSet<BlockTag> = by_hand.iter().map(|e| e.tag).collect();
    let everything = WalChunk(0)..WalChunk(u64::MAX);
    for tag in tags {
        let of_tag: Vec<Entry> = by_hand.iter().copied().filter(|e| e.tag == tag).collect();
        assert_eq!(merged.lookup(tag, everything.clone()).unwrap(), of_tag, "{tag}");
        assert!(merged.may_have(tag), "{tag}");
        let (from, to) = (of_tag[of_tag.len() / 3].chunk, of_tag[of_tag.len() / 2].chunk);
        let within: Vec<Entry> = of_tag.into_iter().filter(|e| (from..to).contains(&e.chunk)).collect();
        assert_eq!(merged.lookup(tag, from..to).unwrap(), within);
    }
    assert!(merged.lookup(tag(1, Fork::Main, 0), everything.clone()).unwrap().is_empty());
    assert!(merged.lookup(tag(u32::MAX, Fork::Init, 9), everything).unwrap().is_empty());
    assert!(!merged.may_have(tag(u32::MAX, Fork::Init, 9)));
    let mut of_fork = Vec::new();
    merged
        .fork(RelFileLocator { relation: 16386, ..REL }, Fork::Main, &mut |e| {
            of_fork.push(e);
            true
        })
        .unwrap();
    assert_eq!(of_fork, by_hand.iter().copied().filter(|e| e.tag.rel.relation == 16386).collect::<Vec<_>>());
}

#[test]
fn a_block_of_many_chunks_is_found_across_index_blocks() {
    let hot = tag(1, Fork::Main, 7);
    let cold = tag(1, Fork::Main, 6);
    let chunks: Vec<Entry> = (0..9000).map(|n| Entry { tag: hot, chunk: WalChunk(1000 + n * 3), rebuilds: n % 7 == 0 }).collect();
    let mut writer = write::Writer::new(WalChunk(1000));
    writer.entry(Entry { tag: cold, chunk: WalChunk(1001), rebuilds: false });
    chunks.iter().for_each(|entry| writer.entry(*entry));
    let w = written();
    let about = *opened(&w.segments, w.layout)[0].about();
    let index = Index::open(writer.finish(about, Vec::new(), Vec::new()).unwrap()).unwrap();
    assert!(index.entry_block_count() > 1);
    assert_eq!(index.lookup(hot, WalChunk(0)..WalChunk(u64::MAX)).unwrap(), chunks);
    assert_eq!(index.lookup(hot, chunks[8000].chunk..chunks[8004].chunk).unwrap(), chunks[8000..8004]);
    assert_eq!(index.lookup(cold, WalChunk(0)..WalChunk(u64::MAX)).unwrap().len(), 1);
}

#[test]
fn the_log_holds_what_happened_to_files_and_the_statuses_how_transactions_ended() {
    let w = written();
    let merged = Index::open(merge_in_memory(&opened(&w.segments, w.layout)).unwrap()).unwrap();
    let effects: Vec<Effect> = all_log(&merged).iter().filter_map(|item| item.effect(Major::V15).unwrap()).collect();
    assert!(matches!(effects[..], [Effect::Truncate { blocks: 3, .. }]), "{effects:?}");
    assert_eq!(all_statuses(&merged), (700..1450).map(|xid| (xid, 1)).collect());
    assert_eq!(merged.summaries().iter().filter_map(|s| s.newest_xid).max(), Some(1449));
}

#[test]
fn the_log_holds_every_transaction_where_commit_times_are_kept() {
    let w = written();
    let with_times = |no: &WalSegment| Index::open(built_with(&w.segments, w.layout, no.no, true).bytes).unwrap();
    let indexes: Vec<_> = w.segments.0.keys().map(with_times).collect();
    let merged = Index::open(merge_in_memory(&indexes).unwrap()).unwrap();
    assert!(all_statuses(&merged).is_empty() && merged.summaries().iter().all(|s| s.has.any(Has::COMMIT_TIMES)));
    let log = all_log(&merged);
    assert!(log.is_sorted_by_key(|item| item.end));
    let finishes = log.iter().filter_map(|item| match item.effect(Major::V15).unwrap() {
        Some(Effect::Finish(finish)) => Some((finish.xid, finish.time.0)),
        _ => None,
    });
    assert!(finishes.eq((0..750).map(|n| (700 + n, 1003 + i64::from(n) * 4))));
    let after = merged.summaries()[2].end;
    let mut late = Vec::new();
    merged
        .log(after, &mut |item| {
            late.push(item.end);
            late.len() < 3
        })
        .unwrap();
    assert!(late.len() == 3 && late.iter().all(|end| *end > after));
}

#[test]
fn a_dropped_database_takes_the_lengths_of_its_files_with_it() {
    let mut w = Writer::new(layout(Major::V15), 5);
    let in_database = |database: u32, relation: u32| BlockTag {
        rel: RelFileLocator { tablespace: 1663, database, relation },
        fork: Fork::Main,
        block: 3,
    };
    let touch = |w: &mut Writer, tag: BlockTag| w.push(&Draft::new(Rmgr::HEAP, 0x00, 0, vec![0; 3]).block(0, tag, true, b"x"));
    let fill = |w: &mut Writer| w.push(&Draft::new(Rmgr::GENERIC, 0x00, 0, vec![0; 1 << 20]));
    touch(&mut w, in_database(7, 1));
    touch(&mut w, in_database(8, 1));
    fill(&mut w);
    touch(&mut w, in_database(7, 2));
    w.push(&Draft::new(Rmgr::DATABASE, 0x20, 0, [7u32, 1, 1663].iter().flat_map(|n| n.to_le_bytes()).collect()));
    touch(&mut w, in_database(7, 4));
    fill(&mut w);
    let merged = Index::open(merge_in_memory(&opened(&w.segments, w.layout)).unwrap()).unwrap();
    let change = |tag: BlockTag| merged.extent(tag.rel, tag.fork).unwrap();
    assert_eq!(change(in_database(7, 1)), SizeChange::unlink());
    assert_eq!(change(in_database(7, 2)), SizeChange::unlink());
    assert_eq!(change(in_database(7, 4)), SizeChange::at_least(4));
    assert_eq!(change(in_database(8, 1)), SizeChange::at_least(4));
}

#[test]
fn summaries_and_extents_tell_what_happened() {
    let w = written();
    let indexes = opened(&w.segments, w.layout);
    let merged = Index::open(merge_in_memory(&indexes).unwrap()).unwrap();
    let summaries = merged.summaries();
    assert!(summaries.windows(2).all(|pair| match pair[1].head {
        Head::Included(lsn) => pair[0].tail.is_none_or(|tail| tail == lsn),
        Head::None => true,
        Head::Missing => false,
    }));
    assert!(summaries[..summaries.len() - 1].iter().all(|s| s.is_whole) && !summaries.last().unwrap().is_whole);
    assert_eq!(summaries[0].times.unwrap().0, PgTime(1003));
    assert_eq!(summaries[0].finished.unwrap().0, 700);
    assert_eq!(summaries.iter().filter(|s| s.has.any(Has::FILES)).count(), 1);
    assert_eq!(summaries.iter().map(|s| s.records).sum::<u64>(), 3000 + 750 + 6 + 2);
    let change = merged.extent(RelFileLocator { relation: 16385, ..REL }, Fork::Main).unwrap();
    assert_eq!(change.cap, Some(3));
}

#[test]
fn without_the_segment_before_the_index_says_that_a_record_is_missing() {
    let w = written();
    let whole = built(&w.segments, w.layout, 6);
    let Head::Included(begin) = whole.summary.head else { panic!("{:?}", whole.summary) };
    let alone = Segments([(segment(6), w.segments.0[&segment(6)].clone())].into());
    let part = built(&alone, w.layout, 6);
    assert_eq!(part.summary.head, Head::Missing);
    assert_eq!(part.summary.records + 1, whole.summary.records);
    let entries = |b: Built| all_entries(&Index::open(b.bytes).unwrap());
    let (whole, part) = (entries(whole), entries(part));
    let own = |e: &Entry| e.chunk > WalChunk::of(begin);
    assert_eq!(whole.into_iter().filter(own).collect::<Vec<_>>(), part);
    // Bytes before it that do not lead into it are as good as none.
    let mut wrong = w.segments.clone();
    wrong.0.get_mut(&segment(5)).unwrap()[(1 << 20) - 100..].fill(3);
    assert_eq!(built(&wrong, w.layout, 6).summary.head, Head::Missing);
}

#[test]
fn a_segment_that_is_read_piece_by_piece_has_the_same_index() {
    let w = written();
    for no in [5, 6, 8] {
        let subject = Subject { layout: w.layout, segment: segment(no), commit_times: false };
        // The segment after it is there too, and is not looked at.
        let piecewise = build(subject, &mut w.segments.clone()).unwrap().unwrap();
        assert_eq!(piecewise.bytes, built(&w.segments, w.layout, no).bytes);
    }
}

#[test]
fn damage_in_the_segment_ends_the_index_there() {
    let w = written();
    let mut damaged = w.segments.clone();
    damaged.0.get_mut(&segment(5)).unwrap()[500_000] ^= 1;
    let built = built(&damaged, w.layout, 5);
    assert!(!built.summary.is_whole && built.summary.tail.is_none());
    assert!(!built.end.reason.is_plain() || matches!(built.end.reason, EndReason::Prev { .. }), "{}", built.end);
    let build_of = |layout, file| {
        let mut wal = InMemory { segment: segment(5), file, previous: &mut Segments::default() };
        build(Subject { layout, segment: segment(5), commit_times: false }, &mut wal).unwrap()
    };
    let other = Bytes::from_static(b"no WAL");
    assert!(build_of(w.layout, other).is_none());
    let file = Bytes::from(w.segments.0[&segment(5)].clone());
    assert!(build_of(layout(Major::V16), file).is_none());
}

fn reads_fail(index: &Index<Vec<u8>>) -> bool {
    let log = index.log(Lsn(0), &mut |_| true);
    index.entries(&mut |_| true).is_err() || log.is_err() || index.statuses(&mut |_, _| {}).is_err()
}

#[test]
fn an_index_of_the_future_is_refused_and_so_is_any_flipped_bit() {
    let w = written();
    let bytes = built(&w.segments, w.layout, 5).bytes;
    let mut future = bytes.clone();
    let version = bytes.len() - 64 + 8;
    future[version] = 3;
    assert!(matches!(Index::open(future), Err(IndexError::Bad(BadIndex::Version { found: 3, newest: 2 }))));
    assert!(matches!(Index::open(vec![b'x'; 100]), Err(IndexError::Bad(BadIndex::Magic))));
    for at in (0..bytes.len()).filter(|at| at % 53 == 0 && !(version - 8..version + 2).contains(at)) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        let refused = match Index::open(bad).and_then(Index::with_filter) {
            Err(IndexError::Bad(_)) => true,
            Ok(index) => reads_fail(&index),
        };
        assert!(refused, "byte {at}");
    }
    for len in (0..bytes.len()).step_by(997) {
        let refused = match Index::open(bytes[..len].to_vec()).and_then(Index::with_filter) {
            Err(IndexError::Bad(_)) => true,
            Ok(index) => reads_fail(&index),
        };
        assert!(refused, "cut to {len}");
    }
}

#[test]
fn only_adjacent_indexes_of_one_cluster_are_merged() {
    let w = written();
    let mut indexes = opened(&w.segments, w.layout);
    indexes.remove(1);
    assert!(matches!(merge_in_memory(&indexes), Err(IndexError::Bad(BadIndex::Damaged { .. }))));
    assert!(merge_in_memory::<Vec<u8>>(&[]).is_err());
}

proptest::proptest! {
    #[test]
    fn arbitrary_blocks_never_panic(bytes in proptest::collection::vec(0u8..=255, 0..300)) {
        let mut count = 0;
        blocks::read_entries(&bytes, WalChunk(8), &mut |_| { count += 1; true });
        blocks::read_statuses(&bytes, &mut |_, _| count += 1);
        blocks::read_log(&bytes, Lsn(8), &mut |_| { count += 1; true });
        proptest::prop_assert!(count <= bytes.len() * 3);
    }
}
