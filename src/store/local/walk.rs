//! Listing in byte order, one folder in memory at a time.
//!
//! Byte order of whole keys is not the order of names: `a-b` sorts before `a/c`, since `-` is less than `/`. So a folder's name is
//! sorted with its slash.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::super::{Meta, key};
use super::is_absent;

/// Hands over the objects below `root` whose keys begin with `prefix` and sort after `after`, until `each` says `false`.
pub(super) fn objects(root: &Path, prefix: &str, after: Option<&str>, each: &mut dyn FnMut(Meta) -> bool) -> io::Result<()> {
    let walk = Walk { root, prefix, after };
    let folder = prefix.rfind('/').map_or("", |slash| prefix.split_at(slash + 1).0);
    walk.folder(folder, each).map(|_more| ())
}

/// The names directly below `prefix`, those of folders that hold an object ending in `/`.
pub(super) fn names(root: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let folder = prefix.rfind('/').map_or("", |slash| prefix.split_at(slash + 1).0);
    let mut names = Vec::new();
    for entry in entries(root, folder)? {
        let whole = format!("{folder}{}", entry.name);
        let Some(name) = whole.strip_prefix(prefix) else { continue };
        if entry.object.is_some() || holds_an_object(root, &whole)? {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

struct Walk<'a> {
    root: &'a Path,
    prefix: &'a str,
    after: Option<&'a str>,
}

impl Walk<'_> {
    /// Returns `false` once the caller wants no more.
    fn folder(&self, folder: &str, each: &mut dyn FnMut(Meta) -> bool) -> io::Result<bool> {
        for entry in entries(self.root, folder)? {
            let key = format!("{folder}{}", entry.name);
            let more = match entry.object {
                Some((size, modified)) if self.wants_object(&key) => each(Meta { key, size, modified }),
                None if self.wants_folder(&key) => self.subfolder(&key, each)?,
                _ => true,
            };
            if !more {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn subfolder(&self, folder: &str, each: &mut dyn FnMut(Meta) -> bool) -> io::Result<bool> {
        match self.folder(folder, each) {
            Err(error) if is_absent(&error) => Ok(true),
            walked => walked,
        }
    }

    fn wants_object(&self, key: &str) -> bool {
        key.starts_with(self.prefix) && self.after.is_none_or(|after| key > after)
    }

    /// `folder` ends in `/`. It may be skipped if all keys in it lie outside the prefix or at or before `after`.
    fn wants_folder(&self, folder: &str) -> bool {
        let in_prefix = folder.starts_with(self.prefix) || self.prefix.starts_with(folder);
        let in_time = self.after.is_none_or(|after| folder > after || after.starts_with(folder));
        in_prefix && in_time
    }
}

/// What stands in one folder.
struct Entry {
    /// A folder's ends in `/`.
    name: String,
    /// Size and time of an object; `None` for a folder.
    object: Option<(u64, SystemTime)>,
}

/// The entries of a folder in the byte order of the keys below them. Names that no key can have are not ours and left out.
fn entries(root: &Path, folder: &str) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs_err::read_dir(root.join(folder))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if folder.is_empty() && name.starts_with(key::TEMPORARY) {
            continue;
        }
        match look_at(&entry) {
            Ok(object) => entries.extend(object.named(name)),
            Err(error) if is_absent(&error) => (),
            Err(error) => return Err(error),
        }
    }
    entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

enum Kind {
    Folder,
    Object(u64, SystemTime),
    Other,
}

impl Kind {
    fn named(self, name: String) -> Option<Entry> {
        match self {
            Kind::Folder => Some(Entry { name: name + "/", object: None }),
            Kind::Object(size, modified) => Some(Entry { name, object: Some((size, modified)) }),
            Kind::Other => None,
        }
    }
}

/// Follows links, so that a folder may be moved to another disk and linked.
fn look_at(entry: &fs_err::DirEntry) -> io::Result<Kind> {
    if entry.file_type()?.is_dir() {
        return Ok(Kind::Folder);
    }
    let meta = fs_err::metadata(entry.path())?;
    Ok(match meta.is_dir() {
        true => Kind::Folder,
        false if meta.is_file() => Kind::Object(meta.len(), meta.modified()?),
        false => Kind::Other,
    })
}

/// A folder that a crash or a full disk left empty is not there for a reader.
fn holds_an_object(root: &Path, folder: &str) -> io::Result<bool> {
    let mut found = false;
    let walk = Walk { root, prefix: folder, after: None };
    walk.subfolder(folder, &mut |_object| {
        found = true;
        false
    })?;
    Ok(found)
}
