//! What the records that begin in a chunk of WAL touch.
//!
//! From: `references`, which remembers it.  To: the WAL, record by record.
//! Nearly every chunk ends inside a record. To look at all of it the next chunk has to be fetched and decoded too, for the sake of a few bytes; so that is
//! left, where it can be: the headers of a record lie before its data and name its blocks ([`Extent`]).

use super::error::MomentError;
use crate::format::index::WalChunk;
use crate::pg::wal::{Mention, Record, mentions};
use crate::pg::{BlockTag, Fork, Lsn};
use crate::view::locate::Reference;
use crate::view::wal::ArchivedWal;

/// What the records that begin in a chunk touch, by block, then Lsn.
pub(super) fn of_chunk(wal: &ArchivedWal, chunk: WalChunk, extent: Extent) -> Result<Vec<Mentioned>, MomentError> {
    let inside = if extent == Extent::Inside { inside(wal, chunk)? } else { None };
    let mut all = inside.map_or_else(|| whole(wal, chunk), Ok)?;
    all.sort_by_key(|mentioned| (mentioned.tag, mentioned.reference.lsn));
    Ok(all)
}

/// What all records that begin in a chunk touch. The last one ends in the next chunk, as a rule.
fn whole(wal: &ArchivedWal, chunk: WalChunk) -> Result<Vec<Mentioned>, MomentError> {
    let mut all = Vec::new();
    let mut reader = wal.reader_from_page(chunk.start());
    while reader.position() < chunk.end() {
        let Some(raw) = reader.next()?.filter(|raw| raw.lsn < chunk.end()) else { break };
        // What cannot be taken apart was found when the moment was built, if it lies before the moment.
        let Ok(record) = raw.decode(wal.layout.major) else { break };
        mentions(&record, |mention| all.push(Mentioned::new(record.lsn, &mention, true)));
    }
    Ok(all)
}

/// The same from the bytes of the chunk alone: of a record that goes on behind it only what its headers tell. `None` if they go on there too.
fn inside(wal: &ArchivedWal, chunk: WalChunk) -> Result<Option<Vec<Mentioned>>, MomentError> {
    let mut all = Vec::new();
    let mut reader = wal.reader_within(chunk.start()..chunk.end());
    while let Some(raw) = reader.next()? {
        let Ok(record) = raw.decode(wal.layout.major) else { return Ok(Some(all)) };
        mentions(&record, |mention| all.push(Mentioned::new(record.lsn, &mention, true)));
    }
    if let Some((lsn, bytes)) = reader.unfinished() {
        let Some(record) = Record::decode_beginning(wal.layout.major, lsn, bytes) else { return Ok(None) };
        mentions(&record, |mention| all.push(Mentioned::new(record.lsn, &mention, false)));
    }
    Ok(Some(all))
}

/// How much of the records that begin in a chunk is looked at. In the order of what they cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Extent {
    /// What lies in the chunk: of a record that goes on behind it the headers, which name all its blocks but those of visibility maps.
    Inside,
    /// All of each record.
    Whole,
}

impl Extent {
    /// What has to be looked at to know which records touch a block of a fork.
    pub(super) fn for_fork(fork: Fork) -> Extent {
        if fork == Fork::Vm { Extent::Whole } else { Extent::Inside }
    }
}

/// A reference to a block, in what a chunk mentions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mentioned {
    pub(super) tag: BlockTag,
    pub(super) reference: Reference,
    /// Was all of the record looked at?
    pub(super) is_whole: bool,
}

impl Mentioned {
    fn new(lsn: Lsn, mention: &Mention, is_whole: bool) -> Mentioned {
        Mentioned { tag: mention.tag, reference: Reference::from_mention(lsn, mention), is_whole }
    }
}
