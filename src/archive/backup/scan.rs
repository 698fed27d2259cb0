//! Walks the data directory and lists what a backup takes from it.
//!
//! From: `archive::backup`, after `pg_backup_start`.  To: `plan`, which groups the files, and the manifest, which gets everything else as it is.
//! Runs beside a live server: whatever vanishes between two looks is simply not listed. Reads names and attributes, never contents.
//! Links: a tablespace's is kept as a link and walked; `pg_wal` becomes a plain empty directory; any other is followed, its contents stored in
//! its place, and a warning says so.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::exclude::{Rules, Verdict};
use crate::pg::relation_file::{RelationFile, database_directory};
use crate::pg::{Fork, Major};
use crate::repo::manifest::{Entry, EntryKind, Owner};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Directories and links, ready for the manifest.
    pub(super) entries: Vec<Entry>,
    /// Files to copy, `global/pg_control` not among them.
    pub(super) files: Vec<FoundFile>,
    /// Oid, where the link points, in place or not.
    pub(super) tablespaces: Vec<(u32, PathBuf, bool)>,
    pub(super) warnings: Vec<String>,
}

/// One regular file.
#[derive(Debug, Clone)]
pub(super) struct FoundFile {
    /// Relative to the data directory.
    pub(super) path: PathBuf,
    /// Bytes, when it was listed.
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) mtime: i64,
    pub(super) owner: Owner,
    pub(super) link: Option<PathBuf>,
    /// If its pages carry checksums (where the cluster has them): what they are pages of.
    pub(super) relation: Option<RelationFile>,
}

/// What [`scan`] has to know.
#[derive(Debug, Clone)]
pub(super) struct Ask<'a> {
    pub(super) data_directory: &'a Path,
    pub(super) rules: &'a Rules,
    pub(super) major: Major,
    pub(super) catalog_version: u32,
}

/// Lists the data directory.
///
/// # Errors
/// The first path that could be seen but not read, by name.
pub(super) fn scan(ask: &Ask<'_>) -> std::io::Result<Found> {
    let mut walk = Walk {
        ask: ask.clone(),
        version_directory: format!("PG_{}_{}", ask.major, ask.catalog_version),
        names: Names::read(),
        tablespace_roots: HashSet::new(),
        found: Found::default(),
    };
    walk.note_tablespace_roots()?;
    let top = identity(&fs_err::metadata(ask.data_directory)?);
    walk.directory(Path::new(""), &mut vec![top])?;
    Ok(walk.found)
}

/// Device and inode: what a directory is, whatever led there.
type Identity = (u64, u64);

fn identity(meta: &Metadata) -> Identity {
    (meta.dev(), meta.ino())
}

struct Walk<'a> {
    ask: Ask<'a>,
    version_directory: String,
    names: Names,
    /// Tablespaces may lie inside the data directory: they are walked once, under `pg_tblspc`.
    tablespace_roots: HashSet<Identity>,
    found: Found,
}

impl Walk<'_> {
    fn on_disk(&self, path: &Path) -> PathBuf {
        self.ask.data_directory.join(path)
    }

    fn note_tablespace_roots(&mut self) -> std::io::Result<()> {
        for name in self.names_in(Path::new("pg_tblspc"))? {
            let path = self.on_disk(&Path::new("pg_tblspc").join(name));
            if path.is_symlink() {
                self.tablespace_roots.extend(path.metadata().ok().as_ref().map(identity));
            }
        }
        Ok(())
    }

    /// The names in a directory; none if it has vanished.
    fn names_in(&self, path: &Path) -> std::io::Result<Vec<OsString>> {
        match fs_err::read_dir(self.on_disk(path)) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e),
            Ok(entries) => entries.map(|e| e.map(|e| e.file_name())).collect(),
        }
    }

    /// Walks a directory; `above` are the directories that led here, which a followed link must not enter again.
    fn directory(&mut self, path: &Path, above: &mut Vec<Identity>) -> std::io::Result<()> {
        let names = self.names_in(path)?;
        let unlogged = unlogged_relations(path, &names);
        for name in names {
            let below = path.join(&name);
            let Some(meta) = present(fs_err::symlink_metadata(self.on_disk(&below)))? else { continue };
            if path == Path::new("pg_tblspc") {
                self.tablespace(&below, &meta, above)?;
            } else if meta.is_symlink() {
                self.link(&below, above)?;
            } else if meta.is_dir() {
                self.subdirectory(below, &meta, None, above)?;
            } else if meta.is_file() {
                let relation = name.to_str().and_then(RelationFile::parse).filter(|_| in_database(path));
                let lost_at_start = relation.is_some_and(|r| r.fork != Fork::Init && unlogged.contains(&r.relation));
                if !lost_at_start {
                    self.file(below, &meta, None, relation);
                }
            } else {
                let what = if meta.file_type().is_socket() { "a socket" } else { "no regular file" };
                self.found.warnings.push(format!("{} is {what} and was left out", below.display()));
            }
        }
        Ok(())
    }

    fn subdirectory(&mut self, path: PathBuf, meta: &Metadata, link: Option<PathBuf>, above: &mut Vec<Identity>) -> std::io::Result<()> {
        let own = identity(meta);
        let verdict = self.ask.rules.directory(&path);
        if verdict == Verdict::Leave || self.tablespace_roots.contains(&own) {
            return Ok(());
        }
        self.add(path.clone(), meta, EntryKind::Directory, link);
        if path == Path::new("pg_wal") {
            self.wal_directories(meta);
        }
        if verdict == Verdict::Take {
            above.push(own);
            self.directory(&path, above)?;
            above.pop();
        }
        Ok(())
    }

    /// What a starting server expects below `pg_wal`; it would make them itself, but a mount is read-only below its overlay.
    fn wal_directories(&mut self, meta: &Metadata) {
        self.add("pg_wal/archive_status".into(), meta, EntryKind::Directory, None);
        if self.ask.major >= Major::V17 {
            self.add("pg_wal/summaries".into(), meta, EntryKind::Directory, None);
        }
    }

    /// `pg_tblspc/<oid>`: a link, or a plain directory if made with `allow_in_place_tablespaces`.
    fn tablespace(&mut self, path: &Path, meta: &Metadata, above: &mut Vec<Identity>) -> std::io::Result<()> {
        let Some(oid) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse::<u32>().ok()) else {
            return Ok(());
        };
        if meta.is_symlink() {
            let Some(target) = present(fs_err::read_link(self.on_disk(path)))? else { return Ok(()) };
            self.add(path.to_owned(), meta, EntryKind::Symlink { target: target.clone() }, None);
            self.found.tablespaces.push((oid, target, false));
        } else {
            self.add(path.to_owned(), meta, EntryKind::Directory, None);
            self.found.tablespaces.push((oid, path.to_owned(), true));
        }
        // Other versions of Postgres may keep theirs in the same place.
        let ours = path.join(&self.version_directory);
        match present(fs_err::symlink_metadata(self.on_disk(&ours)))? {
            Some(meta) => self.subdirectory(ours, &meta, None, above),
            None => Ok(()),
        }
    }

    fn link(&mut self, path: &Path, above: &mut Vec<Identity>) -> std::io::Result<()> {
        let Some(target) = present(fs_err::read_link(self.on_disk(path)))? else { return Ok(()) };
        let meta = match present(fs_err::metadata(self.on_disk(path))) {
            // A link that leads to itself leads nowhere.
            Err(error) if error.kind() == std::io::Error::from(rustix::io::Errno::LOOP).kind() => None,
            meta => meta?,
        };
        let Some(meta) = meta else {
            self.found.warnings.push(format!("{} is a link to {}, which does not exist: left out", path.display(), target.display()));
            return Ok(());
        };
        if path == Path::new("pg_wal") {
            return self.subdirectory(path.to_owned(), &meta, None, above);
        }
        let followed = format!("{} is a link to {}: what it leads to was stored in its place", path.display(), target.display());
        if meta.is_dir() && above.contains(&identity(&meta)) {
            self.found.warnings.push(format!("{} is a link to {}, which contains it: left out", path.display(), target.display()));
        } else if meta.is_dir() {
            self.found.warnings.push(followed);
            return self.subdirectory(path.to_owned(), &meta, Some(target), above);
        } else if meta.is_file() {
            self.found.warnings.push(followed);
            let parent = path.parent().unwrap_or(Path::new(""));
            let relation = path.file_name().and_then(|n| n.to_str()).and_then(RelationFile::parse).filter(|_| in_database(parent));
            self.file(path.to_owned(), &meta, Some(target), relation);
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf, meta: &Metadata, link: Option<PathBuf>, relation: Option<RelationFile>) {
        if self.ask.rules.file(&path) == Verdict::Leave || path == Path::new("global/pg_control") {
            return;
        }
        self.found.files.push(found_file(path, meta, link, relation, &self.names));
    }

    fn add(&mut self, path: PathBuf, meta: &Metadata, kind: EntryKind, link: Option<PathBuf>) {
        let owner = Some(self.names.owner(meta));
        self.found.entries.push(Entry { path, mode: meta.mode() & 0o7777, owner, mtime: meta.mtime(), kind, link });
    }
}

fn found_file(path: PathBuf, meta: &Metadata, link: Option<PathBuf>, relation: Option<RelationFile>, names: &Names) -> FoundFile {
    FoundFile { path, size: meta.len(), mode: meta.mode() & 0o7777, mtime: meta.mtime(), owner: names.owner(meta), link, relation }
}

/// `global/pg_control`, which is copied after everything else.
///
/// # Errors
/// If it is not there.
pub(super) fn control_file(data_directory: &Path) -> std::io::Result<FoundFile> {
    let path = Path::new("global/pg_control");
    let meta = fs_err::metadata(data_directory.join(path))?;
    Ok(found_file(path.to_owned(), &meta, None, None, &Names::read()))
}

/// Mode and owner of the data directory itself.
///
/// # Errors
/// If it is not there.
pub(super) fn data_directory(path: &Path) -> std::io::Result<(u32, Owner)> {
    let meta = fs_err::metadata(path)?;
    Ok((meta.mode() & 0o7777, Names::read().owner(&meta)))
}

fn in_database(path: &Path) -> bool {
    path.to_str().is_some_and(|p| database_directory(p).is_some())
}

/// Relations that have an init fork: a starting server replaces their other forks, so those need no copy.
fn unlogged_relations(path: &Path, names: &[OsString]) -> HashSet<u32> {
    if !in_database(path) {
        return HashSet::new();
    }
    let files = names.iter().filter_map(|n| RelationFile::parse(n.to_str()?));
    files.filter(|f| f.fork == Fork::Init).map(|f| f.relation).collect()
}

/// Relations that turn out to be unlogged once their files were copied: [`scan`] saw them before they had an init fork. Of them nothing but that fork
/// may be in a backup: a server that has recovered makes the main fork anew, and fails if there is one.
#[derive(Debug)]
pub(super) struct Unlogged(HashMap<PathBuf, HashSet<u32>>);

impl Unlogged {
    /// Looks into the directories of these files, which are relative to the data directory.
    ///
    /// # Errors
    /// A directory that cannot be read. One that has vanished holds nothing.
    pub(super) fn look<'a>(data_directory: &Path, files: impl Iterator<Item = &'a Path>) -> std::io::Result<Unlogged> {
        let mut by_directory = HashMap::new();
        for directory in files.filter_map(Path::parent).filter(|directory| in_database(directory)) {
            if !by_directory.contains_key(directory) {
                let names = match fs_err::read_dir(data_directory.join(directory)) {
                    Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
                    entries => entries?.map(|e| e.map(|e| e.file_name())).collect::<Result<_, _>>()?,
                };
                by_directory.insert(directory.to_owned(), unlogged_relations(directory, &names));
            }
        }
        Ok(Unlogged(by_directory))
    }

    /// Is this another fork than the init fork of one of them?
    pub(super) fn has(&self, file: &Path) -> bool {
        let parsed = file.file_name().and_then(|name| RelationFile::parse(name.to_str()?));
        let of_directory = file.parent().and_then(|directory| self.0.get(directory));
        parsed.zip(of_directory).is_some_and(|(file, unlogged)| file.fork != Fork::Init && unlogged.contains(&file.relation))
    }
}

/// `None` if it has vanished.
fn present<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Names of users and groups, from `/etc/passwd` and `/etc/group`. Whoever is not in there is known by number.
struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    fn read() -> Names {
        let table = |path: &str| {
            let text = fs_err::read_to_string(path).unwrap_or_default();
            let row = |line: &str| {
                let mut fields = line.split(':');
                let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
                Some((id, name.to_owned()))
            };
            // The first line of an id wins, as in getpwuid.
            text.lines().rev().filter_map(row).collect()
        };
        Names { users: table("/etc/passwd"), groups: table("/etc/group") }
    }

    fn owner(&self, meta: &Metadata) -> Owner {
        let name = |table: &HashMap<u32, String>, id: u32| table.get(&id).cloned().unwrap_or_else(|| id.to_string());
        Owner { user: name(&self.users, meta.uid()), group: name(&self.groups, meta.gid()) }
    }
}

#[cfg(test)]
mod tests;
