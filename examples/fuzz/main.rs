//! Fuzzes without cargo-fuzz, on stable Rust: mutates a corpus of real inputs and runs the targets of `fuzz/` on them.
//!
//! `fuzz [--seconds N] [--seed N] CORPUS [TARGET...]`: N seconds for each target (5), all of them by default, `CORPUS/TARGET/*` as a start.
//! `scripts/fuzz` makes the corpus. An input that panics, or takes longer than a second, is written to `CORPUS/found/TARGET-N`; exit code 1 then.
//! It knows nothing of what an input reaches, unlike libFuzzer, but starts from a record of every operation and is fast.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

mod mutate;
#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "the library of another crate")]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use mutate::Dice;
use targets::{TARGETS, Target};

/// Longer than this for one input is as bad as a panic.
const SLOW: Duration = Duration::from_secs(1);
/// Inputs that are written down, at most, of one target.
const MOST: usize = 20;

struct Arguments {
    seconds: u64,
    seed: u64,
    corpus: PathBuf,
    targets: Vec<Target>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = arguments()?;
    std::panic::set_hook(Box::new(|info| println!("    {info}")));
    let mut found = 0;
    for &target in &arguments.targets {
        found += fuzz(target, &arguments)?;
    }
    println!("{}", if found == 0 { "no input was too much".to_owned() } else { format!("{found} inputs were too much") });
    Ok(if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn arguments() -> anyhow::Result<Arguments> {
    let mut words = std::env::args().skip(1).peekable();
    let (mut seconds, mut seed) = (5, 1);
    while let Some(option) = words.next_if(|word| word.starts_with("--")) {
        let value = words.next().and_then(|n| n.parse().ok()).with_context(|| format!("{option} wants a number"))?;
        match option.as_str() {
            "--seconds" => seconds = value,
            "--seed" => seed = value,
            _ => anyhow::bail!("what is {option}? (fuzz [--seconds N] [--seed N] CORPUS [TARGET...])"),
        }
    }
    let corpus = words.next().context("which corpus?")?.into();
    let names: Vec<String> = words.collect();
    let known = |name: &String| TARGETS.iter().any(|(target, _)| target == name);
    ensure!(names.iter().all(known), "targets are {}", TARGETS.map(|(name, _)| name).join(", "));
    let targets = TARGETS.into_iter().filter(|(name, _)| names.is_empty() || names.iter().any(|n| n == name)).collect();
    Ok(Arguments { seconds, seed, corpus, targets })
}

/// Runs one target; returns how many inputs were too much for it.
fn fuzz((name, run): Target, arguments: &Arguments) -> anyhow::Result<usize> {
    let seeds = read_all(&arguments.corpus.join(name)).with_context(|| format!("read the corpus of {name}"))?;
    ensure!(!seeds.is_empty(), "the corpus of {name} is empty");
    let mut dice = Dice::new(arguments.seed);
    let (since, limit) = (Instant::now(), Duration::from_secs(arguments.seconds));
    let (mut inputs, mut found) = (0_u64, 0);
    for seed in &seeds {
        found += usize::from(too_much(run, seed, name, found, &arguments.corpus)?);
        inputs += 1;
    }
    while since.elapsed() < limit && found < MOST {
        let input = mutate::mutated(&mut dice, &seeds);
        found += usize::from(too_much(run, &input, name, found, &arguments.corpus)?);
        inputs += 1;
    }
    println!("{name}: {inputs} inputs from {} seeds in {:.0?}, {found} too much", seeds.len(), since.elapsed());
    Ok(found)
}

/// Runs one input; writes it down if it was too much.
fn too_much(run: fn(&[u8]), input: &[u8], name: &str, number: usize, corpus: &Path) -> anyhow::Result<bool> {
    let since = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| run(input)));
    let taken = since.elapsed();
    if outcome.is_ok() && taken < SLOW {
        return Ok(false);
    }
    let place = corpus.join("found");
    fs_err::create_dir_all(&place)?;
    let path = place.join(format!("{name}-{number}"));
    fs_err::write(&path, input)?;
    println!("  {name}: {} after {taken:.1?}: {}", if outcome.is_ok() { "slow" } else { "panic" }, path.display());
    Ok(true)
}

fn read_all(dir: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut paths = fs_err::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    paths.sort();
    paths.into_iter().map(|path| Ok(fs_err::read(path)?)).collect()
}
