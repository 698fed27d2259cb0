//! Builds the index of one segment from its records.
//!
//! A record that begins in one segment and ends in the next is indexed with the next, which therefore needs the beginning: from the segment before,
//! if that is still at hand. If it is not, the index says so ([`Head::Missing`]) and whoever reads it must look at that one record itself.
//! Nothing is asked of the segment after, so a segment is indexed in the moment in which it is stored, and in any order.
//! Memory: 12 bytes for each pair of block and chunk, and what the index takes: some 100 MB for the largest segment (1 GiB), below 1 MB for one of 16.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::write::Writer;
use super::{About, Entry, Has, Head, LogItem, STATUS_XIDS, SizeChange, StatusBits, Summary, WalChunk, is_newer};
use crate::pg::wal::page::{PAGE_BYTES, PageHeader};
use crate::pg::wal::record::DecodeError;
use crate::pg::wal::xact::Finish;
use crate::pg::wal::{Effect, End, EndReason, Layout, Mention, Reader, Record, TimelinePath, WalBytes, effect, mentions, vm};
use crate::pg::{BlockTag, Fork, Lsn, RelFileLocator, Timeline, WalSegment};

/// How far back the beginning of a record is looked for: longer than any record (1020 MiB, 16 and later).
const LONGEST_RECORD: u64 = 1 << 30;

/// Lower xids are special (`FirstNormalTransactionId`).
const FIRST_NORMAL_XID: u32 = 3;

/// So many entries are gathered before those that are there twice are taken out; then so many more, or twice as many as are left.
const ENTRIES_AT_ONCE: usize = 1 << 20;

/// What to index.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    pub layout: Layout,
    pub segment: WalSegment,
    /// The cluster keeps commit times (`track_commit_timestamp`): then the log has every transaction that ended, with its time.
    pub commit_times: bool,
}

/// An index, and how far it goes.
#[derive(Debug)]
pub struct Built {
    /// What to store.
    pub bytes: Vec<u8>,
    pub summary: Summary,
    /// Where and why reading ended. In a segment that was read whole: that the next one is not there.
    pub end: End,
    /// The record at which reading ended could not be taken apart, though its CRC is right.
    pub undecoded: Option<DecodeError>,
}

/// Builds the index of a segment. `wal` gives it, and the segments before it as far as they are at hand.
///
/// An index is built of whatever could be read: [`Summary::is_whole`] tells whether that is everything. `None` if the segment does not begin with a WAL
/// page of this version.
///
/// # Errors
/// Those of `wal`.
pub fn build<W: WalBytes>(subject: Subject, wal: &mut W) -> Result<Option<Built>, W::Error> {
    let Subject { layout, segment, .. } = subject;
    let start = segment.start(layout.segment_size);
    let file = wal.read(segment, 0)?.unwrap_or_default();
    let Some(first) = PageHeader::parse(&file).filter(|h| h.check(start, &layout).is_ok()) else { return Ok(None) };
    let Some(long) = first.long else { return Ok(None) };
    let about =
        About { major: layout.major, system_id: long.system_id, segment_size: layout.segment_size, first: segment, last_no: segment.no };
    let begin = if first.continues_record() { begin_of_head(layout, segment, first.timeline, wal)? } else { None };
    let from = begin.unwrap_or(start);
    let mut collect = read(subject, from, wal)?;
    let torn = collect.end.at < start && collect.end.reason != EndReason::Missing(next(segment));
    if torn {
        // The bytes before this segment do not lead into it.
        collect = read(subject, start, wal)?;
    }
    let nothing_here = collect.summary.records == 0 && !torn;
    if first.continues_record() && (begin.is_none() || torn) && !nothing_here {
        collect.summary.head = Head::Missing;
    }
    Ok(collect.finish(about))
}

fn next(segment: WalSegment) -> WalSegment {
    WalSegment { no: segment.no.saturating_add(1), ..segment }
}

/// The page on which the record begins that reaches into `segment`; `None` if the segments before are not at hand.
fn begin_of_head<W: WalBytes>(layout: Layout, segment: WalSegment, timeline: Timeline, wal: &mut W) -> Result<Option<Lsn>, W::Error> {
    let size = layout.segment_size;
    let start = segment.start(size);
    let mut page = start;
    loop {
        page = match page.0.checked_sub(PAGE_BYTES as u64) {
            Some(at) if start.0.saturating_sub(at) <= LONGEST_RECORD => Lsn(at),
            _ => return Ok(None),
        };
        let Some(bytes) = wal.read(WalSegment { timeline, no: size.segment_no(page) }, size.offset(page))? else { return Ok(None) };
        let Some(header) = PageHeader::parse(&bytes).filter(|h| h.check(page, &layout).is_ok()) else { return Ok(None) };
        let rest = if header.continues_record() { usize::try_from(header.rem_len).unwrap_or(PAGE_BYTES) } else { 0 };
        if header.header_bytes().saturating_add(rest).saturating_add(7) < PAGE_BYTES {
            return Ok(Some(page));
        }
    }
}

/// A segment whose bytes are in memory, and those before it from elsewhere.
#[derive(Debug)]
pub struct InMemory<'a, P> {
    pub segment: WalSegment,
    /// What the segment's file holds.
    pub file: Bytes,
    pub previous: &'a mut P,
}

impl<P: WalBytes> WalBytes for InMemory<'_, P> {
    type Error = P::Error;

    fn read(&mut self, segment: WalSegment, offset: u64) -> Result<Option<Bytes>, P::Error> {
        if segment.no < self.segment.no {
            return self.previous.read(segment, offset);
        }
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(self.file.len());
        Ok((segment == self.segment).then(|| self.file.slice(offset..)))
    }
}

/// WAL that ends with a segment, whatever lies behind it.
struct Until<'a, W> {
    last: WalSegment,
    wal: &'a mut W,
}

impl<W: WalBytes> WalBytes for Until<'_, W> {
    type Error = W::Error;

    fn read(&mut self, segment: WalSegment, offset: u64) -> Result<Option<Bytes>, W::Error> {
        if segment.no < self.last.no || segment == self.last { self.wal.read(segment, offset) } else { Ok(None) }
    }
}

fn read<W: WalBytes>(subject: Subject, from: Lsn, wal: &mut W) -> Result<Collect, W::Error> {
    let Subject { layout, segment, commit_times } = subject;
    let start = segment.start(layout.segment_size);
    let path = TimelinePath::single(segment.timeline);
    let mut reader = Reader::at_page(Until { last: segment, wal }, layout, path, from).of_any_ancestor();
    let mut collect = Collect::new(layout, segment, commit_times);
    while let Some(raw) = reader.next()? {
        if raw.end <= start {
            continue;
        }
        match raw.decode(layout.major) {
            Ok(record) => collect.add(&record),
            Err(error) => {
                collect.end = End { at: raw.lsn, reason: EndReason::NotARecord };
                collect.undecoded = Some(error);
                return Ok(collect);
            }
        }
    }
    collect.end = reader.end().unwrap_or(collect.end);
    Ok(collect)
}

/// One entry without its block's relation: which fork, by the order in which they turn up; block; chunk from the first x 2 + rebuilds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Short {
    fork: u32,
    block: u32,
    chunk: u32,
}

/// Places in [`Lately`]: a power of two.
const LATELY: usize = 4096;

/// Blocks mentioned lately, so that those of which every second record speaks cost next to nothing. One place for each, by its hash.
struct Lately(Vec<Option<(BlockTag, u32)>>);

impl Lately {
    /// Was this said before? Remembers it. `chunk` as in [`Short`].
    fn knows(&mut self, tag: BlockTag, chunk: u32) -> bool {
        let hash = (tag.rel.relation ^ tag.block.rotate_left(16) ^ tag.fork as u32).wrapping_mul(0x9E37_79B1) >> 20;
        let Some(place) = self.0.get_mut(hash as usize % LATELY) else { return false };
        // A chunk that rebuilds the page has been named if it stands here with its lowest bit set.
        match place {
            Some((known, said)) if *known == tag && (*said == chunk || *said == chunk | 1) => true,
            _ => {
                *place = Some((tag, chunk));
                false
            }
        }
    }
}

/// One fork that something happened to.
struct ForkSeen {
    key: (RelFileLocator, Fork),
    change: Option<SizeChange>,
}

/// What is gathered while the records go by.
struct Collect {
    layout: Layout,
    commit_times: bool,
    /// Positions count from here: the chunk in which the first record begins.
    base: WalChunk,
    start: Lsn,
    fork_numbers: HashMap<(RelFileLocator, Fork), u32>,
    forks: Vec<ForkSeen>,
    /// The number of the fork asked for last: most often the next one is the same.
    last_fork: u32,
    lately: Lately,
    entries: Vec<Short>,
    /// So many entries may there be before they are sorted.
    entries_at_most: usize,
    statuses: BTreeMap<u32, StatusBits>,
    /// Written as it comes, since it may be long; the base is known by then.
    log: Option<Writer>,
    summary: Summary,
    end: End,
    undecoded: Option<DecodeError>,
}

impl Collect {
    fn new(layout: Layout, segment: WalSegment, commit_times: bool) -> Collect {
        let start = segment.start(layout.segment_size);
        let summary = Summary {
            segment,
            head: Head::None,
            end: start,
            tail: None,
            is_whole: false,
            records: 0,
            times: None,
            finished: None,
            newest_xid: None,
            has: if commit_times { Has::COMMIT_TIMES } else { Has::default() },
        };
        Collect {
            layout,
            commit_times,
            base: WalChunk::of(start),
            start,
            fork_numbers: HashMap::new(),
            forks: Vec::new(),
            last_fork: 0,
            lately: Lately(vec![None; LATELY]),
            entries: Vec::new(),
            entries_at_most: ENTRIES_AT_ONCE,
            statuses: BTreeMap::new(),
            log: None,
            summary,
            end: End { at: start, reason: EndReason::NotARecord },
            undecoded: None,
        }
    }

    fn add(&mut self, record: &Record<'_>) {
        if record.lsn < self.start {
            self.base = WalChunk::of(record.lsn);
            self.summary.head = Head::Included(record.lsn);
        }
        self.summary.records = self.summary.records.saturating_add(1);
        self.summary.end = record.end;
        if record.rmgr.is_custom() && !record.blocks.is_empty() {
            self.summary.has.add(Has::CUSTOM_BLOCKS);
        }
        let chunk = WalChunk::of(record.lsn).0.saturating_sub(self.base.0) << 1;
        let chunk = u32::try_from(chunk).unwrap_or(!1);
        mentions(record, |mention| self.mention(&mention, chunk));
        self.effect(record);
    }

    fn mention(&mut self, mention: &Mention, chunk: u32) {
        let tag = mention.tag;
        if mention.extends {
            self.resize((tag.rel, tag.fork), SizeChange::at_least(tag.block.saturating_add(1)));
        }
        let chunk = chunk | u32::from(mention.rebuilds);
        if !self.lately.knows(tag, chunk) {
            let fork = self.fork((tag.rel, tag.fork));
            self.entries.push(Short { fork, block: tag.block, chunk });
            if self.entries.len() >= self.entries_at_most {
                sort(&mut self.entries);
                self.entries_at_most = self.entries.len().saturating_mul(2).max(ENTRIES_AT_ONCE);
            }
        }
    }

    /// The number of a fork.
    fn fork(&mut self, key: (RelFileLocator, Fork)) -> u32 {
        let is_last = self.forks.get(self.last_fork as usize).is_some_and(|last| last.key == key);
        if !is_last {
            let fresh = u32::try_from(self.forks.len()).unwrap_or(u32::MAX);
            self.last_fork = *self.fork_numbers.entry(key).or_insert(fresh);
            if self.last_fork == fresh {
                self.forks.push(ForkSeen { key, change: None });
            }
        }
        self.last_fork
    }

    /// Free space maps are left out: they are not part of what a view shows.
    fn resize(&mut self, key: (RelFileLocator, Fork), change: SizeChange) {
        if key.1 == Fork::Fsm {
            return;
        }
        let fork = self.fork(key);
        if let Some(seen) = self.forks.get_mut(fork as usize) {
            seen.change = Some(seen.change.map_or(change, |all| all.then(change)));
        }
    }

    fn effect(&mut self, record: &Record<'_>) {
        self.saw_xid(record.xid);
        match effect::effect(record, self.layout.major) {
            Ok(None) => return,
            Ok(Some(Effect::Finish(finish))) if !self.commit_times && is_status_alone(&finish) => {
                self.finish_xact(&finish);
                self.statuses(&finish);
                return;
            }
            Ok(Some(effect)) => self.note(&effect),
            Err(_) => self.summary.has.add(Has::UNKNOWN),
        }
        self.log.get_or_insert_with(|| Writer::new(self.base)).log(&LogItem {
            lsn: record.lsn,
            end: record.end,
            xid: record.xid,
            rmgr: record.rmgr,
            info: record.info,
            origin: record.origin,
            main_data: record.main_data.to_vec(),
        });
    }

    fn saw_xid(&mut self, xid: u32) {
        if xid >= FIRST_NORMAL_XID && self.summary.newest_xid.is_none_or(|newest| is_newer(xid, newest)) {
            self.summary.newest_xid = Some(xid);
        }
    }

    fn statuses(&mut self, finish: &Finish) {
        let status: u8 = if finish.committed { 1 } else { 2 };
        for xid in finish.subxids.iter().chain([&finish.xid]).copied().filter(|xid| *xid >= FIRST_NORMAL_XID) {
            let bits = self.statuses.entry(xid / STATUS_XIDS).or_insert([0; _]);
            if let Some(byte) = bits.get_mut((xid % STATUS_XIDS / 4) as usize) {
                *byte |= status.wrapping_shl((xid & 3) << 1);
            }
        }
    }

    /// Puts an effect into the summary and the extents.
    fn note(&mut self, effect: &Effect) {
        let has = match effect {
            Effect::Finish(finish) => {
                self.finish_xact(finish);
                for rel in &finish.unlinked {
                    for fork in [Fork::Main, Fork::Vm, Fork::Init] {
                        self.resize((*rel, fork), SizeChange::unlink());
                    }
                }
                match (finish.prepared, finish.unlinked.is_empty()) {
                    (false, true) => return,
                    (true, true) => Has::TWO_PHASE,
                    (false, false) => Has::FILES,
                    (true, false) => Has(Has::TWO_PHASE.0 | Has::FILES.0),
                }
            }
            Effect::Prepare(_) => Has::TWO_PHASE,
            Effect::Checkpoint { checkpoint, .. } if checkpoint.timeline != checkpoint.previous_timeline => {
                Has(Has::CHECKPOINT.0 | Has::TIMELINE.0)
            }
            Effect::Checkpoint { .. } => Has::CHECKPOINT,
            Effect::RestorePoint { .. } => Has::RESTORE_POINT,
            Effect::BackupEnd { .. } => Has::BACKUP_END,
            Effect::EndOfRecovery { .. } => Has::TIMELINE,
            Effect::FullPageWrites(false) => Has::FULL_PAGE_WRITES_OFF,
            Effect::CreateFork { rel, fork } => {
                self.resize((*rel, *fork), SizeChange::created());
                Has::FILES
            }
            Effect::Truncate { rel, blocks, main, vm, .. } => {
                self.truncate(*rel, *blocks, *main, *vm);
                Has::FILES
            }
            Effect::CopyDatabase { .. } => Has::DATABASE_COPY,
            Effect::DropDatabase { database, tablespaces } => {
                self.drop_database(*database, tablespaces);
                Has::DATABASE_DROP
            }
            Effect::TruncateXact { .. } | Effect::TruncateCommitTs { .. } => Has::XACT_CUT,
            Effect::Parameters(_) => Has::PARAMETERS,
            Effect::CreateTablespace { .. } | Effect::DropTablespace { .. } => Has::TABLESPACE,
            Effect::RelationMap { .. } => Has::RELATION_MAP,
            Effect::Opaque { .. } => Has::OPAQUE,
            _ => return,
        };
        self.summary.has.add(has);
    }

    /// storage.c `smgr_redo`: the main fork is made if it is missing; the map keeps the page that holds the last blocks' bits.
    fn truncate(&mut self, rel: RelFileLocator, blocks: u32, main: bool, vm: bool) {
        self.resize((rel, Fork::Main), SizeChange::created());
        if main {
            self.resize((rel, Fork::Main), SizeChange::cut(blocks));
        }
        if vm {
            self.resize((rel, Fork::Vm), SizeChange::cut(blocks.div_ceil(vm::HEAP_BLOCKS_PER_PAGE)));
        }
    }

    fn drop_database(&mut self, database: u32, tablespaces: &[u32]) {
        let gone = self.forks.iter_mut().filter(|seen| seen.key.0.database == database && tablespaces.contains(&seen.key.0.tablespace));
        gone.filter(|seen| seen.key.1 != Fork::Fsm).for_each(|seen| seen.change = Some(SizeChange::unlink()));
    }

    fn finish_xact(&mut self, finish: &Finish) {
        let (time, xid) = (finish.time, finish.xid);
        let (low, high) = self.summary.times.unwrap_or((time, time));
        self.summary.times = Some((low.min(time), high.max(time)));
        finish.subxids.iter().chain([&xid]).for_each(|xid| self.saw_xid(*xid));
        if xid >= FIRST_NORMAL_XID {
            let (old, new) = self.summary.finished.unwrap_or((xid, xid));
            self.summary.finished = Some((if is_newer(old, xid) { xid } else { old }, if is_newer(xid, new) { xid } else { new }));
        }
    }

    fn finish(mut self, about: About) -> Option<Built> {
        let segment = self.summary.segment;
        self.summary.is_whole = self.undecoded.is_none() && self.end.reason == EndReason::Missing(next(segment));
        let reaches_on = self.summary.is_whole && self.end.at < next(segment).start(self.layout.segment_size);
        self.summary.tail = reaches_on.then_some(self.end.at);
        let mut writer = Writer::new(self.base);
        for entry in sorted(self.base, &self.forks, self.entries) {
            writer.entry(entry);
        }
        writer.statuses(&self.statuses);
        if let Some(log) = self.log {
            writer.take_log(log);
        }
        let mut extents: Vec<_> = self.forks.iter().filter_map(|seen| Some((seen.key.0, seen.key.1, seen.change?))).collect();
        extents.sort_unstable_by_key(|(rel, fork, _)| (*rel, *fork));
        let bytes = writer.finish(about, vec![self.summary], extents)?;
        Some(Built { bytes, summary: self.summary, end: self.end, undecoded: self.undecoded })
    }
}

/// Does nothing of it matter but how the transaction ended?
fn is_status_alone(finish: &Finish) -> bool {
    finish.unlinked.is_empty() && !finish.prepared && finish.origin.is_none()
}

/// The entries by block, then chunk, each once.
fn sorted(base: WalChunk, forks: &[ForkSeen], mut entries: Vec<Short>) -> impl Iterator<Item = Entry> {
    let mut keys: Vec<_> = forks.iter().map(|seen| seen.key).zip(0u32..).collect();
    keys.sort_unstable();
    let mut rank = vec![0u32; keys.len()];
    for ((_, number), place) in keys.iter().zip(0..) {
        if let Some(rank) = rank.get_mut(*number as usize) {
            *rank = place;
        }
    }
    for short in &mut entries {
        short.fork = rank.get(short.fork as usize).copied().unwrap_or(0);
    }
    sort(&mut entries);
    entries.into_iter().filter_map(move |short| {
        let ((rel, fork), _) = *keys.get(short.fork as usize)?;
        let chunk = WalChunk(base.0.saturating_add(u64::from(short.chunk >> 1)));
        Some(Entry { tag: BlockTag { rel, fork, block: short.block }, chunk, rebuilds: short.chunk & 1 != 0 })
    })
}

/// Sorts, and leaves each pair of block and chunk there once.
fn sort(entries: &mut Vec<Short>) {
    entries.sort_unstable();
    // Equal but for the lowest bit: the one that says "rebuilds" comes last, and stays.
    entries.dedup_by(|later, kept| {
        let same = (later.fork, later.block, later.chunk >> 1) == (kept.fork, kept.block, kept.chunk >> 1);
        if same {
            *kept = *later;
        }
        same
    });
}
