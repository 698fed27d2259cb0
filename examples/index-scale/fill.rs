//! Writes the segments and the manifest.

use std::collections::BTreeMap;

use anyhow::Context;
use bygone::format::index::{About, Has, Head, LogItem, STATUS_XIDS, StatusBits, Summary, WalChunk, Writer};
use bygone::pg::timestamp::PgTime;
use bygone::pg::wal::Rmgr;
use bygone::pg::{Lsn, WalSegment};
use bygone::repo::catalog::{Catalog, Gap};
use bygone::repo::layout::ClusterFolder;
use bygone::repo::manifest::{Entry, EntryKind, FileData, Manifest, Place};
use bygone::repo::{ObjectKind, Repository};
use rayon::prelude::*;

use super::database::{BLOCKS_IN_FILE, LARGE, LARGE_FILES, SMALL, entries, large, small, small_blocks};

/// Transactions that end in a segment: `scripts/bench` moves the server's next xid as far on.
const XIDS_IN_SEGMENT: u64 = 1500;
const FIRST_XID: u64 = 10_000;
const XIDS_IN_PAGE: u64 = 32_768;
const PAGE: u64 = 8192;
/// Small files that share an object.
const BUNDLE: u32 = 1000;

pub(crate) fn fill(repository: &Repository, folder: &ClusterFolder) -> anyhow::Result<()> {
    let catalog = Catalog::read(repository, folder)?;
    let gaps = catalog.gaps();
    let gap = gaps.first().context("the WAL has no gap to fill")?;
    let sizes: Vec<usize> =
        (gap.first..=gap.last).into_par_iter().map(|no| segment(repository, &catalog, gap, no)).collect::<anyhow::Result<_>>()?;
    let label = catalog.backups.last().context("there is no backup")?.label.to_string();
    let (paths, bytes) = manifest(repository, folder, &label)?;
    print(&format!(
        "{} segments with indexes of {} KiB on average; {paths} paths of {} GiB in the backup",
        sizes.len(),
        sizes.iter().sum::<usize>() / sizes.len() / 1024,
        bytes >> 30
    ));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is what the program is for")]
pub(crate) fn print(line: &str) {
    println!("{line}");
}

/// Stores one segment; gives the length of its index.
fn segment(repository: &Repository, catalog: &Catalog, gap: &Gap, no: u64) -> anyhow::Result<usize> {
    let identity = &catalog.identity;
    let size = identity.wal_segment_size;
    let segment = WalSegment { timeline: gap.timeline, no };
    let (start, end) = (size.start(no), size.start(no + 1));
    let base = WalChunk::of(start);
    let mut writer = Writer::new(base);
    entries(no, base.0..WalChunk::of(end).0).into_iter().for_each(|entry| writer.entry(entry));
    let xids = FIRST_XID + (no - gap.first) * XIDS_IN_SEGMENT..FIRST_XID + (no + 1 - gap.first) * XIDS_IN_SEGMENT;
    writer.statuses(&statuses(xids.clone()));
    log(start, end, xids.clone()).iter().for_each(|item| writer.log(item));
    let newest = u32::try_from(xids.end - 1)?;
    let about = About { major: identity.major, system_id: identity.system_id, segment_size: size, first: segment, last_no: no };
    let time = PgTime(i64::try_from(no)? * 1_000_000);
    let summary = Summary {
        segment,
        head: Head::None,
        end,
        tail: None,
        is_whole: true,
        records: 100_000,
        times: Some((time, time)),
        finished: Some((u32::try_from(xids.start)?, newest)),
        newest_xid: Some(newest),
        has: Has::default(),
    };
    let index = writer.finish(about, vec![summary], Vec::new()).context("an index that fits")?;
    repository.put_object(&catalog.folder.segment(segment, size), ObjectKind::WalSegment, b"", Some(&index))?;
    Ok(index.len())
}

/// All have committed.
fn statuses(xids: std::ops::Range<u64>) -> BTreeMap<u32, StatusBits> {
    let mut all: BTreeMap<u32, StatusBits> = BTreeMap::new();
    for xid in xids.filter_map(|xid| u32::try_from(xid).ok()) {
        let bits = all.entry(xid / STATUS_XIDS).or_insert([0; _]);
        bits[(xid % STATUS_XIDS / 4) as usize] |= 1 << ((xid & 3) * 2);
    }
    all
}

/// A page of `pg_xact` that begins, and running transactions now and then.
fn log(start: Lsn, end: Lsn, xids: std::ops::Range<u64>) -> Vec<LogItem> {
    let item = |at: u64, rmgr, info, main_data| LogItem {
        lsn: Lsn(start.0 + at),
        end: Lsn(start.0 + at + 64),
        xid: 0,
        rmgr,
        info,
        origin: None,
        main_data,
    };
    let page = xids.clone().find(|xid| xid % XIDS_IN_PAGE == 0).map(|xid| xid / XIDS_IN_PAGE);
    let zeroed = page.map(|page| item(4096, Rmgr::CLOG, 0, u32::try_from(page).unwrap_or(0).to_le_bytes().to_vec()));
    let newest = u32::try_from(xids.end - 1).unwrap_or(0);
    let running = [0, 0, 0, newest + 1, newest + 1, newest].iter().flat_map(|n| n.to_le_bytes()).collect();
    zeroed.into_iter().chain([item(end.0 - start.0 - 4096, Rmgr::STANDBY, 0x10, running)]).collect()
}

/// Adds the files; gives how many paths there are now, and their bytes.
fn manifest(repository: &Repository, folder: &ClusterFolder, label: &str) -> anyhow::Result<(usize, u64)> {
    let key = folder.manifest(label);
    let mut manifest = Manifest::decode(&repository.read_object(&key, ObjectKind::Manifest)?)?;
    let mut objects = manifest.header.objects;
    let mut add = |path: String, size: u64, place: Place| {
        let data = FileData { size, crc32c: 0, place: Some(place), bad_pages: Vec::new() };
        manifest.entries.push(Entry { path: path.into(), mode: 0o600, owner: None, mtime: 0, kind: EntryKind::File(data), link: None });
    };
    for (rel, file) in (0..LARGE).flat_map(|n| (0..LARGE_FILES).map(move |file| (large(n), file))) {
        let suffix = if file == 0 { String::new() } else { format!(".{file}") };
        let path = format!("base/{}/{}{suffix}", rel.database, rel.relation);
        add(path, u64::from(BLOCKS_IN_FILE) * PAGE, Place { object: objects, offset: 0 });
        objects += 1;
    }
    let mut offset = 0;
    for n in 0..SMALL {
        let (rel, size) = (small(n), u64::from(small_blocks(n)) * PAGE);
        add(format!("base/{}/{}", rel.database, rel.relation), size, Place { object: objects, offset });
        offset += size;
        if n % BUNDLE == BUNDLE - 1 {
            (objects, offset) = (objects + 1, 0);
        }
    }
    manifest.header.objects = objects + 1;
    manifest.sort();
    let files = manifest.entries.iter().filter_map(|entry| if let EntryKind::File(data) = &entry.kind { Some(data.size) } else { None });
    manifest.header.database_bytes = files.sum();
    repository.store().delete(&key)?;
    repository.put_object(&key, ObjectKind::Manifest, &manifest.encode(), None)?;
    Ok((manifest.entries.len(), manifest.header.database_bytes))
}
