//! A moment is where Postgres's own recovery stops: for every kind of target, to the byte, and one that recovery refuses is refused.
//!
//! With `BYGONE_TEST_MOMENTS` set, whatever the number, all targets are tried on all versions, else sixteen on one.

use std::time::SystemTime;

use bygone::pg::timestamp::PgTime;
use bygone::pg::wal::TimelinePath;
use bygone::pg::wal::effect::{Effect, effect};
use bygone::pg::wal::xact::Finish;
use bygone::pg::{Lsn, Major, Timeline};
use bygone::repo::moment::{Moment, TimelineChoice, Wanted};
use bygone::view::open::Archive;
use bygone::view::stored::StoredObjects;

use super::super::harness::repository::{TestRepository, folder};
use super::super::harness::{TestCluster, World, postgres_is_missing};
use super::oracle::Oracle;
use super::storm::Dice;

const AFTER: &str = include_str!("targets.sql");

/// Transactions, and positions, of the WAL since the backup.
#[derive(Default)]
struct Found {
    finished: Vec<(Finish, Lsn)>,
    starts: Vec<Lsn>,
    ends: Vec<Lsn>,
    /// Where a segment switch ends the records of a segment.
    switched: Vec<Lsn>,
    end: Lsn,
}

struct Case {
    at: String,
    exclusive: bool,
    /// What `postgresql.conf` says of it.
    native: String,
}

fn lsn_case(lsn: Lsn, exclusive: bool) -> Case {
    Case { at: format!("lsn:{lsn}"), exclusive, native: format!("recovery_target_lsn = '{lsn}'") }
}

fn time_case(time: PgTime, exclusive: bool) -> Case {
    // Abbreviations of zones, `Z` among them, are not sure to be known when the server reads its settings.
    let native = time.to_string().replace('T', " ").replace('Z', "+00");
    Case { at: time.to_string(), exclusive, native: format!("recovery_target_time = '{native}'") }
}

fn xid_case(xid: u32, exclusive: bool) -> Case {
    Case { at: format!("xid:{xid}"), exclusive, native: format!("recovery_target_xid = '{xid}'") }
}

fn name_case(name: &str) -> Case {
    Case { at: format!("name:{name}"), exclusive: false, native: format!("recovery_target_name = '{name}'") }
}

fn look(oracle: &Oracle<'_>, major: u16, from: Lsn) -> Found {
    let major = Major::from_number(major.into()).expect("known");
    let mut found = Found::default();
    found.end = oracle.records(from, TimelinePath::single(Timeline(1)), |record| {
        found.starts.push(record.lsn);
        found.ends.push(record.end);
        match effect(record, major).expect("known") {
            Some(Effect::Finish(finish)) => found.finished.push((finish, record.lsn)),
            Some(Effect::Switch) => found.switched.push(Lsn(record.lsn.0 + u64::from(record.total_len))),
            _ => {}
        }
    });
    found
}

fn times(found: &Found, stop: Lsn) -> Vec<Case> {
    let usable: Vec<PgTime> = found.finished.iter().filter(|(_, lsn)| *lsn >= stop).map(|(finish, _)| finish.time).collect();
    let (first, middle, last) = (usable[1], usable[usable.len() / 2], usable[usable.len() - 1]);
    let mut cases: Vec<Case> = [first, middle].iter().flat_map(|time| [time_case(*time, false), time_case(*time, true)]).collect();
    cases.push(time_case(PgTime(middle.0 - 1), false));
    cases.extend([time_case(last, false), time_case(last, true), time_case(PgTime(last.0 + 1_000_000), false)]);
    cases
}

fn xids(found: &Found, stop: Lsn) -> Vec<Case> {
    let usable: Vec<&Finish> = found.finished.iter().filter(|(_, lsn)| *lsn >= stop).map(|(finish, _)| finish).collect();
    let find = |what: &dyn Fn(&Finish) -> bool| usable.iter().find(|finish| what(finish)).expect("the workload has one");
    let plain = find(&|f| f.committed && !f.prepared && f.subxids.is_empty());
    let with_subxids = find(&|f| f.committed && !f.subxids.is_empty());
    let chosen = [
        plain,
        with_subxids,
        find(&|f| !f.committed && !f.prepared),
        find(&|f| f.committed && f.prepared),
        find(&|f| !f.committed && f.prepared),
    ];
    let mut cases: Vec<Case> = chosen.iter().flat_map(|f| [xid_case(f.xid, false), xid_case(f.xid, true)]).collect();
    cases.push(xid_case(with_subxids.subxids[0], false));
    cases
}

fn positions(found: &Found, oracle: &Oracle<'_>, stop: Lsn, dice: &mut Dice) -> Vec<Case> {
    let size = oracle.size();
    let segment = size.start(size.segment_no(stop) + 2);
    let switched = *found.switched.iter().find(|lsn| **lsn > stop).expect("a switch");
    let page = Lsn((segment.0 + 0x1_2345) & !8191);
    let long = found.starts.iter().zip(&found.ends).find(|(start, end)| end.0 - start.0 > 2_000_000).expect("a long record");
    let any = found.starts.iter().position(|start| *start > stop).expect("records") + dice.roll(300);
    let last = found.starts[found.starts.len() - 1];
    let chosen = [
        stop,
        Lsn(stop.0 + 1),
        segment,
        Lsn(segment.0 + 40),
        page,
        Lsn(page.0 + 24),
        switched,
        Lsn(switched.0 + 4096),
        *long.0,
        Lsn(long.0.0 + 1_500_000),
        *long.1,
        found.starts[any],
        found.ends[any],
        Lsn(found.starts[any].0 + 3),
        last,
        Lsn(last.0 + 1),
        found.end,
    ];
    chosen.into_iter().flat_map(|lsn| [lsn_case(lsn, false), lsn_case(lsn, true)]).collect()
}

/// Runs the cases and collects what differs.
fn differences(archive: &Archive, oracle: &Oracle<'_>, cases: &[Case]) -> Vec<String> {
    let now = jiff::Timestamp::try_from(SystemTime::now()).expect("a sane clock");
    let catalog = archive.catalog().expect("a catalog");
    let mut differences = Vec::new();
    for case in cases {
        let moment = Moment::parse(&case.at, now).expect("a moment");
        let wanted = Wanted { moment, exclusive: case.exclusive, timeline: TimelineChoice::Latest };
        let ours = archive.resolve(&catalog, &wanted);
        let inclusive = format!("recovery_target_inclusive = {}", if case.exclusive { "off" } else { "on" });
        let native = oracle.try_recover(&[&case.native, &inclusive]);
        let what = format!("{} exclusive {}", case.at, case.exclusive);
        match (ours, native) {
            (Ok(ours), Ok(native)) if oracle.behind_header(ours.point.lsn) == oracle.behind_header(native.stopped_at) => {}
            (Ok(ours), Ok(native)) => differences.push(format!("{what}: {} instead of {}", ours.point.lsn, native.stopped_at)),
            (Err(_), Err(_)) => {}
            (Ok(ours), Err(log)) => {
                differences.push(format!("{what}: {} instead of a server that says:\n{log}", ours.point.lsn));
            }
            (Err(ours), Ok(native)) => differences.push(format!("{what}: {ours} instead of {}", native.stopped_at)),
        }
    }
    differences
}

fn archive(repository: &TestRepository, cluster: &TestCluster) -> Archive {
    Archive::new(StoredObjects::new(repository.open().into(), 16 << 20), folder(cluster))
}

fn every_target_is_where_recovery_stops(major: u16, segment_mb: u32) {
    if postgres_is_missing(major) {
        return;
    }
    let world = World::new();
    let builder = TestCluster::builder(major).archiving(&world).wal_segment_mb(segment_mb).conf("autovacuum = off");
    let cluster = builder.conf("max_prepared_transactions = 10").conf("min_wal_size = 128MB").start(&world);
    let repository = TestRepository::init(&world, 1, &cluster);
    let report: serde_json::Value = serde_json::from_str(&world.bygone(["backup", "--json"]).ok()).expect("one JSON object");
    let label = report["label"].as_str().expect("a label").to_owned();
    cluster.psql(AFTER);
    let segment = cluster.switch_wal();
    cluster.wait_archived(&segment);
    let header = repository.manifest(&cluster, &label).header;
    let oracle = Oracle::new(&world, &cluster, &repository, &label);
    let found = look(&oracle, major, header.start_lsn);
    let mut dice = Dice(header.start_lsn.0);
    let mut cases = vec![name_case("once"), name_case("twice"), name_case("never")];
    cases.push(Case { at: format!("backup:{label}"), exclusive: false, native: "recovery_target = 'immediate'".to_owned() });
    cases.push(Case { at: "latest".to_owned(), exclusive: false, native: "recovery_target_timeline = 'latest'".to_owned() });
    cases.extend(times(&found, header.stop_lsn));
    cases.extend(xids(&found, header.stop_lsn));
    cases.extend(positions(&found, &oracle, header.stop_lsn, &mut dice));
    if std::env::var_os("BYGONE_TEST_MOMENTS").is_none() {
        let mut dice = Dice(u64::from(std::process::id()));
        while cases.len() > 16 {
            cases.swap_remove(5 + dice.roll(cases.len() - 5));
        }
    }
    let differences = differences(&archive(&repository, &cluster), &oracle, &cases);
    assert!(differences.is_empty(), "{} of {} targets differ:\n{}", differences.len(), cases.len(), differences.join("\n"));
}

#[test]
fn every_target_of_recovery_is_where_postgres_stops() {
    let rows = [(15, 1), (14, 1), (16, 16), (17, 1), (18, 16)];
    let rows = if std::env::var_os("BYGONE_TEST_MOMENTS").is_some() { &rows[..] } else { &rows[..1] };
    for &(major, segment_mb) in rows.iter().filter(|(major, segment_mb)| super::any::chosen(*major, *segment_mb)) {
        every_target_is_where_recovery_stops(major, segment_mb);
    }
}
