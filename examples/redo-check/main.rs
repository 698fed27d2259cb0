//! Proves redo against Postgres's own pages: the after-images that a server writes with `wal_consistency_checking = all`.
//!
//! `redo-check [--report FILE] [--mutations N] [--corpus DIRECTORY] MAJOR=DIRECTORY...` reads the WAL in each directory (a `pg_wal`), applies every record to the page as the
//! WAL last showed it, and compares the result with the image that the record carries. `scripts/redo-check` makes such WAL. With `--mutations`
//! each change is also tried N times with record or page damaged, which must not panic. `--corpus` also writes inputs for fuzzing (`examples/fuzz`).
//! Exit code 1 if a page differs, a record cannot be applied, or an operation that redo claims was never compared.

mod corpus;
mod mutate;
mod operations;
mod oracle;
mod report;
mod segments;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bygone::pg::Major;

use corpus::Corpus;
use oracle::Tally;

/// What the command line says.
#[derive(Default)]
struct Arguments {
    report: Option<PathBuf>,
    mutations: usize,
    corpus: Option<PathBuf>,
    clusters: Vec<(Major, PathBuf)>,
}

fn main() -> anyhow::Result<ExitCode> {
    let Arguments { report, mutations, corpus, clusters } = arguments()?;
    let mut corpus = corpus.map(|dir| Corpus::new(&dir)).transpose().context("make the corpus")?;
    let mut tallies: Vec<(Major, Tally)> = Vec::new();
    for (major, dir) in clusters {
        let tally = oracle::run(major, &dir, mutations, corpus.as_mut()).with_context(|| format!("check {}", dir.display()))?;
        report::print(major, &tally);
        tallies.push((major, tally));
    }
    let complaints = report::complaints(&tallies);
    if let Some(path) = report {
        fs_err::write(&path, report::markdown(&tallies)).context("write the report")?;
    }
    report::print_verdict(&tallies, &complaints);
    Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn arguments() -> anyhow::Result<Arguments> {
    let mut arguments = Arguments::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--report" {
            arguments.report = Some(words.next().context("--report wants a file")?.into());
        } else if word == "--mutations" {
            arguments.mutations = words.next().and_then(|n| n.parse().ok()).context("--mutations wants a number")?;
        } else if word == "--corpus" {
            arguments.corpus = Some(words.next().context("--corpus wants a directory")?.into());
        } else if let Some((major, dir)) = word.split_once('=') {
            let major = major.parse().ok().and_then(Major::from_number).with_context(|| format!("no major version {major}"))?;
            arguments.clusters.push((major, dir.into()));
        } else {
            bail!("what is {word:?}? (redo-check [--report FILE] [--mutations N] [--corpus DIRECTORY] MAJOR=DIRECTORY...)");
        }
    }
    Ok(arguments)
}
