//! Keeps freed memory from piling up: a mount has some forty threads, and glibc lets each pair of them keep a heap of its own.
//!
//! Measured: after reading 1.2 GB through a mount the heaps held 670 MB, of which 156 MB were in use; with two heaps 250 MB, at the same speed.
//! A program that takes and gives back a segment's memory over and over keeps it instead ([`keep`]): `archive-push` of ten segments spent 0.10 s of
//! system time where it had been 0.20 s, most of that on getting fresh pages, with as much memory as before.

use std::num::NonZero;

/// Bounds the number of heaps. Called before there is a second thread.
pub(super) fn bound() {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    set::heaps(cores.clamp(2, 4));
}

/// Has freed memory kept for the next use, up to what was in use at most. For short runs, before there is a second thread.
pub(super) fn keep() {
    set::keep();
}

#[cfg(target_env = "gnu")]
mod set {
    /// The most that glibc takes: a block up to this size comes from a heap, and is not mapped afresh each time.
    const MAPPED_ABOVE: i32 = 32 << 20;

    pub(super) fn heaps(heaps: usize) {
        option(libc::M_ARENA_MAX, i32::try_from(heaps).unwrap_or(2));
    }

    pub(super) fn keep() {
        option(libc::M_MMAP_THRESHOLD, MAPPED_ABOVE);
        option(libc::M_TRIM_THRESHOLD, i32::MAX);
    }

    fn option(option: i32, value: i32) {
        #[expect(unsafe_code, reason = "a call of the C library that Rust has no other way to make")]
        // SAFETY: mallopt takes two numbers by value, and no other thread runs yet.
        let taken = unsafe { libc::mallopt(option, value) };
        debug_assert_eq!(taken, 1, "glibc knows the option {option}");
    }
}

/// Other C libraries have one heap, and their own mind.
#[cfg(not(target_env = "gnu"))]
mod set {
    pub(super) fn heaps(_heaps: usize) {}
    pub(super) fn keep() {}
}
