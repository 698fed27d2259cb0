//! Writing, cutting and growing files.
//!
//! The first write decides how a file of the source is kept: small ones and those of [`Keep::Whole`] are copied, the others become
//! [`Data::Blocks`]. A granule that is written in part is completed first, with the source's bytes fetched without a lock, and then written in one piece:
//! the data file may hold leftovers there, from before a crash.

use std::collections::HashMap;
use std::ops::Range;

use super::blockmap::{GRANULE, touched};
use super::format::{NodeKind, OnDiskRecord as Record};
use super::node::{Blocks, Data, Node, Stat};
use super::{Overlay, Result, Upper};
use crate::error::FsError;
use crate::source::Keep;
use crate::stats::Counters;

/// The source is copied in pieces of this length.
const COPY_CHUNK: u64 = 1 << 20;
/// No file of the source that is kept in blocks gets longer: its map would not fit in memory.
const MAX_BLOCKS_SIZE: u64 = 16 << 40;

/// The source's bytes for the ends of a write, by where they start.
type Fetched = HashMap<u64, Vec<u8>>;

impl Overlay {
    /// Writes if that needs nothing slow; false if it does, and nothing was written.
    pub(crate) fn write_ready(&self, node: &Node, offset: u64, bytes: &[u8]) -> Result<bool> {
        self.write_with(node, offset, bytes, false)
    }

    /// Writes. May wait for the source.
    pub(crate) fn write(&self, node: &Node, offset: u64, bytes: &[u8]) -> Result<()> {
        self.write_with(node, offset, bytes, true).map(drop)
    }

    /// Lets the disk begin with a range of a file. May wait for the disk, if that has much to do.
    pub(crate) fn begin_writing(node: &Node, range: Range<u64>) {
        // Whoever syncs opens the file again, and hears why it cannot be opened.
        if let Ok(file) = node.local.get() {
            file.begin_writing(range);
        }
    }

    fn write_with(&self, node: &Node, offset: u64, bytes: &[u8], may_wait: bool) -> Result<bool> {
        self.must_take_writes(node)?;
        let range = offset..offset.checked_add(bytes.len() as u64).ok_or(FsError::Invalid)?;
        let mut fetched = Fetched::new();
        loop {
            if matches!(*node.data.read(), Data::Whole { .. }) {
                node.local.get()?.write_at(bytes, offset)?;
                break;
            }
            if node.is_untouched() {
                if node.keep == Keep::Whole && !may_wait {
                    return Ok(false);
                }
                self.make_local(node)?;
                continue;
            }
            if Self::write_blocks(node, &range, bytes, &fetched)? {
                break;
            }
            if !may_wait {
                return Ok(false);
            }
            self.fetch_missing(node, &range, &mut fetched)?;
        }
        Counters::add(&self.counters.written_bytes, bytes.len());
        Ok(true)
    }

    fn must_take_writes(&self, node: &Node) -> Result<&Upper> {
        let upper = self.upper()?;
        match node.kind {
            NodeKind::File if !node.volatile => Ok(upper),
            NodeKind::File => Err(FsError::NotPermitted),
            NodeKind::Directory => Err(FsError::IsADirectory),
            NodeKind::Symlink | NodeKind::Socket | NodeKind::Fifo => Err(FsError::Invalid),
        }
    }

    /// Gives an untouched file a data file: with all its bytes, or with none yet. May wait for the source if it is kept whole.
    fn make_local(&self, node: &Node) -> Result<()> {
        match node.keep {
            Keep::Whole => self.copy_up(node, node.base_size),
            Keep::Blocks => {
                let mut data = node.data.write();
                if matches!(*data, Data::Base) {
                    drop(node.local.get()?);
                    *data = Data::Blocks(Blocks::new(node.base_size));
                }
                Ok(())
            }
        }
    }

    /// Copies the first `len` bytes of the source's file into the data file. It becomes the file when all are there.
    fn copy_up(&self, node: &Node, len: u64) -> Result<()> {
        let _turn = node.syncing.lock();
        let base = match &node.base {
            Some(base) if node.is_untouched() => base,
            _ => return Ok(()),
        };
        let file = node.local.get()?;
        file.set_len(0)?;
        let mut offset = 0;
        while offset < len {
            let mut chunk = vec![0; usize::try_from((len - offset).min(COPY_CHUNK)).unwrap_or(0)];
            self.read_base(base, offset, &mut chunk, true)?;
            file.write_at(&chunk, offset)?;
            offset += chunk.len() as u64;
        }
        *node.data.write() = Data::Whole { durable: false };
        Ok(())
    }

    /// Fetches what a write needs besides its own bytes and does not have yet.
    fn fetch_missing(&self, node: &Node, range: &Range<u64>, fetched: &mut Fetched) -> Result<()> {
        let Some(base) = &node.base else { return Ok(()) };
        let missing = match &*node.data.read() {
            Data::Blocks(blocks) => blocks.missing(range),
            _ => Vec::new(),
        };
        for part in missing {
            let mut bytes = vec![0; usize::try_from(part.end - part.start).unwrap_or(0)];
            self.read_base(base, part.start, &mut bytes, true)?;
            fetched.insert(part.start, bytes);
        }
        Ok(())
    }

    /// Writes into a file kept in blocks; false if bytes of the source are needed that are not in `fetched`.
    fn write_blocks(node: &Node, range: &Range<u64>, bytes: &[u8], fetched: &Fetched) -> Result<bool> {
        let mut data = node.data.write();
        let Data::Blocks(blocks) = &mut *data else { return Ok(false) };
        if range.end > MAX_BLOCKS_SIZE {
            return Err(FsError::Invalid);
        }
        // Asked again under the lock: another write may have brought the granule meanwhile, or a cut may have ended the source earlier.
        let missing = blocks.missing(range);
        let has = |part: &Range<u64>| fetched.get(&part.start).is_some_and(|bytes| bytes.len() as u64 >= part.end - part.start);
        if !missing.iter().all(has) {
            return Ok(false);
        }
        let file = node.local.get()?;
        let granules = touched(range);
        let whole = granules.start * GRANULE..granules.end * GRANULE;
        let head_new = range.start > whole.start && !blocks.map.contains(granules.start);
        let tail_new = range.end < whole.end && !blocks.map.contains(granules.end - 1);
        if head_new || tail_new {
            let written = if head_new { whole.start } else { range.start }..if tail_new { whole.end } else { range.end };
            let mut padded = vec![0; usize::try_from(written.end - written.start).unwrap_or(0)];
            let mut put = |at: u64, bytes: &[u8]| {
                let start = usize::try_from(at - written.start).unwrap_or(usize::MAX);
                if let Some(place) = padded.get_mut(start..start.saturating_add(bytes.len())) {
                    place.copy_from_slice(bytes);
                }
            };
            for part in &missing {
                let len = usize::try_from(part.end - part.start).unwrap_or(0);
                put(part.start, fetched.get(&part.start).and_then(|bytes| bytes.get(..len)).unwrap_or_default());
            }
            put(range.start, bytes);
            file.write_at(&padded, written.start)?;
        } else {
            file.write_at(bytes, range.start)?;
        }
        for granule in granules {
            if blocks.map.insert(granule) {
                blocks.dirty.push(granule..granule + 1);
            }
        }
        blocks.size = blocks.size.max(range.end);
        node.touch();
        Ok(true)
    }

    /// Cuts or grows a file. May wait for the source, and for the disk: what is cut off must not come back half.
    pub(crate) fn truncate(&self, node: &Node, size: u64) -> Result<Stat> {
        let upper = self.must_take_writes(node)?;
        if node.is_untouched() && size > 0 {
            match node.keep {
                Keep::Whole => self.copy_up(node, node.base_size.min(size))?,
                Keep::Blocks => self.make_local(node)?,
            }
        }
        let _turn = node.syncing.lock();
        let names = self.names.read();
        let mut data = node.data.write();
        let file = node.local.get()?;
        match &mut *data {
            Data::Base => {
                file.set_len(size)?;
                *data = Data::Whole { durable: false };
            }
            Data::Whole { .. } => file.set_len(size)?,
            Data::Blocks(_) if size > MAX_BLOCKS_SIZE => return Err(FsError::Invalid),
            Data::Blocks(blocks) => {
                if size < blocks.size && blocks.map.any_from(size / GRANULE) {
                    // Bytes that the journal promises must not vanish before it knows of the cut.
                    if blocks.recorded.is_some() {
                        let point = upper.journal.append(&[Record::Truncate { ino: node.ino, size }], true)?;
                        blocks.recorded = Some((size, blocks.base_valid.min(size)));
                        upper.journal.sync(point)?;
                    }
                    file.set_len(size)?;
                }
                blocks.map.truncate(size.div_ceil(GRANULE));
                blocks.dirty.truncate(size.div_ceil(GRANULE));
                blocks.base_valid = blocks.base_valid.min(size);
                blocks.size = size;
            }
        }
        drop(data);
        drop(names);
        node.touch();
        Ok(node.stat()?)
    }

    /// Takes disk space for a range of a file, so that a later write there cannot find the disk full. May wait for the source.
    pub(crate) fn allocate(&self, node: &Node, offset: u64, len: u64, keep_len: bool) -> Result<()> {
        self.must_take_writes(node)?;
        let end = offset.checked_add(len).ok_or(FsError::Invalid)?;
        if node.is_untouched() {
            self.make_local(node)?;
        }
        let mut data = node.data.write();
        let file = node.local.get()?;
        match &mut *data {
            Data::Base => Err(FsError::Stale),
            Data::Whole { .. } => Ok(file.allocate(offset, len, keep_len)?),
            Data::Blocks(_) if end > MAX_BLOCKS_SIZE => Err(FsError::Invalid),
            Data::Blocks(blocks) => {
                file.allocate(offset, len, true)?;
                if !keep_len {
                    blocks.size = blocks.size.max(end);
                }
                Ok(())
            }
        }
    }
}
