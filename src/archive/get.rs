//! Fetches a WAL file from the archive: what `restore_command` runs.
//!
//! From: `cli::archive_get`.  In: [`Request`], the name that Postgres asks for, where it wants the file.
//! Out: `true`, and the file is there, whole and checked; or `false`, only if every repository has said that it has no such file.
//! Anything else (a store that does not answer, a wrong key, a damaged object) is an error: Postgres must not take it for the end of the archive.
//! Repositories are asked in order; where one cannot give all of the file, the next one that has it does.

mod ahead;
mod error;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use ahead::Ahead;
pub use error::GetError;

use crate::archive::incarnation::{self, Identity, IncarnationError};
use crate::archive::wal_file::WalFile;
use crate::pg::SegmentSize;
use crate::pg::control::ControlFile;
use crate::repo::layout::ClusterFolder;
use crate::repo::{Object, Repository};

/// Bytes read at once: a large segment is never held whole.
const PIECE_BYTES: u64 = 8 << 20;

/// Segments that are larger are not fetched ahead.
const AHEAD_BYTES: u64 = 64 << 20;

/// Where to look.
#[derive(Debug)]
pub struct Request {
    /// The cluster's configured name.
    pub cluster: String,
    /// The data directory that is being recovered; its `pg_control` says which incarnation is meant.
    pub data_directory: PathBuf,
    /// In the order in which they are asked.
    pub repositories: Vec<Arc<Repository>>,
    /// Fetching ahead, where it pays.
    pub ahead: Option<Ahead>,
}

/// Fetches `name` into `dest`. `false` if no repository has it.
///
/// # Errors
/// [`GetError`]: whether the archive has it is not known, or it cannot be had.
pub fn get(request: &Request, name: &str, dest: &Path) -> Result<bool, GetError> {
    let control = incarnation::read_control(&request.data_directory)?;
    let size = control.wal_segment_size;
    let file = WalFile::parse(name, size)?;
    let places = places(request, &control)?;
    // Memory: a segment at a time for each thread, and none ahead if that is much.
    let ahead = request.ahead.as_ref().filter(|_| size.bytes() <= AHEAD_BYTES);
    if let (Some(ahead), WalFile::Segment(segment)) = (ahead, &file) {
        ahead.fetch(&places, *segment, size);
    }
    let found = find(request, &places, &file, size)?;
    if found.is_empty() {
        return Ok(false);
    }
    let written = write(&found, dest);
    if let (Some(ahead), WalFile::Segment(segment)) = (&request.ahead, &file) {
        ahead.tidy(*segment, size);
    }
    written.map(|()| true)
}

/// The cluster's folder in every repository.
fn places(request: &Request, control: &ControlFile) -> Result<Vec<(Arc<Repository>, ClusterFolder)>, GetError> {
    let identity = Identity { major: control.major, system_id: control.system_id };
    let mut places = Vec::new();
    let mut failed: Option<IncarnationError> = None;
    for repository in &request.repositories {
        match incarnation::find(repository, &request.cluster, identity) {
            Ok(folder) => places.push((repository.clone(), folder)),
            Err(error) => {
                tracing::warn!(%error, "repository left out");
                failed.get_or_insert(error);
            }
        }
    }
    match failed {
        Some(error) if places.is_empty() => Err(error.into()),
        // Another repository may have the file; that it has not would prove nothing.
        Some(_) | None => Ok(places),
    }
}

/// The file in every place that has it. Empty only if all have said that they do not.
fn find(
    request: &Request,
    places: &[(Arc<Repository>, ClusterFolder)],
    file: &WalFile,
    size: SegmentSize,
) -> Result<Vec<Object>, GetError> {
    let spool = request.ahead.as_ref().and_then(|ahead| ahead.object(places, file, size));
    let mut found: Vec<Object> = spool.into_iter().collect();
    let mut first_error: Option<GetError> = None;
    for (repository, folder) in places {
        match repository.open_object(&file.key(folder, size), file.kind()) {
            Ok(object) => found.push(object),
            Err(e) if e.is_not_found() => {}
            Err(error) => {
                tracing::warn!(%error, "a repository cannot say whether it has the file");
                first_error.get_or_insert(error.into());
            }
        }
    }
    let unheard = places.len() < request.repositories.len();
    match first_error {
        Some(error) if found.is_empty() => Err(error),
        None if found.is_empty() && unheard => Err(GetError::RepositoryLeftOut),
        _ => Ok(found),
    }
}

/// Writes the file beside `dest` and renames it there: all of it from the first place that can give all. Not piece by piece from several, for nothing
/// shows that those hold the same file.
fn write(found: &[Object], dest: &Path) -> Result<(), GetError> {
    let mut temporary = dest.as_os_str().to_owned();
    temporary.push(".bygone-tmp");
    let temporary = PathBuf::from(temporary);
    let mut first_error = None;
    for object in found {
        match copy(object, &temporary, dest) {
            Ok(()) => return Ok(()),
            Err(error @ GetError::Repo(_)) => {
                tracing::warn!(%error, "trying the next repository");
                first_error.get_or_insert(error);
            }
            Err(error) => {
                first_error.get_or_insert(error);
                break;
            }
        }
    }
    drop(fs_err::remove_file(&temporary));
    Err(first_error.unwrap_or(GetError::RepositoryLeftOut))
}

fn copy(object: &Object, temporary: &Path, dest: &Path) -> Result<(), GetError> {
    let failed = |source| GetError::Write { path: dest.display().to_string(), source };
    let mut out = fs_err::File::create(temporary).map_err(failed)?;
    let mut at = 0;
    while at < object.main_len() {
        let end = object.main_len().min(at + PIECE_BYTES);
        out.write_all(&object.read_main(at..end).map_err(GetError::Repo)?).map_err(failed)?;
        at = end;
    }
    fs_err::rename(temporary, dest).map_err(failed)
}

#[cfg(test)]
mod tests;
