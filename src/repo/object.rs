//! An opened object: any byte range of its streams, checked.
//!
//! From: `view`, `archive`.  To: `store` (range reads), `format::sealed` (checks and opens chunks).
//! Opening costs one read of the tail; a range costs one read of the chunks that hold it, in steps of at most 8 MiB. No lock is held over a read.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::RepoError;
use crate::format::sealed::{
    Expected, Footer, HEADER_BYTES, ObjectKind, Opener, Parsed, Place, SealError, Stream, Table, content_digest, parse_tail,
};
use crate::store::Store;

/// Bytes of an object's end that are read first: footer, the table of up to 16,000 chunks, and often the whole aux stream.
const TAIL_BYTES: u64 = 64 << 10;

/// Stored bytes fetched in one read at most: large enough for a store's full speed, small enough for memory.
const STEP_BYTES: u64 = 8 << 20;

/// So many chunks are opened by several threads. A mount's reads are smaller, and come from several threads themselves.
const PARALLEL_FROM: usize = 24;

/// An object that can be read at any place. Cheap to clone, shared between threads.
#[derive(Debug, Clone)]
pub struct Object(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    key: String,
    opener: Opener,
    footer: Footer,
    table: Table,
    size: u64,
    /// The end of the object, kept where it holds more than the table: a small object, or an aux stream.
    tail: Bytes,
}

/// One chunk to read: its number, where it lies, its CRC, and the part of it that is wanted.
struct Job<'a> {
    number: u64,
    at: Range<u64>,
    crc: u32,
    /// Bytes of the chunk to leave out in front.
    skip: usize,
    out: &'a mut [u8],
    /// All of the chunk, if `out` is only a part of it.
    whole: Option<Vec<u8>>,
}

/// Chunks of which a read wanted only a part, decoded whole: number and bytes. Worth keeping, for the next read may want the rest.
pub type Edges = Vec<(u64, Vec<u8>)>;

impl Object {
    pub(super) fn open(store: Arc<dyn Store>, expected: &Expected<'_>) -> Result<Object, RepoError> {
        let key = expected.key.to_owned();
        let bad = |source| RepoError::Sealed { store: store.describe(), key: key.clone(), source };
        let (mut tail, mut size, mut parsed) = read_tail(store.as_ref(), expected)?;
        if parsed.is_err() {
            // As in `read_step`: looked at once more before the object is blamed, and past any cache.
            store.forget(&key, std::slice::from_ref(&(size - tail.len() as u64..size)));
            (tail, size, parsed) = read_tail(store.as_ref(), expected)?;
        }
        let parsed = parsed.map_err(bad)?;
        let Parsed::Whole { opener, footer, table } = parsed else {
            return Err(bad(SealError::Damaged { place: Place::Footer, what: "its table never fits what is read".to_owned() }));
        };
        let whole = tail.len() as u64 == size;
        if whole && tail.get(..HEADER_BYTES) != Some(opener.header_bytes().as_slice()) {
            return Err(bad(header_differs()));
        }
        // An index ends with what is asked for first.
        let holds_more = footer.aux_len > 0 || expected.kind == ObjectKind::WalIndex;
        let tail = if whole || holds_more && tail.len() as u64 <= TAIL_BYTES { tail } else { Bytes::new() };
        Ok(Object(Arc::new(Inner { store, key, opener: *opener, footer, table, size, tail })))
    }

    /// The key that it is stored under.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        self.0.opener.header().kind
    }

    /// Plain bytes of the main stream.
    #[must_use]
    pub fn main_len(&self) -> u64 {
        self.0.footer.main_len
    }

    /// Plain bytes of the aux stream; 0 if it has none.
    #[must_use]
    pub fn aux_len(&self) -> u64 {
        self.0.footer.aux_len
    }

    /// Bytes in the store.
    #[must_use]
    pub fn stored_len(&self) -> u64 {
        self.0.size
    }

    /// Plain bytes in a chunk of the main stream: the unit that a read fetches.
    #[must_use]
    pub fn chunk_bytes(&self) -> u64 {
        u64::from(self.0.opener.header().main_chunk)
    }

    /// The stored bytes that a read of `range` of a stream fetches (half-open, in the object). `None` past the stream's end.
    #[must_use]
    pub fn stored_range(&self, stream: Stream, range: Range<u64>) -> Option<Range<u64>> {
        if range.is_empty() {
            return Some(0..0);
        }
        let chunk = self.0.chunk(stream);
        (range.end <= self.0.len(stream)).then_some(())?;
        let first = self.0.entry(stream, range.start / chunk)?.0;
        let last = self.0.entry(stream, (range.end - 1) / chunk)?.0;
        Some(first.start..last.end)
    }

    /// Bytes `range` (half-open) of the main stream, all of them.
    ///
    /// # Errors
    /// [`RepoError::BeyondEnd`]; [`RepoError::Sealed`] naming the damaged chunk; store errors.
    pub fn read_main(&self, range: Range<u64>) -> Result<Vec<u8>, RepoError> {
        self.read(Stream::Main, range)
    }

    /// Fills `out` with the main stream from `offset` on.
    ///
    /// # Errors
    /// As [`Object::read_main`].
    pub fn read_main_into(&self, offset: u64, out: &mut [u8]) -> Result<(), RepoError> {
        self.read_main_with_edges(offset, out).map(drop)
    }

    /// The same; gives the chunks that had to be decoded for a part.
    ///
    /// # Errors
    /// As [`Object::read_main`].
    pub fn read_main_with_edges(&self, offset: u64, out: &mut [u8]) -> Result<Edges, RepoError> {
        self.0.read_into(Stream::Main, offset, out)
    }

    /// Bytes `range` (half-open) of the aux stream, all of them.
    ///
    /// # Errors
    /// As [`Object::read_main`].
    pub fn read_aux(&self, range: Range<u64>) -> Result<Vec<u8>, RepoError> {
        self.read(Stream::Aux, range)
    }

    /// Is its main stream exactly `main`? Compares digests where the kind has one, reads it otherwise.
    ///
    /// # Errors
    /// As [`Object::read_main`], where it must be read.
    pub fn main_equals(&self, main: &[u8]) -> Result<bool, RepoError> {
        let header = self.0.opener.header();
        if main.len() as u64 != self.main_len() {
            return Ok(false);
        }
        if !header.has_digest {
            return self.main_is(main);
        }
        Ok(self.0.opener.keyed_digest(&content_digest(main, header.main_chunk)) == self.0.footer.digest)
    }

    fn main_is(&self, main: &[u8]) -> Result<bool, RepoError> {
        let step = usize::try_from(STEP_BYTES).unwrap_or(usize::MAX);
        let mut from = 0;
        for part in main.chunks(step) {
            let to = from + part.len() as u64;
            if self.read_main(from..to)? != part {
                return Ok(false);
            }
            from = to;
        }
        Ok(true)
    }

    /// Reads and checks every byte of the object, the header and what hides behind it included. `each` hears of stored bytes as they are done.
    ///
    /// # Errors
    /// As [`Object::read_main`].
    pub fn verify(&self, each: &mut dyn FnMut(u64)) -> Result<(), RepoError> {
        self.0.check_header()?;
        let mut digests = Sha256::new();
        for stream in [Stream::Main, Stream::Aux] {
            let (len, chunk) = (self.0.len(stream), self.0.chunk(stream));
            let step = chunk * (STEP_BYTES / chunk).max(1);
            for from in (0..len).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
                let range = from..len.min(from + step);
                let plain = self.read(stream, range.clone())?;
                if stream == Stream::Main {
                    plain.chunks(usize::try_from(chunk).unwrap_or(usize::MAX)).for_each(|part| digests.update(Sha256::digest(part)));
                }
                each(self.stored_range(stream, range).map_or(0, |stored| stored.end - stored.start));
            }
        }
        let has_digest = self.0.opener.header().has_digest;
        if has_digest && self.0.opener.keyed_digest(&digests.finalize().into()) != self.0.footer.digest {
            let what = "its digest does not fit".to_owned();
            return Err(self.0.bad(SealError::Damaged { place: Place::Whole(Stream::Main), what }));
        }
        Ok(())
    }

    fn read(&self, stream: Stream, range: Range<u64>) -> Result<Vec<u8>, RepoError> {
        // Checked before anything is allocated: a caller may pass on what it read from damaged bytes.
        self.0.check_range(stream, &range)?;
        let len = usize::try_from(range.end.saturating_sub(range.start)).map_err(|_| self.0.beyond(stream, &range))?;
        let mut out = vec![0; len];
        drop(self.0.read_into(stream, range.start, &mut out)?);
        Ok(out)
    }

    fn memory_bytes(&self) -> usize {
        self.0.table.memory_bytes() + self.0.tail.len() + self.0.key.len() + size_of::<Inner>()
    }
}

/// As much of an object's end as it takes to understand it, the object's size, and what it says.
fn read_tail(store: &dyn Store, expected: &Expected<'_>) -> Result<(Bytes, u64, Result<Parsed, SealError>), RepoError> {
    let (tail, size) = store.get_tail(expected.key, TAIL_BYTES)?;
    match parse_tail(&tail, size, expected) {
        Ok(Parsed::NeedTail(len)) => {
            let tail = store.get_range(expected.key, size.saturating_sub(len)..size)?;
            let parsed = parse_tail(&tail, size, expected);
            Ok((tail, size, parsed))
        }
        parsed => Ok((tail, size, parsed)),
    }
}

fn header_differs() -> SealError {
    SealError::Damaged { place: Place::Header, what: "it differs from its copy in the footer".to_owned() }
}

impl Inner {
    fn len(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Main => self.footer.main_len,
            Stream::Aux => self.footer.aux_len,
        }
    }

    fn chunk(&self, stream: Stream) -> u64 {
        let header = self.opener.header();
        u64::from(match stream {
            Stream::Main => header.main_chunk,
            Stream::Aux => header.aux_chunk,
        })
    }

    fn entry(&self, stream: Stream, number: u64) -> Option<(Range<u64>, u32)> {
        let before = match stream {
            Stream::Main => 0,
            Stream::Aux => self.footer.main_len.div_ceil(self.chunk(Stream::Main)),
        };
        self.table.entry(before.checked_add(number)?)
    }

    fn bad(&self, source: SealError) -> RepoError {
        RepoError::Sealed { store: self.store.describe(), key: self.key.clone(), source }
    }

    fn beyond(&self, stream: Stream, range: &Range<u64>) -> RepoError {
        let (store, key, len) = (self.store.describe(), self.key.clone(), self.len(stream));
        RepoError::BeyondEnd { store, key, stream, len, from: range.start, to: range.end }
    }

    fn check_range(&self, stream: Stream, range: &Range<u64>) -> Result<(), RepoError> {
        let inside = range.start <= range.end && range.end <= self.len(stream);
        if inside { Ok(()) } else { Err(self.beyond(stream, range)) }
    }

    fn check_header(&self) -> Result<(), RepoError> {
        let header = self.fetch(0..HEADER_BYTES as u64)?;
        if *header == *self.opener.header_bytes() { Ok(()) } else { Err(self.bad(header_differs())) }
    }

    fn read_into(&self, stream: Stream, offset: u64, out: &mut [u8]) -> Result<Edges, RepoError> {
        let end = offset.saturating_add(out.len() as u64);
        self.check_range(stream, &(offset..end))?;
        let mut jobs = self.jobs(stream, offset, out)?;
        let mut edges = Edges::new();
        while !jobs.is_empty() {
            let limit = jobs.first().map_or(0, |job| job.at.start.saturating_add(STEP_BYTES));
            let count = jobs.iter().take_while(|job| job.at.end <= limit).count().max(1);
            let rest = jobs.split_off(count);
            self.read_step(stream, &mut jobs)?;
            edges.extend(jobs.into_iter().filter_map(|job| Some((job.number, job.whole?))));
            jobs = rest;
        }
        Ok(edges)
    }

    /// Cuts a read into chunks.
    fn jobs<'a>(&self, stream: Stream, offset: u64, mut out: &'a mut [u8]) -> Result<Vec<Job<'a>>, RepoError> {
        let chunk = self.chunk(stream);
        let (mut number, mut skip) = (offset / chunk, offset % chunk);
        let mut jobs = Vec::new();
        while !out.is_empty() {
            let now = usize::try_from(chunk - skip).unwrap_or(usize::MAX).min(out.len());
            let (part, rest) = out.split_at_mut(now);
            let entry = self.entry(stream, number);
            let (at, crc) =
                entry.ok_or_else(|| self.bad(SealError::Damaged { place: Place::Table, what: format!("chunk {number} is not in it") }))?;
            jobs.push(Job { number, at, crc, skip: usize::try_from(skip).unwrap_or(usize::MAX), out: part, whole: None });
            (number, skip, out) = (number + 1, 0, rest);
        }
        Ok(jobs)
    }

    /// One fetch, then its chunks, in parallel once that is worth it.
    fn read_step(&self, stream: Stream, jobs: &mut [Job<'_>]) -> Result<(), RepoError> {
        let Some((first, last)) = jobs.first().zip(jobs.last()) else { return Ok(()) };
        let range = first.at.start..last.at.end;
        let pieces: Vec<Range<u64>> = jobs.iter().map(|job| job.at.clone()).collect();
        let bytes = match self.in_tail(&range) {
            Some(bytes) => bytes,
            None => self.store.get_pieces(&self.key, &pieces)?,
        };
        let open = |job: &mut Job<'_>| self.open(stream, job, cut(&bytes, range.start, &job.at));
        let opened = if jobs.len() < PARALLEL_FROM { jobs.iter_mut().try_for_each(open) } else { jobs.par_iter_mut().try_for_each(open) };
        let Err(error) = opened else { return Ok(()) };
        // A bit that flips on the wire goes unnoticed in a range read (S3 sends no checksum for one): look once more before the object is blamed.
        tracing::warn!(key = %self.key, store = %self.store.describe(), %error, "a chunk is damaged as it was read, reading it again");
        self.store.forget(&self.key, &pieces);
        let bytes = self.store.get_pieces(&self.key, &pieces)?;
        let again = jobs.iter_mut().try_for_each(|job| self.open(stream, job, cut(&bytes, range.start, &job.at)));
        again.map_err(|source| self.bad(source))
    }

    fn open(&self, stream: Stream, job: &mut Job<'_>, stored: &[u8]) -> Result<(), SealError> {
        let (id, len, chunk) = ((stream, job.number), self.len(stream), self.chunk(stream));
        let plain = usize::try_from(len.saturating_sub(job.number * chunk).min(chunk)).unwrap_or(usize::MAX);
        if job.skip == 0 && job.out.len() == plain {
            return self.opener.open(id, len, stored, job.crc, job.out).map(drop);
        }
        let mut whole = vec![0; plain];
        self.opener.open(id, len, stored, job.crc, &mut whole)?;
        if let Some(part) = whole.get(job.skip..).and_then(|rest| rest.get(..job.out.len())) {
            job.out.copy_from_slice(part);
        }
        job.whole = Some(whole);
        Ok(())
    }

    fn fetch(&self, range: Range<u64>) -> Result<Bytes, RepoError> {
        match self.in_tail(&range) {
            Some(bytes) => Ok(bytes),
            None => Ok(self.store.get_range(&self.key, range)?),
        }
    }

    /// The bytes, if they lie in the part of the object that is kept.
    fn in_tail(&self, range: &Range<u64>) -> Option<Bytes> {
        let tail_from = self.size - self.tail.len() as u64;
        let at = |offset: u64| usize::try_from(offset - tail_from).unwrap_or(usize::MAX);
        (range.start >= tail_from && range.end <= self.size).then(|| self.tail.slice(at(range.start)..at(range.end)))
    }
}

/// The part `at` of bytes that begin at `from`; empty (and so damaged) if a store gave fewer than it was asked for.
fn cut<'a>(bytes: &'a [u8], from: u64, at: &Range<u64>) -> &'a [u8] {
    let index = |offset: u64| usize::try_from(offset.saturating_sub(from)).unwrap_or(usize::MAX);
    bytes.get(index(at.start)..index(at.end)).unwrap_or_default()
}

/// Objects opened lately, bounded by the memory of their tables. Sound because an object never changes.
pub(super) struct Opened {
    state: Mutex<(LruCache<String, Object>, usize)>,
    limit: usize,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Opened {
    pub(super) fn new(limit: usize) -> Opened {
        Opened { state: Mutex::new((LruCache::unbounded(), 0)), limit }
    }

    pub(super) fn get(&self, key: &str, kind: ObjectKind) -> Option<Object> {
        self.state.lock().0.get(key).filter(|object| object.kind() == kind).cloned()
    }

    pub(super) fn put(&self, object: &Object) {
        let mut state = self.state.lock();
        let (objects, bytes) = &mut *state;
        *bytes += object.memory_bytes();
        if let Some(before) = objects.put(object.key().to_owned(), object.clone()) {
            *bytes -= before.memory_bytes();
        }
        while *bytes > self.limit {
            let Some((_, oldest)) = objects.pop_lru() else { break };
            *bytes -= oldest.memory_bytes();
        }
    }
}
