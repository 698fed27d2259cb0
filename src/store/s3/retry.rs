//! Repeats a request until it succeeds, cannot succeed, or our patience ends.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::error::Failure;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// An endpoint that nobody has ever heard from is more likely wrong than busy: so many tries (about 3 s) are enough.
const TRIES_IN_THE_DARK: u32 = 6;

/// Decides whether and when to repeat.
#[derive(Debug)]
pub(super) struct Retry {
    /// One request with all its repetitions.
    patience: Duration,
    /// Requests under way at one time.
    slots: Semaphore,
    /// Has anything ever answered?
    answered: AtomicBool,
}

impl Retry {
    pub(super) fn new(patience: Duration, parallel: usize) -> Self {
        Retry { patience, slots: Semaphore::new(parallel.max(1)), answered: AtomicBool::new(false) }
    }

    /// Runs `request` until it gives something else than [`Failure::Transient`]. The last failure comes back when patience ends.
    pub(super) async fn run<T, F>(&self, mut request: impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let start = Instant::now();
        let mut last = None;
        let mut pause = FIRST_PAUSE;
        for tries in 1.. {
            let left = self.patience.saturating_sub(start.elapsed());
            let Ok(outcome) = tokio::time::timeout(left, self.once(&mut request)).await else {
                last = Some(last.map_or_else(|| "no answer".to_owned(), |before| format!("no answer any more; before that, {before}")));
                break;
            };
            let Err(Failure::Transient { what, reached }) = outcome else {
                self.answered.store(true, Ordering::Relaxed);
                return outcome;
            };
            tracing::debug!(tries, what, "a request to the object store failed");
            let answered = self.answered.fetch_or(reached, Ordering::Relaxed) || reached;
            if !answered && tries >= TRIES_IN_THE_DARK {
                return Err(Failure::Transient { what, reached });
            }
            last = Some(what);
            let pause_now = pause.mul_f64(0.5 + jitter());
            if start.elapsed() + pause_now >= self.patience {
                break;
            }
            tokio::time::sleep(pause_now).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let why = last.unwrap_or_default();
        Err(Failure::Transient { what: format!("{why} (tried for {} s)", self.patience.as_secs()), reached: false })
    }

    async fn once<T, F>(&self, request: &mut impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let _slot = self.slots.acquire().await.map_err(|_closed| Failure::transient("shutting down"))?;
        request().await
    }
}

/// In `[0, 1)`: many hosts that were turned away together should not come back together.
fn jitter() -> f64 {
    f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX)
}
