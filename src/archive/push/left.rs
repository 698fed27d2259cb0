//! Was a segment without WAL set aside for a timeline that the cluster has left, or is its WAL lost?
//!
//! From: `put`, for a segment of an older timeline in which no page belongs.  To: the history of the cluster's timeline, beside the segment or in a
//! repository.
//! What lies before the point where its timeline was left had WAL in it once. Where no history says where that was (the timeline may be none that the
//! present one came from), a later segment of the same timeline that does hold WAL says so as well.

use std::io::Read;
use std::path::Path;

use super::{PushError, Session, check};
use crate::pg::wal::history::TimelinePath;
use crate::pg::wal::page::PAGE_BYTES;
use crate::pg::{Lsn, WalSegment};
use crate::repo::ObjectKind;

/// Checks that a segment without WAL, which lies at `path`, may be passed over.
///
/// # Errors
/// [`PushError::Lost`].
pub(super) fn may_be_unwritten(session: &Session, segment: WalSegment, path: &Path) -> Result<(), PushError> {
    let size = session.control.wal_segment_size;
    let stretch = history(session, path).and_then(|history| history.stretch(segment.timeline).map(|stretch| (stretch.begin, stretch.end)));
    let written_to = match stretch {
        Some((begin, Some(end))) => Some(end).filter(|end| (size.segment_no(begin)..size.segment_no(*end)).contains(&segment.no)),
        _ => later_wal(session, segment, path),
    };
    match written_to {
        None => Ok(()),
        Some(to) => Err(PushError::Lost { name: segment.name(size), timeline: segment.timeline, to }),
    }
}

/// The way to the timeline that the cluster is on.
fn history(session: &Session, path: &Path) -> Option<TimelinePath> {
    let timeline = session.control.checkpoint.timeline;
    let parse = |text: &[u8]| {
        let history = TimelinePath::parse(timeline, std::str::from_utf8(text).ok()?).ok()?;
        (history.stretches().len() > 1).then_some(history)
    };
    let beside = fs_err::read(path.with_file_name(format!("{timeline:08X}.history"))).ok();
    let stored = || {
        let read = |at: &(super::Destination, crate::repo::layout::ClusterFolder)| {
            parse(&at.0.repository.read_object(&at.1.history(timeline), ObjectKind::TimelineHistory).ok()?)
        };
        session.destinations.iter().find_map(read)
    };
    beside.and_then(|text| parse(&text)).or_else(stored)
}

/// Where a later segment of the timeline begins that lies beside this one and was written to.
fn later_wal(session: &Session, segment: WalSegment, path: &Path) -> Option<Lsn> {
    let size = session.control.wal_segment_size;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names = fs_err::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let later = names.filter_map(|name| WalSegment::parse(&name, size).ok());
    let later = later.filter(|other| other.timeline == segment.timeline && other.no > segment.no);
    let is_written = |other: &WalSegment| {
        let mut page = [0; PAGE_BYTES];
        let read = fs_err::File::open(folder.join(other.name(size))).and_then(|mut file| file.read_exact(&mut page));
        read.is_ok() && check::holds_wal(&page, other.start(size), &session.control)
    };
    later.filter(is_written).map(|other| other.start(size)).min()
}
