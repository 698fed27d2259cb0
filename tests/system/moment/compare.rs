//! Compares two data directories file by file, as far as WAL decides what is in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bygone::archive::incarnation::read_control;
use bygone::pg::Fork;
use bygone::pg::checkpoint::Checkpoint;
use bygone::view::file_class::{FileClass, RelationFile, Slru, classify};

const PAGE: usize = 8192;

/// Files whose bytes must be equal, by path relative to the data directory.
fn files(top: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    walk(top, "", &mut found);
    found
}

fn walk(dir: &Path, below: &str, found: &mut BTreeMap<String, PathBuf>) {
    for entry in fs_err::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry")) {
        let name = entry.file_name().into_string().expect("UTF-8");
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        if path == "bygone_tablespaces" {
            continue;
        }
        let meta = fs_err::metadata(entry.path()).expect("metadata");
        if meta.is_dir() {
            walk(&entry.path(), &path, found);
        } else if is_compared(&path) {
            found.insert(path, entry.path());
        }
    }
}

const ORIGINS: &str = "pg_logical/replorigin_checkpoint";

/// FSM forks are not rebuilt; what is not here belongs to the server and not to the data.
fn is_compared(path: &str) -> bool {
    match classify(path) {
        FileClass::Relation(RelationFile { fork, .. }) => fork != Fork::Fsm,
        FileClass::RelationMap { .. } | FileClass::Slru { .. } | FileClass::TwoPhase => true,
        _ => path == ORIGINS || path.ends_with("PG_VERSION"),
    }
}

/// Replication origins in the order of their ids: the server writes them in that of its memory.
fn origins(file: &[u8]) -> Vec<&[u8]> {
    let mut items: Vec<&[u8]> = file.get(4..file.len().saturating_sub(4)).unwrap_or_default().chunks(16).collect();
    items.sort_unstable();
    items
}

/// Compares a moment, on which no server ever started, with a cluster that ended its recovery. Panics with every difference if there is one.
pub(super) fn assert_same(ours: &Path, native: &Path) {
    assert_same_but(ours, native, put_wrapped_offset);
}

/// The same for two clusters that both ended their recovery.
pub(super) fn assert_same_end(ours: &Path, native: &Path) {
    assert_same_but(ours, native, |_, _, _| ());
}

/// `undo` puts back in a file of `native` what the end of recovery did to it.
fn assert_same_but(ours: &Path, native: &Path, undo: fn(&str, &mut [u8], &Checkpoint)) {
    let checkpoint = read_control(native).expect("pg_control of the recovered cluster").checkpoint;
    let our_oldest = read_control(ours).expect("pg_control of what is compared").checkpoint.oldest_commit_ts_xid;
    let kept = Kept { oldest: later(our_oldest, checkpoint.oldest_commit_ts_xid), newest: checkpoint.newest_commit_ts_xid };
    let (mut ours, native) = (files(ours), files(native));
    let mut differences = Vec::new();
    for (path, native) in &native {
        let mut expected = fs_err::read(native).expect("a file of the recovered cluster");
        forget_old_commit_times(path, &mut expected, &kept);
        undo(path, &mut expected, &checkpoint);
        match ours.remove(path) {
            // Recovery keeps an empty file in place of a dropped relation until the next checkpoint.
            None if expected.is_empty() => {}
            None if path == ORIGINS && origins(&expected).is_empty() => {}
            None if path.starts_with("pg_commit_ts/") && expected.iter().all(|byte| *byte == 0) => {}
            None => differences.push(format!("{path}: missing ({} bytes)", expected.len())),
            Some(file) => {
                let mut found = fs_err::read(file).expect("a file of the mount");
                forget_old_commit_times(path, &mut found, &kept);
                compare(path, &found, &expected, &mut differences);
            }
        }
    }
    differences.extend(ours.into_keys().map(|path| format!("{path}: should not exist")));
    let told = differences[..differences.len().min(40)].join("\n");
    assert!(differences.is_empty(), "{} differences:\n{told}\nthe recovered cluster: {checkpoint:?}", differences.len());
}

/// The xid from which on both keep commit times; 0 if one of them keeps none. A recovery that goes on from before `track_commit_timestamp` went on, with a
/// `pg_control` of behind that, keeps times from where it goes on; the primary does not, nor do we, nor does a recovery from the backup at one go.
fn later(ours: u32, native: u32) -> u32 {
    let is_later = ours != 0 && native != 0 && ours.wrapping_sub(native) < 1 << 31;
    if is_later || ours == 0 { ours } else { native }
}

/// Whose commit times are kept, around the circle of xids. Nobody's, if `oldest` is 0.
struct Kept {
    oldest: u32,
    newest: u32,
}

impl Kept {
    fn has(&self, xid: u64) -> bool {
        let behind = |xid: u32| xid.wrapping_sub(self.oldest);
        self.oldest != 0 && u32::try_from(xid).is_ok_and(|xid| behind(xid) <= behind(self.newest))
    }
}

/// Clears the commit times that nobody may ask for. Recovery that replays `track_commit_timestamp` going off removes the files, but not what its buffers
/// hold (`DeactivateCommitTs`), so that some of the old times come back when those are written; on the primary they are gone.
fn forget_old_commit_times(path: &str, file: &mut [u8], kept: &Kept) {
    const ENTRY: usize = 10;
    const ON_PAGE: usize = PAGE / ENTRY;
    let FileClass::Slru { slru: Slru::CommitTs, segment } = classify(path) else { return };
    for (block, page) in (segment * 32..).zip(file.chunks_mut(PAGE)) {
        for (xid, entry) in (block * ON_PAGE as u64..).zip(page.chunks_mut(ENTRY)) {
            if !kept.has(xid) {
                entry.fill(0);
            }
        }
    }
}

/// Puts back what the end of recovery takes away (`TrimMultiXact`) if the offset of the next multixact has just come round to 0: it writes the counter as
/// it is, where the multixact before had left a 1 (`RecordNewMultiXact`). Every start of a server does so, and takes 1 for the next all the same.
fn put_wrapped_offset(path: &str, file: &mut [u8], checkpoint: &Checkpoint) {
    const ON_PAGE: u64 = PAGE as u64 / 4;
    let FileClass::Slru { slru: Slru::MultiXactOffsets, segment } = classify(path) else { return };
    let next = u64::from(checkpoint.next_multi);
    if checkpoint.next_multi_offset != 0 || next == 1 || next / (ON_PAGE * 32) != segment {
        return;
    }
    let at = usize::try_from(next % (ON_PAGE * 32) * 4).expect("64 bits");
    if let Some(entry) = file.get_mut(at..at + 4).filter(|entry| entry.iter().all(|byte| *byte == 0)) {
        entry.copy_from_slice(&1u32.to_le_bytes());
    }
}

fn compare(path: &str, ours: &[u8], native: &[u8], differences: &mut Vec<String>) {
    if path == ORIGINS {
        if origins(ours) != origins(native) {
            differences.push(format!("{path}: {:?} instead of {:?}", origins(ours), origins(native)));
        }
        return;
    }
    if ours.len() != native.len() {
        differences.push(format!("{path}: {} bytes instead of {}", ours.len(), native.len()));
    }
    let pages = matches!(classify(path), FileClass::Relation(_));
    for (block, (a, b)) in ours.chunks(PAGE).zip(native.chunks(PAGE)).enumerate() {
        let same = a == b || (pages && a.len() == PAGE && b.len() == PAGE && masked(a) == masked(b));
        if !same {
            let (a, b) = if pages && a.len() == PAGE && b.len() == PAGE { (masked(a), masked(b)) } else { (a.to_vec(), b.to_vec()) };
            let at = a.iter().zip(&b).position(|(x, y)| x != y).unwrap_or(0);
            let there = |page: &[u8]| format!("{:02x?}", page.get(at..page.len().min(at + 12)).unwrap_or_default());
            differences.push(format!("{path}: block {block} has from byte {at} on {} instead of {}", there(&a), there(&b)));
        }
    }
}

/// Page id of GiST at the page's end, and the flag before it that says that tuples were deleted: which minor releases set it differs, nobody reads it.
const GIST: [u8; 2] = [0x81, 0xFF];
const GIST_TUPLES_DELETED: u8 = 1 << 2;

/// The page without what redo does not decide: the checksum (it covers the hole) and the hole.
fn masked(page: &[u8]) -> Vec<u8> {
    let field = |at: usize| usize::from(u16::from_le_bytes([page[at], page[at + 1]]));
    let (lower, upper, special) = (field(12), field(14), field(16));
    let mut page = page.to_vec();
    page[8..10].fill(0);
    if page.ends_with(&GIST) && special == PAGE - 16 {
        page[PAGE - 4] &= !GIST_TUPLES_DELETED;
    }
    if (24..PAGE).contains(&lower) && lower <= upper && upper <= PAGE {
        page[lower..upper].fill(0);
    }
    page
}
