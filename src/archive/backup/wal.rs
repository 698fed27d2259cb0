//! Waits until the WAL that a backup needs is in the repositories.
//!
//! From: `archive::backup`, after the backup was stopped and before the manifest is written: a backup whose WAL is missing is none.
//! Postgres would wait too (`wait_for_archive`), but for `archive_command` to say yes, and for ever; we look for the segments themselves.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::BackupError;
use super::session::{ArchiverState, Session};
use super::target::{Target, some_left};
use crate::archive::watch::{Phase, Watch};
use crate::pg::{Lsn, SegmentSize, Timeline, WalSegment};
use crate::repo::{ObjectKind, is_taken};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// The WAL of one backup.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needed {
    pub(super) timeline: Timeline,
    pub(super) start: Lsn,
    pub(super) stop: Lsn,
    pub(super) size: SegmentSize,
}

impl Needed {
    /// Numbers of the segments: from the one that holds `start` to the one that holds the last byte before `stop`.
    fn numbers(self) -> RangeInclusive<u64> {
        self.size.segment_no(self.start)..=self.size.segment_no(Lsn(self.stop.0.saturating_sub(1)))
    }

    fn name(self, no: u64) -> String {
        WalSegment { timeline: self.timeline, no }.name(self.size)
    }
}

/// Waits for every segment in every repository that still takes part. A repository in which one does not arrive within `limit` is given up; the
/// clock starts anew with each segment that arrives.
///
/// # Errors
/// [`BackupError::NoRepositoryLeft`]; [`BackupError::Interrupted`].
pub(super) fn wait(
    needed: Needed,
    targets: &[Target<'_>],
    limit: Duration,
    session: &mut Session,
    stop: &AtomicBool,
    watch: &dyn Watch,
) -> Result<(), BackupError> {
    for target in targets.iter().filter(|t| !t.has_failed()) {
        for segment in needed.numbers().map(|no| needed.name(no)) {
            watch.phase(Phase::WaitingForWal { segment: &segment });
            if !arrives(target, &segment, limit, stop)? {
                let ArchiverState { last_archived, last_failed } = session.archiver().unwrap_or_default();
                target.fail(BackupError::WalMissing { repository: target.describe(), segment, waited: limit, last_failed, last_archived });
                break;
            }
        }
    }
    some_left(targets)
}

/// `false` if time ran out.
fn arrives(target: &Target<'_>, segment: &str, limit: Duration, stop: &AtomicBool) -> Result<bool, BackupError> {
    let deadline = Instant::now() + limit;
    let key = target.folder.segment_file(segment);
    loop {
        match target.repository.has_object(&key) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(e) => {
                target.fail(e);
                return Ok(true);
            }
        }
        if stop.load(Ordering::Relaxed) {
            return Err(BackupError::Interrupted);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Sees to it that the history of the backup's timeline is in the repositories: archiving may have been turned on only after the promotion that
/// made the timeline. Timeline 1 has none.
pub(super) fn archive_history(timeline: Timeline, data_directory: &Path, targets: &[Target<'_>], watch: &dyn Watch) {
    if timeline.0 <= 1 {
        return;
    }
    let path = data_directory.join(format!("pg_wal/{timeline:08X}.history"));
    for target in targets.iter().filter(|t| !t.has_failed()) {
        let key = target.folder.history(timeline);
        match target.repository.has_object(&key) {
            Ok(true) => continue,
            Ok(false) => {}
            Err(e) => {
                target.fail(e);
                continue;
            }
        }
        match fs_err::read(&path) {
            Err(e) => {
                watch.warn(&format!("the history of timeline {timeline} is not in {} and cannot be read here: {e}", target.describe()))
            }
            Ok(bytes) => match target.repository.put_object(&key, ObjectKind::TimelineHistory, &bytes, None) {
                Err(e) if !is_taken(&e) => target.fail(e),
                _ => {}
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_that_begins_at_the_stop_is_not_needed() {
        let needed = |start, stop| {
            Needed { timeline: Timeline(1), start: Lsn(start), stop: Lsn(stop), size: SegmentSize::DEFAULT }.numbers().collect::<Vec<_>>()
        };
        assert_eq!(needed(0x0200_0028, 0x0200_0138), [2]);
        assert_eq!(needed(0x0200_0028, 0x0300_0000), [2]);
        assert_eq!(needed(0x0200_0028, 0x0300_0001), [2, 3]);
    }
}
