//! The table: on the terminal, in docs/redo-coverage.md, and the verdict.
#![expect(clippy::print_stdout, reason = "a tool's output")]

use std::fmt::Write as _;

use bygone::pg::Major;

use crate::operations::{OPERATIONS, Operation, Way, find};
use crate::oracle::{Count, Key, Reference, Tally};

/// One line for the terminal: what was read and how fast.
pub(crate) fn print(major: Major, tally: &Tally) {
    let equal: u64 = tally.counts.values().map(|count| count.equal).sum();
    let different: u64 = tally.counts.values().map(|count| count.different).sum();
    let refused: u64 = tally.counts.values().map(|count| count.refused).sum();
    let per_second = f64::from(u32::try_from(tally.redone).unwrap_or(u32::MAX)) / tally.redo_time.as_secs_f64().max(1e-9);
    println!(
        "Postgres {major}: {} records, {equal} pages equal, {different} different, {refused} refused; {per_second:.0} redone per second ({})",
        tally.records, tally.end
    );
    for complaint in &tally.complaints {
        println!("  {complaint}");
    }
}

fn count(tally: &Tally, row: &Operation, id: u8) -> Count {
    let key = Key { rmgr: row.rmgr, op: row.op, block: Reference::Id(id) };
    tally.counts.get(&key).copied().unwrap_or_default()
}

/// What keeps the check from passing, in words.
pub(crate) fn complaints(tallies: &[(Major, Tally)]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (major, tally) in tallies {
        for (key, count) in &tally.counts {
            let row = find(key.rmgr, key.op);
            let name = row.map_or("an unknown operation", |row| row.name);
            let rmgr = key.rmgr.name().unwrap_or("?");
            if count.different + count.refused > 0 {
                let (different, refused) = (count.different, count.refused);
                complaints.push(format!("{major}: {rmgr} {name} {:?}: {different} different, {refused} refused", key.block));
            }
            if row.is_none() {
                complaints.push(format!("{major}: {rmgr} {:02X} is in the WAL but not in the table of operations", key.op));
            }
        }
        for row in OPERATIONS.iter().filter(|row| row.way == Way::Redo) {
            for id in row.blocks.iter().filter(|id| count(tally, row, **id).equal == 0) {
                complaints.push(format!("{major}: {} {} block {id} was never compared", row.rmgr.name().unwrap_or("?"), row.name));
            }
        }
    }
    complaints
}

pub(crate) fn print_verdict(tallies: &[(Major, Tally)], complaints: &[String]) {
    for complaint in complaints {
        println!("{complaint}");
    }
    let equal: u64 = tallies.iter().flat_map(|(_, tally)| tally.counts.values()).map(|count| count.equal).sum();
    let verdict = if complaints.is_empty() { "every operation compared, no difference" } else { "NOT PROVEN" };
    println!("redo-check: {equal} pages compared, {} complaints: {verdict}", complaints.len());
}

/// The text of docs/redo-coverage.md.
pub(crate) fn markdown(tallies: &[(Major, Tally)]) -> String {
    let mut text = String::from(INTRODUCTION);
    let mut line = |cells: &str| {
        let _infallible = writeln!(text, "{cells}");
    };
    let majors: String = tallies.iter().map(|(major, _)| format!(" {major} |")).collect();
    line(&format!("| resource manager | operation | block |{majors}"));
    line(&format!("|---|---|---|{}", "---:|".repeat(tallies.len())));
    for row in OPERATIONS {
        for id in row.blocks {
            let cells: String = tallies.iter().map(|(_, tally)| format!(" {} |", cell(row.way, count(tally, row, *id)))).collect();
            line(&format!("| {} | {} | {id} |{cells}", row.rmgr.name().unwrap_or("?"), row.name));
        }
        for block in [Reference::Map(1), Reference::Map(2), Reference::Map(3), Reference::UnregisteredMap] {
            map_line(row, block, tallies, &mut line);
        }
    }
    let total = |pick: fn(&Count) -> u64| -> String {
        tallies.iter().map(|(_, tally)| format!(" {} |", tally.counts.values().map(pick).sum::<u64>())).collect()
    };
    line(&format!("| **all** | pages compared | |{}", total(|count| count.equal + count.different)));
    line(&format!("| **all** | differences | |{}", total(|count| count.different)));
    text
}

fn map_line(row: &Operation, block: Reference, tallies: &[(Major, Tally)], line: &mut impl FnMut(&str)) {
    let key = Key { rmgr: row.rmgr, op: row.op, block };
    let counts: Vec<Count> = tallies.iter().map(|(_, tally)| tally.counts.get(&key).copied().unwrap_or_default()).collect();
    if counts.iter().all(|count| count.equal + count.different == 0) {
        return;
    }
    let cells: String = counts.iter().map(|count| format!(" {} |", cell(Way::Redo, *count))).collect();
    let name = match block {
        Reference::Map(id) => format!("{id} (map)"),
        _ => "map, no reference".to_owned(),
    };
    line(&format!("| {} | {} | {name} |{cells}", row.rmgr.name().unwrap_or("?"), row.name));
}

fn cell(way: Way, count: Count) -> String {
    match (way, count) {
        (_, Count { different, refused, .. }) if different + refused > 0 => format!("**{different} differ, {refused} refused**"),
        (Way::Image, Count { images: 0, .. }) => "-".to_owned(),
        (Way::Image, Count { images, .. }) => format!("{images} images"),
        (Way::Redo, Count { equal: 0, .. }) => "-".to_owned(),
        (Way::Redo, Count { equal, .. }) => equal.to_string(),
    }
}

const INTRODUCTION: &str = "# What of redo is proven, and how often

Written by `scripts/redo-check`; do not edit.

A server of each major version ran with `wal_consistency_checking = all`, so that every record carried the page as it was after the change.
Each record was applied by `redo::apply` to the page as the WAL had last shown it, and the result compared with that after-image, both with
the server's hints and the page's hole blanked (`redo::mask`). The figures are comparisons that came out equal; a difference would be printed in bold.
*images*: the server always writes the whole page, nothing is computed. *map*: the visibility map, which releases before July 2026 change
without a block reference; such a change counts when a later record shows the map's page as we had it.

";
