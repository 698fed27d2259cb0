//! What random operations do not reach: files that are gone but open, failing disks, damaged and foreign overlays.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::sync::Arc;

use super::model_tests::{IDENTITY, Op, World, base, pattern};
use super::sim::SimSource;
use super::{Creation, OpenError, Overlay, Owner, ROOT, SetAttr};
use crate::error::FsError;
use crate::overlay::format::NodeKind;
use crate::source::Keep;

const A: (usize, usize) = (0, 0);
const B: (usize, usize) = (0, 1);
const NEW: (usize, usize) = (0, 2);

fn world() -> World {
    World::new(base().0)
}

fn directory(world: &World, name: &str) -> u64 {
    let creation = Creation { kind: NodeKind::Directory, mode: 0o700, owner: Owner { uid: 1, gid: 1 }, target: None };
    world.overlay.create(ROOT, OsStr::new(name), creation).unwrap().ino
}

#[test]
fn a_removed_file_that_is_still_open_can_be_read_and_written_and_leaves_no_data_file() {
    let mut world = world();
    world.apply(&Op::Create(NEW)).unwrap();
    let node = world.overlay.lookup(ROOT, OsStr::new("c")).unwrap();
    world.apply(&Op::Unlink(NEW)).unwrap();
    world.overlay.write(&node, 0, b"still here").unwrap();
    world.overlay.sync(&node).unwrap();
    let mut bytes = [0; 10];
    assert_eq!(world.overlay.read(&node, 0, &mut bytes).unwrap(), 10);
    assert_eq!(&bytes, b"still here");
    world.overlay.tick().unwrap();
    assert!(!world.disk.image().names.keys().all(|name| !name.starts_with("data/")));
    world.overlay.forget(node.ino, 1);
    world.overlay.tick().unwrap();
    assert!(world.disk.image().names.keys().all(|name| !name.starts_with("data/")));
}

#[test]
fn a_directory_of_the_source_can_be_moved_with_all_that_is_in_it() {
    let mut world = world();
    let into = directory(&world, "new");
    world.overlay.rename((ROOT, OsStr::new("d")), (into, OsStr::new("moved")), true).unwrap();
    for _ in 0..2 {
        let into = world.overlay.lookup(ROOT, OsStr::new("new")).unwrap();
        let moved = world.overlay.lookup(into.ino, OsStr::new("moved")).unwrap();
        let inside = world.overlay.lookup(moved.ino, OsStr::new("c")).unwrap();
        assert_eq!(inside.stat().unwrap().size, 90_000);
        assert!(matches!(world.overlay.lookup(ROOT, OsStr::new("d")), Err(FsError::NotFound)));
        let again = World::on(world.disk.clone(), Arc::new(base().0)).unwrap();
        world.overlay.close().unwrap();
        drop(again);
        world = World::on(world.disk.clone(), Arc::new(base().0)).unwrap();
    }
}

#[test]
fn only_an_empty_directory_can_be_removed_and_its_name_does_not_bring_the_old_one_back() {
    let mut world = world();
    assert!(matches!(world.overlay.unlink(ROOT, OsStr::new("d"), true), Err(FsError::NotEmpty)));
    let held = world.overlay.lookup(ROOT, OsStr::new("d")).unwrap();
    world.apply(&Op::Unlink((1, 2))).unwrap();
    world.apply(&Op::Unlink((1, 3))).unwrap();
    world.overlay.forget(held.ino, 1);
    world.overlay.unlink(ROOT, OsStr::new("d"), true).unwrap();
    let dir = directory(&world, "d");
    assert!(world.overlay.list(dir).unwrap().is_empty());
}

#[test]
fn attributes_survive_a_reopening() {
    let mut world = world();
    let node = world.node(B).unwrap();
    world.overlay.set_attr(&node, &SetAttr { mode: Some(0o640), gid: Some(77), ..SetAttr::default() }).unwrap();
    drop(node);
    world.apply(&Op::Reopen).unwrap();
    let meta = world.node(B).unwrap().stat().unwrap().meta;
    assert_eq!((meta.mode, meta.uid, meta.gid), (0o640, 1, 77));
}

#[test]
fn after_a_failed_sync_no_later_one_succeeds_whichever_step_failed() {
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        let mut failures = 0;
        for step in 0..4 {
            let mut world = world();
            world.apply(&Op::Write(B, 0, 8192, 1)).unwrap();
            world.disk.fail_sync_after(step, kind);
            let Err(error) = world.apply(&Op::Sync(B)) else { continue };
            failures += 1;
            assert!(matches!(error, FsError::Local(_)), "{error}");
            assert!(matches!(world.apply(&Op::Sync(B)), Err(FsError::Failed)));
            assert!(matches!(world.apply(&Op::Sync(A)), Err(FsError::Failed)));
            assert!(matches!(world.apply(&Op::Write(B, 0, 10, 1)), Err(FsError::Failed)));
            assert_eq!(world.content(B).unwrap()[..8192], pattern(1, 8192), "reading goes on");
            let recovered = world.recovered(world.disk.image()).unwrap();
            assert!(recovered.content(B).is_ok());
        }
        assert_eq!(failures, 3, "data file, its name, journal");
    }
}

#[test]
fn a_full_disk_is_an_error_of_the_write_and_harms_nothing() {
    let mut world = world();
    world.apply(&Op::Write(B, 0, 4096, 1)).unwrap();
    world.apply(&Op::Sync(B)).unwrap();
    world.disk.fill_up();
    let full = |result: Result<(), FsError>| matches!(result, Err(FsError::Local(error)) if error.kind() == ErrorKind::StorageFull);
    assert!(full(world.apply(&Op::Write(B, 40_960, 4096, 2))));
    assert!(full(world.apply(&Op::Create(NEW))));
    assert!(full(world.apply(&Op::Allocate(B, 0, 4096))));
    world.apply(&Op::Write(B, 0, 4096, 3)).unwrap();
    world.apply(&Op::Sync(B)).unwrap();
    world.apply(&Op::Unlink(A)).unwrap();
    world.apply(&Op::Reopen).unwrap();
    assert_eq!(world.content(B).unwrap()[..4096], pattern(3, 4096));
    assert!(matches!(world.node(A), Err(FsError::NotFound)));
}

#[test]
fn an_overlay_of_another_source_is_refused_with_both_names() {
    let world = world();
    let disk = world.disk.clone();
    let refused = Overlay::open(Arc::new(base().0), None, Arc::new(disk), "another tree", Arc::default()).err().unwrap();
    let OpenError::OtherSource { found, expected } = refused else { panic!("{refused}") };
    assert_eq!((found.as_str(), expected.as_str()), (IDENTITY, "another tree"));
}

#[test]
fn a_change_of_something_that_the_source_no_longer_has_is_refused_by_path() {
    let mut world = world();
    world.apply(&Op::Write((1, 2), 0, 4096, 1)).unwrap();
    world.overlay.close().unwrap();
    let refused = World::on(world.disk.clone(), Arc::new(SimSource::new())).err().unwrap();
    assert!(matches!(&refused, OpenError::Missing { path } if path == "d/c"), "{refused}");
}

#[test]
fn a_data_file_that_is_gone_is_noticed() {
    let mut world = world();
    world.apply(&Op::Write(B, 0, 4096, 1)).unwrap();
    world.overlay.close().unwrap();
    let mut image = world.disk.image();
    image.names.retain(|name, _| !name.starts_with("data/"));
    let refused = world.recovered(image).err().unwrap();
    assert!(matches!(refused, OpenError::DataGone { .. }), "{refused}");
}

#[test]
fn damage_in_the_middle_of_the_journal_is_refused_and_not_rolled_back() {
    let mut world = world();
    for round in 0..3 {
        world.apply(&Op::Write(B, round * 8192, 4096, 1)).unwrap();
        world.apply(&Op::Sync(B)).unwrap();
    }
    let mut image = world.disk.image();
    let journal = image.names["journal"];
    image.files[journal][60] ^= 1;
    let refused = world.recovered(image).err().unwrap();
    assert!(matches!(refused, OpenError::Hole { position: 32, .. }), "{refused}");
}

#[test]
fn a_read_only_tree_refuses_every_change() {
    let (source, _) = base();
    let overlay = Overlay::read_only(Arc::new(source), Some(Owner { uid: 9, gid: 9 }), Arc::default()).unwrap();
    let node = overlay.lookup(ROOT, OsStr::new("b")).unwrap();
    assert_eq!(node.stat().unwrap().meta.uid, 9);
    assert!(matches!(overlay.write(&node, 0, b"x"), Err(FsError::ReadOnly)));
    assert!(matches!(overlay.unlink(ROOT, OsStr::new("b"), false), Err(FsError::ReadOnly)));
}

#[test]
fn a_source_that_ends_early_is_an_error_and_never_zeroes() {
    let mut source = SimSource::new();
    source.add_file(crate::source::FileId(0), "b", pattern(1, 70_000), Keep::Blocks);
    source.shorten("b", 69_000);
    let overlay = Overlay::read_only(Arc::new(source), None, Arc::default()).unwrap();
    let node = overlay.lookup(ROOT, OsStr::new("b")).unwrap();
    let error = overlay.read(&node, 65_536, &mut [0; 4096]).unwrap_err();
    assert!(error.to_string().contains("b: the source ended"), "{error}");
    assert!(error.is_failure());
}
