//! Reads what a server's first connection reads, while the server starts: so that it finds it in memory.
//!
//! From: `cli::clone`, between mounting and starting.  To: the files below the mount point, read as anybody would.
//! A first connection goes through parts of some twenty system catalogs, page after page. Where much WAL lies behind a moment those pages are made of
//! records from all over it. Nothing is found out and nothing lost if a file is not there (a catalog that was rewritten has another name) or cannot be
//! read: the server meets it again.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fs_err::File;

use super::ThinClone;

/// Files at a time.
const THREADS: usize = 4;

/// Databases whose catalogs are read, at most.
const MAX_DATABASES: usize = 8;

/// Bytes of a catalog that are read, at most: a catalog of many thousand tables is not needed whole.
const MAX_BYTES: u64 = 1 << 20;

/// Databases that users make have numbers from this one on (`FirstNormalObjectId`, transam.h).
const FIRST_NORMAL_OID: u32 = 16384;

/// `pg_database`, `pg_authid`, `pg_auth_members`, `pg_db_role_setting`, `pg_tablespace`, with their indexes. Numbers of catalogs are the same in all
/// versions (catalog/pg_*.h).
const SHARED: [u32; 12] = [1262, 2671, 2672, 1260, 2676, 2677, 1261, 2694, 2695, 2964, 2965, 1213];

/// What a connection fills its caches from: `pg_class`, `pg_attribute`, `pg_index`, `pg_opclass`, `pg_amproc`, `pg_am`, `pg_type`, `pg_namespace`,
/// `pg_proc`, `pg_amop`, `pg_operator`, `pg_statistic`, each with the indexes that it is looked up by.
const OF_DATABASE: [u32; 28] = [
    1259, 2662, 2663, 1249, 2659, 2610, 2679, 2678, 2616, 2687, 2603, 2655, 2601, 2652, 1247, 2703, 2615, 2684, 2685, 1255, 2690, 2691,
    2602, 2653, 2654, 2617, 2619, 2696,
];

/// Reading in the background; ends when it is dropped, or with what is being read.
#[derive(Debug)]
pub struct Warming {
    ended: Arc<AtomicBool>,
}

/// Begins to read a mounted clone's catalogs.
#[must_use]
pub fn begin(clone: &ThinClone) -> Warming {
    let ended = Arc::new(AtomicBool::new(false));
    let (files, next) = (Arc::new(files(&clone.data())), Arc::new(AtomicUsize::new(0)));
    for _ in 0..THREADS {
        let (files, next, ended) = (files.clone(), next.clone(), ended.clone());
        std::thread::spawn(move || {
            while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !ended.load(Ordering::Relaxed)) {
                // Whoever needs it hears why it cannot be read.
                let _unread = File::open(path).and_then(|file| std::io::copy(&mut file.take(MAX_BYTES), &mut std::io::sink()));
            }
        });
    }
    Warming { ended }
}

impl Drop for Warming {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Those that are read, in that order.
fn files(data: &Path) -> Vec<PathBuf> {
    let names = fs_err::read_dir(data.join("base")).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut databases: Vec<u32> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    // Users' own before `postgres` and the templates.
    databases.sort_unstable_by_key(|oid| (*oid < FIRST_NORMAL_OID, *oid));
    let shared = SHARED.iter().map(|oid| data.join("global").join(oid.to_string()));
    let of_database = |oid: u32| OF_DATABASE.iter().map(move |catalog| data.join(format!("base/{oid}/{catalog}")));
    shared.chain(databases.into_iter().take(MAX_DATABASES).flat_map(of_database)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_catalogs_come_first_then_those_of_users_databases() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["1", "5", "16400", "16399", "pgsql_tmp"] {
            fs_err::create_dir_all(dir.path().join("base").join(name)).unwrap();
        }
        let files = files(dir.path());
        let place = |file: &str| files.iter().position(|path| *path == dir.path().join(file)).unwrap();
        let places = ["global/1262", "base/16399/1259", "base/16400/1259", "base/1/1259", "base/5/1259"].map(place);
        assert!(places.is_sorted(), "{places:?}");
        assert_eq!(files.len(), SHARED.len() + 4 * OF_DATABASE.len());
    }

    #[test]
    fn of_many_databases_few_are_read_and_of_none_the_shared_catalogs() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(files(dir.path()).len(), SHARED.len());
        for oid in 20000..20100 {
            fs_err::create_dir_all(dir.path().join(format!("base/{oid}"))).unwrap();
        }
        assert_eq!(files(dir.path()).len(), SHARED.len() + MAX_DATABASES * OF_DATABASE.len());
    }
}
