use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::format::Cipher;
use crate::pg::Major;
use crate::repo::cluster::register;
use crate::store::memory::MemoryStore;

struct World {
    store: MemoryStore,
    repository: Repository,
    folder: ClusterFolder,
}

const SIZE: SegmentSize = SegmentSize::DEFAULT;

impl World {
    /// A cluster with these segments (timeline, number) and history files.
    fn new(segments: &[(u32, u64)], histories: &[(u32, &str)]) -> World {
        let store = MemoryStore::default();
        let repository = Repository::create(Arc::new(store.clone()), Cipher::None, None).unwrap();
        let major = Major::V17;
        let catalog_version = major.facts().catalog_version;
        let identity = ClusterIdentity { system_id: 7, major, catalog_version, wal_segment_size: SIZE, checksums: false };
        register(&repository, "main", &identity, false).unwrap();
        let world = World { folder: identity.folder("main"), store, repository };
        for (timeline, no) in segments {
            world.put(&world.folder.segment(WalSegment { timeline: Timeline(*timeline), no: *no }, SIZE));
        }
        for (timeline, text) in histories {
            let key = world.folder.history(Timeline(*timeline));
            world.repository.put_object(&key, ObjectKind::TimelineHistory, text.as_bytes(), None).unwrap();
        }
        world
    }

    fn put(&self, key: &str) {
        crate::store::Store::put_new(&self.store, key, Bytes::from_static(b"0123456789")).unwrap();
    }

    fn catalog(&self) -> Catalog {
        Catalog::read(&self.repository, &self.folder).unwrap()
    }
}

fn runs(catalog: &Catalog) -> Vec<(u32, u64, u64)> {
    catalog.wal.iter().map(|run| (run.timeline.0, run.first, run.last)).collect()
}

#[test]
fn segments_become_runs_and_what_is_missing_between_them_a_gap() {
    // Segment 255 of 16 MiB ends a 4 GiB stretch: 256 has another folder, and still follows it.
    let world = World::new(&[(1, 254), (1, 255), (1, 256), (1, 259), (2, 259)], &[]);
    world.put(&world.folder.segment_file("000000010000000100000004.partial"));
    let catalog = world.catalog();
    assert_eq!(runs(&catalog), [(1, 254, 256), (1, 259, 259), (2, 259, 259)]);
    assert_eq!(catalog.wal[0].stored_bytes, 30);
    assert_eq!(catalog.gaps(), [Gap { timeline: Timeline(1), first: 257, last: 258 }]);
    let has = |timeline, no| catalog.has(WalSegment { timeline: Timeline(timeline), no });
    assert!(has(1, 256) && has(2, 259) && !has(1, 257) && !has(2, 258) && !has(3, 259));
}

#[test]
fn a_run_ends_at_the_first_missing_segment() {
    let catalog = World::new(&[(1, 1), (1, 2), (1, 4)], &[]).catalog();
    let path = TimelinePath::single(Timeline(1));
    assert_eq!(catalog.end_of_run(&path, 1).unwrap().0, SIZE.start(3));
    assert_eq!(catalog.end_of_run(&path, 4).unwrap().0, SIZE.start(5));
    assert!(catalog.end_of_run(&path, 3).is_none());
}

#[test]
fn a_run_goes_on_over_a_fork() {
    // Timeline 2 forks off inside segment 2; timeline 1 went on to segment 3.
    let catalog = World::new(&[(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (2, 4)], &[(2, "1\t0/2800000\tno reason\n")]).catalog();
    let (end, run) = catalog.end_of_run(&catalog.paths[&Timeline(2)], 1).unwrap();
    assert_eq!((end, run.timeline), (SIZE.start(5), Timeline(2)));
    assert_eq!(catalog.end_of_run(&catalog.paths[&Timeline(1)], 1).unwrap().0, SIZE.start(4));
}

#[test]
fn without_the_new_timelines_first_segment_a_run_ends_at_the_fork() {
    let catalog = World::new(&[(1, 1), (1, 2), (1, 3), (2, 3)], &[(2, "1\t0/2800000\tno reason\n")]).catalog();
    // Segment 2 of timeline 1 is right up to the fork, and segment 3 of timeline 2 begins behind a hole.
    let (end, run) = catalog.end_of_run(&catalog.paths[&Timeline(2)], 1).unwrap();
    assert_eq!((end, run.timeline), (Lsn(0x0280_0000), Timeline(1)));
}

#[test]
fn a_history_that_cannot_be_used_is_listed_and_its_timeline_has_no_path() {
    let catalog = World::new(&[(1, 1), (2, 2)], &[(2, "nonsense\n")]).catalog();
    assert!(matches!(catalog.bad_histories.as_slice(), [(Timeline(2), HistoryError::Bad(_))]));
    assert_eq!(catalog.paths.keys().map(|timeline| timeline.0).collect::<Vec<_>>(), [1]);
}

#[test]
fn wal_whose_history_is_missing_makes_no_timeline_that_is_followed() {
    let catalog = World::new(&[(1, 1), (2, 2), (3, 4)], &[(2, "1\t0/2800000\tno reason\n")]).catalog();
    assert_eq!(catalog.without_history().collect::<Vec<_>>(), [Timeline(3)]);
    assert_eq!(catalog.newest_timeline(), Some(Timeline(2)));
}

#[test]
fn a_backup_without_a_manifest_is_none_and_a_damaged_one_is_unusable() {
    let world = World::new(&[], &[]);
    world.put(&world.folder.backup_data("20261125-101500F", 0));
    world.put(&world.folder.manifest("20261125-111500F"));
    let catalog = world.catalog();
    assert!(catalog.backups.is_empty());
    assert_eq!(catalog.unusable.iter().map(|backup| backup.label.as_str()).collect::<Vec<_>>(), ["20261125-111500F"]);
}
