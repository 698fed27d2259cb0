//! Does WAL arrive? Forces a segment through `archive_command` and reads it back from every repository.
//!
//! From: `cli::check`.  To: the server (one session), `repo`.
//! In: a [`Request`].  Out: a [`Report`] of what was done and compared, with what is wrong of single repositories, or the first thing that is wrong.
//! Says nothing of what it did not do: what was compared with what stands in the report.

mod missing;

use std::path::Path;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::backup::session::{Session, SessionError};
use super::incarnation::{self, Identity, IncarnationError};
use crate::advice::Advice;
use crate::pg::WalSegment;
use crate::pg::lsn::NotParsed;
use crate::repo::layout::ClusterFolder;
use crate::repo::{ObjectKind, RepoError, Repository};
use crate::store::StoreError;

/// Between two looks for the segment.
const PAUSE: Duration = Duration::from_millis(50);

/// What to check.
pub struct Request<'r> {
    pub cluster: &'r str,
    pub connection: &'r str,
    pub data_directory: &'r Path,
    pub repositories: &'r [&'r Repository],
    /// How long the segment may take to arrive everywhere.
    pub timeout: Duration,
}

/// What was found: all of it well but for `failed`.
#[derive(Debug)]
pub struct Report {
    /// `server_version_num`
    pub server_version_num: u32,
    pub system_id: u64,
    pub archive_command: String,
    /// The segment that was forced.
    pub segment: String,
    /// From its end until it was in every repository.
    pub waited: Duration,
    /// One for each repository that has it, in the order of the request.
    pub read_back: Vec<ReadBack>,
    /// What is wrong with single repositories; none of them is above unless it lacks other WAL.
    pub failed: Vec<CheckError>,
}

/// What was read back from one repository.
#[derive(Debug)]
pub struct ReadBack {
    pub repository: String,
    /// Plain bytes of the segment.
    pub bytes: u64,
    /// What they take in the store.
    pub stored_bytes: u64,
    /// Was it the same as the file in `pg_wal`? If not, that file was already gone, and the object's own checksums were verified.
    pub compared: bool,
}

/// What is wrong.
#[derive(Debug, Error)]
pub enum CheckError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Incarnation(#[from] IncarnationError),
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Name(#[from] NotParsed),
    #[error("the connection leads to another cluster than the data directory")]
    OtherServer { served: u64, on_disk: u64 },
    #[error("archive_mode is off")]
    ArchivingOff,
    #[error("no archive_command is set")]
    NoCommand,
    #[error("WAL is archived by something else: {setting} = {value:?}")]
    Foreign { setting: &'static str, value: String },
    /// `archive_command` keeps failing, or is not run.
    #[error("WAL segment {segment} was not archived within {} s, it is not in {repository}", waited.as_secs())]
    NotArchived { segment: String, repository: String, waited: Duration, last_archived: Option<String>, last_failed: Option<String> },
    /// Postgres believes that it is archived.
    #[error("Postgres has archived WAL segment {segment}, but it is not in {repository}")]
    Elsewhere { segment: String, repository: String },
    #[error("{key} in {repository} is not the segment that lies in {path}")]
    Differs { key: String, repository: String, path: String },
    /// Segments that must have been there before.
    #[error("WAL behind the newest backup is missing from {repository}: {}", segments.join(", "))]
    Missing { repository: String, segments: Vec<String> },
    #[error("{path} cannot be read")]
    Unreadable {
        path: String,
        #[source]
        source: std::io::Error,
    },
}

impl Advice for CheckError {
    fn detail(&self) -> Option<String> {
        match self {
            CheckError::Session(error) => error.detail(),
            CheckError::Incarnation(error) => error.detail(),
            CheckError::Repo(error) => error.detail(),
            CheckError::OtherServer { served, on_disk } => {
                Some(format!("the server has system identifier {served}, pg_control of the data directory {on_disk}"))
            }
            CheckError::NotArchived { last_archived, last_failed, .. } => {
                let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "none".to_owned());
                Some(format!("pg_stat_archiver: last archived {}, last failed {}", name(last_archived), name(last_failed)))
            }
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            CheckError::Session(error) => return error.hint(),
            CheckError::Incarnation(error) => return error.hint(),
            CheckError::Repo(error) => return error.hint(),
            CheckError::Store(error) => return error.hint(),
            CheckError::Name(_) => return None,
            CheckError::OtherServer { .. } => "Look at `connection` and `data-directory` of the cluster in the configuration.",
            CheckError::ArchivingOff => "Set archive_mode = on in postgresql.conf and restart the server.",
            CheckError::NoCommand => "Set archive_command = 'bygone archive-push %p' in postgresql.conf and reload.",
            CheckError::Foreign { .. } => "Set archive_command = 'bygone archive-push %p' and leave archive_library empty.",
            CheckError::NotArchived { last_failed: Some(_), .. } => {
                "The server's log has what archive_command said. Does the user that runs Postgres have the same configuration and key, and may it write to the repository?"
            }
            CheckError::NotArchived { .. } => "Is the archiver running, and is it busy with a backlog? --timeout gives it more time.",
            CheckError::Elsewhere { .. } => {
                "Does archive_command use another configuration, cluster name or repository? One that is not `required` may also have failed: the server's log tells."
            }
            CheckError::Missing { .. } => {
                "Moments behind the missing WAL cannot be reached: take a backup now. What pg_wal or another repository still has of it may be archived again."
            }
            CheckError::Differs { .. } => "Two servers may be archiving under the same name.",
            CheckError::Unreadable { .. } => "Run it as the user that runs Postgres.",
        };
        Some(hint.to_owned())
    }
}

/// Checks the whole way of a WAL segment, in every repository that can be had.
///
/// # Errors
/// [`CheckError`]: the first thing that is wrong with the server, or, where no repository is left, with the first one.
pub fn check(request: &Request<'_>) -> Result<Report, CheckError> {
    let control = incarnation::read_control(request.data_directory)?;
    let identity = Identity { major: control.major, system_id: control.system_id };
    let mut failed = Vec::new();
    let find = |repository: &Repository| -> Result<ClusterFolder, CheckError> {
        let folder = incarnation::find(repository, request.cluster, identity)?;
        crate::store::probe(repository.store().as_ref())?;
        Ok(folder)
    };
    let found = request.repositories.iter().map(|repository| (*repository, find(repository)));
    let targets = keep(found, &mut failed);
    some_left(&targets, &mut failed)?;
    let mut session = Session::connect(request.connection)?;
    if session.facts.system_id != control.system_id {
        return Err(CheckError::OtherServer { served: session.facts.system_id, on_disk: control.system_id });
    }
    check_settings(&mut session)?;
    let name = session.force_segment("bygone check")?;
    let segment = WalSegment::parse(&name, session.facts.segment_size)?;
    let begun = Instant::now();
    let arrived = wait(&mut session, targets, segment, request.timeout, &mut failed)?;
    some_left(&arrived, &mut failed)?;
    let waited = begun.elapsed();
    let path = request.data_directory.join("pg_wal").join(&name);
    let size = session.facts.segment_size;
    let read = arrived.into_iter().map(|(repository, folder)| {
        let read = read_back(repository, &folder.segment(segment, size), &path);
        (repository, read.map(|read| (folder, read)))
    });
    let read = keep(read, &mut failed);
    some_left(&read, &mut failed)?;
    for (repository, (folder, _)) in &read {
        let deadline = begun + request.timeout;
        match missing::behind_the_newest_backup(repository, folder, segment, request.data_directory, deadline) {
            Ok(segments) if segments.is_empty() => {}
            Ok(segments) => failed.push(CheckError::Missing { repository: repository.store().describe(), segments }),
            Err(error) => failed.push(error.into()),
        }
    }
    Ok(Report {
        server_version_num: session.facts.server_version_num,
        system_id: session.facts.system_id,
        archive_command: session.facts.archive_command.clone(),
        segment: name,
        waited,
        read_back: read.into_iter().map(|(_, (_, read))| read).collect(),
        failed,
    })
}

/// Each repository with what goes well there.
type Targets<'r, T> = Vec<(&'r Repository, T)>;

/// Sorts what goes wrong out.
fn keep<'r, T>(results: impl Iterator<Item = (&'r Repository, Result<T, CheckError>)>, failed: &mut Vec<CheckError>) -> Targets<'r, T> {
    let kept = |(repository, result): (&'r Repository, Result<T, CheckError>)| {
        result.map_err(|error| failed.push(error)).ok().map(|good| (repository, good))
    };
    results.filter_map(kept).collect()
}

fn some_left<T>(targets: &Targets<'_, T>, failed: &mut Vec<CheckError>) -> Result<(), CheckError> {
    if targets.is_empty() && !failed.is_empty() { Err(failed.remove(0)) } else { Ok(()) }
}

fn check_settings(session: &mut Session) -> Result<(), CheckError> {
    let command = session.facts.archive_command.clone();
    if session.facts.archive_mode == "off" {
        return Err(CheckError::ArchivingOff);
    }
    if let Some(value) = session.archive_library()? {
        return Err(CheckError::Foreign { setting: "archive_library", value });
    }
    // Postgres shows an empty command as `(disabled)` while archive_mode is off only.
    match command.trim() {
        "" | "(disabled)" => Err(CheckError::NoCommand),
        other if !other.contains("archive-push") => Err(CheckError::Foreign { setting: "archive_command", value: command }),
        _ => Ok(()),
    }
}

/// Waits until the segment is in every repository; gives those that it got to.
fn wait<'r>(
    session: &mut Session,
    targets: Targets<'r, ClusterFolder>,
    segment: WalSegment,
    timeout: Duration,
    failed: &mut Vec<CheckError>,
) -> Result<Targets<'r, ClusterFolder>, CheckError> {
    let begun = Instant::now();
    let (size, mut arrived, mut missing) = (session.facts.segment_size, Vec::new(), targets);
    loop {
        let mut still = Vec::new();
        for (repository, folder) in missing {
            match repository.has_object(&folder.segment(segment, size)) {
                Ok(true) => arrived.push((repository, folder)),
                Ok(false) => still.push((repository, folder)),
                Err(error) => failed.push(error.into()),
            }
        }
        missing = still;
        if missing.is_empty() {
            return Ok(arrived);
        }
        let waited = begun.elapsed();
        if waited >= timeout {
            for (repository, _) in &missing {
                failed.push(not_arrived(session, repository, &segment.name(size), waited)?);
            }
            return Ok(arrived);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Why a segment is not in a repository after so long, as far as the server knows.
fn not_arrived(session: &mut Session, repository: &Repository, segment: &str, waited: Duration) -> Result<CheckError, CheckError> {
    let state = session.archiver()?;
    // Names of one timeline sort as their segments do.
    let believed = state.last_archived.as_deref().is_some_and(|last| last.len() == segment.len() && last >= segment);
    let (segment, repository) = (segment.to_owned(), repository.store().describe());
    Ok(if believed {
        CheckError::Elsewhere { segment, repository }
    } else {
        CheckError::NotArchived { segment, repository, waited, last_archived: state.last_archived, last_failed: state.last_failed }
    })
}

/// Reads the segment back and compares it with the server's own file, if that is still there.
fn read_back(repository: &Repository, key: &str, path: &Path) -> Result<ReadBack, CheckError> {
    let object = repository.open_object(key, ObjectKind::WalSegment)?;
    let compared = match fs_err::read(path) {
        Ok(bytes) if object.main_equals(&bytes)? => true,
        Ok(_) => {
            return Err(CheckError::Differs {
                key: key.to_owned(),
                repository: repository.store().describe(),
                path: path.display().to_string(),
            });
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            object.verify(&mut |_| {})?;
            false
        }
        Err(source) => return Err(CheckError::Unreadable { path: path.display().to_string(), source }),
    };
    Ok(ReadBack { repository: repository.store().describe(), bytes: object.main_len(), stored_bytes: object.stored_len(), compared })
}
