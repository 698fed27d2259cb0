//! Says how a page of a moment is rebuilt: from which stored bytes, and by which records.
//!
//! From: `cli::explain`.  To: `view::moment`, whose [`Recipe`] it takes apart; the WAL, to look at the records that it names.
//! In: a moment and a block.  Out: [`Explanation`], plain values to be printed. What it calls "to fetch" is what reading the page costs when nothing is
//! in memory or in the cache.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::advice::Advice;
use crate::pg::relation::{BLCKSZ, RELSEG_BLOCKS};
use crate::pg::wal::record::DecodeError;
use crate::pg::wal::{Record, names};
use crate::pg::{BlockNo, BlockTag, Fork, Lsn, Major, RelFileLocator};
use crate::redo::Target;
use crate::repo::{RepoError, Stream};
use crate::view::file_class::{FileClass, classify};
use crate::view::locate::{Base, Recipe, Step};
use crate::view::moment::{Moment, MomentError};
use crate::view::stored::StoredStream;

/// How one page is rebuilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub tag: BlockTag,
    pub base: BaseBytes,
    /// In rising Lsn order.
    pub steps: Vec<Explained>,
    /// All that a read of this page fetches, its base's base included, by object.
    pub to_fetch: Vec<Fetch>,
}

/// What the records are applied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseBytes {
    /// A page of zeroes: the first record rebuilds it, or nothing ever wrote it.
    Zeroes,
    /// The backup's copy: bytes `offset..offset + 8192` of the main stream of the object under `key`.
    Copied { key: String, offset: u64 },
    /// A page of another relation as it stood when its database was copied.
    Of(Box<Explanation>),
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Explained {
    Record(RecordLine),
    /// The heap was cut by the record that ends at `end`: the bits from this heap block on are cleared.
    CutMap {
        end: Lsn,
        heap_blocks: BlockNo,
    },
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordLine {
    /// `lsn..end`, half-open.
    pub lsn: Lsn,
    pub end: Lsn,
    pub xid: u32,
    /// Resource manager, as `pg_waldump` prints it.
    pub rmgr: &'static str,
    /// Operation, likewise.
    pub operation: &'static str,
    pub page: PageChange,
    /// Bytes of the whole record.
    pub len_bytes: u64,
}

/// What a record holds for the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageChange {
    /// A full-page image.
    Image,
    /// It begins the page anew.
    Init,
    /// A change of what is there.
    Change,
}

/// Chunks of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    pub key: String,
    pub chunks: u64,
    /// As stored: compressed, and encrypted if the repository is.
    pub bytes: u64,
}

/// Why a page cannot be explained.
#[derive(Debug, Error)]
pub enum ExplainError {
    #[error(transparent)]
    Moment(#[from] MomentError),
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("the WAL has no record at {lsn}, though its index names one")]
    NoRecord { lsn: Lsn },
    #[error("{text:?} is no relation")]
    NotARelation { text: String },
    #[error("block {block} lies beyond what a file of a relation can hold")]
    BeyondFile { block: BlockNo },
    #[error("{text} is a file of fork {found}, not of fork {wanted}")]
    OtherFork { text: String, found: Fork, wanted: Fork },
    #[error("Postgres replays the WAL of this moment, so that no page is rebuilt")]
    NotRebuilt,
}

impl Advice for ExplainError {
    fn detail(&self) -> Option<String> {
        match self {
            ExplainError::Moment(e) => e.detail(),
            ExplainError::Repo(e) => e.detail(),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ExplainError::Moment(MomentError::BeyondEnd { .. }) => {
                Some("`bygone ls --at MOMENT` lists the files as they were, with their lengths: 8192 bytes a block.".to_owned())
            }
            ExplainError::Moment(e) => e.hint(),
            ExplainError::Repo(e) => e.hint(),
            ExplainError::NotARelation { .. } => Some(
                "Write tablespace/database/relation, as 1663/5/16384, or a file, as base/5/16384: SELECT pg_relation_filepath('table')."
                    .to_owned(),
            ),
            ExplainError::NotRebuilt => Some("Leave --replay=postgres away.".to_owned()),
            _ => None,
        }
    }
}

/// Reads which block is meant: of a relation (`1663/5/16384`), or of one of its files (`base/5/16384_vm`, `base/5/16384.1`), where blocks count from
/// the file's beginning.
///
/// # Errors
/// [`ExplainError::NotARelation`], [`ExplainError::OtherFork`], [`ExplainError::BeyondFile`].
pub fn parse_block(text: &str, fork: Option<Fork>, block: BlockNo) -> Result<BlockTag, ExplainError> {
    let numbers: Option<Vec<u32>> = text.split('/').map(|part| part.parse().ok()).collect();
    if let Some([tablespace, database, relation]) = numbers.as_deref() {
        let rel = RelFileLocator { tablespace: *tablespace, database: *database, relation: *relation };
        return Ok(BlockTag { rel, fork: fork.unwrap_or(Fork::Main), block });
    }
    // A view keeps tablespaces inside itself.
    let path = text.trim_start_matches('/').replace("bygone_tablespaces/", "pg_tblspc/");
    let FileClass::Relation(file) = classify(&path) else { return Err(ExplainError::NotARelation { text: text.to_owned() }) };
    match fork {
        Some(wanted) if wanted != file.fork && file.fork != Fork::Main => {
            return Err(ExplainError::OtherFork { text: text.to_owned(), found: file.fork, wanted });
        }
        _ if block >= RELSEG_BLOCKS => return Err(ExplainError::BeyondFile { block }),
        _ => {}
    }
    let block = file.segment.saturating_mul(RELSEG_BLOCKS).saturating_add(block);
    Ok(BlockTag { rel: file.rel, fork: fork.unwrap_or(file.fork), block })
}

/// Explains one page.
///
/// # Errors
/// [`ExplainError`], above all [`MomentError::BeyondEnd`].
pub fn explain(moment: &Moment, tag: BlockTag) -> Result<Explanation, ExplainError> {
    let recipe = moment.recipe(tag)?;
    let mut chunks = Chunks::default();
    let mut explanation = Explainer { moment, chunks: &mut chunks }.recipe(&recipe)?;
    explanation.to_fetch = chunks.by_object();
    Ok(explanation)
}

/// Stored bytes of chunks, by object and chunk number: a chunk that serves twice is fetched once.
#[derive(Default)]
struct Chunks(BTreeMap<(String, u64), u64>);

impl Chunks {
    fn add(&mut self, stream: &StoredStream, from: u64, to: u64) {
        let object = stream.object();
        let size = object.chunk_bytes();
        for chunk in from / size..to.div_ceil(size) {
            let plain = chunk * size..((chunk + 1) * size).min(object.main_len());
            let stored = object.stored_range(Stream::Main, plain).map_or(0, |range| range.end - range.start);
            self.0.insert((object.key().to_owned(), chunk), stored);
        }
    }

    fn by_object(self) -> Vec<Fetch> {
        let mut objects: Vec<Fetch> = Vec::new();
        for ((key, _), bytes) in self.0 {
            match objects.last_mut().filter(|fetch| fetch.key == key) {
                Some(fetch) => {
                    fetch.chunks += 1;
                    fetch.bytes += bytes;
                }
                None => objects.push(Fetch { key, chunks: 1, bytes }),
            }
        }
        objects
    }
}

struct Explainer<'a> {
    moment: &'a Moment,
    chunks: &'a mut Chunks,
}

impl Explainer<'_> {
    fn recipe(&mut self, recipe: &Recipe) -> Result<Explanation, ExplainError> {
        let base = match &recipe.base {
            Base::Zeroes => BaseBytes::Zeroes,
            Base::Copied(tag) => self.copied(*tag)?,
            Base::Of(source) => BaseBytes::Of(Box::new(self.recipe(source)?)),
        };
        let steps = recipe.steps.iter().map(|step| self.step(step)).collect::<Result<_, _>>()?;
        Ok(Explanation { tag: recipe.tag, base, steps, to_fetch: Vec::new() })
    }

    fn copied(&mut self, tag: BlockTag) -> Result<BaseBytes, ExplainError> {
        let place = self.moment.copied_at(tag).ok_or(MomentError::BeyondEnd { tag })?;
        let stream = self.moment.files().copied(place.object)?;
        self.chunks.add(&stream, place.offset, place.offset.saturating_add(BLCKSZ as u64));
        Ok(BaseBytes::Copied { key: stream.object().key().to_owned(), offset: place.offset })
    }

    fn step(&mut self, step: &Step) -> Result<Explained, ExplainError> {
        match *step {
            Step::CutMap { end, heap_blocks } => Ok(Explained::CutMap { end, heap_blocks }),
            Step::Record { lsn, target } => {
                let wal = self.moment.wal();
                let mut reader = wal.reader(lsn);
                let raw = reader.next()?.filter(|raw| raw.lsn == lsn).ok_or(ExplainError::NoRecord { lsn })?;
                let line = line(&raw.decode(wal.layout.major)?, target, wal.layout.major);
                self.add_wal(lsn, line.end)?;
                Ok(Explained::Record(line))
            }
        }
    }

    /// The chunks of the segments that hold `lsn..end`.
    fn add_wal(&mut self, lsn: Lsn, end: Lsn) -> Result<(), ExplainError> {
        let (wal, size) = (self.moment.wal(), self.moment.wal().layout.segment_size);
        let mut at = lsn;
        while at < end {
            let no = size.segment_no(at);
            let start = size.start(no);
            let until = end.0.min(start.0.saturating_add(size.bytes()));
            let (stream, offset) = wal.stored_at(at)?.ok_or(ExplainError::NoRecord { lsn })?;
            self.chunks.add(&stream, offset, until - start.0);
            at = Lsn(until);
        }
        Ok(())
    }
}

fn line(record: &Record<'_>, target: Target, major: Major) -> RecordLine {
    let block = match target {
        Target::Block(id) => record.blocks.iter().find(|block| block.id == id),
        Target::UnregisteredVm(_) => None,
    };
    let page = match block {
        Some(block) if block.image.as_ref().is_some_and(|image| image.apply) => PageChange::Image,
        Some(block) if block.will_init => PageChange::Init,
        _ => PageChange::Change,
    };
    RecordLine {
        lsn: record.lsn,
        end: record.end,
        xid: record.xid,
        rmgr: record.rmgr.name().unwrap_or("?"),
        operation: names::operation(record, major).unwrap_or("?"),
        page,
        len_bytes: record.end.0.saturating_sub(record.lsn.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REL: RelFileLocator = RelFileLocator { tablespace: 1663, database: 5, relation: 16384 };

    #[test]
    fn a_block_is_named_by_relation_or_by_file() {
        let tag = |fork, block| BlockTag { rel: REL, fork, block };
        assert_eq!(parse_block("1663/5/16384", None, 7).unwrap(), tag(Fork::Main, 7));
        assert_eq!(parse_block("1663/5/16384", Some(Fork::Vm), 7).unwrap(), tag(Fork::Vm, 7));
        assert_eq!(parse_block("base/5/16384", None, 7).unwrap(), tag(Fork::Main, 7));
        assert_eq!(parse_block("base/5/16384_vm", None, 7).unwrap(), tag(Fork::Vm, 7));
        assert_eq!(parse_block("base/5/16384.2", None, 7).unwrap(), tag(Fork::Main, 2 * RELSEG_BLOCKS + 7));
    }

    #[test]
    fn what_names_no_block_is_refused() {
        for text in ["", "16384", "base/5", "global/pg_control", "1663/5/x", "a/b/c"] {
            assert!(matches!(parse_block(text, None, 0), Err(ExplainError::NotARelation { .. })), "{text}");
        }
        assert!(matches!(parse_block("base/5/16384", None, RELSEG_BLOCKS), Err(ExplainError::BeyondFile { .. })));
        assert!(matches!(parse_block("base/5/16384_vm", Some(Fork::Init), 0), Err(ExplainError::OtherFork { .. })));
    }
}
