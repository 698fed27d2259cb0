//! Is a file what its name says, and this cluster's?
//!
//! From: `put`, before anything is stored. In: the first bytes of the file and the cluster's `pg_control`.
//! A restored test server that kept production's configuration is caught here, and so is a file that was copied under another name.

use super::PushError;
use crate::archive::wal_file::WalFile;
use crate::pg::control::ControlFile;
use crate::pg::wal::history::TimelinePath;
use crate::pg::wal::page::{BadPage, Layout, PAGE_BYTES, PageHeader};
use crate::pg::{Lsn, Timeline, WalSegment};

/// Checks the first page (or all) of a file of `len` bytes.
///
/// # Errors
/// [`PushError::Foreign`] with what is wrong.
pub(super) fn check(file: &WalFile, name: &str, first: &[u8], len: u64, control: &ControlFile) -> Result<(), PushError> {
    let foreign = |what: String| PushError::Foreign { name: name.to_owned(), what };
    match file {
        WalFile::Segment(segment) | WalFile::Partial(segment) => {
            let expected = control.wal_segment_size.bytes();
            if len != expected {
                return Err(foreign(format!("it has {len} bytes, a WAL segment of this cluster has {expected}")));
            }
            segment_header(*segment, first, control).map_err(foreign)
        }
        WalFile::History(timeline) => {
            let text = std::str::from_utf8(first).map_err(|e| foreign(e.to_string()))?;
            let path = TimelinePath::parse(*timeline, text).map_err(|e| foreign(e.to_string()))?;
            whole_history(*timeline, &path, text).map_err(foreign)
        }
        WalFile::Backup(_) => whole_backup(first).map_err(|what| foreign(what.to_owned())),
    }
}

/// Postgres ends every line, and a timeline that has a history has a parent (timeline.c `writeTimeLineHistory`).
fn whole_history(timeline: Timeline, path: &TimelinePath, text: &str) -> Result<(), String> {
    if path.stretches().len() < 2 {
        return Err(format!("it names no timeline that timeline {timeline} came from"));
    }
    if text.ends_with('\n') { Ok(()) } else { Err("it is cut: its last line has no end".to_owned()) }
}

/// The first two lines, and the one nearest to the end that every version writes (xlogbackup.c `build_backup_content`, in 14 xlog.c `do_pg_stop_backup`).
fn whole_backup(text: &[u8]) -> Result<(), &'static str> {
    const FIRST: &[u8] = b"START WAL LOCATION: ";
    if !text.starts_with(FIRST) {
        return Err("it is no backup history file");
    }
    let has = |start: &[u8]| text.split(|b| *b == b'\n').any(|line| line.starts_with(start));
    let whole = has(b"STOP WAL LOCATION: ") && has(b"STOP TIMELINE: ") && text.ends_with(b"\n");
    if whole { Ok(()) } else { Err("it is cut: a backup history file says where the backup stopped, and ends with its line") }
}

/// Could this be a file that was set aside for a timeline which the cluster has left since, and never written to? Postgres marks such a one for archiving
/// when it tidies up (`XLogArchiveCheckDone`). As long as it is refused nothing else is archived. [`holds_wal`] and `left` have the last word.
pub(super) fn looks_unwritten(segment: WalSegment, first: &[u8], control: &ControlFile) -> bool {
    let at = segment.start(control.wal_segment_size);
    let unwritten = match PageHeader::parse(first).map(|header| header.check(at, &layout(control))) {
        Some(Err(BadPage::Zero)) => true,
        Some(Err(BadPage::Stale { address })) => address < at,
        _ => false,
    };
    unwritten && segment.timeline < control.checkpoint.timeline
}

/// Is any page in a piece of a WAL file, which begins at `at`, what belongs there? Then the file was written to.
pub(super) fn holds_wal(piece: &[u8], at: Lsn, control: &ControlFile) -> bool {
    let belongs = |(number, page)| {
        let at = Lsn(at.0 + number * PAGE_BYTES as u64);
        PageHeader::parse(page).is_some_and(|header| header.check(at, &layout(control)).is_ok())
    };
    (0..).zip(piece.chunks(PAGE_BYTES)).any(belongs)
}

fn layout(control: &ControlFile) -> Layout {
    Layout { major: control.major, segment_size: control.wal_segment_size, system_id: Some(control.system_id) }
}

fn segment_header(segment: WalSegment, first: &[u8], control: &ControlFile) -> Result<(), String> {
    let header = PageHeader::parse(first).ok_or("it has no page header")?;
    header.check(segment.start(control.wal_segment_size), &layout(control)).map_err(|bad| bad.to_string())?;
    // The first page may begin on an older timeline than the name says, after a switch in the middle of the segment; never on a newer one.
    if header.timeline > segment.timeline {
        return Err(format!("its first page is of timeline {}, its name says {}", header.timeline, segment.timeline));
    }
    Ok(())
}
