//! Does the same to many things, several at a time: for work that waits, or that all cores can share.
//!
//! From: whoever reads many objects, or decodes many chunks.  To: threads of its own, which end before it returns.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many requests to a store at a time.
pub const MAX_REQUESTS: usize = 16;

/// Does `work` on every item, on so many threads, of which the caller's is one. In no order.
pub fn for_each<I: Sync>(threads: usize, items: &[I], work: impl Fn(&I) + Sync) {
    let next = AtomicUsize::new(0);
    let until_done = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item);
        }
    };
    std::thread::scope(|scope| {
        (1..threads.min(items.len())).for_each(|_| drop(scope.spawn(until_done)));
        until_done();
    });
}

/// The same; gives what `work` gave, in the order of the items.
///
/// # Panics
/// If `work` does.
pub fn map<I: Sync, R: Send + Sync>(threads: usize, items: &[I], work: impl Fn(&I) -> R + Sync) -> Vec<R> {
    let places: Vec<(&I, OnceLock<R>)> = items.iter().map(|item| (item, OnceLock::new())).collect();
    for_each(threads, &places, |(item, place)| drop(place.set(work(item))));
    places.into_iter().map(|(_, place)| place.into_inner().expect("each item was worked on")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_done_once_and_given_in_order_whatever_the_threads() {
        let items: Vec<usize> = (0..100).collect();
        for threads in [0, 1, 3, 200] {
            let calls = AtomicUsize::new(0);
            let doubled = map(threads, &items, |item| {
                calls.fetch_add(1, Ordering::Relaxed);
                item * 2
            });
            assert!(doubled.iter().enumerate().all(|(i, n)| *n == i * 2) && doubled.len() == 100);
            assert_eq!(calls.into_inner(), 100);
        }
        assert!(map(4, &[], |n: &u8| *n).is_empty());
    }

    #[test]
    fn items_wait_at_the_same_time() {
        let barrier = std::sync::Barrier::new(8);
        assert_eq!(map(8, &[(); 8], |()| barrier.wait().is_leader()).iter().filter(|leads| **leads).count(), 1);
    }
}
