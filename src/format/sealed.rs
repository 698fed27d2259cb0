//! The sealed object: how every large thing is stored, in chunks that can be read one by one.
//!
//! From: `repo::object`, `repo::writer`.  To: bytes that `store` keeps.
//!
//! ```text
//! header frame | main chunk 0 … n-1 | aux chunk 0 … m-1 | tail frame: chunk table, footer
//! ```
//! Header and tail (and aux chunks, unless encrypted) are zstd skippable frames, and each main chunk of an unencrypted object is a zstd frame, so
//! `zstd -dc` prints exactly the main stream. The footer has a fixed size and repeats the header, so that the tail alone opens an object.
//! What always holds: a chunk is returned whole and exactly as it was given, or there is an error. docs/format.md has every byte.

mod codec;
mod header;
mod tail;
#[cfg(test)]
mod tests;

pub use codec::{Opener, Sealed, Sealer, content_digest};
pub use header::{HEADER_BYTES, Header};
pub use tail::{FOOTER_BYTES, Footer, Parsed, Table, TailBuilder, parse_tail};

use std::fmt;

use thiserror::Error;

use super::RepositoryId;
use super::keys::DataKey;

/// The version that this code writes, and the newest that it reads.
pub const SEALED_VERSION: u16 = 1;

/// What an object is. Part of its identity: an object asked for as another kind is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// A WAL segment (or `.partial`); its aux stream is the block index.
    WalSegment,
    /// A timeline history file.
    TimelineHistory,
    /// A backup history file, `.backup`.
    BackupHistory,
    /// An index of segments: of one that was stored without, or a roll-up of many.
    WalIndex,
    /// The manifest of a backup.
    Manifest,
    /// Files of a backup.
    BackupData,
    /// A note on a backup, added later.
    Annotation,
}

const KINDS: [(ObjectKind, u8, &str); 7] = [
    (ObjectKind::WalSegment, 1, "WAL segment"),
    (ObjectKind::TimelineHistory, 2, "timeline history file"),
    (ObjectKind::BackupHistory, 3, "backup history file"),
    (ObjectKind::WalIndex, 4, "WAL index"),
    (ObjectKind::Manifest, 5, "backup manifest"),
    (ObjectKind::BackupData, 6, "backup data"),
    (ObjectKind::Annotation, 7, "annotation"),
];

impl ObjectKind {
    fn code(self) -> u8 {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or(0, |(_, code, _)| *code)
    }

    fn from_code(code: u8) -> Option<ObjectKind> {
        KINDS.iter().find(|(_, c, _)| *c == code).map(|(kind, ..)| *kind)
    }

    /// Plain bytes in a chunk of the main stream: 128 KiB of WAL, 64 KiB of anything else (the measured optimum of size, speed and latency).
    #[must_use]
    pub fn chunk_bytes(self) -> u32 {
        match self {
            ObjectKind::WalSegment => 128 << 10,
            _ => 64 << 10,
        }
    }

    /// Does the footer carry a digest of the main stream? Not of what there is much of: hashing all of it would take from a sixth (backup data, whose
    /// files have checksums in the manifest) to half (WAL that compresses well) of the time to compress it.
    #[must_use]
    pub fn has_digest(self) -> bool {
        !matches!(self, ObjectKind::BackupData | ObjectKind::WalSegment)
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KINDS.iter().find(|(kind, ..)| kind == self).map_or("object", |(.., name)| *name))
    }
}

/// Which of an object's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// The thing itself.
    Main,
    /// What goes with it: the block index of a WAL segment.
    Aux,
}

impl Stream {
    fn code(self) -> u8 {
        match self {
            Stream::Main => 0,
            Stream::Aux => 1,
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stream::Main => "main",
            Stream::Aux => "aux",
        })
    }
}

/// The object that a reader asks for. The stored one must be exactly this.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    pub repository: RepositoryId,
    /// The key that it is stored under.
    pub key: &'a str,
    pub kind: ObjectKind,
    /// The repository's data keys, of all generations; empty if it is not encrypted.
    pub keys: &'a [DataKey],
    pub encrypted: bool,
}

/// Why bytes are not the sealed object, or the chunk, that was asked for.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SealError {
    /// Bytes are not what was written.
    #[error("{place} is damaged: {what}")]
    Damaged { place: Place, what: String },
    /// An intact object, but another one than was asked for.
    #[error("it is another object: its {what} is {found}, not {asked}")]
    OtherObject { what: &'static str, found: String, asked: String },
    /// Sealed with a data key that we do not have.
    #[error("it is sealed with data key generation {generation}, and no key of that generation could be opened")]
    NoKey { generation: u32 },
    /// Undamaged by its plain checksum, but not sealed with the data key that we have.
    #[error("its seal does not fit data key generation {generation}: it was written with another key, or forged")]
    WrongKey { generation: u32 },
    /// Written by a later version.
    #[error("it has format version {found}, this version of bygone reads up to {known}")]
    Future { found: u16, known: u16 },
    /// The compressor or the operating system refused.
    #[error("cannot seal: {0}")]
    Cannot(String),
}

/// Where in an object something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Header,
    Footer,
    Table,
    /// Chunk `number` of a stream, counted from 0, which holds the stream's bytes from `from` on.
    Chunk {
        stream: Stream,
        number: u64,
        from: u64,
    },
    /// The stream as a whole.
    Whole(Stream),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Header => f.write_str("the header"),
            Place::Footer => f.write_str("the footer"),
            Place::Table => f.write_str("the chunk table"),
            Place::Chunk { stream, number, from } => write!(f, "chunk {number} of the {stream} stream (from byte {from})"),
            Place::Whole(stream) => write!(f, "the {stream} stream"),
        }
    }
}

fn damaged(place: Place, what: impl Into<String>) -> SealError {
    SealError::Damaged { place, what: what.into() }
}

/// How many chunks of `chunk` bytes hold `len` bytes. An empty stream has none.
fn chunk_count(len: u64, chunk: u32) -> u64 {
    len.div_ceil(u64::from(chunk.max(1)))
}

/// Plain bytes in chunk `number`, given the stream's length; `None` if there is no such chunk.
fn chunk_len(len: u64, chunk: u32, number: u64) -> Option<u32> {
    let from = number.checked_mul(u64::from(chunk))?;
    let rest = len.checked_sub(from).filter(|rest| *rest > 0)?;
    u32::try_from(rest.min(u64::from(chunk))).ok()
}
