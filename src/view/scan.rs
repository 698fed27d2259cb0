//! Reads WAL record by record where no index helps: the segment that the moment lies in, and segments that were stored without an index.
//!
//! From: `view::moment`.  To: `pg::wal::Reader`.
//! In: a stretch of WAL.  Out: its records' effects on a [`Cluster`], and which records touch which block ([`ScannedIndex`]).
//! Memory: 16 bytes for each reference to a block. Stretches without an index are scanned one by one, so each holds what one segment has.

use std::collections::HashMap;

use thiserror::Error;

use crate::advice::Advice;
use crate::pg::wal::effect::{EffectError, effect};
use crate::pg::wal::record::DecodeError;
use crate::pg::wal::{End, Reader, Record, WalBytes, mentions};
use crate::pg::{BlockTag, Lsn, Major};
use crate::view::fold::{At, Cluster};
use crate::view::locate::Reference;
use crate::view::slru::BasePages;

/// Why WAL could not be taken in.
#[derive(Debug, Error)]
pub enum ScanError<E: std::error::Error + 'static> {
    #[error("WAL ends at {} but {until} was to be reached", end.at)]
    Ended { end: End, until: Lsn },
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Effect(#[from] EffectError),
    #[error("record at {lsn} belongs to an extension (resource manager {rmgr}), which alone can replay it")]
    Opaque { lsn: Lsn, rmgr: u8 },
    #[error(transparent)]
    Source(E),
}

impl<E: std::error::Error + Advice + 'static> Advice for ScanError<E> {
    fn detail(&self) -> Option<String> {
        match self {
            ScanError::Ended { end, .. } => Some(end.to_string()),
            ScanError::Source(e) => e.detail(),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ScanError::Ended { .. } => Some("Is a segment missing in the archive? `bygone info` shows gaps.".to_owned()),
            ScanError::Decode(_) | ScanError::Effect(_) | ScanError::Opaque { .. } => {
                Some("A server gets there: `bygone clone create NAME --at MOMENT` lets Postgres itself replay what it must.".to_owned())
            }
            ScanError::Source(e) => e.hint(),
        }
    }
}

impl<E: std::error::Error + 'static> ScanError<E> {
    /// Where the record begins that only Postgres (or an extension) can replay: the first one on the way. `None` if WAL is missing or damaged.
    #[must_use]
    pub fn beyond_us(&self) -> Option<Lsn> {
        match self {
            ScanError::Decode(DecodeError { lsn, .. }) | ScanError::Opaque { lsn, .. } => Some(*lsn),
            ScanError::Effect(EffectError::Unknown { lsn, .. } | EffectError::Short { lsn, .. }) => Some(*lsn),
            ScanError::Ended { .. } | ScanError::Source(_) => None,
        }
    }
}

/// Which records touch which block, from a scan.
#[derive(Debug, Default)]
pub struct ScannedIndex {
    references: HashMap<BlockTag, Vec<Reference>>,
    /// Where the last record begins (`xl_prev` of a record that would follow); invalid if there was none.
    pub last_record: Lsn,
    /// Where the next record begins that was not taken in; a page's start stands for what follows its header.
    pub next: Lsn,
}

impl ScannedIndex {
    /// The references to `tag` in records that begin in `from..until`, rising.
    pub fn references(&self, tag: BlockTag, from: Lsn, until: Lsn) -> impl Iterator<Item = Reference> + '_ {
        let all = self.references.get(&tag).map_or(&[][..], Vec::as_slice);
        let start = all.partition_point(|r| r.lsn < from);
        all[start..].iter().take_while(move |r| r.lsn < until).copied()
    }

    fn note(&mut self, tag: BlockTag, reference: Reference) {
        self.references.entry(tag).or_default().push(reference);
    }
}

/// Takes in every record that `reader` yields and that ends at or before `until`.
///
/// # Errors
/// [`ScanError`]; WAL that ends before `until` is one.
pub fn scan<S, B>(reader: &mut Reader<S>, until: Lsn, major: Major, cluster: &mut Cluster<B>) -> Result<ScannedIndex, ScanError<S::Error>>
where
    S: WalBytes,
    S::Error: std::error::Error + 'static,
    B: BasePages<Error = S::Error>,
{
    let mut index = ScannedIndex { next: reader.position(), ..ScannedIndex::default() };
    while reader.position() < until {
        let Some(raw) = reader.next().map_err(ScanError::Source)? else { break };
        if raw.end > until {
            index.next = raw.lsn;
            return Ok(index);
        }
        index.next = raw.end;
        let record = raw.decode(major)?;
        take_in(&record, major, cluster, &mut index)?;
    }
    match reader.end() {
        Some(end) if end.at < until => Err(ScanError::Ended { end, until }),
        _ => Ok(index),
    }
}

fn take_in<E, B>(record: &Record<'_>, major: Major, cluster: &mut Cluster<B>, index: &mut ScannedIndex) -> Result<(), ScanError<E>>
where
    E: std::error::Error + 'static,
    B: BasePages<Error = E>,
{
    if record.rmgr.is_custom() {
        return Err(ScanError::Opaque { lsn: record.lsn, rmgr: record.rmgr.0 });
    }
    index.last_record = record.lsn;
    mentions(record, |mention| {
        let tag = mention.tag;
        if mention.extends {
            cluster.relations.extend(tag.rel, tag.fork, tag.block);
        }
        index.note(tag, Reference::from_mention(record.lsn, &mention));
    });
    let at = At { lsn: record.lsn, end: record.end, xid: record.xid };
    match effect(record, major)? {
        Some(effect) => cluster.apply(at, &effect).map_err(ScanError::Source)?,
        None => cluster.saw_xid(record.xid),
    }
    Ok(())
}
