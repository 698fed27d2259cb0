//! Keeps a virtual machine's processors awake while requests come one after another.
//!
//! In: each request.  To: the kernel's PM QoS (`/dev/cpu_dma_latency`), on a thread of its own.
//! Who reads or writes page by page waits for each answer. His processor sleeps meanwhile and ours in between, and a virtual machine takes tens of
//! microseconds to wake one, longer than a page's write takes: half the time of many writes in a row was that. The kernel is asked to look for work
//! instead, as long as requests come that fast. It forgets the wish when we end, however we do. Real processors sleep lightly between requests by
//! themselves; they, and users who may not ask, are left as they are.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

const WISHES: &str = "/dev/cpu_dma_latency";
const IDLE_DRIVER: &str = "/sys/devices/system/cpu/cpuidle/current_driver";
/// What the kernel calls the way in which a virtual machine's processors sleep.
const OF_A_GUEST: &str = "haltpoll";
/// So many requests in such a time are a rush.
const RUSH: u64 = 64;
const RUSH_TIME: Duration = Duration::from_millis(12);
/// How often it is looked whether the rush goes on, at half of its rate at least.
const LOOK: Duration = Duration::from_millis(6);
const GOING_ON: u64 = RUSH / 4;

/// Counts requests and keeps the processors awake in a rush of them.
pub(super) struct Awake {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    requests: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// When as many requests as a rush has had come.
    counted: Instant,
    rush: bool,
    ended: bool,
}

impl Awake {
    /// Does nothing where sleep is no matter or nothing can be done about it.
    pub(super) fn new() -> Self {
        let shared = Arc::new(Shared::new());
        let thread = is_guest().then(|| stay_awake().and_then(|_wish| spawn(Arc::clone(&shared), stay_awake))).transpose();
        let thread = thread.unwrap_or_else(|error| {
            tracing::debug!(%error, "processors sleep between requests");
            None
        });
        Self { shared, thread }
    }

    /// Notes a request.
    pub(super) fn note(&self) {
        if self.thread.is_some() {
            self.shared.note();
        }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that keeps processors awake panicked");
        }
    }
}

fn spawn<W>(shared: Arc<Shared>, wish: impl Fn() -> io::Result<W> + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("mount-awake".to_owned()).spawn(move || shared.keep_awake(wish))
}

impl Shared {
    fn new() -> Self {
        let state = State { counted: Instant::now(), rush: false, ended: false };
        Self { requests: AtomicU64::new(0), state: Mutex::new(state), changed: Condvar::new() }
    }

    fn note(&self) {
        if self.requests.fetch_add(1, Ordering::Relaxed) % RUSH == RUSH - 1 {
            self.counted();
        }
    }

    /// As many requests as a rush has were counted since the last time.
    fn counted(&self) {
        let mut state = self.state.lock();
        let now = Instant::now();
        if now.duration_since(state.counted) <= RUSH_TIME && !state.rush {
            state.rush = true;
            self.changed.notify_all();
        }
        state.counted = now;
    }

    fn keep_awake<W>(&self, wish: impl Fn() -> io::Result<W>) {
        let mut state = self.state.lock();
        while !state.ended {
            if !state.rush {
                self.changed.wait(&mut state);
                continue;
            }
            let wished = wish();
            while state.rush && !state.ended {
                let before = self.requests.load(Ordering::Relaxed);
                self.changed.wait_for(&mut state, LOOK);
                state.rush = self.requests.load(Ordering::Relaxed) - before >= GOING_ON;
            }
            drop(wished);
        }
    }
}

fn is_guest() -> bool {
    fs_err::read_to_string(IDLE_DRIVER).is_ok_and(|driver| driver.trim() == OF_A_GUEST)
}

/// No sleep that it takes time to wake from, for all processors, until what is returned is dropped.
fn stay_awake() -> io::Result<fs_err::File> {
    let mut wish = fs_err::OpenOptions::new().write(true).open(WISHES)?;
    // Microseconds, in the machine's own order of bytes.
    wish.write_all(&0_i32.to_ne_bytes())?;
    Ok(wish)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wish that can be counted.
    struct Wish(Arc<AtomicU64>);

    impl Drop for Wish {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn until(what: impl Fn() -> bool) {
        let begun = Instant::now();
        while !what() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not come to it");
            thread::sleep(Duration::from_micros(100));
        }
    }

    #[test]
    fn a_rush_has_the_processors_kept_awake_until_it_ends() {
        let (shared, wishes) = (Arc::new(Shared::new()), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&wishes);
        let wish = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(Wish(Arc::clone(&counted)))
        };
        let awake = Awake { thread: Some(spawn(Arc::clone(&shared), wish).unwrap()), shared };
        for _ in 0..2 {
            until(|| {
                (0..RUSH).for_each(|_| awake.note());
                wishes.load(Ordering::SeqCst) == 1
            });
            until(|| wishes.load(Ordering::SeqCst) == 0);
        }
        // And it ends in the midst of one.
        until(|| {
            (0..RUSH).for_each(|_| awake.note());
            wishes.load(Ordering::SeqCst) == 1
        });
        drop(awake);
        assert_eq!(wishes.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn requests_now_and_then_are_no_rush() {
        let shared = Shared::new();
        for _ in 0..3 {
            (1..RUSH).for_each(|_| shared.note());
            thread::sleep(RUSH_TIME + Duration::from_millis(1));
            shared.note();
            assert!(!shared.state.lock().rush);
        }
    }
}
