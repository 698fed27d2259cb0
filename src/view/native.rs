//! The second way to a moment: the backup as it was copied, and Postgres replays the WAL itself (`--replay=postgres`).
//!
//! In: a manifest, the WAL files that may be asked for, where recovery stops.  Out: a tree that stock Postgres recovers on.
//! Also the tree of `backup/<label>/`, which is the same without what makes a server start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::pg::control::ControlFile;
use crate::pg::{Major, SegmentSize};
use crate::repo::manifest::{Entry, EntryKind, Manifest};
use crate::repo::marker::CLONE_MARKER;
use crate::view::content::Content;
use crate::view::file_class::{EMPTIED_DIRECTORIES, FileClass, classify};
use crate::view::read::FileContent;
use crate::view::settings::{self, Start};
use crate::view::tree::{Kind, Stat, Tree};

/// Where a view keeps the tablespaces that `pg_tblspc` links to: inside itself, so that nothing outside is touched.
pub const TABLESPACES: &str = "bygone_tablespaces";

/// Where a view that replays keeps the archived WAL for its own `restore_command`.
pub const ARCHIVED_WAL: &str = "bygone_wal";

fn stat_of(mode: u32, mtime: i64) -> Stat {
    let since = Duration::from_secs(mtime.unsigned_abs());
    let modified = if mtime >= 0 { SystemTime::UNIX_EPOCH + since } else { SystemTime::UNIX_EPOCH - since };
    Stat { mode, modified }
}

fn directory<C>() -> Kind<C> {
    Kind::Directory(BTreeMap::new())
}

/// A tree with the manifest's data directory as its top, and nothing in it.
#[must_use]
pub fn empty_tree(manifest: &Manifest) -> Tree<FileContent> {
    Tree::new(stat_of(manifest.header.data_directory_mode, manifest.header.stop_time.as_second()))
}

/// Puts a file that we made; it gets the mode 0600.
pub fn put_made(tree: &mut Tree<FileContent>, path: &str, text: impl Into<Bytes>) {
    let bytes = text.into();
    let stat = Stat { mode: 0o600, modified: SystemTime::now() };
    let len_bytes = bytes.len() as u64;
    tree.put(path, stat, Kind::File { len_bytes, content: FileContent::at(path, len_bytes, Content::Made(bytes)) });
}

/// Puts one path of a backup as it was copied, its bytes from the backup.
pub fn put_copied(tree: &mut Tree<FileContent>, path: &Path, entry: &Entry) {
    let stat = stat_of(entry.mode, entry.mtime);
    let kind = match &entry.kind {
        EntryKind::Directory => directory(),
        EntryKind::Symlink { target } => Kind::Symlink(target.clone()),
        EntryKind::File(data) => {
            let content = Content::Copied(data.place);
            Kind::File { len_bytes: data.size, content: FileContent::at(&entry.path.to_string_lossy(), data.size, content) }
        }
    };
    tree.put(path, stat, kind);
}

/// The files of a backup as they were copied, and `backup_label`: what `backup/<label>/` shows.
///
/// Tablespaces lie inside, and there is no `tablespace_map`: it would lead a server on a copy of the directory into production's.
#[must_use]
pub fn copied_tree(manifest: &Manifest) -> Tree<FileContent> {
    let mut tree = empty_tree(manifest);
    for entry in manifest.entries.iter().filter(|entry| !is_tablespace_link(entry)) {
        put_copied(&mut tree, &view_path(&entry.path), entry);
    }
    for tablespace in &manifest.header.tablespaces {
        put_tablespace(&mut tree, tablespace.oid);
    }
    put_made(&mut tree, "backup_label", manifest.header.backup_label.clone());
    tree
}

/// Where a path of the manifest lies in a view: tablespaces are moved aside, so that `pg_tblspc` can hold links as servers expect.
#[must_use]
pub fn view_path(path: &Path) -> PathBuf {
    match path.strip_prefix("pg_tblspc") {
        Ok(inside) if inside.components().next().is_some() => Path::new(TABLESPACES).join(inside),
        _ => path.to_owned(),
    }
}

/// Puts the link `pg_tblspc/<oid>` to the tablespace's directory inside the view.
pub fn put_tablespace(tree: &mut Tree<FileContent>, oid: u32) {
    let stat = Stat { mode: 0o700, modified: SystemTime::now() };
    tree.put(format!("{TABLESPACES}/{oid}"), stat, directory());
    tree.put(format!("pg_tblspc/{oid}"), stat, Kind::Symlink(PathBuf::from(format!("../{TABLESPACES}/{oid}"))));
}

/// Directories that a server needs, whatever the backup kept of them.
pub fn put_needed_directories(tree: &mut Tree<FileContent>) {
    let stat = Stat { mode: 0o700, modified: SystemTime::now() };
    let more =
        ["pg_wal/archive_status", "pg_tblspc", "pg_twophase", "pg_stat", "pg_commit_ts", "pg_logical/mappings", "pg_logical/snapshots"];
    for path in EMPTIED_DIRECTORIES.into_iter().chain(more) {
        if tree.find(path).is_none() {
            tree.put(path, stat, directory());
        }
    }
}

/// An archived file that recovery may ask for: name and length in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalFile {
    pub name: String,
    pub kind: WalFileKind,
}

/// What kind of archived file it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalFileKind {
    /// A whole segment.
    Segment,
    /// A timeline history, whose text is here.
    History(String),
}

/// How a server on the tree is to be set up.
#[derive(Debug, Clone)]
pub struct Setup {
    pub major: Major,
    pub start: Start,
    /// The copied `postgresql.auto.conf`.
    pub auto_conf: String,
    /// Settings of whoever mounts.
    pub own_settings: Vec<(String, String)>,
    /// What recovery insists on, from `pg_control`; goes into a `postgresql.conf` of ours where the backup has none.
    pub required: Vec<(&'static str, u64)>,
}

/// The settings that recovery insists on, as `pg_control` has them.
#[must_use]
pub fn required_settings(control: &ControlFile) -> Vec<(&'static str, u64)> {
    let settings = &control.settings;
    [
        ("max_connections", settings.max_connections),
        ("max_worker_processes", settings.max_worker_processes),
        ("max_wal_senders", settings.max_wal_senders),
        ("max_prepared_transactions", settings.max_prepared_transactions),
        ("max_locks_per_transaction", settings.max_locks_per_transaction),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, u64::try_from(value).ok()?)))
    .collect()
}

/// Puts the configuration files of a server on a view.
pub fn put_settings(tree: &mut Tree<FileContent>, setup: &Setup) {
    put_made(tree, "postgresql.auto.conf", settings::auto_conf(setup.major, &setup.auto_conf, &setup.start, &setup.own_settings));
    if tree.find("postgresql.conf").is_none() {
        put_made(tree, "postgresql.conf", settings::postgresql_conf(&setup.required));
    }
    if tree.find("pg_hba.conf").is_none() {
        put_made(tree, "pg_hba.conf", settings::HBA);
    }
    if tree.find("pg_ident.conf").is_none() {
        put_made(tree, "pg_ident.conf", "");
    }
}

/// A data directory on which Postgres recovers to the moment: the copied files, the label, settings, and the WAL that its `restore_command` copies.
#[must_use]
pub fn recovering_tree(manifest: &Manifest, wal: &[WalFile], segment_size: SegmentSize, setup: &Setup) -> Tree<FileContent> {
    let mut tree = empty_tree(manifest);
    for entry in manifest.entries.iter().filter(|entry| is_kept(entry)) {
        put_copied(&mut tree, &view_path(&entry.path), entry);
    }
    for tablespace in &manifest.header.tablespaces {
        put_tablespace(&mut tree, tablespace.oid);
    }
    put_needed_directories(&mut tree);
    put_made(&mut tree, "backup_label", manifest.header.backup_label.clone());
    put_made(&mut tree, CLONE_MARKER, format!("view of {}, which Postgres brings to its moment\n", manifest.header.cluster));
    put_settings(&mut tree, setup);
    put_recovery(&mut tree, wal, segment_size);
    tree
}

/// Puts what tells a server to recover, and the WAL that it will ask for.
pub fn put_recovery(tree: &mut Tree<FileContent>, wal: &[WalFile], segment_size: SegmentSize) {
    put_made(tree, "recovery.signal", "");
    for file in wal {
        let path = format!("{ARCHIVED_WAL}/{}", file.name);
        match &file.kind {
            WalFileKind::History(text) => put_made(tree, &path, text.clone()),
            WalFileKind::Segment => {
                let content = FileContent::at(&path, segment_size.bytes(), Content::Segment(Arc::from(file.name.as_str())));
                let stat = Stat { mode: 0o600, modified: SystemTime::now() };
                tree.put(&path, stat, Kind::File { len_bytes: segment_size.bytes(), content });
            }
        }
    }
}

/// Links of tablespaces are made anew, and what a server must not find is left out.
fn is_kept(entry: &Entry) -> bool {
    let path = entry.path.to_string_lossy();
    let class = classify(&path);
    let is_directory = matches!(entry.kind, EntryKind::Directory);
    match class {
        FileClass::Volatile | FileClass::BackupLabel | FileClass::InitCache | FileClass::Temporary | FileClass::Emptied => false,
        FileClass::Wal => is_directory,
        _ => !is_tablespace_link(entry),
    }
}

fn is_tablespace_link(entry: &Entry) -> bool {
    entry.path.parent() == Some(Path::new("pg_tblspc")) && !matches!(entry.kind, EntryKind::Directory)
}
