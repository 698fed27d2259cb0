//! Stores one file in every repository, or finds it there.
//!
//! From: `push`.  To: `repo::Repository`. Durable everywhere it must be, or an error.
//! A file of ordinary size is read once and stored in one conditional put; a WAL segment above [`WHOLE_BYTES`] is streamed, so that memory stays bounded.

use std::io::Read;
use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;

use super::{PushError, Session, check, left};
use crate::archive::block_index::{self, AtHand};
use crate::archive::wal_file::WalFile;
use crate::format::index::{InMemory, Subject};
use crate::pg::WalSegment;
use crate::pg::control::ControlFile;
use crate::pg::wal::Layout;
use crate::repo::{Object, RepoError, Repository, is_taken};

/// Files up to this size are held in memory.
const WHOLE_BYTES: u64 = 64 << 20;
/// One of those above this size goes to one repository after another: for each, what is stored of it is held twice for a moment.
const SIDE_BY_SIDE_BYTES: u64 = 16 << 20;
/// A larger one is read in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

/// What came of storing a file.
#[derive(Debug)]
pub(super) struct Stored {
    /// Every repository had it already.
    pub(super) was_there: bool,
    /// The repositories that do not have it, by their place in the session.
    pub(super) failed: Vec<(usize, PushError)>,
}

impl Stored {
    /// It is durable in the optional repositories too.
    pub(super) fn everywhere(&self) -> bool {
        self.failed.is_empty()
    }

    /// Is it durable wherever it must be?
    ///
    /// # Errors
    /// That of the first required repository which does not have it.
    pub(super) fn where_required(self, session: &Session) -> Result<bool, PushError> {
        let is_required = |place: usize| session.destinations.get(place).is_some_and(|(destination, _)| destination.required);
        match self.failed.into_iter().find(|(place, _)| is_required(*place)) {
            Some((_, error)) => Err(error),
            None => Ok(self.was_there),
        }
    }
}

/// Stores the file at `path` wherever that can be done.
///
/// # Errors
/// [`PushError`] of the file, or, if no repository has it afterwards, of the first one.
pub(super) fn put_everywhere(session: &Session, file: &WalFile, path: &Path) -> Result<Stored, PushError> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let content = Content::read(path)?;
    if let WalFile::Segment(segment) = *file
        && check::looks_unwritten(segment, content.first(), &session.control)
        && !holds_wal(segment, &content, &session.control)?
    {
        left::may_be_unwritten(session, segment, path)?;
        tracing::warn!(name, "not archived: set aside for a timeline that was left, and never written to");
        return Ok(Stored { was_there: false, failed: Vec::new() });
    }
    check::check(file, name, content.first(), content.len(), &session.control)?;
    let size = session.control.wal_segment_size;
    let index = OnceLock::new();
    let aux = || index.get_or_init(|| index_of(session, file, path, &content)).as_deref();
    let store = |at: &(super::Destination, crate::repo::layout::ClusterFolder)| {
        put(&at.0.repository, &file.key(&at.1, size), file, name, &content, &aux)
    };
    let results: Vec<Result<bool, PushError>> = match session.destinations.as_slice() {
        [only] => vec![store(only)],
        several if matches!(content, Content::Whole(_)) && content.len() > SIDE_BY_SIDE_BYTES => several.iter().map(store).collect(),
        several => std::thread::scope(|scope| {
            let threads: Vec<_> = several.iter().map(|at| scope.spawn(|| store(at))).collect();
            threads.into_iter().map(|t| t.join().expect("storing does not panic")).collect()
        }),
    };
    judge(session, results)
}

/// Has any page of a segment been written to?
fn holds_wal(segment: WalSegment, content: &Content<'_>, control: &ControlFile) -> Result<bool, PushError> {
    let (mut at, mut found) = (segment.start(control.wal_segment_size), false);
    content.pieces(&mut |piece| {
        found |= check::holds_wal(piece, at, control);
        at.0 += piece.len() as u64;
        Ok(())
    })?;
    Ok(found)
}

/// The block index of a segment, stored in its object. A segment without one is as durable as any: nothing here is an error.
fn index_of(session: &Session, file: &WalFile, path: &Path, content: &Content<'_>) -> Option<Vec<u8>> {
    let WalFile::Segment(segment) = *file else { return None };
    let control = &session.control;
    let layout = Layout { major: control.major, segment_size: control.wal_segment_size, system_id: Some(control.system_id) };
    let mut at_hand = AtHand {
        directory: path.parent(),
        repositories: session.destinations.iter().map(|(destination, folder)| (destination.repository.as_ref(), folder)).collect(),
        size: control.wal_segment_size,
    };
    let subject = Subject { layout, segment, commit_times: control.settings.track_commit_timestamp };
    let built = match content {
        Content::Whole(bytes) => block_index::build(subject, &mut InMemory { segment, file: bytes.clone(), previous: &mut at_hand }),
        Content::Large { .. } => block_index::build(subject, &mut at_hand),
    };
    let Ok(built) = built;
    built
        .inspect_err(
            |error| tracing::warn!(path = %path.display(), error = error as &dyn std::error::Error, "archived without a block index"),
        )
        .ok()
}

/// What the repositories' answers come to.
fn judge(session: &Session, results: Vec<Result<bool, PushError>>) -> Result<Stored, PushError> {
    let (mut was_there, mut failed) = (true, Vec::new());
    let several = results.len();
    for (place, ((destination, _), result)) in session.destinations.iter().zip(results).enumerate() {
        match result {
            Ok(there) => was_there &= there,
            Err(error) => {
                if !destination.required {
                    tracing::warn!(%error, repository = %destination.repository.store().describe(), "not archived there");
                }
                failed.push((place, error));
            }
        }
    }
    if failed.len() < several {
        return Ok(Stored { was_there, failed });
    }
    Err(failed.into_iter().next().map_or(PushError::NoRepository, |(_, error)| error))
}

/// Stores it in one repository, with what `aux` makes. `true` if it was there, with the same content.
fn put<'i>(
    repository: &Repository,
    key: &str,
    file: &WalFile,
    name: &str,
    content: &Content<'_>,
    aux: &dyn Fn() -> Option<&'i [u8]>,
) -> Result<bool, PushError> {
    match repository.open_object(key, file.kind()) {
        Ok(object) => {
            same(&object, repository, name, content)?;
            repository.store().settle(key).map_err(RepoError::from)?;
            return Ok(true);
        }
        Err(e) if e.is_not_found() => {}
        Err(e) => return Err(e.into()),
    }
    let stored = match content {
        Content::Whole(bytes) => repository.put_object(key, file.kind(), bytes, aux()).map(drop),
        Content::Large { .. } => {
            let mut writer = repository.writer(key, file.kind())?;
            content.pieces(&mut |piece| Ok(writer.write(piece)?))?;
            writer.finish_with(aux().unwrap_or_default()).map(drop)
        }
    };
    match stored {
        // Somebody else was faster: another call of ours, or a standby that archives too.
        Err(e) if is_taken(&e) => same(&repository.open_object(key, file.kind())?, repository, name, content).map(|()| true),
        Err(e) => Err(e.into()),
        Ok(()) => Ok(false),
    }
}

/// Does the stored object hold this very content?
fn same(object: &Object, repository: &Repository, name: &str, content: &Content<'_>) -> Result<(), PushError> {
    let equal = match content {
        Content::Whole(bytes) => object.main_equals(bytes)?,
        Content::Large { len, .. } => *len == object.main_len() && equal_pieces(object, content)?,
    };
    let different = || PushError::Different { name: name.to_owned(), repository: repository.store().describe() };
    if equal { Ok(()) } else { Err(different()) }
}

fn equal_pieces(object: &Object, content: &Content<'_>) -> Result<bool, PushError> {
    let (mut at, mut equal) = (0, true);
    content.pieces(&mut |piece| {
        let end = at + piece.len() as u64;
        equal = equal && object.read_main(at..end)? == piece;
        at = end;
        Ok(())
    })?;
    Ok(equal)
}

/// A file's bytes.
enum Content<'a> {
    Whole(Bytes),
    Large { path: &'a Path, len: u64, first: Vec<u8> },
}

impl<'a> Content<'a> {
    fn read(path: &'a Path) -> Result<Content<'a>, PushError> {
        let failed = |source| PushError::Read { path: path.display().to_string(), source };
        let mut file = fs_err::File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        if len <= WHOLE_BYTES {
            let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or_default().saturating_add(1));
            file.read_to_end(&mut bytes).map_err(failed)?;
            return Ok(Content::Whole(bytes.into()));
        }
        let mut first = vec![0; 8192];
        file.read_exact(&mut first).map_err(failed)?;
        Ok(Content::Large { path, len, first })
    }

    fn first(&self) -> &[u8] {
        match self {
            Content::Whole(bytes) => bytes,
            Content::Large { first, .. } => first,
        }
    }

    fn len(&self) -> u64 {
        match self {
            Content::Whole(bytes) => bytes.len() as u64,
            Content::Large { len, .. } => *len,
        }
    }

    /// Hands all bytes on, piece by piece.
    fn pieces(&self, each: &mut dyn FnMut(&[u8]) -> Result<(), PushError>) -> Result<(), PushError> {
        let (path, len) = match self {
            Content::Whole(bytes) => return each(bytes),
            Content::Large { path, len, .. } => (path, *len),
        };
        let failed = |source| PushError::Read { path: path.display().to_string(), source };
        let mut file = fs_err::File::open(path).map_err(failed)?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut left = len;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            file.read_exact(&mut piece[..now]).map_err(failed)?;
            each(&piece[..now])?;
            left -= now as u64;
        }
        Ok(())
    }
}
