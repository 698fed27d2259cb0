//! Buffers for bytes of files on their way to the kernel.
//!
//! A fresh one for each read would be mapped, zeroed page by page and unmapped, a sixth of the time of a long read; and the one used last is still
//! in the processor's cache.

use std::sync::Arc;

use parking_lot::Mutex;

/// So many are kept while nobody uses them: of a read's size, 1 MiB at most, each.
const KEPT: usize = 8;

/// Buffers that are free, the one used last on top.
#[derive(Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// A buffer for `len` bytes. What they are before they are written is of no meaning.
    pub(super) fn take(all: &Arc<Buffers>, len: usize) -> Buffer {
        let mut bytes = all.0.lock().pop().unwrap_or_default();
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        Buffer { bytes, len, home: Arc::clone(all) }
    }
}

/// A buffer in use; it goes home when it is dropped.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    home: Arc<Buffers>,
}

impl Buffer {
    /// The bytes to write.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }

    /// The first `len` of those that were written.
    pub(super) fn filled(&self, len: usize) -> &[u8] {
        self.bytes.get(..len.min(self.len)).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut kept = self.home.0.lock();
        if kept.len() < KEPT {
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_buffer_shows_no_more_than_was_asked_for() {
        let all = Arc::new(Buffers::default());
        Buffers::take(&all, 100).bytes().fill(7);
        let mut again = Buffers::take(&all, 10);
        assert_eq!((again.bytes().len(), again.filled(100).len(), again.filled(3)), (10, 10, [7; 3].as_slice()));
    }

    #[test]
    fn few_buffers_are_kept() {
        let all = Arc::new(Buffers::default());
        let many: Vec<_> = (0..20).map(|_| Buffers::take(&all, 1)).collect();
        drop(many);
        assert_eq!(all.0.lock().len(), KEPT);
    }
}
