//! The bytes of a backup's manifest: JSON, one object a line, the header first, then one line for every path.
//!
//! From: `repo::manifest`, which converts to and from [`OnDiskHeader`] and [`OnDiskEntry`].  To: the main stream of a sealed object.
//! Text, so that a person or ten lines of Python can follow it (docs/format.md has the table of fields); one line a path, so that neither
//! side ever holds the document twice. Unknown fields are passed over: a field may be added without a new version, none may change its meaning.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::advice::Advice;

/// What `format` says in every manifest.
pub const FORMAT: &str = "bygone-manifest";

/// The version that we write, and the highest that we read.
pub const VERSION: u32 = 1;

/// Why bytes are no manifest that we can use.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ManifestError {
    /// Written by a later Bygone.
    #[error("manifest has format version {found}, this program reads up to {known}")]
    Newer { found: u32, known: u32 },
    /// Not what a manifest looks like.
    #[error("manifest is damaged at line {line}: {what}")]
    Damaged { line: usize, what: String },
}

impl Advice for ManifestError {
    fn hint(&self) -> Option<String> {
        match self {
            ManifestError::Newer { .. } => Some("Use the version of bygone that took this backup, or a later one.".to_owned()),
            ManifestError::Damaged { .. } => Some("Another repository may hold the same backup intact.".to_owned()),
        }
    }
}

/// The two fields that every version has, read before anything else is believed.
#[derive(Deserialize)]
struct Preamble<'a> {
    #[serde(borrow)]
    format: Cow<'a, str>,
    version: u32,
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDiskHeader {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// Lines that follow this one.
    pub entries: u64,
    /// Objects `data/0` to `data/<objects - 1>`.
    pub objects: u32,
    pub label: String,
    /// `full`.
    #[serde(rename = "type")]
    pub kind: String,
    pub cluster: String,
    /// Decimal digits in a string: many JSON readers would round so large a number.
    pub system_id: String,
    /// 14 to 18.
    pub major: u32,
    /// `server_version_num`.
    pub server_version_num: u32,
    pub control_version: u32,
    pub catalog_version: u32,
    /// Bytes.
    pub wal_segment_size: u32,
    /// Page checksums on?
    pub checksums: bool,
    /// `0/3A0002F8`.
    pub start_lsn: String,
    pub stop_lsn: String,
    pub checkpoint_lsn: String,
    pub timeline: u32,
    /// RFC 3339, UTC.
    pub start_time: String,
    pub stop_time: String,
    /// The text to write as `backup_label`.
    pub backup_label: String,
    /// The text of `tablespace_map` as Postgres returned it; empty without tablespaces.
    pub tablespace_map: String,
    pub tablespaces: Vec<OnDiskTablespace>,
    pub data_directory: String,
    /// Mode of the data directory itself, octal.
    pub data_directory_mode: String,
    /// Owner and group of every path whose line names no other.
    pub owner: String,
    pub group: String,
    pub host: String,
    /// Sum of `size` over all files, bytes.
    pub database_bytes: u64,
    /// Sum of the data objects as stored, bytes.
    pub stored_bytes: u64,
    /// Pages whose checksum did not match; the lines of their files list them.
    pub bad_pages: u64,
    pub options: OnDiskOptions,
    /// What a person should know about this backup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Version of bygone that took it.
    pub taken_by: String,
}

/// A tablespace other than `pg_default` and `pg_global`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDiskTablespace {
    pub oid: u32,
    pub name: String,
    /// Where its link pointed; for one in place, `pg_tblspc/<oid>`.
    pub path: String,
    pub in_place: bool,
}

/// How the backup was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDiskOptions {
    pub fast_checkpoint: bool,
    pub processes: u32,
    pub page_checksums_verified: bool,
}

/// One path. Fields that do not apply are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDiskEntry<'a> {
    /// Relative to the data directory, slashes between names.
    #[serde(borrow)]
    pub path: Cow<'a, str>,
    /// `path`, `target` and `link` are hex of their bytes, since some are not UTF-8.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hex: bool,
    /// `f` file, `d` directory, `l` symbolic link.
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    /// Octal.
    #[serde(borrow)]
    pub mode: Cow<'a, str>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Cow<'a, str>>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub group: Option<Cow<'a, str>>,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Bytes of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Castagnoli CRC of a file's content, eight hex digits of the number (most significant first).
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub crc32c: Option<Cow<'a, str>>,
    /// Number of the data object that holds a file's bytes; left out for an empty file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<u32>,
    /// Where they begin in that object's main stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Ranges `[first, last]` of blocks, counted in this file, whose checksum did not match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_pages: Vec<(u32, u32)>,
    /// Where a link points.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub target: Option<Cow<'a, str>>,
    /// This file or directory was reached through a link that pointed here, and is stored in the link's place.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub link: Option<Cow<'a, str>>,
}

/// Appends one line.
pub fn write_line(out: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *out, line).expect("strings and numbers always serialize, and a Vec takes every write");
    out.push(b'\n');
}

/// Reads the first line. `bytes` may go on after it, and may be cut anywhere after it.
///
/// # Errors
/// [`ManifestError::Newer`] before anything but the version is looked at; else [`ManifestError::Damaged`].
pub fn read_header(bytes: &[u8]) -> Result<OnDiskHeader, ManifestError> {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let preamble: Preamble<'_> = parse(line, 1)?;
    if preamble.format != FORMAT {
        return Err(ManifestError::Damaged { line: 1, what: format!("format is {:?}, not {FORMAT:?}", preamble.format) });
    }
    if preamble.version > VERSION {
        return Err(ManifestError::Newer { found: preamble.version, known: VERSION });
    }
    parse(line, 1)
}

/// Reads the lines after the first, each handed to `each` with its number (the header is line 1).
///
/// # Errors
/// [`ManifestError::Damaged`]; whatever `each` returns.
pub fn read_entries<'a>(
    bytes: &'a [u8],
    mut each: impl FnMut(usize, OnDiskEntry<'a>) -> Result<(), ManifestError>,
) -> Result<(), ManifestError> {
    let lines = bytes.split(|b| *b == b'\n').enumerate().skip(1);
    for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let number = index.saturating_add(1);
        each(number, parse(line, number)?)?;
    }
    Ok(())
}

fn parse<'a, T: Deserialize<'a>>(line: &'a [u8], number: usize) -> Result<T, ManifestError> {
    serde_json::from_slice(line).map_err(|e| ManifestError::Damaged { line: number, what: e.to_string() })
}
