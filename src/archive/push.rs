//! Archives a WAL file: what `archive_command` runs.
//!
//! From: `cli::archive_push`.  To: `wal/`, `history/`, `backup-history/` of every configured repository.
//! In: [`Request`] and the path that Postgres gives.  Out: [`Pushed`], only once the file is durable in every required repository.
//! Takes other files along that Postgres has marked ready, so that a backlog drains faster than Postgres calls: for each of them Postgres will still
//! call, find it there (`known` keeps that cheap), and only then mark it done. Nothing is written in the data directory: which files are done is Postgres's business alone.

mod check;
mod error;
mod known;
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

/// Memory for the segments that are on their way, about.
const MEMORY_BYTES: u64 = 128 << 20;

/// What to do with any file.
#[derive(Debug)]
pub struct Request {
    /// The cluster's configured name.
    pub cluster: String,
    pub data_directory: PathBuf,
    pub repositories: Vec<Destination>,
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
    if marker::is_clone(&request.data_directory) {
        return Err(PushError::IsClone { data_directory: request.data_directory.clone(), name });
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
            Ok(session) => work(&Arc::new(session), &file, &path, plan, &answers),
        }
    });
    listen(&heard, deadline, request.timeout, &name)
}

/// A sentence from the threads.
#[derive(Debug)]
enum Answer {
    /// The file that was asked for; `true` if it was there before.
    First(Result<bool, PushError>),
    /// One that was taken along is durable.
    Other,
}

/// The listener may have given up: then nobody is left who wants to know.
fn tell(answers: &Sender<Answer>, answer: Answer) {
    drop(answers.send(answer));
}

/// Collects answers until all threads are through, or time is up. What counts is the file that was asked for.
fn listen(heard: &Receiver<Answer>, deadline: Instant, limit: Duration, name: &str) -> Result<Pushed, PushError> {
    let (mut first, mut others) = (None, 0);
    loop {
        match heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Answer::First(Err(e))) => return Err(e),
            Ok(Answer::First(Ok(was_there))) => first = Some(was_there),
            Ok(Answer::Other) => others += 1,
            Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => break,
        }
    }
    let timed_out = || PushError::TimedOut { name: name.to_owned(), limit };
    first.map(|was_there| Pushed { was_there, others }).ok_or_else(timed_out)
}

impl Session {
    /// Finds the cluster's folder in every repository. An optional repository that fails here is left out.
    fn open(cluster: &str, control: ControlFile, repositories: &[Destination], known: Known) -> Result<Session, PushError> {
        let identity = Identity { major: control.major, system_id: control.system_id };
        let mut destinations = Vec::new();
        for destination in repositories {
            match incarnation::find(&destination.repository, cluster, identity) {
                Ok(folder) => destinations.push((destination.clone(), folder)),
                Err(error) if !destination.required => {
                    tracing::warn!(%error, repository = %destination.repository.store().describe(), "not archived there");
                }
                Err(e) => return Err(e.into()),
            }
        }
        if destinations.is_empty() {
            return Err(PushError::NoRepository);
        }
        Ok(Session { control, destinations, known })
    }

    /// Is there a note that the file is durable, and is it still in every repository?
    fn knows(&self, file: &WalFile, path: &Path) -> bool {
        let size = self.control.wal_segment_size;
        let is_there = |at: &(Destination, ClusterFolder)| at.0.repository.has_object(&file.key(&at.1, size)).unwrap_or(false);
        Note::of(self, file, path).is_some_and(|note| self.known.says(path, &note)) && self.destinations.iter().all(is_there)
    }
}

/// Pushes the file that was asked for, on this thread, and others beside it.
fn work(session: &Arc<Session>, file: &WalFile, path: &Path, plan: Plan, answers: &Sender<Answer>) {
    let queue = Arc::new(Queue::new(session, path, plan));
    let threads = threads(plan.parallel, session.control.wal_segment_size.bytes(), session.destinations.len());
    for _ in 1..threads.min(queue.len() + 1) {
        let (session, queue, answers) = (session.clone(), queue.clone(), answers.clone());
        std::thread::spawn(move || drain(&session, &queue, &answers));
    }
    let first = if session.knows(file, path) { Ok(true) } else { put::put_everywhere(session, file, path).map(|stored| stored.was_there) };
    session.known.forget(path);
    let failed = first.is_err();
    tell(answers, Answer::First(first));
    if failed {
        return;
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
}

impl Plan {
    fn of(request: &Request) -> Plan {
        // Leaves the larger part of the time to what was begun last.
        let until = Instant::now() + request.timeout / 3;
        Plan { parallel: request.parallel.max(1), batch: request.batch, until }
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
    fn new(session: &Session, path: &Path, plan: Plan) -> Queue {
        let size = session.control.wal_segment_size;
        let ready = if plan.batch == 0 { Vec::new() } else { ready::others(path, plan.batch, size) };
        // Most calls in a backlog end here: names are looked at first, what the notes say only if something is to be done.
        if session.known.count(&ready) * 2 > ready.len() {
            return Queue { files: Mutex::default(), until: plan.until };
        }
        let is_noted = |path: &PathBuf| {
            let file = path.file_name().and_then(|n| n.to_str()).and_then(|name| WalFile::parse(name, size).ok());
            let note = file.and_then(|file| Note::of(session, &file, path));
            note.is_some_and(|note| session.known.says(path, &note))
        };
        let wanted: Vec<PathBuf> = ready.iter().filter(|path| !is_noted(path)).cloned().collect();
        if plan.batch > 0 {
            session.known.keep_only(&ready);
        }
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
        match put::put_everywhere(session, &file, &path) {
            Ok(stored) => {
                // Only if it did not change while it was read.
                if let Some(note) = note.filter(|note| stored.everywhere && Note::of(session, &file, &path).as_ref() == Some(note)) {
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
