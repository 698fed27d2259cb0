//! Reading: a file cut into pieces, each from where its bytes are.
//!
//! The pieces are settled under the file's lock and fetched after it: no bytes of the source are waited for under a lock.

use std::ops::Range;
use std::sync::Arc;

use super::disk::DiskFile;
use super::node::{Base, Data, Node, Piece};
use super::{Overlay, Result};
use crate::error::FsError;
use crate::source::SourceError;
use crate::stats::Counters;

enum Plan {
    Nothing,
    Volatile(Arc<Base>),
    Base(Arc<Base>, u64),
    Whole(Arc<dyn DiskFile>),
    Pieces { file: Arc<dyn DiskFile>, base: Arc<Base>, pieces: Vec<(Piece, Range<u64>)> },
}

impl Overlay {
    /// Fills `buf` from byte `offset` on and returns how far the file went; `None` if that would have to wait for the source.
    pub(crate) fn read_ready(&self, node: &Node, offset: u64, buf: &mut [u8]) -> Result<Option<usize>> {
        self.read_with(node, offset, buf, false)
    }

    /// The same. May wait for the source.
    pub(crate) fn read(&self, node: &Node, offset: u64, buf: &mut [u8]) -> Result<usize> {
        Ok(self.read_with(node, offset, buf, true)?.unwrap_or(0))
    }

    fn read_with(&self, node: &Node, offset: u64, buf: &mut [u8], may_wait: bool) -> Result<Option<usize>> {
        match Self::plan(node, offset, buf.len())? {
            Plan::Nothing => Ok(Some(0)),
            Plan::Volatile(base) if may_wait => Ok(Some(self.source.read(base.id, offset, buf)?)),
            Plan::Volatile(_) => Ok(None),
            Plan::Whole(file) => Ok(Some(file.read_at(buf, offset)?)),
            Plan::Base(base, end) => {
                let buf = part_of(buf, offset, &(offset..end));
                Ok(self.read_base(&base, offset, buf, may_wait)?.then_some(buf.len()))
            }
            Plan::Pieces { file, base, pieces } => {
                let end = pieces.last().map_or(offset, |(_, range)| range.end);
                for (piece, range) in pieces {
                    let buf = part_of(buf, offset, &range);
                    match piece {
                        Piece::Zero => buf.fill(0),
                        Piece::Local => {
                            let filled = file.read_at(buf, range.start)?;
                            // The data file may end early: what was never written there is zero.
                            buf.get_mut(filled..).unwrap_or_default().fill(0);
                        }
                        Piece::Base if !self.read_base(&base, range.start, buf, may_wait)? => return Ok(None),
                        Piece::Base => {}
                    }
                }
                Ok(Some(usize::try_from(end - offset).unwrap_or(buf.len())))
            }
        }
    }

    /// The data file, if it holds all bytes of this one; `recorded`: and the journal knows that.
    pub(crate) fn whole_file(&self, node: &Node, recorded: bool) -> Option<Arc<dyn DiskFile>> {
        match &*node.data.read() {
            Data::Whole { durable } if *durable || !recorded => node.local.get().ok(),
            _ => None,
        }
    }

    fn plan(node: &Node, offset: u64, len: usize) -> Result<Plan> {
        let data = node.data.read();
        let until = |size: u64| offset.saturating_add(len as u64).min(size);
        Ok(match (&*data, &node.base) {
            (Data::Whole { .. }, _) => Plan::Whole(node.local.get()?),
            (Data::Base, Some(base)) if node.volatile => Plan::Volatile(Arc::clone(base)),
            (Data::Base, Some(base)) if offset < node.base_size => Plan::Base(Arc::clone(base), until(node.base_size)),
            (Data::Blocks(blocks), Some(base)) if offset < blocks.size => {
                let pieces = blocks.pieces(offset..until(blocks.size));
                Plan::Pieces { file: node.local.get()?, base: Arc::clone(base), pieces }
            }
            _ => Plan::Nothing,
        })
    }

    /// Fills `buf` with the source's bytes, all of it or an error: never zeroes for what is missing. False if it would have to wait.
    pub(super) fn read_base(&self, base: &Base, offset: u64, buf: &mut [u8], may_wait: bool) -> Result<bool> {
        if buf.is_empty() {
            return Ok(true);
        }
        let filled = match self.source.read_ready(base.id, offset, buf) {
            Some(filled) => filled,
            None if may_wait => self.source.read(base.id, offset, buf)?,
            None => return Ok(false),
        };
        if filled < buf.len() {
            let path = String::from_utf8_lossy(&base.path()).into_owned();
            let short = format!("{path}: the source ended {} bytes after offset {offset}, {} were expected", filled, buf.len());
            return Err(FsError::Source(SourceError::Unreadable(short.into())));
        }
        Counters::add(&self.counters.source_bytes, filled);
        Counters::add(&self.counters.source_reads, 1);
        Ok(true)
    }
}

/// The part of a buffer, which starts at byte `offset` of the file, that holds `range` of the file.
fn part_of<'a>(buf: &'a mut [u8], offset: u64, range: &Range<u64>) -> &'a mut [u8] {
    let at = |byte: u64| usize::try_from(byte - offset).unwrap_or(usize::MAX);
    buf.get_mut(at(range.start)..at(range.end)).unwrap_or_default()
}
