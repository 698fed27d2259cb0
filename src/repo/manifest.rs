//! What a backup consists of: [`Manifest`], its [`Header`], and an [`Entry`] for every path.
//!
//! From: `archive::backup`, which fills it in.  To: `view` and `restore`, which look paths up; `info`, which reads headers only.
//! Paths are relative to the data directory, tablespaces included (`pg_tblspc/<oid>/PG_15_.../...`), sorted by their bytes, each once, and never
//! lead out of it: a decoded manifest can be walked without further checks. Converted once from and to `format::manifest`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::format::manifest::{
    FORMAT, ManifestError, OnDiskEntry, OnDiskHeader, OnDiskOptions, OnDiskTablespace, VERSION, read_entries, read_header, write_line,
};
use crate::pg::{BlockNo, Lsn, Major, SegmentSize, Timeline};
use crate::repo::label::BackupLabel;

/// A whole manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub header: Header,
    /// Sorted by path.
    pub entries: Vec<Entry>,
}

/// What is known of a backup without its list of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub label: BackupLabel,
    pub kind: BackupKind,
    /// The cluster's name in the configuration.
    pub cluster: String,
    pub system_id: u64,
    pub major: Major,
    /// `server_version_num`, for the minor version.
    pub server_version_num: u32,
    /// `PG_CONTROL_VERSION` of the server.
    pub control_version: u32,
    /// `CATALOG_VERSION_NO` of the server.
    pub catalog_version: u32,
    pub segment_size: SegmentSize,
    /// Page checksums on?
    pub checksums: bool,
    pub timeline: Timeline,
    /// Redo starts here.
    pub start_lsn: Lsn,
    /// The copy is consistent once redo has come this far.
    pub stop_lsn: Lsn,
    /// The checkpoint record that `backup_label` names.
    pub checkpoint_lsn: Lsn,
    pub start_time: Timestamp,
    pub stop_time: Timestamp,
    /// The text of `backup_label`, as Postgres returned it.
    pub backup_label: String,
    /// The text of `tablespace_map`, as Postgres returned it; empty without tablespaces.
    pub tablespace_map: String,
    pub tablespaces: Vec<Tablespace>,
    /// Where the data directory was.
    pub data_directory: PathBuf,
    /// Permission bits of the data directory.
    pub data_directory_mode: u32,
    /// Owner and group of most paths.
    pub owner: Owner,
    /// The host that took the backup.
    pub host: String,
    /// Sum of all files' sizes.
    pub database_bytes: u64,
    /// What the data objects take in the repository.
    pub stored_bytes: u64,
    /// How many pages failed their checksum; [`FileData::bad_pages`] says which.
    pub bad_pages: u64,
    pub options: Options,
    /// Objects `data/0` to `data/<objects - 1>`.
    pub objects: u32,
    /// What a person should know about this backup.
    pub warnings: Vec<String>,
    /// Version of bygone that took it.
    pub taken_by: String,
}

/// What a backup builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupKind {
    /// Nothing: it holds everything.
    Full,
}

/// User and group by name (or by number, in decimal, where the host knew no name).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub user: String,
    pub group: String,
}

/// A tablespace other than `pg_default` and `pg_global`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    pub oid: u32,
    pub name: String,
    /// Where its link pointed; for one in place, `pg_tblspc/<oid>`.
    pub path: PathBuf,
    /// A plain directory below `pg_tblspc` (`allow_in_place_tablespaces`).
    pub in_place: bool,
}

/// How the backup was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    pub fast_checkpoint: bool,
    /// Threads that copied.
    pub processes: u32,
    pub page_checksums_verified: bool,
}

/// One path of the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the data directory.
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// `None`: as [`Header::owner`].
    pub owner: Option<Owner>,
    /// Seconds since 1970.
    pub mtime: i64,
    pub kind: EntryKind,
    /// The file or directory was reached through a link that pointed here, and stands in the link's place.
    pub link: Option<PathBuf>,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    File(FileData),
    Directory,
    Symlink { target: PathBuf },
}

/// A file's bytes: how many, which, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileData {
    /// Bytes.
    pub size: u64,
    /// Castagnoli CRC of the content.
    pub crc32c: u32,
    /// `None` if and only if `size` is 0.
    pub place: Option<Place>,
    /// Blocks, counted in this file, whose checksum did not match. Rising.
    pub bad_pages: Vec<BlockNo>,
}

/// Where bytes begin in the repository: byte `b` of the file is byte `offset + b` of the main stream of object `data/<object>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub object: u32,
    pub offset: u64,
}

impl Manifest {
    /// The entry of a path, relative to the data directory.
    #[must_use]
    pub fn find(&self, path: &Path) -> Option<&Entry> {
        let wanted = path.as_os_str().as_bytes();
        let at = self.entries.binary_search_by(|e| e.path.as_os_str().as_bytes().cmp(wanted)).ok()?;
        self.entries.get(at)
    }

    /// Puts the entries in the order that [`Manifest::find`] and the stored form need.
    pub fn sort(&mut self) {
        self.entries.sort_unstable_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.entries.len() * 160 + 4096);
        write_line(&mut out, &self.header.to_disk(self.entries.len() as u64));
        for entry in &self.entries {
            write_line(&mut out, &entry.to_disk());
        }
        out
    }

    /// Tells the backup apart from any other: a SHA-256 of all that is the same in every repository that one run of `backup` wrote to.
    #[must_use]
    pub fn identity(&self) -> [u8; 32] {
        let header = Header { stored_bytes: 0, ..self.header.clone() };
        let mut line = Vec::new();
        write_line(&mut line, &header.to_disk(self.entries.len() as u64));
        let mut all = Sha256::new_with_prefix(&line);
        for entry in &self.entries {
            line.clear();
            write_line(&mut line, &entry.to_disk());
            all.update(&line);
        }
        all.finalize().into()
    }

    /// Reads the stored form, and checks everything that this module promises of it.
    ///
    /// # Errors
    /// [`ManifestError::Newer`]; [`ManifestError::Damaged`] with the line.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let on_disk = read_header(bytes)?;
        let count = usize::try_from(on_disk.entries).unwrap_or(usize::MAX);
        let header = Header::from_disk(on_disk)?;
        let mut entries: Vec<Entry> = Vec::with_capacity(count.min(bytes.len() / 32));
        read_entries(bytes, |line, on_disk| {
            let entry = Entry::from_disk(on_disk, header.objects).map_err(|what| ManifestError::Damaged { line, what })?;
            let in_order = entries.last().is_none_or(|last| last.path.as_os_str().as_bytes() < entry.path.as_os_str().as_bytes());
            if !in_order {
                return Err(ManifestError::Damaged { line, what: format!("{} is out of order", entry.path.display()) });
            }
            entries.push(entry);
            Ok(())
        })?;
        if entries.len() != count {
            let what = format!("{} paths are listed, the header says {count}", entries.len());
            return Err(ManifestError::Damaged { line: entries.len().saturating_add(1), what });
        }
        Ok(Manifest { header, entries })
    }
}

impl Header {
    /// Reads the header alone. `bytes` are the first of a manifest, and hold its first line at least.
    ///
    /// # Errors
    /// As [`Manifest::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Header, ManifestError> {
        Header::from_disk(read_header(bytes)?)
    }

    fn to_disk(&self, entries: u64) -> OnDiskHeader {
        OnDiskHeader {
            format: FORMAT.to_owned(),
            version: VERSION,
            entries,
            objects: self.objects,
            label: self.label.to_string(),
            kind: "full".to_owned(),
            cluster: self.cluster.clone(),
            system_id: self.system_id.to_string(),
            major: self.major.number(),
            server_version_num: self.server_version_num,
            control_version: self.control_version,
            catalog_version: self.catalog_version,
            wal_segment_size: u32::try_from(self.segment_size.bytes()).expect("a WAL segment has at most 1 GiB"),
            checksums: self.checksums,
            start_lsn: self.start_lsn.to_string(),
            stop_lsn: self.stop_lsn.to_string(),
            checkpoint_lsn: self.checkpoint_lsn.to_string(),
            timeline: self.timeline.0,
            start_time: self.start_time.to_string(),
            stop_time: self.stop_time.to_string(),
            backup_label: self.backup_label.clone(),
            tablespace_map: self.tablespace_map.clone(),
            tablespaces: self.tablespaces.iter().map(Tablespace::to_disk).collect(),
            data_directory: self.data_directory.to_string_lossy().into_owned(),
            data_directory_mode: octal(self.data_directory_mode),
            owner: self.owner.user.clone(),
            group: self.owner.group.clone(),
            host: self.host.clone(),
            database_bytes: self.database_bytes,
            stored_bytes: self.stored_bytes,
            bad_pages: self.bad_pages,
            options: OnDiskOptions {
                fast_checkpoint: self.options.fast_checkpoint,
                processes: self.options.processes,
                page_checksums_verified: self.options.page_checksums_verified,
            },
            warnings: self.warnings.clone(),
            taken_by: self.taken_by.clone(),
        }
    }

    fn from_disk(disk: OnDiskHeader) -> Result<Header, ManifestError> {
        let wrong = |what: String| ManifestError::Damaged { line: 1, what };
        let lsn = |text: &str| text.parse::<Lsn>().map_err(|e| wrong(e.to_string()));
        let time = |text: &str| text.parse::<Timestamp>().map_err(|e| wrong(e.to_string()));
        let kind = match disk.kind.as_str() {
            "full" => BackupKind::Full,
            other => return Err(wrong(format!("{other:?} is no type of backup"))),
        };
        Ok(Header {
            label: disk.label.parse().map_err(|e: crate::pg::lsn::NotParsed| wrong(e.to_string()))?,
            kind,
            system_id: disk.system_id.parse().map_err(|_| wrong(format!("{:?} is no system identifier", disk.system_id)))?,
            major: Major::from_number(disk.major).ok_or_else(|| wrong(format!("Postgres {} is unknown", disk.major)))?,
            segment_size: SegmentSize::new(disk.wal_segment_size)
                .ok_or_else(|| wrong(format!("{} is no size of a WAL segment", disk.wal_segment_size)))?,
            start_lsn: lsn(&disk.start_lsn)?,
            stop_lsn: lsn(&disk.stop_lsn)?,
            checkpoint_lsn: lsn(&disk.checkpoint_lsn)?,
            start_time: time(&disk.start_time)?,
            stop_time: time(&disk.stop_time)?,
            data_directory_mode: from_octal(&disk.data_directory_mode).map_err(wrong)?,
            cluster: disk.cluster,
            server_version_num: disk.server_version_num,
            control_version: disk.control_version,
            catalog_version: disk.catalog_version,
            checksums: disk.checksums,
            timeline: Timeline(disk.timeline),
            backup_label: disk.backup_label,
            tablespace_map: disk.tablespace_map,
            tablespaces: disk.tablespaces.into_iter().map(Tablespace::from_disk).collect(),
            data_directory: disk.data_directory.into(),
            owner: Owner { user: disk.owner, group: disk.group },
            host: disk.host,
            database_bytes: disk.database_bytes,
            stored_bytes: disk.stored_bytes,
            bad_pages: disk.bad_pages,
            options: Options {
                fast_checkpoint: disk.options.fast_checkpoint,
                processes: disk.options.processes,
                page_checksums_verified: disk.options.page_checksums_verified,
            },
            objects: disk.objects,
            warnings: disk.warnings,
            taken_by: disk.taken_by,
        })
    }
}

impl Tablespace {
    fn to_disk(&self) -> OnDiskTablespace {
        let path = self.path.to_string_lossy().into_owned();
        OnDiskTablespace { oid: self.oid, name: self.name.clone(), path, in_place: self.in_place }
    }

    fn from_disk(disk: OnDiskTablespace) -> Tablespace {
        Tablespace { oid: disk.oid, name: disk.name, path: disk.path.into(), in_place: disk.in_place }
    }
}

impl Entry {
    fn to_disk(&self) -> OnDiskEntry<'_> {
        let target = if let EntryKind::Symlink { target } = &self.kind { Some(target.as_path()) } else { None };
        let paths = [Some(self.path.as_path()), target, self.link.as_deref()];
        let hex = paths.into_iter().flatten().any(|p| p.to_str().is_none());
        let text =
            |path: &Path| if hex { hex::encode(path.as_os_str().as_bytes()).into() } else { path.to_string_lossy().into_owned().into() };
        let owner = self.owner.as_ref();
        let mut disk = OnDiskEntry {
            path: text(&self.path),
            hex,
            kind: self.kind.letter().into(),
            mode: octal(self.mode).into(),
            owner: owner.map(|o| o.user.as_str().into()),
            group: owner.map(|o| o.group.as_str().into()),
            mtime: self.mtime,
            target: target.map(text),
            link: self.link.as_deref().map(text),
            ..OnDiskEntry::default()
        };
        if let EntryKind::File(data) = &self.kind {
            disk.size = Some(data.size);
            disk.crc32c = Some(format!("{:08x}", data.crc32c).into());
            disk.object = data.place.map(|p| p.object);
            disk.offset = data.place.map(|p| p.offset);
            disk.bad_pages = to_ranges(&data.bad_pages);
        }
        disk
    }

    fn from_disk(disk: OnDiskEntry<'_>, objects: u32) -> Result<Entry, String> {
        let path = |text: &str| -> Result<PathBuf, String> {
            if !disk.hex {
                return Ok(text.into());
            }
            hex::decode(text).map(|bytes| OsString::from_vec(bytes).into()).map_err(|e| format!("{text:?} is not hex: {e}"))
        };
        let own = path(&disk.path)?;
        if !stays_inside(&own) {
            return Err(format!("{:?} is no path below the data directory", disk.path));
        }
        let kind = match (&*disk.kind, &disk.target) {
            ("f", _) => EntryKind::File(FileData::from_disk(&disk, objects)?),
            ("d", _) => EntryKind::Directory,
            ("l", Some(target)) => EntryKind::Symlink { target: path(target)? },
            (other, _) => return Err(format!("{:?} has type {other:?}", disk.path)),
        };
        Ok(Entry {
            path: own,
            mode: from_octal(&disk.mode)?,
            owner: disk.owner.zip(disk.group).map(|(user, group)| Owner { user: user.into_owned(), group: group.into_owned() }),
            mtime: disk.mtime,
            kind,
            link: disk.link.as_deref().map(path).transpose()?,
        })
    }
}

impl EntryKind {
    fn letter(&self) -> &'static str {
        match self {
            EntryKind::File(_) => "f",
            EntryKind::Directory => "d",
            EntryKind::Symlink { .. } => "l",
        }
    }
}

impl FileData {
    fn from_disk(disk: &OnDiskEntry<'_>, objects: u32) -> Result<FileData, String> {
        let path = &disk.path;
        let size = disk.size.ok_or_else(|| format!("{path:?} has no size"))?;
        let place = disk.object.zip(disk.offset).map(|(object, offset)| Place { object, offset });
        let crc32c = disk.crc32c.as_deref().and_then(|text| u32::from_str_radix(text, 16).ok());
        if place.is_some() != (size > 0) {
            return Err(format!("{path:?} has {size} bytes, and its place does not fit that"));
        }
        if place.is_some_and(|p| p.object >= objects || p.offset.checked_add(size).is_none()) {
            return Err(format!("{path:?} lies in an object that the backup does not have"));
        }
        let crc32c = crc32c.ok_or_else(|| format!("{path:?} has no checksum"))?;
        Ok(FileData { size, crc32c, place, bad_pages: from_ranges(&disk.bad_pages, size)? })
    }
}

/// Only plain names, one at least: what can be joined to a directory without leaving it.
fn stays_inside(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    plain && !bytes.is_empty() && !bytes.contains(&0) && path.components().as_path().as_os_str() == path.as_os_str()
}

fn octal(mode: u32) -> String {
    format!("{mode:04o}")
}

fn from_octal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(|| format!("{text:?} is no file mode"))
}

fn to_ranges(blocks: &[BlockNo]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &block in blocks {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(block) => *last = block,
            _ => ranges.push((block, block)),
        }
    }
    ranges
}

fn from_ranges(ranges: &[(u32, u32)], size: u64) -> Result<Vec<BlockNo>, String> {
    let end = size.div_ceil(crate::pg::relation::BLCKSZ as u64);
    let fits = |&(first, last): &(u32, u32)| first <= last && u64::from(last) < end;
    let rises = ranges.windows(2).all(|pair| matches!(pair, [(_, last), (next, _)] if last < next));
    if !rises || !ranges.iter().all(fits) {
        return Err("bad pages lie outside the file or out of order".to_owned());
    }
    Ok(ranges.iter().flat_map(|&(first, last)| first..=last).collect())
}

#[cfg(test)]
pub(crate) mod tests;
