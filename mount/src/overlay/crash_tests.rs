//! Crashes at every point of random histories: what was synced is there, and every other byte is one that was written or one that was there before.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::model_tests::{Model, Op, Place, World, base, op};
use super::sim::Image;

/// The model after one operation, and how many events of the disk had happened by then.
struct Step {
    model: Model,
    events: usize,
    synced: Option<usize>,
    names_synced: bool,
}

/// What may be found after a crash: the state after the last sync, or any later one up to the operation that was under way.
fn possible(steps: &[Step], events: usize, baseline: impl Fn(&Step) -> bool) -> &[Step] {
    let done = steps.iter().take_while(|step| step.events <= events).count();
    let first = steps[..done].iter().rposition(baseline).unwrap_or(0);
    &steps[first..(done + 1).min(steps.len())]
}

/// Why the recovered world cannot be explained, if it cannot.
fn unexplained(world: &World, steps: &[Step], events: usize) -> Option<String> {
    let places = world.places();
    let names = possible(steps, events, |step| step.names_synced);
    let candidates = names.iter().filter(|step| step.model.names.keys().copied().eq(places.iter().copied()));
    let mut reasons = BTreeSet::new();
    for names in candidates {
        let wrong = names.model.names.iter().find_map(|(place, file)| wrong_bytes(world, steps, events, *place, *file));
        match wrong {
            None => return None,
            Some(reason) => drop(reasons.insert(reason)),
        }
    }
    Some(format!("names {places:?}: {reasons:?}"))
}

fn wrong_bytes(world: &World, steps: &[Step], events: usize, place: Place, file: usize) -> Option<String> {
    let content = match world.content(place) {
        Ok(content) => content,
        Err(error) => return Some(format!("{place:?}: {error}")),
    };
    let born = |step: &&Step| step.model.files.len() > file;
    let versions: Vec<&[u8]> = possible(steps, events, |step| step.synced == Some(file))
        .iter()
        .filter(born)
        .map(|step| step.model.files[file].as_slice())
        .collect();
    let shortest = versions.iter().map(|version| version.len()).min().unwrap_or(0);
    let longest = versions.iter().map(|version| version.len()).max().unwrap_or(0);
    if content.len() < shortest || content.len() > longest {
        return Some(format!("{place:?}: length {} is none of {shortest}..={longest}", content.len()));
    }
    let wrong = (0..content.len()).find(|at| {
        let byte = content[*at];
        let explained = versions.iter().any(|version| version.get(*at) == Some(&byte));
        // Where a version had no byte yet, a hole may show: as zero, never as what the source has there.
        !(explained || *at >= shortest && byte == 0)
    });
    wrong.map(|at| format!("{place:?}: byte {at} is {}", content[at]))
}

fn run(ops: &[Op]) -> (World, Vec<Step>) {
    let (source, mut model) = base();
    let mut world = World::new(source);
    let mut steps = vec![Step { model: model.clone(), events: 0, synced: None, names_synced: true }];
    for op in ops {
        let expected = model.apply(op);
        let done = world.apply(op);
        assert_eq!(expected.is_ok(), done.is_ok(), "{op:?}: model {expected:?}, overlay {done:?}");
        let synced = match op {
            Op::Sync(place) => model.names.get(place).copied(),
            _ => None,
        };
        let names_synced = done.is_ok() && matches!(op, Op::Sync(_) | Op::SyncNames | Op::Tick | Op::Compact);
        steps.push(Step { model: model.clone(), events: world.disk.events(), synced, names_synced });
    }
    (world, steps)
}

fn check_crashes(ops: &[Op], seed: u64) -> Result<(), TestCaseError> {
    let (world, steps) = run(ops);
    let (start, events) = world.disk.history();
    for prefix in 0..=events.len() {
        for round in 0..4u64 {
            let survives = |index: usize| match round {
                0 => false,
                1 => true,
                _ => ((index as u64 + 1) * (seed | 1) * (round * 2 + 1)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63 == 1,
            };
            let image = Image::after_crash(&start, &events[..prefix], survives);
            let recovered =
                world.recovered(image).map_err(|error| TestCaseError::fail(format!("after {prefix} events, round {round}: {error}")))?;
            if let Some(reason) = unexplained(&recovered, &steps, prefix) {
                return Err(TestCaseError::fail(format!("after {prefix} of {} events, round {round}: {reason}", events.len())));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_crash_at_any_point_keeps_what_was_synced_and_invents_nothing(ops in prop::collection::vec(op(false), 1..16), seed in 0u64..1_000_000) {
        check_crashes(&ops, seed)?;
    }
}

#[test]
fn a_map_bit_never_reaches_the_disk_before_its_bytes() {
    let b = (0, 1);
    check_crashes(&[Op::Write(b, 4096, 4096, 9), Op::Sync(b), Op::Write(b, 20_000, 8192, 11), Op::Sync(b), Op::Write(b, 4096, 100, 13)], 7)
        .unwrap();
}

#[test]
fn cut_bytes_come_back_whole_or_not_at_all() {
    let b = (0, 1);
    let ops = [
        Op::Write(b, 0, 20_000, 9),
        Op::Sync(b),
        Op::Truncate(b, 5_000),
        Op::Write(b, 12_288, 4096, 3),
        Op::Sync(b),
        Op::Truncate(b, 30_000),
    ];
    check_crashes(&ops, 3).unwrap();
}

#[test]
fn a_file_renamed_over_another_is_one_of_the_two() {
    let (a, b, new) = ((0, 0), (0, 1), (0, 2));
    let ops = [
        Op::Create(new),
        Op::Write(new, 0, 500, 1),
        Op::Sync(new),
        Op::Rename(new, a),
        Op::SyncNames,
        Op::Rename(b, new),
        Op::Write(new, 0, 10, 1),
        Op::Sync(new),
    ];
    check_crashes(&ops, 5).unwrap();
}

#[test]
fn a_rewritten_journal_forgets_nothing() {
    let b = (0, 1);
    let ops = [
        Op::Write(b, 8192, 8192, 2),
        Op::Sync(b),
        Op::Rename(b, (1, 0)),
        Op::Compact,
        Op::Write((1, 0), 40_000, 999, 4),
        Op::Compact,
        Op::Sync((1, 0)),
    ];
    check_crashes(&ops, 11).unwrap();
}
