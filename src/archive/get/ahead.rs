//! Fetches the segments that recovery will ask for next, several at a time.
//!
//! From: `get`.  To: a spool: a store of its own on local disk, in which an object has the same key and the same bytes as in the repository. So what
//! lies there is as private as in the repository (encrypted if that is), and is checked in full when it is used: a damaged or forged spool file is
//! passed over, and the repository asked instead. Bounded: only segments of the window after the one asked for are kept.
//! Worth its while where a request takes long (S3); a repository on local disk is read as fast as its spool would be.

use std::sync::Arc;

use crate::archive::wal_file::WalFile;
use crate::pg::{SegmentSize, WalSegment};
use crate::repo::layout::{ClusterFolder, segment_of_key};
use crate::repo::{Object, Repository};
use crate::store::{Store, StoreError};

/// The spool, and how far to look ahead.
#[derive(Debug)]
pub struct Ahead {
    pub spool: Arc<dyn Store>,
    /// Segments fetched at a time, the one asked for among them.
    pub window: usize,
    /// Requests at a time.
    pub parallel: usize,
}

type Place = (Arc<Repository>, ClusterFolder);

impl Ahead {
    /// Brings `segment` and those after it into the spool, unless `segment` is there already. What fails is left to the caller's own reading.
    pub(super) fn fetch(&self, places: &[Place], segment: WalSegment, size: SegmentSize) {
        let Some((repository, folder)) = places.first() else { return };
        let key = |no: u64| folder.segment(WalSegment { no, ..segment }, size);
        if matches!(self.spool.head(&key(segment.no)), Ok(Some(_))) {
            return;
        }
        let wanted = crossbeam_channel::unbounded();
        (segment.no..).take(self.window).for_each(|no| drop(wanted.0.send(key(no))));
        drop(wanted.0);
        let wanted = &wanted.1;
        std::thread::scope(|scope| {
            for _ in 0..self.parallel.clamp(1, self.window.max(1)) {
                scope.spawn(move || {
                    // Segments come without gaps: after the first that is not there, none is.
                    for key in wanted.iter() {
                        if !self.bring(repository.store().as_ref(), &key) {
                            return wanted.try_iter().for_each(drop);
                        }
                    }
                });
            }
        });
    }

    /// `false` if the repository does not have it, or cannot be read.
    fn bring(&self, store: &dyn Store, key: &str) -> bool {
        let brought = store.get(key).and_then(|bytes| self.spool.put_new(key, bytes));
        match brought {
            Ok(()) | Err(StoreError::Exists { .. }) => true,
            Err(StoreError::NotFound { .. }) => false,
            Err(error) => {
                tracing::debug!(%error, key, "not fetched ahead");
                false
            }
        }
    }

    /// The file in the spool, if it is there and its table is sound.
    pub(super) fn object(&self, places: &[Place], file: &WalFile, size: SegmentSize) -> Option<Object> {
        let (repository, folder) = places.first()?;
        let spooled = repository.with_store(self.spool.clone());
        match spooled.open_object(&file.key(folder, size), file.kind()) {
            Ok(object) => Some(object),
            Err(error) => {
                if !error.is_not_found() {
                    tracing::warn!(%error, "spool file passed over");
                }
                None
            }
        }
    }

    /// Removes from the spool what lies outside the window that begins after `segment`.
    pub(super) fn tidy(&self, segment: WalSegment, size: SegmentSize) {
        let mut gone = Vec::new();
        let end = segment.no.saturating_add(self.window as u64);
        let listed = self.spool.list("", None, &mut |meta| {
            let inside =
                segment_of_key(&meta.key, size).is_some_and(|s| s.timeline == segment.timeline && s.no > segment.no && s.no <= end);
            if !inside {
                gone.push(meta.key);
            }
            true
        });
        let removed = listed.and_then(|()| gone.iter().try_for_each(|key| self.spool.delete(key)));
        if let Err(error) = removed {
            tracing::debug!(%error, "the spool is not tidy");
        }
    }
}
