//! One folder of the cache, and keeping it small.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What the name of a file ends in that is still being written.
pub(super) const TEMPORARY: &str = "-tmp";

/// A temporary file this old was left by a process that died.
const STALE_AFTER: Duration = Duration::from_secs(600);

struct Entry {
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
}

/// Removes what was used longest ago until a sixteenth of the room is free, if more than the room is taken. Another process may do the same
/// at the same time: then some more than needed goes.
pub(super) fn shrink(shard: &Path, room: u64) {
    match entries(shard) {
        Ok(entries) => remove_oldest(entries, room),
        Err(error) => tracing::debug!(%error, "the cache cannot be counted"),
    }
}

fn remove_oldest(mut entries: Vec<Entry>, room: u64) {
    let mut taken: u64 = entries.iter().map(|entry| entry.bytes).sum();
    if taken <= room {
        return;
    }
    entries.sort_unstable_by_key(|entry| entry.used);
    for entry in entries {
        if taken <= room - room / 16 {
            break;
        }
        if fs_err::remove_file(&entry.path).is_ok() {
            taken -= entry.bytes;
        }
    }
}

fn entries(shard: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs_err::read_dir(shard)? {
        let path = entry?.path();
        // One that vanished meanwhile needs no room.
        let Ok(meta) = fs_err::metadata(&path) else { continue };
        let used = meta.modified()?;
        let being_written = path.as_os_str().as_encoded_bytes().ends_with(TEMPORARY.as_bytes());
        if being_written && SystemTime::now().duration_since(used).is_ok_and(|age| age > STALE_AFTER) {
            let _gone = fs_err::remove_file(&path);
        } else if !being_written {
            entries.push(Entry { used, bytes: meta.len(), path });
        }
    }
    Ok(entries)
}
