//! Chunks in memory, of bytes or of what was made of them: bounded, and loaded once however many readers wait.
//!
//! In: a key and how to load it.  Out: the chunk, shared.
//! No lock is held while a chunk is loaded. A load that fails is not remembered: whoever waited for it tries for himself.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::{Condvar, Mutex};

/// A chunk, shared: the very memory that it was decoded into.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk<T = u8>(Arc<Vec<T>>);

impl<T> Clone for Chunk<T> {
    fn clone(&self) -> Chunk<T> {
        Chunk(self.0.clone())
    }
}

impl<T> From<Vec<T>> for Chunk<T> {
    fn from(mut items: Vec<T>) -> Chunk<T> {
        // What a chunk takes is counted by its items.
        items.shrink_to_fit();
        Chunk(Arc::new(items))
    }
}

impl<T> Deref for Chunk<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> AsRef<[T]> for Chunk<T> {
    fn as_ref(&self) -> &[T] {
        &self.0
    }
}

/// Chunks (of `T`) by key, the least recently used going first.
#[derive(Debug)]
pub struct ChunkCache<K: Hash + Eq, T = u8> {
    state: Mutex<State<K, T>>,
    loaded: Condvar,
    max_bytes: usize,
}

#[derive(Debug)]
struct State<K: Hash + Eq, T> {
    chunks: LruCache<K, Chunk<T>>,
    bytes: usize,
    /// Keys being loaded, with how many wait for each.
    loading: HashMap<K, usize>,
}

impl<K: Hash + Eq + Clone, T> ChunkCache<K, T> {
    /// A cache that holds at most `max_bytes` of chunks (and at least the newest one).
    #[must_use]
    pub fn new(max_bytes: usize) -> ChunkCache<K, T> {
        let state = State { chunks: LruCache::unbounded(), bytes: 0, loading: HashMap::new() };
        ChunkCache { state: Mutex::new(state), loaded: Condvar::new(), max_bytes }
    }

    /// The chunk if it is in memory.
    pub fn get(&self, key: &K) -> Option<Chunk<T>> {
        self.state.lock().chunks.get(key).cloned()
    }

    /// Is the chunk in memory? Does not count as a use.
    pub fn has(&self, key: &K) -> bool {
        self.state.lock().chunks.contains(key)
    }

    /// The chunk, loaded by the first who asks while the others wait.
    ///
    /// # Errors
    /// Those of `load`.
    pub fn get_or_load<E>(&self, key: &K, load: impl FnOnce() -> Result<Vec<T>, E>) -> Result<Chunk<T>, E> {
        {
            let mut state = self.state.lock();
            loop {
                if let Some(chunk) = state.chunks.get(key) {
                    return Ok(chunk.clone());
                }
                match state.loading.get_mut(key) {
                    Some(waiters) => *waiters += 1,
                    None => break,
                }
                self.loaded.wait(&mut state);
            }
            state.loading.insert(key.clone(), 0);
        }
        let _waiters_go_on = Loading { cache: self, key };
        let chunk = Chunk::from(load()?);
        self.insert(key.clone(), chunk.clone());
        Ok(chunk)
    }

    /// Puts a chunk that came along with another one.
    pub fn insert(&self, key: K, chunk: Chunk<T>) {
        let mut state = self.state.lock();
        state.bytes += size_of_val(&*chunk);
        if let Some(old) = state.chunks.put(key, chunk) {
            state.bytes -= size_of_val(&*old);
        }
        while state.bytes > self.max_bytes && state.chunks.len() > 1 {
            let Some((_, oldest)) = state.chunks.pop_lru() else { break };
            state.bytes -= size_of_val(&*oldest);
        }
    }
}

/// Ends the wait of the others, also when loading failed or panicked.
struct Loading<'a, K: Hash + Eq + Clone, T> {
    cache: &'a ChunkCache<K, T>,
    key: &'a K,
}

impl<K: Hash + Eq + Clone, T> Drop for Loading<'_, K, T> {
    fn drop(&mut self) {
        let waiters = self.cache.state.lock().loading.remove(self.key);
        if waiters.is_some_and(|n| n > 0) {
            self.cache.loaded.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn many_readers_of_one_chunk_load_it_once() {
        let cache = ChunkCache::new(1 << 20);
        let loads = AtomicUsize::new(0);
        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| {
                    let load = || {
                        loads.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Ok::<_, ()>(vec![7])
                    };
                    assert_eq!(cache.get_or_load(&1, load).unwrap()[..], [7]);
                });
            }
        });
        assert_eq!(loads.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failed_load_is_tried_again() {
        let cache = ChunkCache::new(1 << 20);
        assert_eq!(cache.get_or_load(&1, || Err("dead")), Err("dead"));
        assert_eq!(cache.get_or_load(&1, || Ok::<_, ()>(vec![1])).unwrap()[..], [1]);
    }

    #[test]
    fn the_oldest_go_when_the_bound_is_reached() {
        let cache = ChunkCache::<_, u8>::new(10);
        for key in 0..4 {
            cache.insert(key, vec![0; 4].into());
        }
        assert!(cache.get(&0).is_none() && cache.get(&1).is_none());
        assert!(cache.get(&2).is_some() && cache.get(&3).is_some());
    }
}
