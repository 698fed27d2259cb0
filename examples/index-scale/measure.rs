//! Opens the newest moment and looks blocks up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bygone::pg::BlockTag;
use bygone::repo::Repository;
use bygone::repo::layout::ClusterFolder;
use bygone::repo::moment::{Moment as Asked, TimelineChoice, Wanted};
use bygone::view::moment::Moment;
use bygone::view::open::{Archive, Replay, ViewOptions};
use bygone::view::stored::{CHUNK_MEMORY_BYTES, StoredObjects};

use super::database::{Dice, entries, random_block};
use super::fill::print;

const LOOKUPS: u64 = 2000;
const WARM_ROUNDS: u32 = 20;

pub(crate) fn measure(repository: Arc<Repository>, folder: ClusterFolder) -> anyhow::Result<()> {
    let archive = Archive::new(StoredObjects::new(repository.clone(), CHUNK_MEMORY_BYTES), folder);
    let wanted = Wanted { moment: Asked::Latest, exclusive: false, timeline: TimelineChoice::Current };
    let options = ViewOptions { replay: Replay::Bygone, owner: (0, 0), mountpoint: None, own_settings: Vec::new() };
    let begun = Instant::now();
    let opened = archive.open(&wanted, &options)?;
    let read = repository.read();
    print(&format!(
        "opened in {:.2} s: {} requests, {} KiB read, memory {} MB at most",
        begun.elapsed().as_secs_f64(),
        read.reads(),
        read.bytes() >> 10,
        peak_memory_mb()?
    ));
    let moment = opened.view.moment.as_ref().context("a moment that Bygone rebuilds")?;
    let size = moment.wal().layout.segment_size;
    let first = size.segment_no(moment.redo_start());
    let mut dice = Dice::new(7);
    let touched: Vec<BlockTag> = (0..LOOKUPS)
        .map(|_| {
            // A block that some segment speaks of.
            let all = entries(first + 10 + dice.roll(9000), 0..128);
            all[usize::try_from(dice.roll(all.len() as u64)).unwrap_or(0)].tag
        })
        .collect();
    let untouched: Vec<BlockTag> = (0..LOOKUPS).map(|_| random_block(&mut dice)).collect();
    look_up("blocks that WAL speaks of", moment, &repository, &touched)?;
    look_up("any blocks", moment, &repository, &untouched)?;
    print(&format!("memory {} MB at most", peak_memory_mb()?));
    Ok(())
}

fn look_up(what: &str, moment: &Moment, repository: &Repository, tags: &[BlockTag]) -> anyhow::Result<()> {
    let (mut reads, mut cold, mut warm, mut chunks) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for tag in tags {
        let before = repository.read().reads();
        let begun = Instant::now();
        chunks += moment.record_chunks(*tag)?.len();
        cold.push(begun.elapsed());
        reads.push(repository.read().reads() - before);
        let begun = Instant::now();
        for _ in 0..WARM_ROUNDS {
            moment.record_chunks(*tag)?;
        }
        warm.push(begun.elapsed() / WARM_ROUNDS);
    }
    reads.sort_unstable();
    let above = reads.iter().filter(|reads| **reads > 4).count();
    let mean = reads.iter().sum::<u64>() as f64 / reads.len() as f64;
    print(&format!(
        "{what}: {} lookups, {:.1} chunks each; cold {mean:.1} reads on average, {} at the 99th percentile, {} at most, {above} above 4, {} us; \
         warm {} us, {} us at the 99th percentile",
        tags.len(),
        chunks as f64 / tags.len() as f64,
        percentile(&reads, 99).unwrap_or(0),
        percentile(&reads, 100).unwrap_or(0),
        middle(&mut cold),
        middle(&mut warm),
        percentile(&warm, 99).unwrap_or_default().as_micros()
    ));
    Ok(())
}

/// The median in microseconds; sorts.
fn middle(times: &mut [Duration]) -> u128 {
    times.sort_unstable();
    percentile(times, 50).unwrap_or_default().as_micros()
}

fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied()
}

fn peak_memory_mb() -> anyhow::Result<u64> {
    let status = fs_err::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}
