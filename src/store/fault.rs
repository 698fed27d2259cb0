//! A layer that makes a good store fail as told: for tests of everything above.
//!
//! Deterministic: faults are chosen by operation, key and count, never by chance or clock. A fault that a real store could not commit
//! (half an object under its final name) cannot be told; bytes that are wrong can.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::{Meta, Store, StoreError, Upload};

/// The calls that can be made to fail. `Read` stands for every way to get bytes, `Write` for putting, beginning, writing and finishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Read,
    Write,
    Head,
    List,
    Delete,
}

/// What happens instead of, or around, the call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The store does not answer.
    Unavailable,
    /// No room. For writes.
    Full,
    /// The object is gone. For reads.
    NotFound,
    /// The call is carried out, but its answer is lost: the caller sees [`Fault::Unavailable`].
    LoseAnswer,
    /// A read gives this many bytes less, without saying so, as no store should.
    Cut(usize),
    /// A read gives the right bytes but for this one bit (counted from the first, modulo the length).
    FlipBit(usize),
    /// The call is carried out after a while.
    Delay(Duration),
    /// The call does not return until [`FaultStore::release`].
    Hang,
}

/// When a fault strikes.
#[derive(Debug, Clone)]
struct Rule {
    call: Call,
    /// Only keys that contain this.
    key: String,
    /// Which of the matching calls, counted from 0 from the moment the rule was made.
    which: Range<u64>,
    fault: Fault,
    seen: u64,
}

/// A store over another one.
#[derive(Debug, Clone)]
pub struct FaultStore {
    inner: Arc<dyn Store>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    rules: Mutex<Vec<Rule>>,
    calls: [AtomicU64; 5],
    released: Mutex<bool>,
    release: Condvar,
}

impl FaultStore {
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        FaultStore { inner, state: Arc::default() }
    }

    /// From now on, of the calls of this kind on keys that contain `key`, those numbered `which` (from 0) suffer `fault`. The first rule that
    /// strikes wins.
    pub fn plan(&self, call: Call, key: &str, which: Range<u64>, fault: Fault) {
        self.state.rules.lock().push(Rule { call, key: key.to_owned(), which, fault, seen: 0 });
    }

    /// No more faults.
    pub fn heal(&self) {
        self.state.rules.lock().clear();
        self.release();
    }

    /// Lets go what hangs, now and later.
    pub fn release(&self) {
        *self.state.released.lock() = true;
        self.state.release.notify_all();
    }

    /// How many calls of this kind there were.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        self.counter(call).load(Ordering::SeqCst)
    }

    fn counter(&self, call: Call) -> &AtomicU64 {
        let [read, write, head, list, delete] = &self.state.calls;
        match call {
            Call::Read => read,
            Call::Write => write,
            Call::Head => head,
            Call::List => list,
            Call::Delete => delete,
        }
    }

    /// Counts the call and finds its fault.
    fn strike(&self, call: Call, key: &str) -> Option<Fault> {
        self.counter(call).fetch_add(1, Ordering::SeqCst);
        let mut struck = None;
        for rule in self.state.rules.lock().iter_mut().filter(|rule| rule.call == call && key.contains(&rule.key)) {
            if rule.which.contains(&rule.seen) && struck.is_none() {
                struck = Some(rule.fault.clone());
            }
            rule.seen += 1;
        }
        struck
    }

    fn unavailable(&self) -> StoreError {
        StoreError::Unavailable { store: self.describe(), what: "a fault was planned".to_owned() }
    }

    /// Carries out a call with its fault, if any; `damage` applies what concerns bytes.
    fn suffer<T>(
        &self,
        call: Call,
        key: &str,
        run: impl FnOnce() -> Result<T, StoreError>,
        damage: impl FnOnce(T, &Fault) -> T,
    ) -> Result<T, StoreError> {
        let Some(fault) = self.strike(call, key) else { return run() };
        match fault {
            Fault::Unavailable => return Err(self.unavailable()),
            Fault::Full => return Err(StoreError::Full { store: self.describe(), key: key.to_owned() }),
            Fault::NotFound => return Err(StoreError::NotFound { store: self.describe(), key: key.to_owned() }),
            Fault::LoseAnswer => return run().and_then(|_lost| Err(self.unavailable())),
            Fault::Delay(how_long) => std::thread::sleep(how_long),
            Fault::Hang => self.hang(),
            Fault::Cut(_) | Fault::FlipBit(_) => (),
        }
        run().map(|answer| damage(answer, &fault))
    }

    fn hang(&self) {
        let mut released = self.state.released.lock();
        while !*released {
            self.state.release.wait(&mut released);
        }
    }

    fn undamaged<T>(&self, call: Call, key: &str, run: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.suffer(call, key, run, |answer, _fault| answer)
    }
}

fn damage(bytes: Bytes, fault: &Fault) -> Bytes {
    match fault {
        Fault::Cut(less) => bytes.slice(..bytes.len().saturating_sub(*less)),
        Fault::FlipBit(bit) if !bytes.is_empty() => {
            let mut flipped = bytes.to_vec();
            let bit = bit % (flipped.len() * 8);
            if let Some(byte) = flipped.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            flipped.into()
        }
        _ => bytes,
    }
}

impl Store for FaultStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn put_new(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.undamaged(Call::Write, key, || self.inner.put_new(key, body))
    }

    fn upload_new(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        let upload = self.undamaged(Call::Write, key, || self.inner.upload_new(key))?;
        Ok(Box::new(FaultUpload { store: self.clone(), key: key.to_owned(), upload }))
    }

    fn settle(&self, key: &str) -> Result<(), StoreError> {
        self.undamaged(Call::Write, key, || self.inner.settle(key))
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.suffer(Call::Read, key, || self.inner.get_range(key, range), damage)
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.suffer(Call::Read, key, || self.inner.get(key), damage)
    }

    fn get_tail(&self, key: &str, len: u64) -> Result<(Bytes, u64), StoreError> {
        self.suffer(Call::Read, key, || self.inner.get_tail(key, len), |(bytes, size), fault| (damage(bytes, fault), size))
    }

    fn head(&self, key: &str) -> Result<Option<Meta>, StoreError> {
        self.undamaged(Call::Head, key, || self.inner.head(key))
    }

    fn list(&self, prefix: &str, after: Option<&str>, each: &mut dyn FnMut(Meta) -> bool) -> Result<(), StoreError> {
        self.undamaged(Call::List, prefix, || self.inner.list(prefix, after, each))
    }

    fn list_dir(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.undamaged(Call::List, prefix, || self.inner.list_dir(prefix))
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.undamaged(Call::Delete, key, || self.inner.delete(key))
    }
}

struct FaultUpload {
    store: FaultStore,
    key: String,
    upload: Box<dyn Upload>,
}

impl Upload for FaultUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.store.undamaged(Call::Write, &self.key, || self.upload.write(bytes))
    }

    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        let FaultUpload { store, key, upload } = *self;
        store.undamaged(Call::Write, &key, || upload.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::*;

    fn store() -> FaultStore {
        let store = FaultStore::new(Arc::new(MemoryStore::default()));
        store.put_new("a/1", Bytes::from_static(b"hello")).unwrap();
        store
    }

    #[test]
    fn the_planned_calls_fail_and_no_others() {
        let store = store();
        store.plan(Call::Read, "a/", 1..3, Fault::Unavailable);
        let went_well: Vec<bool> = (0..5).map(|_| store.get("a/1").is_ok()).collect();
        assert_eq!(went_well, [true, false, false, true, true]);
        assert_eq!((store.calls(Call::Read), store.calls(Call::Write)), (5, 1));
        store.plan(Call::Delete, "", 0..u64::MAX, Fault::Unavailable);
        store.delete("a/1").unwrap_err();
        store.heal();
        store.delete("a/1").unwrap();
    }

    #[test]
    fn bytes_are_cut_and_flipped_as_planned() {
        let store = store();
        store.plan(Call::Read, "", 0..1, Fault::Cut(2));
        store.plan(Call::Read, "", 1..2, Fault::FlipBit(8));
        assert_eq!(store.get_range("a/1", 0..5).unwrap(), &b"hel"[..]);
        assert_eq!(store.get_tail("a/1", 5).unwrap(), (Bytes::from_static(b"hdllo"), 5));
    }

    #[test]
    fn a_lost_answer_leaves_what_was_done() {
        let store = store();
        store.plan(Call::Write, "", 0..1, Fault::LoseAnswer);
        assert!(store.put_new("b", Bytes::new()).unwrap_err().is_retryable());
        assert!(store.head("b").unwrap().is_some());
    }

    #[test]
    fn what_hangs_returns_when_released() {
        let store = store();
        store.plan(Call::Read, "", 0..1, Fault::Hang);
        std::thread::scope(|scope| {
            let hanging = scope.spawn(|| store.get("a/1"));
            while store.calls(Call::Read) == 0 {
                std::thread::yield_now();
            }
            store.release();
            assert_eq!(hanging.join().unwrap().unwrap(), &b"hello"[..]);
        });
    }

    #[test]
    fn uploads_can_find_the_store_full() {
        let store = store();
        store.plan(Call::Write, "big", 1..2, Fault::Full);
        let mut upload = store.upload_new("big").unwrap();
        assert!(matches!(upload.write(b"x").unwrap_err(), StoreError::Full { .. }));
    }
}
