//! Reads what a server's first connection reads, while the server starts: so that it finds it in memory.
//!
//! From: `cli::clone`, between mounting and starting.  To: the files below the mount point, read as anybody would.
//! A first connection goes through parts of some twenty system catalogs, page after page. Where much WAL lies behind a moment those pages are made of
//! records from all over it, and where the repository is far away each of them waits for it; here neighbours are read together, and files side by side.
//! Nothing is found out and nothing lost if a file is not there (a catalog that was rewritten has another name) or cannot be read: the server meets it
//! again.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fs_err::File;
use parking_lot::{Condvar, Mutex};

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
const SHARED: [u32; 13] = [1262, 2671, 2672, 1260, 2676, 2677, 1261, 2694, 2695, 2964, 2965, 1213, 2697];

/// What a connection fills its caches from, and a first query is planned by: `pg_attribute`, `pg_class`, `pg_index`, `pg_opclass`, `pg_amproc`, `pg_am`,
/// `pg_namespace` and `pg_aggregate` with the indexes that they are looked up by, of `pg_proc`, `pg_type`, `pg_statistic` and `pg_statistic_ext` the
/// indexes. Seen in which pages of a mount were in memory after one.
const OF_DATABASE: [u32; 21] =
    [1249, 2659, 1259, 2662, 2663, 2610, 2679, 2616, 2687, 2603, 2655, 2601, 2615, 2684, 2600, 2650, 2690, 2691, 2703, 2696, 3379];

/// So many files are those of all databases, and of the first one.
const FIRST: usize = SHARED.len() + OF_DATABASE.len();

/// Reading in the background; no other file is begun once it is dropped.
#[derive(Debug)]
pub struct Warming(Arc<Progress>);

#[derive(Debug)]
struct Progress {
    files: Vec<PathBuf>,
    next: AtomicUsize,
    /// Files of [`FIRST`] that were read.
    first_done: Mutex<usize>,
    changed: Condvar,
}

/// Begins to read a mounted clone's catalogs.
#[must_use]
pub fn begin(clone: &ThinClone) -> Warming {
    let (next, first_done, changed) = (AtomicUsize::new(0), Mutex::new(0), Condvar::new());
    let progress = Arc::new(Progress { files: files(&clone.data()), next, first_done, changed });
    for _ in 0..THREADS {
        let progress = progress.clone();
        // Without a thread there is less in memory, and nothing wrong.
        let _thread = std::thread::Builder::new().name("warm".to_owned()).spawn(move || progress.read_files());
    }
    Warming(progress)
}

impl Warming {
    /// Waits until the shared catalogs and those of the first database have been read, but not longer than that.
    pub fn wait_for_first(&self, at_most: Duration) {
        let wanted = FIRST.min(self.0.files.len());
        let mut done = self.0.first_done.lock();
        self.0.changed.wait_while_for(&mut done, |done| *done < wanted, at_most);
    }
}

impl Drop for Warming {
    fn drop(&mut self) {
        self.0.next.store(self.0.files.len(), Ordering::Relaxed);
    }
}

impl Progress {
    fn read_files(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = self.files.get(number) else { return };
            // Whoever needs it hears why it cannot be read.
            let _unread = File::open(path).and_then(|file| std::io::copy(&mut file.take(MAX_BYTES), &mut std::io::sink()));
            if number < FIRST {
                *self.first_done.lock() += 1;
                self.changed.notify_all();
            }
        }
    }
}

/// Those that are read, in that order.
fn files(data: &Path) -> Vec<PathBuf> {
    let names = fs_err::read_dir(data.join("base")).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut databases: Vec<u32> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    // Users' own, the oldest first; then `postgres`, which has the highest number of the others, and the templates.
    databases.sort_unstable_by_key(|oid| if *oid < FIRST_NORMAL_OID { (1, u32::MAX - oid) } else { (0, *oid) });
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
        let places = ["global/1262", "base/16399/1259", "base/16400/1259", "base/5/1259", "base/1/1259"].map(place);
        assert!(places.is_sorted(), "{places:?}");
        assert_eq!(files.len(), SHARED.len() + 4 * OF_DATABASE.len());
    }

    #[test]
    fn what_is_waited_for_has_been_read_or_the_time_is_up() {
        let dir = tempfile::tempdir().unwrap();
        let clone = ThinClone { name: "one".to_owned(), folder: dir.path().to_owned() };
        fs_err::create_dir_all(clone.data().join("base/5")).unwrap();
        let warming = begin(&clone);
        warming.wait_for_first(Duration::from_secs(60));
        assert_eq!(*warming.0.first_done.lock(), FIRST);
        let stuck = clone.data().join("base/16400");
        fs_err::create_dir_all(&stuck).unwrap();
        // Nobody writes into it, so that to open it takes for ever.
        assert!(std::process::Command::new("mkfifo").arg(stuck.join("1259")).status().unwrap().success());
        let warming = begin(&clone);
        warming.wait_for_first(Duration::from_millis(50));
        assert!(*warming.0.first_done.lock() < FIRST);
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
