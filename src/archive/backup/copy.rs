//! Copies files into objects, in every repository from one reading.
//!
//! From: `plan`, whose jobs the threads take one after another.  To: `data/<n>` of the backup, in each [`Target`].
//! Out: an [`Entry`] for every file that was still there, and the pages to be judged once the backup's end is known.
//! A repository that fails is given up and the others go on; when none is left, so does the copy. Memory: one read buffer and one writer per
//! repository for each thread, whatever the size of the files.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use super::BackupError;
use super::plan::Job;
use super::read::{BUFFER_BYTES, Contents, Suspect, read_file};
use super::scan::FoundFile;
use super::target::{Sinks, Target};
use crate::archive::watch::Watch;
use crate::pg::relation::BLCKSZ;
use crate::repo::manifest::{Entry, EntryKind, FileData, Place};

/// What all threads share.
pub(super) struct Copier<'a> {
    pub(super) data_directory: &'a std::path::Path,
    /// The cluster has page checksums.
    pub(super) check_pages: bool,
    pub(super) targets: &'a [Target<'a>],
    pub(super) stop: &'a AtomicBool,
    pub(super) watch: &'a dyn Watch,
    objects: AtomicU32,
}

/// A file that was copied.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) entry: Entry,
    /// Empty, but for torn and damaged pages.
    pub(super) suspects: Vec<Suspect>,
}

impl<'a> Copier<'a> {
    pub(super) fn new(
        data_directory: &'a std::path::Path,
        check_pages: bool,
        targets: &'a [Target<'a>],
        stop: &'a AtomicBool,
        watch: &'a dyn Watch,
    ) -> Copier<'a> {
        Copier { data_directory, check_pages, targets, stop, watch, objects: AtomicU32::new(0) }
    }

    /// How many objects were begun so far.
    pub(super) fn objects(&self) -> u32 {
        self.objects.load(Ordering::Relaxed)
    }

    /// The counter that hands out object numbers.
    pub(super) fn numbers(&self) -> &AtomicU32 {
        &self.objects
    }

    /// Copies all jobs on `threads` threads; `between` runs on the calling thread, about once a second.
    ///
    /// # Errors
    /// The first that ends it all: a file that cannot be read, no repository left, [`BackupError::Interrupted`], or what `between` returns.
    pub(super) fn run(
        &self,
        jobs: &[Job],
        threads: usize,
        between: &mut dyn FnMut() -> Result<(), BackupError>,
    ) -> Result<Vec<Copied>, BackupError> {
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let work = || {
                let mut done = Vec::new();
                let mut buffer = vec![0; BUFFER_BYTES];
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let halted = || self.stop.load(Ordering::Relaxed) || failed.load(Ordering::Relaxed);
                    if let Err(e) = self.job(job, &mut buffer, &halted, &mut done) {
                        failed.store(true, Ordering::Relaxed);
                        return Err(e);
                    }
                }
                Ok(done)
            };
            let threads: Vec<_> = (0..threads.clamp(1, jobs.len().max(1))).map(|_| scope.spawn(work)).collect();
            let lost = wait(&threads, between).inspect_err(|_| failed.store(true, Ordering::Relaxed));
            let results = threads.into_iter().map(|t| t.join().expect("a copying thread does not panic"));
            gather(results.collect(), lost)
        })
    }

    fn job(&self, job: &Job, buffer: &mut [u8], halted: &dyn Fn() -> bool, done: &mut Vec<Copied>) -> Result<(), BackupError> {
        let mut sinks = Sinks::new(self.targets, &self.objects);
        for file in &job.files {
            done.extend(self.file(file, &mut sinks, buffer, halted)?);
        }
        sinks.finish()
    }

    /// Copies one file to the end of the object. `None` if it has vanished.
    fn file(
        &self,
        file: &FoundFile,
        sinks: &mut Sinks<'_>,
        buffer: &mut [u8],
        halted: &dyn Fn() -> bool,
    ) -> Result<Option<Copied>, BackupError> {
        // Pages never straddle two chunks, so that reading one is reading one chunk.
        let align = if file.relation.is_some() { BLCKSZ as u64 } else { 1 };
        let mut place = None;
        let contents = read_file(self.data_directory, file, self.check_pages, buffer, |piece| {
            if halted() {
                return Err(BackupError::Interrupted);
            }
            if place.is_none() && !piece.is_empty() {
                place = Some(sinks.begin_file(align)?);
            }
            self.watch.copied(piece.len() as u64);
            sinks.write(piece)
        })?;
        Ok(contents.map(|contents| copied(file, contents, place)))
    }
}

/// The manifest's entry of a file with these contents.
pub(super) fn copied(file: &FoundFile, contents: Contents, place: Option<Place>) -> Copied {
    let data = FileData { size: contents.size, crc32c: contents.crc32c, place, bad_pages: Vec::new() };
    let entry = Entry {
        path: file.path.clone(),
        mode: file.mode,
        owner: Some(file.owner.clone()),
        mtime: file.mtime,
        kind: EntryKind::File(data),
        link: file.link.clone(),
    };
    Copied { entry, suspects: contents.suspects }
}

/// Waits for the threads, calling `between` about once a second.
fn wait<T>(
    threads: &[std::thread::ScopedJoinHandle<'_, T>],
    between: &mut dyn FnMut() -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let tick = std::time::Duration::from_millis(20);
    let mut ticks = 0u32;
    while threads.iter().any(|t| !t.is_finished()) {
        std::thread::sleep(tick);
        ticks = ticks.wrapping_add(1);
        if ticks.is_multiple_of(50) {
            between()?;
        }
    }
    Ok(())
}

/// All that was copied, or the error that explains best why not: threads halted because of another's error say only that.
fn gather(results: Vec<Result<Vec<Copied>, BackupError>>, lost: Result<(), BackupError>) -> Result<Vec<Copied>, BackupError> {
    let mut all = Vec::new();
    let mut first: Option<BackupError> = lost.err();
    for result in results {
        match result {
            Ok(done) => all.extend(done),
            Err(e) => match &first {
                None | Some(BackupError::Interrupted) => first = Some(e),
                Some(_) => {}
            },
        }
    }
    first.map_or(Ok(all), Err)
}
