//! An object of unknown length, sealed chunk by chunk as it is written. Memory: one chunk, and what the store's upload buffers.

use super::RepoError;
use crate::format::sealed::{SealError, Sealer, Stream, TailBuilder};
use crate::store::Upload;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectSummary {
    /// Plain bytes of the main stream.
    pub main_len: u64,
    /// Bytes in the store.
    pub stored_len: u64,
}

/// An object being written. Dropping it leaves no trace. Sealing happens on the calling thread: use a writer per thread.
pub struct ObjectWriter {
    store: String,
    key: String,
    sealer: Sealer,
    upload: Box<dyn Upload>,
    tail: TailBuilder,
    /// Plain bytes not yet sealed: at most one chunk. The last chunk is known to be the last only at `finish`.
    pending: Vec<u8>,
    chunk: usize,
    number: u64,
    main_len: u64,
    stored_len: u64,
}

impl std::fmt::Debug for ObjectWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectWriter").field("key", &self.key).field("main_len", &self.main_len).finish_non_exhaustive()
    }
}

impl ObjectWriter {
    pub(super) fn begin(store: String, key: &str, sealer: Sealer, mut upload: Box<dyn Upload>) -> Result<ObjectWriter, RepoError> {
        upload.write(sealer.header_bytes())?;
        let stored_len = sealer.header_bytes().len() as u64;
        let chunk = sealer.header().main_chunk as usize;
        let pending = Vec::with_capacity(chunk);
        let key = key.to_owned();
        Ok(ObjectWriter { store, key, sealer, upload, tail: TailBuilder::default(), pending, chunk, number: 0, main_len: 0, stored_len })
    }

    /// The key that it will be visible under.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Plain bytes written so far: where the next byte will lie in the main stream.
    #[must_use]
    pub fn main_len(&self) -> u64 {
        self.main_len
    }

    /// Bytes handed to the store so far.
    #[must_use]
    pub fn stored_len(&self) -> u64 {
        self.stored_len
    }

    /// Appends to the main stream.
    ///
    /// # Errors
    /// Store errors; the object is lost then.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), RepoError> {
        self.main_len += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.pending.len() == self.chunk {
                self.seal_pending(Stream::Main, false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.chunk - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Writes the rest and the footer, and makes the object durable and visible.
    ///
    /// # Errors
    /// [`RepoError::Store`] with `Exists` if the key was taken meanwhile; store errors.
    pub fn finish(self) -> Result<ObjectSummary, RepoError> {
        self.finish_with(&[])
    }

    /// The same, with these bytes as the aux stream.
    ///
    /// # Errors
    /// As [`ObjectWriter::finish`].
    pub fn finish_with(mut self, aux: &[u8]) -> Result<ObjectSummary, RepoError> {
        if !self.pending.is_empty() {
            self.seal_pending(Stream::Main, true)?;
        }
        self.number = 0;
        let chunk = self.sealer.header().aux_chunk as usize;
        let count = aux.len().div_ceil(chunk) as u64;
        for part in aux.chunks(chunk) {
            self.pending.extend_from_slice(part);
            self.seal_pending(Stream::Aux, self.number + 1 == count)?;
        }
        let (tail, footer) = std::mem::take(&mut self.tail).finish(&self.sealer).map_err(|e| self.error(e))?;
        self.upload.write(&tail)?;
        self.upload.finish()?;
        Ok(ObjectSummary { main_len: footer.main_len, stored_len: self.stored_len + tail.len() as u64 })
    }

    fn seal_pending(&mut self, stream: Stream, last: bool) -> Result<(), RepoError> {
        let sealed = self.sealer.seal(stream, self.number, last, &self.pending).map_err(|e| self.error(e))?;
        self.tail.push(&self.sealer, stream, &sealed).map_err(|e| self.error(e))?;
        self.upload.write(&sealed.bytes)?;
        self.number += 1;
        self.stored_len += sealed.bytes.len() as u64;
        self.pending.clear();
        Ok(())
    }

    fn error(&self, source: SealError) -> RepoError {
        RepoError::Sealed { store: self.store.clone(), key: self.key.clone(), source }
    }
}
