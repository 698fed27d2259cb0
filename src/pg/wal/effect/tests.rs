use super::*;
use crate::pg::wal::fabricate::Draft;

/// Takes a record with this main data apart and asks for its effect.
fn of(rmgr: Rmgr, info: u8, main: &[u8], major: Major) -> Result<Option<Effect>, EffectError> {
    let bytes = Draft::new(rmgr, info, 700, main.to_vec()).bytes(Lsn(8));
    effect(&Record::decode(major, Lsn(64), Lsn(128), &bytes).unwrap(), major)
}

/// Little-endian numbers, one after another.
macro_rules! le {
    ($($value:expr),* $(,)?) => {{
        let mut bytes: Vec<u8> = Vec::new();
        $(bytes.extend($value.to_le_bytes());)*
        bytes
    }};
}

#[test]
fn a_commit_with_every_item_is_read_in_each_version() {
    for major in Major::ALL {
        let mut main = le!(77i64, 0b1_1011_0111u32 | 1 << 3);
        main.extend(le!(5u32, 1663u32));
        main.extend(le!(2i32, 701u32, 702u32));
        main.extend(le!(1i32, 1663u32, 5u32, 16384u32));
        main.extend(le!(1i32));
        main.extend(vec![9; if major >= Major::V18 { 16 } else { 12 }]);
        main.extend(le!(2i32));
        main.extend([3; 32]);
        main.extend(le!(699u32));
        main.extend(b"my gid\0");
        main.extend(le!(0x55u64, 66i64));
        let Ok(Some(Effect::Finish(finish))) = of(Rmgr::TRANSACTION, 0x80 | 0x30, &main, major) else { panic!("not a commit") };
        assert_eq!((finish.xid, finish.subxids, finish.time), (699, vec![701, 702], PgTime(77)));
        assert_eq!(finish.unlinked, [RelFileLocator { tablespace: 1663, database: 5, relation: 16384 }]);
        assert!(finish.committed && finish.prepared);
        assert_eq!(finish.origin.map(|o| (o.lsn, o.time)), Some((Lsn(0x55), PgTime(66))));
        for cut in 0..main.len() {
            assert!(matches!(of(Rmgr::TRANSACTION, 0x80 | 0x30, &main[..cut], major), Err(EffectError::Short { .. })), "{cut}");
        }
    }
}

#[test]
fn a_plain_commit_and_abort_are_a_time() {
    let Ok(Some(Effect::Finish(finish))) = of(Rmgr::TRANSACTION, 0x00, &le!(5i64), Major::V14) else { panic!() };
    assert_eq!((finish.xid, finish.committed, finish.prepared), (700, true, false));
    let Ok(Some(Effect::Finish(finish))) = of(Rmgr::TRANSACTION, 0x20, &le!(5i64), Major::V18) else { panic!() };
    assert!(!finish.committed);
}

#[test]
fn a_prepare_gives_gid_and_subtransactions() {
    for (major, counts) in [(Major::V14, 3), (Major::V15, 5), (Major::V18, 5)] {
        let mut main = le!(0x57F9_4534u32, 0u32, 700u32, 5u32, 99i64, 10u32, 2i32);
        main.extend(vec![0; counts * 4]);
        main.extend([0, 0]);
        main.extend(le!(4u16, 0u64, 0i64));
        main.extend(b"gid\0\0\0\0\0");
        main.extend(le!(701u32, 702u32));
        let Ok(Some(Effect::Prepare(prepare))) = of(Rmgr::TRANSACTION, 0x10, &main, major) else { panic!("{major}") };
        assert_eq!((prepare.xid, prepare.database, prepare.gid, prepare.subxids), (700, 5, b"gid".to_vec(), vec![701, 702]));
        assert_eq!(prepare.state, main);
    }
}

#[test]
fn page_numbers_grew_with_17() {
    assert_eq!(of(Rmgr::CLOG, 0x00, &le!(7i32), Major::V16), Ok(Some(Effect::ZeroXactPage(7))));
    assert_eq!(of(Rmgr::CLOG, 0x00, &le!(7i64), Major::V17), Ok(Some(Effect::ZeroXactPage(7))));
    let truncated = Effect::TruncateXact { page: 7, oldest_xid: 3, database: 5 };
    assert_eq!(of(Rmgr::CLOG, 0x10, &le!(7i64, 3u32, 5u32), Major::V18), Ok(Some(truncated)));
    assert_eq!(of(Rmgr::COMMIT_TS, 0x10, &le!(7i32, 3u32), Major::V14), Ok(Some(Effect::TruncateCommitTs { page: 7, oldest_xid: 3 })));
    assert_eq!(of(Rmgr::MULTIXACT, 0x10, &le!(7i64), Major::V17), Ok(Some(Effect::ZeroMultiMembersPage(7))));
}

#[test]
fn databases_are_numbered_differently_in_14() {
    let dir = |database, tablespace| DatabaseDir { database, tablespace };
    let copy = Effect::CopyDatabase { to: dir(9, 1663), from: dir(1, 1664) };
    assert_eq!(of(Rmgr::DATABASE, 0x00, &le!(9u32, 1663u32, 1u32, 1664u32), Major::V14), Ok(Some(copy)));
    let dropped = Effect::DropDatabase { database: 9, tablespaces: vec![1663, 70_000] };
    let main = le!(9u32, 2i32, 1663u32, 70_000u32);
    assert_eq!(of(Rmgr::DATABASE, 0x10, &main, Major::V14), Ok(Some(dropped.clone())));
    assert_eq!(of(Rmgr::DATABASE, 0x20, &main, Major::V15), Ok(Some(dropped)));
    assert_eq!(of(Rmgr::DATABASE, 0x10, &le!(9u32, 1663u32), Major::V15), Ok(Some(Effect::CreateDatabase(dir(9, 1663)))));
}

#[test]
fn files_maps_and_multixacts_are_read() {
    let rel = RelFileLocator { tablespace: 1663, database: 5, relation: 16384 };
    assert_eq!(
        of(Rmgr::STORAGE, 0x10, &le!(1663u32, 5u32, 16384u32, 3u32), Major::V15),
        Ok(Some(Effect::CreateFork { rel, fork: Fork::Init }))
    );
    assert_eq!(
        of(Rmgr::STORAGE, 0x20, &le!(10u32, 1663u32, 5u32, 16384u32, 7u32), Major::V15),
        Ok(Some(Effect::Truncate { rel, blocks: 10, main: true, vm: true, fsm: true }))
    );
    let members = vec![MultiMember { xid: 700, status: 1 }, MultiMember { xid: 701, status: 5 }];
    assert_eq!(
        of(Rmgr::MULTIXACT, 0x20, &le!(3u32, 9u32, 2i32, 700u32, 1u32, 701u32, 5u32), Major::V18),
        Ok(Some(Effect::CreateMulti { multi: 3, offset: 9, members }))
    );
    let dir = DatabaseDir { database: 0, tablespace: 1664 };
    assert_eq!(
        of(Rmgr::RELMAP, 0x00, &le!(0u32, 1664u32, 3i32, 1u8, 2u8, 3u8), Major::V18),
        Ok(Some(Effect::RelationMap { dir, bytes: vec![1, 2, 3] }))
    );
    assert_eq!(
        of(Rmgr::TABLESPACE, 0x00, &[&le!(70_000u32)[..], b"/a/b\0"].concat(), Major::V18),
        Ok(Some(Effect::CreateTablespace { oid: 70_000, path: b"/a/b".to_vec() }))
    );
}

#[test]
fn the_ends_of_recovery_and_the_settings_are_read() {
    let plain = Effect::EndOfRecovery { time: PgTime(1), timeline: Timeline(3), previous: Timeline(2), wal_level: None };
    assert_eq!(of(Rmgr::XLOG, 0x90, &le!(1i64, 3u32, 2u32), Major::V16), Ok(Some(plain)));
    assert!(of(Rmgr::XLOG, 0x90, &le!(1i64, 3u32, 2u32), Major::V17).is_err());
    let mut point = le!(1i64);
    point.extend(b"before");
    point.resize(72, 0);
    assert_eq!(of(Rmgr::XLOG, 0x70, &point, Major::V14), Ok(Some(Effect::RestorePoint { time: PgTime(1), name: b"before".to_vec() })));
    assert!(matches!(
        of(Rmgr::XLOG, 0x60, &le!(1i32, 2i32, 3i32, 4i32, 5i32, 2i32, 1u8, 0u8), Major::V14),
        Ok(Some(Effect::Parameters(Parameters { max_locks_per_xact: 5, wal_log_hints: true, track_commit_timestamp: false, .. })))
    ));
}

#[test]
fn operations_that_no_version_has_are_refused() {
    let unknown = |rmgr, op, major| matches!(of(rmgr, op, &[0; 100], major), Err(EffectError::Unknown { .. }));
    assert!(unknown(Rmgr::XLOG, 0xF0, Major::V18));
    assert!(unknown(Rmgr::XLOG, 0xE0, Major::V16));
    assert!(unknown(Rmgr::TRANSACTION, 0x70, Major::V18));
    assert!(unknown(Rmgr::DATABASE, 0x20, Major::V14));
    assert!(unknown(Rmgr::RELMAP, 0x10, Major::V18));
    assert_eq!(of(Rmgr(200), 0x10, &[], Major::V18), Ok(Some(Effect::Opaque { rmgr: Rmgr(200) })));
}
