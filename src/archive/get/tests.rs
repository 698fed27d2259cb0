use std::sync::atomic::Ordering;

use super::*;
use crate::archive::testing::{Ailing, Paper, SYSTEM_ID, folder, name, repository, segment};
use crate::repo::ObjectKind;
use crate::store::memory::MemoryStore;

struct World {
    paper: Paper,
    stores: Vec<Ailing>,
    request: Request,
}

impl World {
    /// A cluster and as many repositories.
    fn new(repositories: usize) -> World {
        let (paper, stores) = (Paper::new(), Vec::new());
        let request = Request { cluster: "main".into(), data_directory: paper.path().to_owned(), repositories: Vec::new(), ahead: None };
        let mut world = World { paper, stores, request };
        for _ in 0..repositories {
            let store = Ailing::default();
            world.request.repositories.push(repository(store.clone()));
            world.stores.push(store);
        }
        world
    }

    fn put(&self, at: usize, no: u64) {
        let key = folder().segment_file(&name(no));
        self.request.repositories[at].put_object(&key, ObjectKind::WalSegment, &segment(no, SYSTEM_ID), None).unwrap();
    }

    /// Asks for segment `no`: its content, if it was there.
    fn get(&self, no: u64) -> Result<Option<Vec<u8>>, GetError> {
        let dest = self.paper.wal("RECOVERYXLOG");
        let found = get(&self.request, &name(no), &dest)?;
        let content = found.then(|| fs_err::read(&dest).unwrap());
        assert_eq!(dest.exists(), found);
        drop(fs_err::remove_file(dest));
        Ok(content)
    }

    fn damage(&self, at: usize, no: u64, byte: usize) {
        self.stores[at].inner.tamper(&folder().segment_file(&name(no)), |bytes| bytes[byte] ^= 1);
    }
}

#[test]
fn segment_comes_back_and_a_missing_one_is_no_error() {
    let world = World::new(1);
    world.put(0, 3);
    assert_eq!(world.get(3).unwrap(), Some(segment(3, SYSTEM_ID)));
    assert_eq!(world.get(4).unwrap(), None);
}

#[test]
fn partial_segment_is_never_given_for_the_complete_one() {
    let world = World::new(1);
    let key = folder().segment_file(&format!("{}.partial", name(3)));
    world.request.repositories[0].put_object(&key, ObjectKind::WalSegment, &segment(3, SYSTEM_ID), None).unwrap();
    assert_eq!(world.get(3).unwrap(), None);
    assert!(get(&world.request, &format!("{}.partial", name(3)), &world.paper.wal("P")).unwrap());
}

#[test]
fn dead_repository_is_never_the_end_of_the_archive() {
    let world = World::new(2);
    world.put(1, 3);
    world.stores[0].dead.store(true, Ordering::Relaxed);
    assert_eq!(world.get(3).unwrap(), Some(segment(3, SYSTEM_ID)), "the other one has it");
    assert!(world.get(4).is_err(), "the dead one might have it");
    world.stores[1].dead.store(true, Ordering::Relaxed);
    assert!(world.get(3).is_err());
}

#[test]
fn damaged_object_is_read_from_the_next_repository_or_is_an_error() {
    let world = World::new(2);
    world.put(0, 3);
    world.damage(0, 3, 200);
    assert!(world.get(3).is_err());
    assert!(!world.paper.wal("RECOVERYXLOG.bygone-tmp").exists());
    world.put(1, 3);
    assert_eq!(world.get(3).unwrap(), Some(segment(3, SYSTEM_ID)));
}

#[test]
fn following_segments_are_fetched_ahead_and_served_from_the_spool() {
    let mut world = World::new(1);
    (3..9).for_each(|no| world.put(0, no));
    let spool = MemoryStore::default();
    world.request.ahead = Some(Ahead { spool: Arc::new(spool.clone()), window: 4, parallel: 2 });
    assert_eq!(world.get(3).unwrap(), Some(segment(3, SYSTEM_ID)));
    let spooled = |spool: &MemoryStore| {
        let mut names = Vec::new();
        crate::store::Store::list(spool, "", None, &mut |meta| {
            names.push(meta.key.rsplit('/').next().unwrap().to_owned());
            true
        })
        .unwrap();
        names
    };
    assert_eq!(spooled(&spool), [name(4), name(5), name(6)]);
    // Damage in the spool is found, and the repository asked instead.
    spool.tamper(&folder().segment_file(&name(4)), |bytes| bytes[200] ^= 1);
    for no in 4..9 {
        assert_eq!(world.get(no).unwrap(), Some(segment(no, SYSTEM_ID)), "{no}");
    }
    assert!(spooled(&spool).is_empty());
    assert_eq!(world.get(9).unwrap(), None);
}

#[test]
fn name_that_postgres_never_asks_for_is_an_error() {
    let world = World::new(1);
    assert!(matches!(get(&world.request, "postgresql.conf", &world.paper.wal("x")), Err(GetError::Name(_))));
}
