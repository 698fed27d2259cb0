//! Random operations on an overlay and on a plain model of files: both must show the same.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;

use proptest::prelude::*;

use super::sim::{Image, SimDisk, SimSource};
use super::{Creation, Node, Overlay, Owner, ROOT};
use crate::error::FsError;
use crate::overlay::format::NodeKind;
use crate::source::Keep;

pub(super) const IDENTITY: &str = "a tree for tests";
const OWNER: Owner = Owner { uid: 5, gid: 6 };
const DIRS: [&str; 2] = ["", "d"];
const NAMES: [&str; 4] = ["a", "b", "c", "e"];

/// A directory and a name in it, as indices.
pub(super) type Place = (usize, usize);

#[derive(Debug, Clone)]
pub(super) enum Op {
    Create(Place),
    Write(Place, u64, usize, u8),
    Truncate(Place, u64),
    Allocate(Place, u64, u64),
    Unlink(Place),
    Rename(Place, Place),
    Link(Place, Place),
    Sync(Place),
    SyncNames,
    Tick,
    Compact,
    Reopen,
}

/// What is to be read, by plain means.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) names: BTreeMap<Place, usize>,
    pub(super) files: Vec<Vec<u8>>,
}

pub(super) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at / 64 + at) % 251).unwrap().wrapping_add(seed) | 1).collect()
}

/// The source that the tests start from: small and big, whole and in blocks, with lengths that no granule divides.
pub(super) fn base() -> (SimSource, Model) {
    let mut source = SimSource::new();
    let root = crate::source::FileId(0);
    let dir = source.add_dir("d");
    let mut model = Model::default();
    let files = [
        (0, root, 0, 100, Keep::Blocks),
        (0, root, 1, 70_123, Keep::Blocks),
        (1, dir, 2, 90_000, Keep::Blocks),
        (1, dir, 3, 66_000, Keep::Whole),
    ];
    for (seed, (dir, id, name, len, keep)) in (1..).zip(files) {
        let content = pattern(seed * 40, len);
        source.add_file(id, NAMES[name], content.clone(), keep);
        model.names.insert((dir, name), model.files.len());
        model.files.push(content);
    }
    (source, model)
}

impl Model {
    fn file(&mut self, place: Place) -> Option<&mut Vec<u8>> {
        self.names.get(&place).map(|file| &mut self.files[*file])
    }

    /// Does to the model what `op` does, and says what the overlay must answer.
    pub(super) fn apply(&mut self, op: &Op) -> Result<(), &'static str> {
        match *op {
            Op::Create(place) => {
                if self.names.contains_key(&place) {
                    return Err("taken");
                }
                self.names.insert(place, self.files.len());
                self.files.push(Vec::new());
            }
            Op::Write(place, offset, len, seed) => {
                let start = usize::try_from(offset).unwrap();
                let file = self.file(place).ok_or("missing")?;
                file.resize(file.len().max(start + len), 0);
                file[start..start + len].copy_from_slice(&pattern(seed, len));
            }
            Op::Truncate(place, size) => self.file(place).ok_or("missing")?.resize(usize::try_from(size).unwrap(), 0),
            Op::Allocate(place, offset, len) => {
                let end = usize::try_from(offset + len).unwrap();
                let file = self.file(place).ok_or("missing")?;
                file.resize(file.len().max(end), 0);
            }
            Op::Unlink(place) => drop(self.names.remove(&place).ok_or("missing")?),
            Op::Rename(from, to) => {
                let file = *self.names.get(&from).ok_or("missing")?;
                if self.names.get(&to) != Some(&file) {
                    self.names.remove(&from);
                    self.names.insert(to, file);
                }
            }
            Op::Link(from, to) => {
                let file = *self.names.get(&from).ok_or("missing")?;
                if self.names.contains_key(&to) {
                    return Err("taken");
                }
                self.names.insert(to, file);
            }
            Op::Sync(place) => drop(self.file(place).ok_or("missing")?),
            Op::SyncNames | Op::Tick | Op::Compact | Op::Reopen => {}
        }
        Ok(())
    }
}

/// An inode that the kernel knows until this is dropped: what the overlay remembers elsewhere must then still be found.
pub(super) struct Held<'a> {
    overlay: &'a Overlay,
    node: Arc<Node>,
}

impl std::ops::Deref for Held<'_> {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.overlay.forget(self.node.ino, 1);
    }
}

/// An overlay on a simulated disk.
pub(super) struct World {
    pub(super) disk: SimDisk,
    source: Arc<SimSource>,
    pub(super) overlay: Overlay,
}

impl World {
    pub(super) fn new(source: SimSource) -> Self {
        Self::on(SimDisk::default(), Arc::new(source)).unwrap()
    }

    pub(super) fn on(disk: SimDisk, source: Arc<SimSource>) -> Result<Self, super::OpenError> {
        let overlay = Overlay::open(Arc::<SimSource>::clone(&source), None, Arc::new(disk.clone()), IDENTITY, Arc::default())?;
        Ok(Self { disk, source, overlay })
    }

    /// As after a crash that left this on the disk.
    pub(super) fn recovered(&self, image: Image) -> Result<Self, super::OpenError> {
        Self::on(SimDisk::new(image), Arc::clone(&self.source))
    }

    fn dir(&self, dir: usize) -> Held<'_> {
        match dir {
            0 => Held { overlay: &self.overlay, node: self.overlay.node(ROOT).unwrap() },
            dir => self.find(ROOT, DIRS[dir]).unwrap(),
        }
    }

    fn find(&self, dir: u64, name: &str) -> Result<Held<'_>, FsError> {
        Ok(Held { overlay: &self.overlay, node: self.overlay.lookup(dir, OsStr::new(name))? })
    }

    /// The inode of a place, held as the kernel holds it.
    pub(super) fn node(&self, place: Place) -> Result<Held<'_>, FsError> {
        self.find(self.dir(place.0).ino, NAMES[place.1])
    }

    pub(super) fn content(&self, place: Place) -> Result<Vec<u8>, FsError> {
        let node = self.node(place)?;
        let size = usize::try_from(node.stat()?.size).unwrap();
        let mut content = vec![0xEE; size + 10];
        let filled = self.overlay.read(&node, 0, &mut content)?;
        content.truncate(filled);
        assert_eq!(filled, size, "a read must end where stat says");
        Ok(content)
    }

    pub(super) fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for dir in 0..DIRS.len() {
            for listed in self.overlay.list(self.dir(dir).ino).unwrap() {
                if let Some(name) = NAMES.iter().position(|name| *name == listed.name) {
                    places.push((dir, name));
                }
            }
        }
        places.sort_unstable();
        places
    }

    pub(super) fn apply(&mut self, op: &Op) -> Result<(), FsError> {
        let name = |place: &Place| OsStr::new(NAMES[place.1]);
        match op {
            Op::Create(place) => {
                let creation = Creation { kind: NodeKind::File, mode: 0o600, owner: OWNER, target: None };
                let node = self.overlay.create(self.dir(place.0).ino, name(place), creation)?;
                self.overlay.forget(node.ino, 1);
            }
            Op::Write(place, offset, len, seed) => self.overlay.write(&*self.node(*place)?, *offset, &pattern(*seed, *len))?,
            Op::Truncate(place, size) => drop(self.overlay.truncate(&*self.node(*place)?, *size)?.size),
            Op::Allocate(place, offset, len) => self.overlay.allocate(&*self.node(*place)?, *offset, *len, false)?,
            Op::Unlink(place) => self.overlay.unlink(self.dir(place.0).ino, name(place), false)?,
            Op::Rename(from, to) => {
                let (from_dir, to_dir) = (self.dir(from.0), self.dir(to.0));
                self.overlay.rename((from_dir.ino, name(from)), (to_dir.ino, name(to)), true)?;
            }
            Op::Link(from, to) => {
                let node = self.node(*from)?;
                self.overlay.link(node.ino, self.dir(to.0).ino, name(to))?;
                self.overlay.forget(node.ino, 1);
            }
            Op::Sync(place) => self.overlay.sync(&*self.node(*place)?)?,
            Op::SyncNames => self.overlay.sync_names()?,
            Op::Tick => self.overlay.tick()?,
            Op::Compact => self.overlay.compact()?,
            Op::Reopen => {
                self.overlay.close()?;
                *self = Self::on(self.disk.clone(), Arc::clone(&self.source)).unwrap();
            }
        }
        Ok(())
    }
}

fn place() -> impl Strategy<Value = Place> {
    (0..DIRS.len(), 0..NAMES.len())
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![3 => (0u64..25).prop_map(|granule| granule * 4096), 2 => 0u64..100_000]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![3 => (1usize..4).prop_map(|granules| granules * 4096), 2 => 1usize..9_000]
}

pub(super) fn op(with_reopen: bool) -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => place().prop_map(Op::Create),
        10 => (place(), offset(), length(), any::<u8>()).prop_map(|(place, offset, len, seed)| Op::Write(place, offset, len, seed)),
        3 => (place(), prop_oneof![1 => Just(0), 3 => offset()]).prop_map(|(place, size)| Op::Truncate(place, size)),
        1 => (place(), offset(), 1u64..20_000).prop_map(|(place, offset, len)| Op::Allocate(place, offset, len)),
        1 => place().prop_map(Op::Unlink),
        3 => (place(), place()).prop_map(|(from, to)| Op::Rename(from, to)),
        1 => (place(), place()).prop_map(|(from, to)| Op::Link(from, to)),
        6 => place().prop_map(Op::Sync),
        1 => Just(Op::SyncNames),
        1 => Just(Op::Tick),
        1 => Just(Op::Compact),
        1 => Just(if with_reopen { Op::Reopen } else { Op::Tick }),
    ]
}

fn check(world: &World, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(world.places(), model.names.keys().copied().collect::<Vec<_>>());
    for (place, file) in &model.names {
        let content = world.content(*place).unwrap();
        prop_assert_eq!(content.len(), model.files[*file].len(), "length of {:?}", place);
        let differs = content.iter().zip(&model.files[*file]).position(|(ours, theirs)| ours != theirs);
        prop_assert_eq!(differs, None, "first differing byte of {:?}", place);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn an_overlay_shows_what_plain_files_would(ops in prop::collection::vec(op(true), 1..40)) {
        let (source, mut model) = base();
        let mut world = World::new(source);
        for op in &ops {
            let expected = model.apply(op);
            let done = world.apply(op);
            prop_assert_eq!(expected.is_ok(), done.is_ok(), "{:?}: model {:?}, overlay {:?}", op, expected, done);
            if let Op::Write(place, ..) | Op::Truncate(place, _) | Op::Allocate(place, ..) = op
                && let Some(file) = model.names.get(place)
            {
                prop_assert!(world.content(*place).unwrap() == model.files[*file], "after {:?}", op);
            }
        }
        check(&world, &model)?;
        world.apply(&Op::Reopen).unwrap();
        check(&world, &model)?;
    }
}
