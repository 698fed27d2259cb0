//! Archives a WAL file: what `archive_command` runs.
//!
//! From: `cli::archive_push`.  To: `wal/`, `history/`, `backup-history/` of every configured repository.
//! In: [`Request`] and the path that Postgres gives.  Out: [`Pushed`], only once the file is durable in every required repository.
//! A repository that fails keeps nothing from the others: they get the file, and those behind it, and then the call fails.
//! Takes other files along that Postgres has marked ready, so that a backlog drains faster than Postgres calls: for each of them Postgres will still
//! call, find it there (`known` keeps that cheap), and only then mark it done. Nothing is written in the data directory: which files are done is Postgres's business alone.

mod check;
mod error;
mod known;
mod left;
mod put;
mod ready;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use error::PushError;

use crate::archive::incarnation::{self, Identity};
use crate::archive::index;
use crate::archive::wal_file::WalFile;
use crate::pg::WalSegment;
use crate::pg::control::ControlFile;
use crate::repo::layout::ClusterFolder;
use crate::repo::{Repository, marker};
use known::{Known, Note};
use put::Stored;

/// Memory for the segments that are on their way, about.
const MEMORY_BYTES: u64 = 128 << 20;

/// What to do with any file.
#[derive(Debug)]
pub struct Request {
    /// The cluster's configured name.
    pub cluster: String,
    pub data_directory: PathBuf,
    pub repositories: Vec<Destination>,
    /// A required repository is not among these, because it cannot be had. The caller fails in the end, whatever comes of the others.
    pub incomplete: bool,
    /// Files pushed at a time.
    pub parallel: usize,
    /// Most other files that one call takes along.
    pub batch: usize,
    /// After this the call fails, and Postgres tries again.
    pub timeout: Duration,
    /// A private folder for notes on what was taken along; without one each file is read again when Postgres calls for it.
    pub notes: Option<PathBuf>,
}

/// One repository.
#[derive(Debug, Clone)]
pub struct Destination {
    pub repository: Arc<Repository>,
    /// Must the file be durable here?
    pub required: bool,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// It had been archived before, with the same content.
    pub was_there: bool,
    /// Other files that are durable now too.
    pub others: usize,
}

/// Everything that is the same for all files of one call.
#[derive(Debug)]
struct Session {
    control: ControlFile,
    /// With the folder of this cluster in each.
    destinations: Vec<(Destination, ClusterFolder)>,
    known: Known,
}

/// Archives the file at `path`.
///
/// # Errors
/// [`PushError`]: it is not durable everywhere, and Postgres must keep it.
pub fn push(request: &Request, path: &Path) -> Result<Pushed, PushError> {
    let deadline = Instant::now() + request.timeout;
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
    if let Some(data_directory) = data_directories(&request.data_directory, path).into_iter().find(|folder| marker::is_clone(folder)) {
        return Err(PushError::IsClone { data_directory, name });
    }
    let control = incarnation::read_control(&request.data_directory)?;
    let file = WalFile::parse(&name, control.wal_segment_size)?;
    let (answers, heard) = channel();
    let (path, cluster) = (path.to_owned(), request.cluster.clone());
    let repositories = request.repositories.clone();
    let (plan, notes) = (Plan::of(request), Known::new(request.notes.clone()));
    // On a thread of its own, because a dead store may keep it longer than Postgres should wait.
    std::thread::spawn(move || {
        let session = Session::open(&cluster, control, &repositories, notes);
        match session {
            Err(e) => tell(&answers, Answer::First(Err(e))),
            Ok((session, lacking)) => work(&Arc::new(session), lacking, &file, &path, plan, &answers),
        }
    });
    listen(&heard, deadline, request.timeout, &name)
}

/// The one that was found for the call, and the one that the file lies in: as the path says, and behind its links.
fn data_directories(found: &Path, file: &Path) -> Vec<PathBuf> {
    let of_file = [std::path::absolute(file), file.canonicalize()];
    let above = of_file.into_iter().filter_map(|file| Some(file.ok()?.parent()?.parent()?.to_owned()));
    std::iter::once(found.to_owned()).chain(above).collect()
}

/// A sentence from the threads.
#[derive(Debug)]
enum Answer {
    /// The file that was asked for; `true` if it was there before.
    First(Result<bool, PushError>),
    /// A required repository does not have it. The others do, and go on.
    Lacking(PushError),
    /// One that was taken along is durable.
    Other,
}

/// The listener may have given up: then nobody is left who wants to know.
fn tell(answers: &Sender<Answer>, answer: Answer) {
    drop(answers.send(answer));
}

/// Collects answers until all threads are through, or time is up. What counts is the file that was asked for.
fn listen(heard: &Receiver<Answer>, deadline: Instant, limit: Duration, name: &str) -> Result<Pushed, PushError> {
    let (mut first, mut lacking, mut others) = (None, None, 0);
    loop {
        match heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Answer::First(Err(e))) => return Err(e),
            Ok(Answer::First(Ok(was_there))) => first = Some(was_there),
            Ok(Answer::Lacking(e)) => lacking = Some(e),
            Ok(Answer::Other) => others += 1,
            Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => break,
        }
    }
    match (first, lacking) {
        (_, Some(e)) => Err(e),
        (Some(was_there), None) => Ok(Pushed { was_there, others }),
        (None, None) => Err(PushError::TimedOut { name: name.to_owned(), limit }),
    }
}

impl Session {
    /// Finds the cluster's folder in every repository. One that fails here is left out; if it is required, its error comes along.
    fn open(
        cluster: &str,
        control: ControlFile,
        repositories: &[Destination],
        known: Known,
    ) -> Result<(Session, Option<PushError>), PushError> {
        let identity = Identity { major: control.major, system_id: control.system_id };
        let (mut destinations, mut lacking) = (Vec::new(), None);
        for destination in repositories {
            match incarnation::find(&destination.repository, cluster, identity) {
                Ok(folder) => destinations.push((destination.clone(), folder)),
                Err(error) if !destination.required => {
                    tracing::warn!(%error, repository = %destination.repository.store().describe(), "not archived there");
                }
                Err(error) => drop(lacking.get_or_insert(PushError::from(error))),
            }
        }
        if destinations.is_empty() {
            return Err(lacking.unwrap_or(PushError::NoRepository));
        }
        Ok((Session { control, destinations, known }, lacking))
    }

    /// The same, without the repositories at these places.
    fn without(&self, failed: &[usize]) -> Session {
        let left = self.destinations.iter().enumerate().filter(|(place, _)| !failed.contains(place));
        Session { control: self.control.clone(), destinations: left.map(|(_, at)| at.clone()).collect(), known: self.known.clone() }
    }

    /// Is there a note that the file is durable, and is it still in every repository?
    fn knows(&self, file: &WalFile, path: &Path) -> bool {
        let size = self.control.wal_segment_size;
        let is_there = |at: &(Destination, ClusterFolder)| at.0.repository.has_object(&file.key(&at.1, size)).unwrap_or(false);
        Note::of(self, file, path).is_some_and(|note| self.known.says(path, &note)) && self.destinations.iter().all(is_there)
    }
}

/// Pushes the file that was asked for, on this thread, and others beside it. `lacking`: a required repository cannot be had.
fn work(session: &Arc<Session>, lacking: Option<PushError>, file: &WalFile, path: &Path, plan: Plan, answers: &Sender<Answer>) {
    let plan = Plan { incomplete: plan.incomplete || lacking.is_some(), ..plan };
    let queue = begin(session, path, plan, answers);
    let first = if session.knows(file, path) {
        Ok(Stored { was_there: true, failed: Vec::new() })
    } else {
        put::put_everywhere(session, file, path)
    };
    session.known.forget(path);
    let stored = match first {
        Ok(stored) => stored,
        Err(e) => return tell(answers, Answer::First(Err(e))),
    };
    let failed: Vec<usize> = stored.failed.iter().map(|(place, _)| *place).collect();
    match stored.where_required(session) {
        Err(e) => {
            tell(answers, Answer::Lacking(lacking.unwrap_or(e)));
            // The queue's files would fail as this one did.
            let left = Arc::new(session.without(&failed));
            let queue = begin(&left, path, Plan { incomplete: true, ..plan }, answers);
            return drain(&left, &queue, answers);
        }
        Ok(was_there) => tell(answers, lacking.map_or(Answer::First(Ok(was_there)), Answer::Lacking)),
    }
    if let WalFile::Segment(segment) = *file {
        let (session, answers) = (session.clone(), answers.clone());
        std::thread::spawn(move || {
            roll_up(&session, segment);
            // Until here the process is not to end.
            drop(answers);
        });
    }
    drain(session, &queue, answers);
}

/// Has the files behind `path` pushed on threads of their own. One who is done with it may help.
fn begin(session: &Arc<Session>, path: &Path, plan: Plan, answers: &Sender<Answer>) -> Arc<Queue> {
    let queue = Arc::new(Queue::new(session, path, plan));
    let threads = threads(plan.parallel, session.control.wal_segment_size.bytes(), session.destinations.len());
    for _ in 1..threads.min(queue.len() + 1) {
        let (session, queue, answers) = (session.clone(), queue.clone(), answers.clone());
        std::thread::spawn(move || drain(&session, &queue, &answers));
    }
    queue
}

/// With every 64th segment, puts their indexes together, so that a moment behind much WAL is opened soon. Nothing depends on it.
fn roll_up(session: &Session, segment: WalSegment) {
    for (destination, folder) in &session.destinations {
        let repository = &destination.repository;
        if let Err(error) = index::roll_up_to(repository, folder, session.control.wal_segment_size, segment) {
            let error = &error as &dyn std::error::Error;
            tracing::info!(error, repository = %repository.store().describe(), "no roll-up of the block indexes, `bygone index` makes one");
        }
    }
}

/// How many others to take along, and for how long.
#[derive(Debug, Clone, Copy)]
struct Plan {
    parallel: usize,
    batch: usize,
    /// None is begun after this.
    until: Instant,
    /// A required repository is missing.
    incomplete: bool,
}

impl Plan {
    fn of(request: &Request) -> Plan {
        // Leaves the larger part of the time to what was begun last.
        let until = Instant::now() + request.timeout / 3;
        Plan { parallel: request.parallel.max(1), batch: request.batch, until, incomplete: request.incomplete }
    }
}

/// Twice as many as were asked for, if there is memory for that: half of them wait for a disk or an object store to say that a file is durable.
/// Each holds a segment, and what is being stored of it in each repository.
fn threads(parallel: usize, segment_bytes: u64, repositories: usize) -> usize {
    let each = segment_bytes.saturating_mul(repositories as u64 + 1);
    parallel.saturating_mul(2).min(usize::try_from(MEMORY_BYTES / each.max(1)).unwrap_or(usize::MAX)).max(1)
}

/// Other files that are ready, oldest first.
struct Queue {
    files: Mutex<std::vec::IntoIter<PathBuf>>,
    until: Instant,
}

impl Queue {
    /// Of the files that Postgres will call for next, those that are not known to be durable. None while more than half of them are: Postgres
    /// has yet to hear of so many that it is better answered at once, and more taken along at a time later.
    /// While a required repository is missing, Postgres calls for the same file again and again: then of all files that are ready.
    fn new(session: &Session, path: &Path, plan: Plan) -> Queue {
        let size = session.control.wal_segment_size;
        if plan.batch == 0 {
            return Queue { files: Mutex::default(), until: plan.until };
        }
        let is_noted = |path: &PathBuf| {
            let file = path.file_name().and_then(|n| n.to_str()).and_then(|name| WalFile::parse(name, size).ok());
            let note = file.and_then(|file| Note::of(session, &file, path));
            note.is_some_and(|note| session.known.says(path, &note))
        };
        let mut ready = ready::others(path, plan.batch, size);
        // Most calls in a backlog end here: names are looked at first, what the notes say only if something is to be done. The first one speaks for
        // all: they may have been made while a repository was missing.
        if !plan.incomplete && session.known.count(&ready) * 2 > ready.len() && ready.first().is_some_and(is_noted) {
            return Queue { files: Mutex::default(), until: plan.until };
        }
        let all = ready::others(path, usize::MAX, size);
        session.known.keep_only(&all);
        if plan.incomplete {
            ready = all;
        }
        let wanted: Vec<PathBuf> = ready.into_iter().filter(|path| !is_noted(path)).take(plan.batch).collect();
        Queue { files: Mutex::new(wanted.into_iter()), until: plan.until }
    }

    fn len(&self) -> usize {
        self.files.lock().map_or(0, |files| files.len())
    }

    fn next(&self) -> Option<PathBuf> {
        if Instant::now() >= self.until {
            return None;
        }
        self.files.lock().ok()?.next()
    }
}

/// Pushes files until none is left. One that fails ends it: Postgres will call for it, and hear why.
fn drain(session: &Session, queue: &Queue, answers: &Sender<Answer>) {
    while let Some(path) = queue.next() {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let Ok(file) = WalFile::parse(name, session.control.wal_segment_size) else { continue };
        let note = Note::of(session, &file, &path);
        let stored = put::put_everywhere(session, &file, &path);
        let everywhere = stored.as_ref().is_ok_and(Stored::everywhere);
        match stored.and_then(|stored| stored.where_required(session)) {
            Ok(_) => {
                // Only if it did not change while it was read.
                if let Some(note) = note.filter(|note| everywhere && Note::of(session, &file, &path).as_ref() == Some(note)) {
                    session.known.add(&path, &note);
                }
                tell(answers, Answer::Other);
            }
            Err(error) => {
                tracing::info!(%error, name, "not taken along");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
