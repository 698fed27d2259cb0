//! Shows that two repositories hold the same WAL, of which one has lost a part.
//!
//! Two servers with one history write the same bytes; two that part (a machine set back to an older state, say) write different ones from there on, and
//! never the same again: each record points to the one before it. So what was lost is the same in both if something behind it is. Looked at is the
//! rest of the segment, then the next ones. WAL that nothing follows cannot be shown to be the same, and is not taken from elsewhere.

use std::ops::Range;

use thiserror::Error;

use crate::repo::{Object, ObjectKind, RepoError, Repository};

/// Later segments that are looked at, at most.
const MAX_LATER: usize = 16;
/// Bytes compared at a time.
const STEP: u64 = 1 << 20;
/// Bytes looked at singly where a step cannot be read: what a chunk of WAL has.
const SMALL_STEP: u64 = 128 << 10;

/// Why WAL is not taken from another repository.
#[derive(Debug, Error)]
pub(super) enum Doubt {
    #[error("its WAL is another one, as {key} shows")]
    Differs { key: String },
    #[error("no later WAL that both repositories have shows that it is the same there")]
    NotShown,
    #[error(transparent)]
    Repo(#[from] RepoError),
}

/// How two segments of one name compare.
enum Verdict {
    Same,
    Differs,
    /// Nothing that can be read in both lies behind what cannot.
    Open,
}

/// The folder of the timeline that a segment's key belongs to: `…/wal/<timeline>/`.
pub(super) fn timeline_of(key: &str) -> &str {
    key.rmatch_indices('/').nth(1).and_then(|(at, _)| key.get(..=at)).unwrap_or(key)
}

/// The key of the segment up to which `there` has the same WAL as `here`, of the timeline that `key` belongs to: `key` or a later one.
///
/// # Errors
/// [`Doubt`].
pub(super) fn same_until(here: &Repository, there: &Repository, key: &str) -> Result<String, Doubt> {
    let mut candidates = vec![key.to_owned()];
    let listed = there.store().list(timeline_of(key), Some(key), &mut |meta| {
        if meta.key.rsplit('/').next().is_some_and(|name| name.len() == 24) {
            candidates.push(meta.key);
        }
        candidates.len() <= MAX_LATER
    });
    listed.map_err(RepoError::from)?;
    for candidate in candidates {
        let (Some(ours), Some(theirs)) = (open(here, &candidate)?, open(there, &candidate)?) else { continue };
        match compare(&ours, &theirs)? {
            Verdict::Same => return Ok(candidate),
            Verdict::Differs => return Err(Doubt::Differs { key: candidate }),
            Verdict::Open => {}
        }
    }
    Err(Doubt::NotShown)
}

/// `None` if it is lost. A repository that does not answer is an error, so that nobody waits for it again and again.
fn open(repository: &Repository, key: &str) -> Result<Option<Object>, RepoError> {
    readable(repository.open_object(key, ObjectKind::WalSegment))
}

fn readable<T>(result: Result<T, RepoError>) -> Result<Option<T>, RepoError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_retryable() => Err(error),
        Err(_) => Ok(None),
    }
}

fn compare(ours: &Object, theirs: &Object) -> Result<Verdict, RepoError> {
    if ours.main_len() != theirs.main_len() {
        return Ok(Verdict::Differs);
    }
    let mut verdict = Verdict::Open;
    for whole in steps(0..ours.main_len(), STEP) {
        let parts = if readable(ours.read_main(whole.clone()))?.is_some() { vec![whole] } else { steps(whole, SMALL_STEP).collect() };
        for part in parts {
            let Some(our_bytes) = readable(ours.read_main(part.clone()))? else {
                verdict = Verdict::Open;
                continue;
            };
            let Some(their_bytes) = readable(theirs.read_main(part))? else { continue };
            if our_bytes != their_bytes {
                return Ok(Verdict::Differs);
            }
            // The zeroes behind a segment's last record are the same everywhere.
            if our_bytes.iter().any(|byte| *byte != 0) {
                verdict = Verdict::Same;
            }
        }
    }
    Ok(verdict)
}

fn steps(range: Range<u64>, step: u64) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    range.step_by(usize::try_from(step).unwrap_or(usize::MAX)).map(move |from| from..end.min(from + step))
}
