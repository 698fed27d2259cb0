//! Reads the main streams of stored objects, chunk by chunk, through the memory that all views of a process share.
//!
//! From: `view::content`, which knows which bytes of which object a file is.  To: `repo::Object`, which fetches and checks.
//! Neighbouring chunks that are missing are fetched in one request; a chunk that somebody else is fetching already is waited for.

use std::collections::HashMap;
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::parallel;
use crate::repo::object::Edges;
use crate::repo::{Object, ObjectKind, RepoError, Repository, Stream};
use crate::store::StoreError;
use crate::view::chunks::{Chunk, ChunkCache};
use crate::view::spare::{Lost, Spares};

/// Memory for decoded chunks, bytes.
pub const CHUNK_MEMORY_BYTES: usize = 64 << 20;

/// A repository that does not answer is not asked again for so long, if there are others.
const SILENCE: Duration = Duration::from_secs(30);

/// A store that takes longer than this for a request is asked more things at a time than there are cores. A directory does not: decoding takes longest
/// there.
const SLOW_US: u64 = 2000;
/// So many chunks, or runs of them, are worth another thread's start where decoding takes longest.
const RUNS_PER_THREAD: usize = 2;
/// So many chunks that nobody wants are fetched rather than asking twice.
const MAX_GAP: u64 = 2;
/// Chunks in one request at most.
const MAX_RUN: u64 = 32;

/// What was fetched so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fetched {
    /// Chunks fetched, checked and decoded.
    pub chunks: u64,
    /// Bytes read from the repository for whatever reason, and stored bytes of chunks that came from another.
    pub bytes: u64,
}

/// The shared side: a repository, its opened objects' numbers, and decoded chunks.
#[derive(Debug)]
pub struct StoredObjects {
    repository: Arc<Repository>,
    numbers: Mutex<Numbers>,
    chunks: ChunkCache<(u32, u64)>,
    spares: Spares,
    /// When the repository last did not answer.
    silent: Mutex<Option<Instant>>,
    fetched_chunks: AtomicU64,
    /// Bytes that another repository gave.
    borrowed_bytes: AtomicU64,
}

/// Short names of the objects that were opened.
#[derive(Debug, Default)]
struct Numbers {
    /// By key: the number, and the bytes in a chunk.
    by_key: HashMap<String, (u32, u64)>,
    next: u32,
}

/// One object's main stream.
#[derive(Debug, Clone)]
pub struct StoredStream {
    object: Object,
    /// Is that another repository's, since ours cannot be opened?
    is_borrowed: bool,
    number: u32,
    shared: Arc<StoredObjects>,
}

impl StoredObjects {
    /// Reads from `repository` through a memory of `memory_bytes`.
    #[must_use]
    pub fn new(repository: Arc<Repository>, memory_bytes: usize) -> Arc<StoredObjects> {
        StoredObjects::with_spares(repository, memory_bytes, Spares::default())
    }

    /// The same, reading from other repositories what this one cannot give.
    #[must_use]
    pub fn with_spares(repository: Arc<Repository>, memory_bytes: usize, spares: Spares) -> Arc<StoredObjects> {
        Arc::new(StoredObjects {
            repository,
            spares,
            silent: Mutex::default(),
            numbers: Mutex::default(),
            chunks: ChunkCache::new(memory_bytes),
            fetched_chunks: AtomicU64::new(0),
            borrowed_bytes: AtomicU64::new(0),
        })
    }

    /// The repository below.
    #[must_use]
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// The other repositories.
    #[must_use]
    pub fn spares(&self) -> &Spares {
        &self.spares
    }

    /// What was fetched so far.
    pub fn fetched(&self) -> Fetched {
        let bytes = self.repository.read().bytes() + self.borrowed_bytes.load(Ordering::Relaxed);
        Fetched { chunks: self.fetched_chunks.load(Ordering::Relaxed), bytes }
    }

    /// Opens the object under `key`.
    ///
    /// # Errors
    /// As [`Repository::open_object`].
    pub fn open(self: &Arc<Self>, key: &str, kind: ObjectKind) -> Result<StoredStream, RepoError> {
        let (object, is_borrowed) = match self.ask(|| self.repository.open_object(key, kind)) {
            Ok(object) => (object, false),
            // Where the WAL ends is asked again and again: only a segment that was there before can have been lost.
            Err(error) if error.is_not_found() && kind == ObjectKind::WalSegment && !self.numbers.lock().by_key.contains_key(key) => {
                return Err(error);
            }
            Err(error) => (self.spares.read(&self.lost(key, kind), error, |object| Ok(object.clone()))?, true),
        };
        let number = self.number(key, object.chunk_bytes());
        Ok(StoredStream { object, is_borrowed, number, shared: self.clone() })
    }

    /// Asks the repository, unless it did not answer a moment ago and there are others: every read would wait as long as the first one.
    fn ask<T>(&self, ask: impl FnOnce() -> Result<T, RepoError>) -> Result<T, RepoError> {
        if !self.spares.is_empty() && self.silent.lock().is_some_and(|when| when.elapsed() < SILENCE) {
            let (store, what) = (self.repository.store().describe(), "not a moment ago either".to_owned());
            return Err(StoreError::Unavailable { store, what }.into());
        }
        ask().inspect_err(|error| {
            if error.is_retryable() {
                *self.silent.lock() = Some(Instant::now());
            }
        })
    }

    fn lost<'a>(&'a self, key: &'a str, kind: ObjectKind) -> Lost<'a> {
        Lost { repository: &self.repository, key, kind }
    }

    /// What an object's chunks are kept under. Another repository may have cut it into other chunks: then they get a number of their own.
    fn number(&self, key: &str, chunk_bytes: u64) -> u32 {
        let mut numbers = self.numbers.lock();
        if let Some((number, _)) = numbers.by_key.get(key).filter(|(_, known)| *known == chunk_bytes) {
            return *number;
        }
        let number = numbers.next;
        numbers.next = number.saturating_add(1);
        numbers.by_key.insert(key.to_owned(), (number, chunk_bytes));
        number
    }

    /// Brings chunks into memory that are wanted soon, where that is worth the while: neighbours in one request, several requests at a time.
    ///
    /// What cannot be had is left out: whoever reads it hears why.
    pub fn bring(&self, mut wanted: Vec<(StoredStream, u64)>) {
        wanted.retain(|(stream, chunk)| !self.chunks.has(&(stream.number, *chunk)));
        wanted.sort_unstable_by_key(|(stream, chunk)| (stream.number, *chunk));
        let mut runs: Vec<(StoredStream, Range<u64>)> = Vec::new();
        for (stream, chunk) in wanted {
            match runs.last_mut() {
                Some((last, run)) if last.number == stream.number && chunk <= run.end + MAX_GAP && chunk - run.start < MAX_RUN => {
                    run.end = run.end.max(chunk + 1);
                }
                _ => runs.push((stream, chunk..chunk + 1)),
            }
        }
        parallel::for_each(self.threads(runs.len()), &runs, |(stream, run)| {
            if let Err(error) = stream.bring(run.clone()) {
                tracing::debug!(%error, "not brought ahead");
            }
        });
    }

    /// Does a request take longer than decoding what it gives?
    pub(super) fn is_slow(&self) -> bool {
        self.repository.read().latency_us() >= SLOW_US
    }

    /// Is a chunk in memory?
    pub(super) fn has(&self, stream: &StoredStream, chunk: u64) -> bool {
        self.chunks.has(&(stream.number, chunk))
    }

    /// How many threads are worth the while for so many requests.
    pub(super) fn threads(&self, requests: usize) -> usize {
        if self.is_slow() { requests.min(parallel::MAX_REQUESTS) } else { decoders(requests) }
    }

    /// Does `work` on every item, several at a time; gives the results in their order. For work that waits for the store.
    pub fn each<I: Sync, R: Send + Sync>(&self, items: &[I], work: impl Fn(&I) -> R + Sync) -> Vec<R> {
        parallel::map(self.threads(items.len()), items, work)
    }

    /// Fills `buf` from byte `offset` of an object's main stream on if every chunk is in memory; else `false`, and `buf` holds nothing of use.
    pub fn read_ready(&self, key: &str, offset: u64, buf: &mut [u8]) -> bool {
        let Some((number, chunk_bytes)) = self.numbers.lock().by_key.get(key).copied() else { return false };
        let wanted = offset..offset.saturating_add(buf.len() as u64);
        (wanted.start / chunk_bytes..wanted.end.div_ceil(chunk_bytes)).all(|chunk| {
            let Some(bytes) = self.chunks.get(&(number, chunk)) else { return false };
            copy_out(chunk * chunk_bytes, &bytes, &wanted, buf);
            true
        })
    }
}

/// How many threads are worth the while to decode so many chunks.
pub(super) fn decoders(chunks: usize) -> usize {
    /// Asked once: it takes Rust three files of /proc and /sys to find out.
    static CORES: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, NonZero::get));
    (chunks / RUNS_PER_THREAD).min(*CORES)
}

impl StoredStream {
    /// The object itself.
    #[must_use]
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// Tells the streams of one [`StoredObjects`] apart.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Fills `buf` from byte `offset` of the main stream on.
    ///
    /// Chunks that are wanted whole go straight into `buf` and are not kept: who reads that much at a time reads on.
    ///
    /// # Errors
    /// As [`Object::read_main`].
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), RepoError> {
        let wanted = offset..offset.saturating_add(buf.len() as u64);
        let last = wanted.end.saturating_sub(1) / self.chunk_bytes();
        let mut at = wanted.start;
        while at < wanted.end {
            let chunk = at / self.chunk_bytes();
            let missing = (chunk..=last).take_while(|c| !self.shared.chunks.has(&(self.number, *c))).count() as u64;
            let end = ((chunk + missing.max(1)) * self.chunk_bytes()).min(wanted.end);
            if missing > 1 || missing == 1 && end - at == self.chunk_bytes() {
                self.read_run(at, part_of(buf, &wanted, &(at..end)))?;
            } else {
                copy_out(chunk * self.chunk_bytes(), &self.chunk(chunk)?, &wanted, buf);
            }
            at = end;
        }
        Ok(())
    }

    /// Bytes in a chunk, but for the last one.
    #[must_use]
    pub fn chunk_bytes(&self) -> u64 {
        self.object.chunk_bytes()
    }

    /// Chunk `number` of the main stream, fetched once however many ask.
    ///
    /// # Errors
    /// As [`Object::read_main`].
    pub fn chunk(&self, number: u64) -> Result<Chunk, RepoError> {
        self.shared.chunks.get_or_load(&(self.number, number), || {
            let range = self.range_of(number..number + 1);
            self.fetched(range.clone(), |object| object.read_main(range.clone()))
        })
    }

    /// Fetches what `buf` wants in one go; keeps the chunks of which it wants a part.
    fn read_run(&self, offset: u64, buf: &mut [u8]) -> Result<(), RepoError> {
        let range = offset..offset.saturating_add(buf.len() as u64);
        let own_chunks = self.chunk_bytes();
        let edges = self.fetched(range, |object| {
            let edges = object.read_main_with_edges(offset, buf)?;
            Ok(if object.chunk_bytes() == own_chunks { edges } else { Edges::new() })
        })?;
        for (chunk, bytes) in edges {
            self.shared.chunks.insert((self.number, chunk), bytes.into());
        }
        Ok(())
    }

    /// Brings neighbouring chunks into memory with one request.
    fn bring(&self, chunks: Range<u64>) -> Result<(), RepoError> {
        if chunks.end - chunks.start == 1 {
            return self.chunk(chunks.start).map(drop);
        }
        let range = self.range_of(chunks.clone());
        let bytes = self.fetched(range.clone(), |object| object.read_main(range.clone()))?;
        for (chunk, part) in chunks.zip(bytes.chunks(usize::try_from(self.chunk_bytes()).unwrap_or(usize::MAX))) {
            self.shared.chunks.insert((self.number, chunk), part.to_vec().into());
        }
        Ok(())
    }

    fn range_of(&self, chunks: Range<u64>) -> Range<u64> {
        chunks.start * self.chunk_bytes()..(chunks.end * self.chunk_bytes()).min(self.object.main_len())
    }

    fn fetched_elsewhere<T>(&self, error: RepoError, mut fetch: impl FnMut(&Object) -> Result<T, RepoError>) -> Result<T, RepoError> {
        let (key, kind) = (self.object.key(), self.object.kind());
        let error = match self.is_borrowed {
            false => error,
            // Ours may have been brought back since; if not, it is to be named.
            true => match self.shared.ask(|| fetch(&self.shared.repository.open_object(key, kind)?)) {
                Ok(result) => return Ok(result),
                Err(error) => error,
            },
        };
        self.shared.spares.read(&self.shared.lost(key, kind), error, fetch)
    }

    /// Counts a fetch of this range.
    fn fetched<T>(&self, range: Range<u64>, mut fetch: impl FnMut(&Object) -> Result<T, RepoError>) -> Result<T, RepoError> {
        let chunks = range.end.div_ceil(self.chunk_bytes()) - range.start / self.chunk_bytes();
        let result = self.shared.ask(|| fetch(&self.object)).or_else(|error| {
            let result = self.fetched_elsewhere(error, fetch)?;
            let stored = self.object.stored_range(Stream::Main, range).unwrap_or(0..0);
            self.shared.borrowed_bytes.fetch_add(stored.end - stored.start, Ordering::Relaxed);
            Ok::<T, RepoError>(result)
        })?;
        self.shared.fetched_chunks.fetch_add(chunks, Ordering::Relaxed);
        Ok(result)
    }
}

/// The part of a buffer, which holds `whole`, that holds `part`.
fn part_of<'a>(buf: &'a mut [u8], whole: &Range<u64>, part: &Range<u64>) -> &'a mut [u8] {
    let at = |byte: u64| usize::try_from(byte - whole.start).unwrap_or(usize::MAX);
    &mut buf[at(part.start)..at(part.end)]
}

/// Copies what a chunk that begins at `start` holds of `wanted` to its place in `buf`.
fn copy_out(start: u64, bytes: &[u8], wanted: &Range<u64>, buf: &mut [u8]) {
    let (from, to) = (wanted.start.max(start), wanted.end.min(start + bytes.len() as u64));
    if from < to {
        let index = |position: u64, base: u64| usize::try_from(position - base).unwrap_or(0);
        buf[index(from, wanted.start)..index(to, wanted.start)].copy_from_slice(&bytes[index(from, start)..index(to, start)]);
    }
}
