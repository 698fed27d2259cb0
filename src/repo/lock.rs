//! A lock of one repository, for one cluster and one kind of work, across hosts.
//!
//! From: `archive::backup`, `expire`.  To: entries below `lock/<what>/` of the cluster's folder.
//!
//! ```text
//! 0000000007.held      who took it (conditional put: of two that try, one gets it)
//! 0000000007.beat-12   it is still alive: a new one every 10 s, the one before deleted
//! 0000000007.released  it is done
//! ```
//!
//! The highest number counts. Nothing is overwritten, so it works on every store that honours conditional writes, object locks included; no clock is
//! compared with another. A holder that died is found out by its process on the same host, and from elsewhere by watching for a heartbeat in vain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use thiserror::Error;

use super::{RepoError, is_taken, keyring};
use crate::advice::Advice;
use crate::format::lock::OnDiskLock;
use crate::store::{Store, StoreError};

/// Time between two heartbeats.
const BEAT: Duration = Duration::from_secs(10);

/// How long a holder on another host may be silent before it counts as dead.
const PATIENCE: Duration = Duration::from_secs(35);

/// Why the lock was not had.
#[derive(Debug, Error)]
pub enum LockError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error("another {doing} is under way in {store}")]
    Held { store: String, doing: String, holder: String },
}

impl Advice for LockError {
    fn detail(&self) -> Option<String> {
        match self {
            LockError::Held { holder, .. } => Some(holder.clone()),
            LockError::Repo(e) => e.detail(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            LockError::Held { .. } => {
                Some("Wait until it is done. If its process is dead, the lock frees itself within a minute.".to_owned())
            }
            LockError::Repo(e) => e.hint(),
        }
    }
}

/// A lock that is held. Released on drop.
#[derive(Debug)]
pub struct Lock {
    store: Arc<dyn Store>,
    prefix: String,
    number: u64,
    lost: Arc<AtomicBool>,
    /// Dropped to end the heart.
    end: Option<Sender<()>>,
    heart: Option<JoinHandle<()>>,
}

/// Takes the lock below `prefix` (a key that ends in a slash). `doing` names the work, for whoever finds it taken.
///
/// # Errors
/// [`LockError::Held`], after up to `PATIENCE` if the holder is on another host; store errors.
pub fn acquire(store: &Arc<dyn Store>, prefix: &str, doing: &str) -> Result<Lock, LockError> {
    let newest = newest(store.as_ref(), prefix)?;
    if let Some(entry) = newest.as_ref().filter(|entry| !entry.released) {
        refuse_if_alive(store.as_ref(), prefix, entry, doing)?;
    }
    let number = newest.map_or(0, |entry| entry.number).saturating_add(1);
    let me = OnDiskLock { doing: doing.to_owned(), since: Timestamp::now().to_string(), ..this_process() };
    match keyring::put_document(store.as_ref(), &key(prefix, number, "held"), &me) {
        Err(e) if is_taken(&e) => return Err(held(store.as_ref(), prefix, number, doing)),
        other => other?,
    }
    let (end, ended) = channel();
    let lost = Arc::new(AtomicBool::new(false));
    let heart = {
        let (store, prefix, lost) = (store.clone(), prefix.to_owned(), lost.clone());
        std::thread::spawn(move || {
            beat(store.as_ref(), &prefix, number, &lost, || ended.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout))
        })
    };
    Ok(Lock { store: store.clone(), prefix: prefix.to_owned(), number, lost, end: Some(end), heart: Some(heart) })
}

impl Lock {
    /// Has somebody taken it over, because we were silent for too long? What the lock protects must not be touched then.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.end = None;
        let beaten = self.heart.take().map(JoinHandle::join);
        debug_assert!(beaten.is_none_or(|b| b.is_ok()), "the heart does not panic");
        if let Err(error) = self.store.put_new(&key(&self.prefix, self.number, "released"), Bytes::new()) {
            tracing::warn!(%error, "the lock is not released, and frees itself once this process is gone");
            return;
        }
        // Only tidiness: the highest number counts.
        let older = |entry: &Entry| entry.number < self.number || entry.beat.is_some();
        let entries = list(self.store.as_ref(), &self.prefix).unwrap_or_default();
        for entry in entries.iter().filter(|e| older(e)) {
            drop(self.store.delete(&entry.key));
        }
    }
}

/// The heartbeat, until `go_on` says no. Ends by itself once the lock is another's.
fn beat(store: &dyn Store, prefix: &str, number: u64, lost: &AtomicBool, go_on: impl Fn() -> bool) {
    let mut count = 0u64;
    while go_on() {
        count += 1;
        let beaten = store.put_new(&key(prefix, number, &format!("beat-{count}")), Bytes::new());
        if let Err(error) = beaten {
            tracing::warn!(%error, "a heartbeat of the lock did not arrive");
        } else if count > 1 {
            drop(store.delete(&key(prefix, number, &format!("beat-{}", count - 1))));
        }
        if newest(store, prefix).is_ok_and(|entry| entry.is_some_and(|e| e.number > number)) {
            lost.store(true, Ordering::Relaxed);
            return;
        }
    }
}

/// What stands below the prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    key: String,
    number: u64,
    released: bool,
    beat: Option<u64>,
}

fn key(prefix: &str, number: u64, what: &str) -> String {
    format!("{prefix}{number:010}.{what}")
}

fn list(store: &dyn Store, prefix: &str) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    store.list(prefix, None, &mut |meta| {
        let name = meta.key.strip_prefix(prefix).and_then(|name| name.split_once('.'));
        if let Some((number, what)) = name.and_then(|(number, what)| Some((number.parse().ok()?, what))) {
            let beat = what.strip_prefix("beat-").and_then(|n| n.parse().ok());
            entries.push(Entry { released: what == "released", beat, number, key: meta.key });
        }
        true
    })?;
    Ok(entries)
}

/// The entry that counts, with its newest heartbeat.
fn newest(store: &dyn Store, prefix: &str) -> Result<Option<Entry>, RepoError> {
    let entries = list(store, prefix)?;
    let Some(number) = entries.iter().map(|e| e.number).max() else { return Ok(None) };
    let own = || entries.iter().filter(|e| e.number == number);
    let (released, beat) = (own().any(|e| e.released), own().filter_map(|e| e.beat).max());
    Ok(Some(Entry { key: key(prefix, number, "held"), number, released, beat }))
}

/// Returns if the holder is dead.
fn refuse_if_alive(store: &dyn Store, prefix: &str, entry: &Entry, doing: &str) -> Result<(), LockError> {
    let holder: Option<OnDiskLock> = match keyring::get_document(store, &entry.key) {
        Ok(holder) => Some(holder),
        // Not there, or of no use: whoever it is has a heart that beats.
        Err(e) if e.is_not_found() || matches!(e, RepoError::Document { .. }) => None,
        Err(e) => return Err(e.into()),
    };
    if holder.as_ref().is_some_and(is_on_this_host) {
        return if holder.as_ref().is_some_and(is_running) { Err(held(store, prefix, entry.number, doing)) } else { Ok(()) };
    }
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(500));
        let now = newest(store, prefix)?;
        match now {
            Some(now) if now.released && now.number == entry.number => return Ok(()),
            Some(now) if now.number == entry.number && now.beat == entry.beat => {}
            _ => return Err(held(store, prefix, entry.number, doing)),
        }
    }
    Ok(())
}

fn held(store: &dyn Store, prefix: &str, number: u64, doing: &str) -> LockError {
    let holder = keyring::get_document::<OnDiskLock>(store, &key(prefix, number, "held"));
    let holder = holder.map_or_else(|e| e.to_string(), |h| format!("process {} on host {}, since {}", h.pid, h.host, h.since));
    LockError::Held { store: store.describe(), doing: doing.to_owned(), holder }
}

/// Who we are; what we do and since when is left open.
fn this_process() -> OnDiskLock {
    let read = |path: &str| fs_err::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let pid = std::process::id();
    OnDiskLock {
        host: read("/proc/sys/kernel/hostname"),
        boot: read("/proc/sys/kernel/random/boot_id"),
        pid_namespace: fs_err::read_link("/proc/self/ns/pid").map(|link| link.display().to_string()).unwrap_or_default(),
        pid,
        process_start: process_start(pid).unwrap_or_default(),
        doing: String::new(),
        since: String::new(),
    }
}

fn is_on_this_host(holder: &OnDiskLock) -> bool {
    let me = this_process();
    (&holder.host, &holder.boot, &holder.pid_namespace) == (&me.host, &me.boot, &me.pid_namespace)
}

fn is_running(holder: &OnDiskLock) -> bool {
    process_start(holder.pid) == Some(holder.process_start)
}

/// Field 22 of `/proc/<pid>/stat`; the second is a name in parentheses, which may hold anything.
fn process_start(pid: u32) -> Option<u64> {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    fn store() -> Arc<dyn Store> {
        Arc::new(MemoryStore::default())
    }

    fn plant(store: &Arc<dyn Store>, number: u64, holder: &OnDiskLock) {
        keyring::put_document(store.as_ref(), &key("lock/backup/", number, "held"), holder).unwrap();
    }

    #[test]
    fn one_of_two_gets_the_lock_and_the_other_hears_who_has_it() {
        let store = store();
        let first = acquire(&store, "lock/backup/", "backup").unwrap();
        let refused = acquire(&store, "lock/backup/", "backup").unwrap_err();
        let LockError::Held { holder, .. } = &refused else { panic!("{refused}") };
        assert!(holder.contains(&format!("process {}", std::process::id())), "{holder}");
        drop(acquire(&store, "lock/expire/", "expire").unwrap());
        drop(first);
        let third = acquire(&store, "lock/backup/", "backup").unwrap();
        assert_eq!(third.number, 2);
        drop(third);
        assert!(list(store.as_ref(), "lock/backup/").unwrap().len() <= 2, "what is over is tidied up");
    }

    #[test]
    fn lock_of_a_dead_process_of_this_host_is_free_at_once() {
        let store = store();
        plant(&store, 4, &OnDiskLock { pid: u32::MAX, ..this_process() });
        assert_eq!(acquire(&store, "lock/backup/", "backup").unwrap().number, 5);
        plant(&store, 9, &OnDiskLock { process_start: 1, ..this_process() });
        assert_eq!(acquire(&store, "lock/backup/", "backup").unwrap().number, 10, "another process has its id now");
    }

    #[test]
    fn lock_of_another_host_holds_while_its_heart_beats() {
        let store = store();
        plant(&store, 1, &OnDiskLock { host: "elsewhere".into(), ..this_process() });
        let beating = store.clone();
        let beat = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(700));
            beating.put_new(&key("lock/backup/", 1, "beat-1"), Bytes::new()).unwrap();
        });
        let refused = acquire(&store, "lock/backup/", "backup").unwrap_err();
        assert!(matches!(&refused, LockError::Held { holder, .. } if holder.contains("elsewhere")), "{refused}");
        beat.join().unwrap();
        // So does one that does not say whose it is.
        store.put_new(&key("lock/backup/", 2, "held"), Bytes::from_static(b"garbage")).unwrap();
        let beating = store.clone();
        let beat = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(700));
            beating.put_new(&key("lock/backup/", 2, "beat-1"), Bytes::new()).unwrap();
        });
        assert!(matches!(acquire(&store, "lock/backup/", "backup"), Err(LockError::Held { .. })));
        beat.join().unwrap();
    }

    #[test]
    fn holder_that_was_silent_too_long_learns_that_its_lock_is_lost() {
        let store = store();
        let lost = AtomicBool::new(false);
        plant(&store, 1, &this_process());
        beat(store.as_ref(), "lock/backup/", 1, &lost, {
            let left = std::cell::Cell::new(2);
            move || left.replace(left.get() - 1) > 0
        });
        assert!(!lost.load(Ordering::Relaxed));
        let beats = list(store.as_ref(), "lock/backup/").unwrap().iter().filter_map(|e| e.beat).collect::<Vec<_>>();
        assert_eq!(beats, [2], "only the last heartbeat is kept");
        plant(&store, 2, &this_process());
        beat(store.as_ref(), "lock/backup/", 1, &lost, || true);
        assert!(lost.load(Ordering::Relaxed));
    }
}
