//! Threads for what may wait, and the clock that answers in their place when it takes too long.
//!
//! From: `fuse`, whose session threads must never wait.  In: a reply and a job that will fill it.  Out: the job's answer or, after the
//! deadline, [`Refuse::refuse`]: whoever takes the reply out of its slot first sends it, the other's answer is dropped.
//! A thread stuck in a job past its deadline is written off and replaced, so stuck jobs cannot use up the pool.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::FsError;
use crate::stats::Counters;

/// So many threads may be written off as stuck before the pool stops replacing them.
const MAX_STUCK: usize = 1024;

/// A reply that can say no.
pub(crate) trait Refuse: Send + 'static {
    /// Tells the kernel why there is no answer. Called where `self` has not been answered.
    fn refuse(self, error: &FsError);
}

type Job = Box<dyn FnOnce() + Send>;

struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    /// Below zero for the moment in which a job comes back before the clock has written it off.
    stuck: isize,
    closing: bool,
}

impl Queue {
    fn replaced(&self) -> usize {
        usize::try_from(self.stuck).unwrap_or(0).min(MAX_STUCK)
    }
}

struct Shared {
    name: &'static str,
    target: usize,
    queue: Mutex<Queue>,
    ready: Condvar,
}

/// A fixed number of threads that take jobs in the order they came.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// Threads start as jobs come, up to `target`.
    pub(crate) fn new(name: &'static str, target: usize) -> Self {
        let queue = Queue { jobs: VecDeque::new(), threads: 0, stuck: 0, closing: false };
        Self { shared: Arc::new(Shared { name, target, queue: Mutex::new(queue), ready: Condvar::new() }) }
    }

    /// Hands a job to the next free thread.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.shared.queue.lock();
        queue.jobs.push_back(Box::new(job));
        if queue.threads < self.shared.target + queue.replaced() {
            self.spawn(&mut queue);
        }
        self.shared.ready.notify_one();
    }

    /// Lets the threads end once the jobs that came so far are done.
    pub(crate) fn close(&self) {
        self.shared.queue.lock().closing = true;
        self.shared.ready.notify_all();
    }

    fn spawn(&self, queue: &mut Queue) {
        let shared = Arc::clone(&self.shared);
        match thread::Builder::new().name(self.shared.name.to_owned()).spawn(move || work(&shared)) {
            Ok(_) => queue.threads += 1,
            Err(error) => tracing::warn!(%error, pool = self.shared.name, "no new thread"),
        }
    }

    fn write_off_one(&self) {
        let mut queue = self.shared.queue.lock();
        queue.stuck += 1;
        if !queue.jobs.is_empty() && queue.threads < self.shared.target + queue.replaced() {
            self.spawn(&mut queue);
        }
    }

    fn welcome_back_one(&self) {
        self.shared.queue.lock().stuck -= 1;
    }
}

fn work(shared: &Shared) {
    let mut queue = shared.queue.lock();
    loop {
        if queue.threads > shared.target + queue.replaced() {
            break;
        }
        if let Some(job) = queue.jobs.pop_front() {
            drop(queue);
            job();
            queue = shared.queue.lock();
        } else if queue.closing {
            break;
        } else {
            shared.ready.wait(&mut queue);
        }
    }
    queue.threads -= 1;
}

/// A number of places, each taken by one at a time.
pub(crate) struct Slots(AtomicUsize);

impl Slots {
    pub(crate) fn new(count: usize) -> Self {
        Self(AtomicUsize::new(count))
    }

    /// A place, given back on drop; `None` if all are taken.
    pub(crate) fn take(&self) -> Option<Place<'_>> {
        let taken = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1));
        taken.is_ok().then_some(Place(self))
    }
}

/// A place that somebody has taken.
pub(crate) struct Place<'a>(&'a Slots);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::AcqRel);
    }
}

trait Expire: Send + Sync {
    /// Answers in the job's place. True if the job was running, and so holds a thread.
    fn expire(&self, limit: Duration) -> bool;
}

struct Slot<R: Refuse> {
    reply: Mutex<Option<R>>,
    running: AtomicBool,
    stuck: AtomicBool,
}

impl<R: Refuse> Expire for Slot<R> {
    fn expire(&self, limit: Duration) -> bool {
        let mut slot = self.reply.lock();
        let Some(reply) = slot.take() else { return false };
        let running = self.running.load(Ordering::Acquire);
        self.stuck.store(running, Ordering::Release);
        drop(slot);
        reply.refuse(&FsError::TimedOut(limit));
        running
    }
}

struct Watched {
    until: Instant,
    slot: Arc<dyn Expire>,
}

/// A pool whose jobs have a deadline.
pub(crate) struct Deadlines {
    pool: Pool,
    limit: Duration,
    counters: Arc<Counters>,
    watched: Mutex<HashMap<u64, Watched>>,
    next: AtomicU64,
    closing: Mutex<bool>,
    closed: Condvar,
}

impl Deadlines {
    /// Starts the clock's thread; it ends with [`Deadlines::close`].
    pub(crate) fn new(threads: usize, limit: Duration, counters: Arc<Counters>) -> std::io::Result<Arc<Self>> {
        let this = Arc::new(Self {
            pool: Pool::new("mount-fetch", threads),
            limit,
            counters,
            watched: Mutex::new(HashMap::new()),
            next: AtomicU64::new(0),
            closing: Mutex::new(false),
            closed: Condvar::new(),
        });
        let clock = Arc::clone(&this);
        thread::Builder::new().name("mount-clock".to_owned()).spawn(move || clock.watch())?;
        Ok(this)
    }

    /// Runs `job` on a worker; `answer` gets what it returned, together with the reply, unless the deadline came first.
    pub(crate) fn run<R: Refuse, T>(
        self: &Arc<Self>,
        reply: R,
        job: impl FnOnce() -> Result<T, FsError> + Send + 'static,
        answer: impl FnOnce(R, T) + Send + 'static,
    ) {
        let slot = Arc::new(Slot { reply: Mutex::new(Some(reply)), running: AtomicBool::new(false), stuck: AtomicBool::new(false) });
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let expire: Arc<dyn Expire> = Arc::<Slot<R>>::clone(&slot);
        self.watched.lock().insert(ticket, Watched { until: Instant::now() + self.limit, slot: expire });
        self.counters.waiting.fetch_add(1, Ordering::Relaxed);
        let this = Arc::clone(self);
        self.pool.run(move || {
            slot.running.store(true, Ordering::Release);
            let answered_already = slot.reply.lock().is_none();
            let result = if answered_already { Err(FsError::TimedOut(this.limit)) } else { job() };
            this.watched.lock().remove(&ticket);
            this.counters.waiting.fetch_sub(1, Ordering::Relaxed);
            let reply = slot.reply.lock().take();
            match (reply, result) {
                (Some(reply), Ok(value)) => answer(reply, value),
                (Some(reply), Err(error)) => reply.refuse(&error),
                (None, _) if slot.stuck.load(Ordering::Acquire) => this.pool.welcome_back_one(),
                (None, _) => {}
            }
        });
    }

    /// Ends the clock and, after the jobs at hand, the workers.
    pub(crate) fn close(&self) {
        *self.closing.lock() = true;
        self.closed.notify_all();
        self.pool.close();
    }

    fn watch(&self) {
        let step = (self.limit / 20).clamp(Duration::from_millis(5), Duration::from_secs(1));
        let mut closing = self.closing.lock();
        while !*closing {
            self.closed.wait_for(&mut closing, step);
            let now = Instant::now();
            let late =
                self.watched.lock().extract_if(|_, watched| watched.until <= now).map(|(_, watched)| watched.slot).collect::<Vec<_>>();
            for slot in late {
                Counters::add(&self.counters.timed_out, 1);
                if slot.expire(self.limit) {
                    self.pool.write_off_one();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Told(mpsc::Sender<String>);

    impl Refuse for Told {
        fn refuse(self, error: &FsError) {
            self.0.send(error.to_string()).unwrap();
        }
    }

    fn deadlines(threads: usize, limit_ms: u64) -> Arc<Deadlines> {
        Deadlines::new(threads, Duration::from_millis(limit_ms), Arc::default()).unwrap()
    }

    fn ask(deadlines: &Arc<Deadlines>, job: impl FnOnce() -> &'static str + Send + 'static) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel();
        deadlines.run(Told(sender), move || Ok(job()), |told, value| told.0.send(value.to_owned()).unwrap());
        receiver
    }

    #[test]
    fn stuck_jobs_are_refused_and_do_not_use_up_the_pool() {
        let deadlines = deadlines(2, 100);
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let stuck: Vec<_> = (0..4)
            .map(|_| {
                let held = Arc::clone(&held);
                ask(&deadlines, move || {
                    held.lock().recv().unwrap_err();
                    "late"
                })
            })
            .collect();
        for receiver in stuck {
            assert!(receiver.recv_timeout(Duration::from_secs(10)).unwrap().starts_with("no answer within"));
        }
        assert_eq!(ask(&deadlines, || "fresh").recv_timeout(Duration::from_secs(10)).unwrap(), "fresh");
        drop(release);
        deadlines.close();
    }

    #[test]
    fn a_place_is_free_again_once_it_is_given_back() {
        let slots = Slots::new(1);
        let place = slots.take().unwrap();
        assert!(slots.take().is_none());
        drop(place);
        assert!(slots.take().is_some());
    }

    #[test]
    fn a_job_that_fails_passes_its_error_on() {
        let deadlines = deadlines(1, 10_000);
        let (sender, receiver) = mpsc::channel();
        deadlines.run(Told(sender), || Err::<(), _>(FsError::NotFound), |_, ()| ());
        assert_eq!(receiver.recv().unwrap(), "no such file or directory");
        deadlines.close();
    }
}
