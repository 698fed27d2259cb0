//! Groups files into objects: a big file has one of its own, small ones share.
//!
//! From: `scan`.  To: `copy`, whose threads take one [`Job`] after another, each writing one object.
//! Neighbours in the tree stay neighbours in an object, so that a mount which looks at one database touches few objects. The biggest jobs come
//! first: the last thread to finish then has little left to do.

use super::scan::FoundFile;

/// A file of at least this many bytes has an object of its own.
const BIG_FILE_BYTES: u64 = 16 << 20;
/// A shared object is full at this many bytes.
const BUNDLE_BYTES: u64 = 64 << 20;
/// But several threads may share a small cluster, down to bundles of this size.
const SMALLEST_BUNDLE_BYTES: u64 = 4 << 20;

/// The files of one object.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) files: Vec<FoundFile>,
    /// Sum of their sizes when listed.
    pub(super) bytes: u64,
}

/// Groups `files` for `threads` threads.
pub(super) fn plan(files: Vec<FoundFile>, threads: usize) -> Vec<Job> {
    let (mut small, big): (Vec<_>, Vec<_>) = files.into_iter().partition(|f| f.size < BIG_FILE_BYTES);
    small.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    let mut jobs: Vec<Job> = big.into_iter().map(|file| Job { bytes: file.size, files: vec![file] }).collect();
    jobs.extend(bundle(small, threads as u64));
    jobs.sort_by_key(|job| std::cmp::Reverse(job.bytes));
    jobs
}

fn bundle(files: Vec<FoundFile>, threads: u64) -> Vec<Job> {
    let total: u64 = files.iter().map(|f| f.size).sum();
    let full = (total / (threads * 4).max(1)).clamp(SMALLEST_BUNDLE_BYTES, BUNDLE_BYTES);
    let mut jobs: Vec<Job> = Vec::new();
    for file in files {
        match jobs.last_mut() {
            Some(job) if job.bytes < full => {
                job.bytes += file.size;
                job.files.push(file);
            }
            _ => jobs.push(Job { bytes: file.size, files: vec![file] }),
        }
    }
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::manifest::Owner;

    fn file(path: &str, size: u64) -> FoundFile {
        let owner = Owner { user: "postgres".into(), group: "postgres".into() };
        FoundFile { path: path.into(), size, mode: 0o600, mtime: 0, owner, link: None, relation: None }
    }

    #[test]
    fn big_files_have_objects_of_their_own_and_small_ones_share() {
        let mut files: Vec<FoundFile> = (0..10_000).map(|n| file(&format!("base/5/{n:05}"), 8192)).collect();
        files.push(file("base/5/99999", 1 << 30));
        files.push(file("base/5/99998", 20 << 20));
        let jobs = plan(files, 2);
        assert_eq!(jobs[0].bytes, 1 << 30);
        assert_eq!(jobs[0].files.len(), 1);
        assert_eq!(jobs[1].bytes, 20 << 20);
        assert!(jobs.len() < 14, "{} jobs", jobs.len());
        assert_eq!(jobs.iter().map(|j| j.files.len()).sum::<usize>(), 10_002);
    }

    #[test]
    fn empty_files_alone_make_one_job() {
        let jobs = plan((0..100).map(|n| file(&n.to_string(), 0)).collect(), 8);
        assert_eq!(jobs.len(), 1);
        assert!(plan(Vec::new(), 8).is_empty());
    }
}
