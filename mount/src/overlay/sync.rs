//! Making changes durable, in the one order that a crash cannot harm.
//!
//! ```text
//! take the dirty list -> data file durable (and its name, if new) -> record of the list appended -> journal durable
//! ```
//! The record before the data would be fatal: after a crash it would point at a hole, and zeroes would stand where the source has bytes.
//! If a step fails the list goes back and the overlay takes no more writes: what the disk holds is then unknown, and no later sync may claim success.

use std::sync::atomic::Ordering;

use super::format::{NodeKind, OnDiskRecord as Record};
use super::local::data_name;
use super::names::Frame;
use super::node::{Blocks, Data, Node};
use super::{Overlay, Point, Result, Upper, journal};
use crate::error::FsError;
use crate::stats::Counters;

/// A journal shorter than this is not worth rewriting while mounted.
const COMPACT_FROM: u64 = 16 << 20;

/// What a sync has taken upon itself.
enum Task {
    /// The journal knows all: only data to sync.
    Known,
    NewWhole,
    Blocks {
        size: u64,
        name_is_new: bool,
    },
}

impl Overlay {
    /// Makes a file's bytes, and every change of names so far, durable. Waits for the disk.
    ///
    /// # Errors
    /// The disk's, once; after that [`FsError::Failed`] for whoever asks.
    pub(crate) fn sync(&self, node: &Node) -> Result<()> {
        let Some(upper) = &self.upper else { return Ok(()) };
        if upper.journal.has_failed() {
            return Err(FsError::Failed);
        }
        Counters::add(&self.counters.syncs, 1);
        if node.kind == NodeKind::File && !node.is_untouched() {
            let known = matches!(*node.data.read(), Data::Whole { durable: true });
            if known { node.local.get()?.sync().map_err(|error| fail(upper, error))? } else { self.sync_new(upper, node)? }
        }
        upper.journal.sync(upper.journal.appended())
    }

    /// Makes every change of names so far durable.
    pub(crate) fn sync_names(&self) -> Result<()> {
        match &self.upper {
            Some(upper) => upper.journal.sync(upper.journal.appended()),
            None => Ok(()),
        }
    }

    fn sync_new(&self, upper: &Upper, node: &Node) -> Result<()> {
        let _turn = node.syncing.lock();
        let task = take(node);
        let synced = node.local.get().and_then(|file| file.sync()).and_then(|()| match task {
            Task::NewWhole | Task::Blocks { name_is_new: true, .. } => upper.disk.sync_data_names(),
            _ => Ok(()),
        });
        if let Err(error) = synced {
            put_back(node);
            return Err(fail(upper, error));
        }
        let point = match self.record(upper, node, &task) {
            Ok(point) => point,
            Err(error) => {
                // Nothing was added to the journal: the next sync can try again and be truthful.
                put_back(node);
                return Err(error);
            }
        };
        upper.journal.sync(point)
    }

    /// Tells the journal what is now durable in the data file.
    fn record(&self, upper: &Upper, node: &Node, task: &Task) -> Result<Point> {
        // The namespace's lock keeps the journal from being rewritten meanwhile; alone, if the inode is new to the journal.
        let (reader, writer) = match node.recorded.load(Ordering::Acquire) {
            true => (Some(self.names.read()), None),
            false => (None, Some(self.names.write())),
        };
        let mut data = node.data.write();
        let mut frame = Frame::default();
        frame.adopt(node);
        let unlinked = node.is_unlinked();
        match (&mut *data, task) {
            _ if unlinked => return Ok(0),
            (_, Task::Known) | (Data::Base, _) => return Ok(0),
            (Data::Whole { durable }, _) => {
                frame.records.push(Record::Whole { ino: node.ino });
                let point = frame.append_for_sync(upper)?;
                *durable = true;
                Ok(point)
            }
            (Data::Blocks(blocks), Task::Blocks { size, .. }) => {
                let size = blocks.size.min(*size);
                let runs = blocks.in_flight.clone();
                blocks.name_durable = true;
                if runs.is_empty() && blocks.recorded == Some((size, blocks.base_valid)) {
                    return Ok(0);
                }
                frame.records.push(Record::Blocks { ino: node.ino, size, base_valid: blocks.base_valid, runs });
                let point = frame.append_for_sync(upper)?;
                blocks.in_flight.0.clear();
                blocks.recorded = Some((size, blocks.base_valid));
                Ok(point)
            }
            (Data::Blocks(_), Task::NewWhole) => Err(FsError::Stale),
        }
        .inspect(|_| drop((reader, writer)))
    }

    /// What has to happen now and then: changes of names become durable by themselves, files that are gone free their space, the journal is
    /// rewritten when it has grown.
    pub(crate) fn tick(&self) -> Result<()> {
        let Some(upper) = &self.upper else { return Ok(()) };
        if upper.journal.has_failed() {
            return Ok(());
        }
        upper.journal.sync(upper.journal.appended())?;
        self.reap(upper);
        if upper.journal.is_bloated(COMPACT_FROM) {
            self.compact()?;
        }
        Ok(())
    }

    /// Makes everything durable: the end of a mount.
    pub(crate) fn close(&self) -> Result<()> {
        let Some(upper) = &self.upper else { return Ok(()) };
        let nodes: Vec<_> = self.names.read().nodes.values().cloned().collect();
        for node in nodes {
            let is_dirty = match &*node.data.read() {
                Data::Base => false,
                Data::Whole { durable } => !durable,
                Data::Blocks(blocks) => !blocks.dirty.is_empty() || blocks.recorded != Some((blocks.size, blocks.base_valid)),
            };
            if is_dirty {
                self.sync(&node)?;
            }
        }
        upper.journal.sync(upper.journal.appended())?;
        self.reap(upper);
        Ok(())
    }

    /// Removes the data files of what the journal durably says is gone.
    fn reap(&self, upper: &Upper) {
        let synced = upper.journal.synced();
        let dead: Vec<(journal::Point, u64)> = upper.graveyard.lock().extract_if(.., |(point, _)| *point <= synced).collect();
        for (_, ino) in dead {
            if let Err(error) = upper.disk.remove(&format!("data/{}", data_name(ino))) {
                tracing::warn!(%error, inode = ino, "data file of a removed file stays until the next mount");
            }
        }
    }
}

fn take(node: &Node) -> Task {
    match &mut *node.data.write() {
        Data::Base | Data::Whole { durable: true } => Task::Known,
        Data::Whole { durable: false } => Task::NewWhole,
        Data::Blocks(blocks) => {
            let mut dirty = std::mem::take(&mut blocks.dirty);
            blocks.in_flight.append(&mut dirty);
            Task::Blocks { size: blocks.size, name_is_new: !blocks.name_durable }
        }
    }
}

fn put_back(node: &Node) {
    if let Data::Blocks(Blocks { dirty, in_flight, .. }) = &mut *node.data.write() {
        dirty.append(in_flight);
    }
}

/// A sync that failed is reported once as what it was and latches the overlay.
fn fail(upper: &Upper, error: std::io::Error) -> FsError {
    upper.journal.fail();
    error.into()
}
