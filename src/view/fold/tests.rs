use std::convert::Infallible;

use super::*;
use crate::pg::timestamp::PgTime;
use crate::pg::{Major, RelFileLocator};

#[derive(Debug)]
struct NoPages;

impl BasePages for NoPages {
    type Error = Infallible;

    fn page(&self, _: Slru, _: u64) -> Result<Option<Box<[u8; 8192]>>, Infallible> {
        Ok(None)
    }
}

fn cluster(next_xid: u64) -> Cluster<NoPages> {
    let mut counters = Checkpoint::decode(&[0; 88], Major::V17).unwrap();
    counters.next_xid = next_xid;
    let settings = ControlSettings {
        wal_level: 1,
        wal_log_hints: false,
        max_connections: 100,
        max_worker_processes: 8,
        max_wal_senders: 10,
        max_prepared_transactions: 0,
        max_locks_per_transaction: 64,
        track_commit_timestamp: false,
    };
    Cluster {
        relations: Relations::default(),
        slrus: Slrus::new(NoPages, []),
        databases: BTreeSet::new(),
        homes: BTreeSet::new(),
        maps: HashMap::new(),
        tablespaces: BTreeSet::new(),
        prepared: BTreeMap::new(),
        counters,
        settings,
        origins: BTreeMap::new(),
        logged_minimally: None,
    }
}

const AT: At = At { lsn: Lsn(100), end: Lsn(200), xid: 0 };

fn finish(xid: u32) -> Finish {
    Finish { committed: true, xid, subxids: Vec::new(), time: PgTime(7), unlinked: Vec::new(), prepared: false, origin: None }
}

#[test]
fn the_next_xid_lies_past_every_xid_that_was_seen_and_never_goes_back() {
    let mut cluster = cluster(1000);
    cluster.saw_xid(1500);
    cluster.saw_xid(1200);
    assert_eq!(cluster.counters.next_xid, 1501);
    cluster.apply(AT, &Effect::Finish(Finish { subxids: vec![1700], ..finish(1600) })).unwrap();
    assert_eq!(cluster.counters.next_xid, 1701);
}

#[test]
fn the_epoch_turns_when_xids_wrap() {
    let mut cluster = cluster(0x5_FFFF_FFF0);
    cluster.saw_xid(0xFFFF_FFFF);
    assert_eq!(cluster.counters.next_xid, 0x6_0000_0003, "special xids are stepped over");
    assert_eq!(cluster.full_xid(0xFFFF_FFFE), 0x5_FFFF_FFFE);
}

#[test]
fn a_shutdown_checkpoint_sets_counters_and_an_online_one_only_raises_them() {
    let mut cluster = cluster(1000);
    let said = Checkpoint { next_xid: 900, next_oid: 50, ..cluster.counters };
    cluster.apply(AT, &Effect::Checkpoint { shutdown: false, checkpoint: said }).unwrap();
    assert_eq!((cluster.counters.next_xid, cluster.counters.next_oid), (1000, 0));
    cluster.apply(AT, &Effect::Checkpoint { shutdown: true, checkpoint: said }).unwrap();
    assert_eq!((cluster.counters.next_xid, cluster.counters.next_oid), (900, 50));
}

#[test]
fn oldest_xid_moves_when_status_goes_away_with_the_database_that_holds_it_back() {
    let mut cluster = cluster(0x1_0000_0100);
    (cluster.counters.oldest_xid, cluster.counters.oldest_xid_database) = (4_000_000_000, 1);
    cluster.apply(AT, &Effect::TruncateXact { page: 0, oldest_xid: 50, database: 5 }).unwrap();
    assert_eq!((cluster.counters.oldest_xid, cluster.counters.oldest_xid_database), (50, 5));
    cluster.apply(AT, &Effect::TruncateXact { page: 0, oldest_xid: 4_100_000_000, database: 6 }).unwrap();
    assert_eq!((cluster.counters.oldest_xid, cluster.counters.oldest_xid_database), (50, 5), "it never goes back");
}

#[test]
fn a_prepared_transaction_is_kept_until_it_ends() {
    let mut cluster = cluster(1000);
    let prepare = Prepare { xid: 1100, database: 5, time: PgTime(0), gid: b"g".to_vec(), subxids: vec![1101], state: vec![1, 2] };
    cluster.apply(AT, &Effect::Prepare(prepare)).unwrap();
    assert_eq!(cluster.prepared.get(&1100), Some(&TwoPhase::Logged(vec![1, 2])));
    assert_eq!(cluster.counters.next_xid, 1102);
    cluster.apply(AT, &Effect::Finish(Finish { prepared: true, ..finish(1100) })).unwrap();
    assert!(cluster.prepared.is_empty());
}

#[test]
fn a_copied_database_takes_the_map_that_its_source_has_then() {
    let mut cluster = cluster(1000);
    let (from, to) = (DatabaseDir { database: 5, tablespace: 1663 }, DatabaseDir { database: 9, tablespace: 1663 });
    cluster.maps.insert(from, MapSource::Copied(from));
    cluster.apply(AT, &Effect::CopyDatabase { to, from }).unwrap();
    cluster.apply(AT, &Effect::RelationMap { dir: from, bytes: vec![1] }).unwrap();
    assert_eq!(cluster.maps.get(&to), Some(&MapSource::Copied(from)));
    cluster.apply(AT, &Effect::DropDatabase { database: 9, tablespaces: vec![1663] }).unwrap();
    assert!(!cluster.databases.contains(&to) && !cluster.maps.contains_key(&to));
}

#[test]
fn only_a_databases_own_directory_is_copied_as_such() {
    let mut cluster = cluster(1000);
    let dir = |database, tablespace| DatabaseDir { database, tablespace };
    cluster.apply(AT, &Effect::CreateDatabase(dir(5, 1663))).unwrap();
    cluster.apply(AT, &Effect::CopyDatabase { from: dir(5, 1663), to: dir(9, 1663) }).unwrap();
    cluster.apply(AT, &Effect::CopyDatabase { from: dir(5, 16400), to: dir(9, 16400) }).unwrap();
    assert_eq!(cluster.homes, BTreeSet::from([dir(5, 1663), dir(9, 1663)]));
    cluster.apply(AT, &Effect::DropDatabase { database: 9, tablespaces: vec![1663, 16400] }).unwrap();
    assert_eq!(cluster.homes, BTreeSet::from([dir(5, 1663)]));
}

#[test]
fn progress_of_an_origin_only_rises_with_transactions_committed_or_not() {
    let mut cluster = cluster(1000);
    let from = |id, lsn| Some(crate::pg::wal::xact::Origin { id, lsn: Lsn(lsn), time: PgTime(0) });
    cluster.apply(AT, &Effect::OriginSet { id: 7, remote_lsn: Lsn(50) }).unwrap();
    cluster.apply(AT, &Effect::Finish(Finish { origin: from(7, 40), ..finish(1000) })).unwrap();
    assert_eq!(cluster.origins.get(&7), Some(&Lsn(50)));
    cluster.apply(AT, &Effect::Finish(Finish { origin: from(7, 60), committed: false, ..finish(1001) })).unwrap();
    cluster.apply(AT, &Effect::Finish(Finish { origin: from(u16::MAX, 60), ..finish(1002) })).unwrap();
    assert_eq!(cluster.origins, BTreeMap::from([(7, Lsn(60))]));
    cluster.apply(AT, &Effect::OriginSet { id: 7, remote_lsn: Lsn(20) }).unwrap();
    assert_eq!(cluster.origins.get(&7), Some(&Lsn(20)), "an administrator may set it back");
}

#[test]
fn files_of_a_finished_transaction_go_away_with_it() {
    let mut cluster = cluster(1000);
    let rel = RelFileLocator { tablespace: 1663, database: 5, relation: 16384 };
    cluster.apply(AT, &Effect::CreateFork { rel, fork: crate::pg::Fork::Main }).unwrap();
    cluster.apply(AT, &Effect::Finish(Finish { committed: false, unlinked: vec![rel], ..finish(1001) })).unwrap();
    assert!(cluster.relations.fork(rel, crate::pg::Fork::Main).is_none());
}

#[test]
fn switching_commit_times_on_and_off_begins_and_forgets_them() {
    let mut cluster = cluster(1000);
    let said = |track_commit_timestamp| Parameters {
        max_connections: 100,
        max_worker_processes: 8,
        max_wal_senders: 10,
        max_prepared_xacts: 0,
        max_locks_per_xact: 64,
        wal_level: 1,
        wal_log_hints: false,
        track_commit_timestamp,
    };
    cluster.apply(AT, &Effect::Parameters(said(true))).unwrap();
    cluster.apply(AT, &Effect::Finish(finish(1000))).unwrap();
    assert_eq!((cluster.counters.oldest_commit_ts_xid, cluster.counters.newest_commit_ts_xid), (1000, 1000));
    assert_eq!(cluster.slrus.page(Slru::CommitTs, 1).unwrap()[1810..1818], 7i64.to_le_bytes());
    cluster.apply(AT, &Effect::Parameters(said(false))).unwrap();
    assert_eq!(cluster.counters.newest_commit_ts_xid, 0);
    assert!(!cluster.slrus.has_page(Slru::CommitTs, 1));
}

#[test]
fn page_of_a_counter_is_there_at_start_unless_the_counter_begins_it() {
    let shown = |next_xid: u64, next_multi_offset: u32| {
        let mut cluster = cluster(next_xid);
        (cluster.counters.next_multi, cluster.counters.next_multi_offset) = (2048, next_multi_offset);
        cluster.complete_slrus();
        let has = |slru, page| cluster.slrus.has_page(slru, page);
        (has(Slru::Xact, 1), has(Slru::MultiXactOffsets, 1), has(Slru::MultiXactMembers, 1))
    };
    assert_eq!(shown(32_768, 1636), (false, true, false));
    assert_eq!(shown(32_769, 1637), (true, true, true));
    let commit_times = |next_xid| {
        let mut cluster = cluster(next_xid);
        cluster.settings.track_commit_timestamp = true;
        cluster.complete_slrus();
        cluster.slrus.has_page(Slru::CommitTs, 10)
    };
    assert!(!commit_times(8190) && commit_times(8191));
}
