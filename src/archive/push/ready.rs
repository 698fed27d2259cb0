//! Which other files Postgres has marked ready: `pg_wal/archive_status/<name>.ready`.
//!
//! Looks only; the marks are Postgres's. Order as in pgarch.c `pgarch_readyXlog`: timeline histories first, then by name.

use std::path::{Path, PathBuf};

use crate::archive::wal_file::WalFile;
use crate::pg::SegmentSize;

/// Up to `limit` files beside `path` that are ready, without `path` itself. None if they cannot be listed: they are only a bonus.
pub(super) fn others(path: &Path, limit: usize, size: SegmentSize) -> Vec<PathBuf> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = fs_err::read_dir(directory.join("archive_status")) else { return Vec::new() };
    let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
    let ready = names.filter_map(|name| name.strip_suffix(".ready").map(str::to_owned));
    let mut others: Vec<(bool, String)> = ready
        .filter(|name| path.file_name().is_none_or(|own| own != name.as_str()))
        .filter_map(|name| WalFile::parse(&name, size).ok().map(|file| (!matches!(file, WalFile::History(_)), name)))
        .collect();
    others.sort_unstable();
    others.into_iter().take(limit).map(|(_, name)| directory.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_files_come_in_the_order_in_which_postgres_would_ask() {
        let dir = tempfile::tempdir().unwrap();
        let status = dir.path().join("archive_status");
        fs_err::create_dir_all(&status).unwrap();
        let segment = |n: u32| format!("0000000100000000000000{n:02X}");
        for name in [&segment(9), &segment(4), &segment(3), "00000002.history"] {
            fs_err::write(status.join(format!("{name}.ready")), "").unwrap();
        }
        fs_err::write(status.join(format!("{}.done", segment(2))), "").unwrap();
        fs_err::write(status.join("junk.ready"), "").unwrap();
        let found = others(&dir.path().join(segment(3)), 2, SegmentSize::DEFAULT);
        assert_eq!(found, [dir.path().join("00000002.history"), dir.path().join(segment(4))]);
    }

    #[test]
    fn missing_status_directory_is_no_error() {
        assert!(others(Path::new("/nonexistent/000000010000000000000001"), 9, SegmentSize::DEFAULT).is_empty());
    }
}
