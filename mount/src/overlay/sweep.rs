//! Writes that go through a file in order, as a database's checkpoint does: the disk begins with them before the sync that follows.
//!
//! In: each write to a file.  Out: now and then a range that the disk may begin with.
//! Programs ask the kernel for that themselves (`sync_file_range`), but a FUSE file system does not hear of it. Writes here and there are left alone:
//! what a program gives up for want of memory is often written again soon.

use std::ops::Range;

use parking_lot::Mutex;

/// So many bytes of a sweep are worth a call.
const WORTHWHILE: u64 = 256 << 10;

/// The sweep that a file is in, if any.
#[derive(Debug, Default)]
pub(crate) struct Sweep(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// From the first byte that the disk was not told of to the end of the last write.
    range: Range<u64>,
    /// Written in it.
    bytes: u64,
}

impl Sweep {
    /// Notes a write; gives the range that the disk may begin with, once.
    pub(crate) fn note(&self, written: &Range<u64>) -> Option<Range<u64>> {
        let mut state = self.0.lock();
        if written.start < state.range.end {
            *state = State { range: written.start..written.start, bytes: 0 };
        }
        state.range.end = written.end;
        state.bytes += written.end - written.start;
        if state.bytes < WORTHWHILE {
            return None;
        }
        let range = state.range.clone();
        *state = State { range: range.end..range.end, bytes: 0 };
        Some(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 8192;

    fn note(sweep: &Sweep, page: u64) -> Option<Range<u64>> {
        sweep.note(&(page * PAGE..(page + 1) * PAGE))
    }

    #[test]
    fn a_sweep_is_told_of_piece_by_piece() {
        let sweep = Sweep::default();
        let told: Vec<_> = (0..100).filter_map(|page| note(&sweep, page * 3)).collect();
        assert_eq!(told, [0..94 * PAGE, 94 * PAGE..190 * PAGE, 190 * PAGE..286 * PAGE]);
    }

    #[test]
    fn writes_here_and_there_are_left_alone() {
        let sweep = Sweep::default();
        assert!((0..10_000_u64).all(|n| note(&sweep, n.wrapping_mul(6_364_136_223_846_793_005) >> 44).is_none()));
        assert!((0..10_000).all(|_| note(&sweep, 5).is_none()), "the same page again and again");
    }
}
