//! For tests: a disk that remembers what was synced, and a source in memory.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile, Space};
use crate::source::{Attr, Entry, FileId, Keep, Kind, Source, SourceError};

/// One thing that happened to the disk. Files are numbered as they are made.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Write { file: usize, offset: u64, bytes: Vec<u8> },
    SetLen { file: usize, len: u64 },
    Sync { file: usize },
    Name { name: String, file: usize },
    Unname { name: String },
    Rename { from: String, to: String },
    SyncNames { data: bool },
}

/// Contents and names of a disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    pub(super) files: Vec<Vec<u8>>,
    pub(super) names: BTreeMap<String, usize>,
}

impl Image {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Write { file, offset, bytes } => {
                let start = usize::try_from(*offset).unwrap();
                let content = self.file(*file);
                if content.len() < start + bytes.len() {
                    content.resize(start + bytes.len(), 0);
                }
                content[start..start + bytes.len()].copy_from_slice(bytes);
            }
            Event::SetLen { file, len } => self.file(*file).resize(usize::try_from(*len).unwrap(), 0),
            Event::Name { name, file } => {
                self.file(*file);
                self.names.insert(name.clone(), *file);
            }
            Event::Unname { name } => drop(self.names.remove(name)),
            Event::Rename { from, to } => {
                if let Some(file) = self.names.remove(from) {
                    self.names.insert(to.clone(), file);
                }
            }
            Event::Sync { .. } | Event::SyncNames { .. } => {}
        }
    }

    fn file(&mut self, file: usize) -> &mut Vec<u8> {
        if self.files.len() <= file {
            self.files.resize(file + 1, Vec::new());
        }
        &mut self.files[file]
    }

    /// What a crash leaves of `start` after `events`: everything that was synced, and of the rest what `survives` picks.
    pub(super) fn after_crash(start: &Self, events: &[Event], mut survives: impl FnMut(usize) -> bool) -> Self {
        let synced_later = |index: usize| {
            let later = &events[index + 1..];
            match &events[index] {
                Event::Write { file, .. } | Event::SetLen { file, .. } => {
                    later.iter().any(|event| matches!(event, Event::Sync { file: synced } if synced == file))
                }
                Event::Name { name, .. } | Event::Unname { name } | Event::Rename { to: name, .. } => {
                    let in_data = name.starts_with("data/");
                    later.iter().any(|event| matches!(event, Event::SyncNames { data } if *data == in_data))
                }
                Event::Sync { .. } | Event::SyncNames { .. } => true,
            }
        };
        let mut image = start.clone();
        for (index, event) in events.iter().enumerate() {
            if synced_later(index) || survives(index) {
                image.apply(event);
            }
        }
        image
    }
}

#[derive(Default)]
struct State {
    start: Image,
    image: Image,
    events: Vec<Event>,
    /// So many more syncs work; the next one fails, with this kind of error.
    syncs_left: Option<(usize, io::ErrorKind)>,
    is_full: bool,
    /// Up to where a file has room of its own.
    allocated: HashMap<usize, u64>,
}

/// A disk in memory.
#[derive(Clone, Default)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    pub(super) fn new(image: Image) -> Self {
        Self(Arc::new(Mutex::new(State { start: image.clone(), image, ..State::default() })))
    }

    pub(super) fn image(&self) -> Image {
        self.0.lock().image.clone()
    }

    /// What was there at the start, and all that happened since.
    pub(super) fn history(&self) -> (Image, Vec<Event>) {
        let state = self.0.lock();
        (state.start.clone(), state.events.clone())
    }

    pub(super) fn events(&self) -> usize {
        self.0.lock().events.len()
    }

    /// Lets `count` more syncs pass and one fail.
    pub(super) fn fail_sync_after(&self, count: usize, kind: io::ErrorKind) {
        self.0.lock().syncs_left = Some((count, kind));
    }

    /// From now on nothing grows.
    pub(super) fn fill_up(&self) {
        self.0.lock().is_full = true;
    }

    fn happen(&self, event: Event) {
        let mut state = self.0.lock();
        state.image.apply(&event);
        state.events.push(event);
    }

    fn sync(&self, event: Event) -> io::Result<()> {
        let mut state = self.0.lock();
        match &mut state.syncs_left {
            Some((0, kind)) => {
                let kind = *kind;
                state.syncs_left = None;
                return Err(kind.into());
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        state.events.push(event);
        Ok(())
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let existing = self.0.lock().image.names.get(name).copied();
        let file = match existing {
            Some(file) => file,
            None if !create => return Err(io::ErrorKind::NotFound.into()),
            None if self.0.lock().is_full => return Err(io::ErrorKind::StorageFull.into()),
            None => {
                let file = self.0.lock().image.files.len();
                self.happen(Event::Name { name: name.to_owned(), file });
                file
            }
        };
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if !self.0.lock().image.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.happen(Event::Unname { name: name.to_owned() });
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.happen(Event::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn data_names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().image.names.keys().filter_map(|name| name.strip_prefix("data/")).map(str::to_owned).collect())
    }

    fn sync_top(&self) -> io::Result<()> {
        self.sync(Event::SyncNames { data: false })
    }

    fn sync_data_names(&self) -> io::Result<()> {
        self.sync(Event::SyncNames { data: true })
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space::default())
    }
}

struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.0.lock();
        let content = state.image.files[self.file].get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let len = content.len().min(buf.len());
        buf[..len].copy_from_slice(&content[..len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let allocated = self.disk.0.lock().allocated.get(&self.file).copied().unwrap_or(0);
        let room = self.len()?.max(allocated);
        if self.disk.0.lock().is_full && offset + bytes.len() as u64 > room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.happen(Event::Write { file: self.file, offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().image.files[self.file].len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.happen(Event::SetLen { file: self.file, len });
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64, keep_len: bool) -> io::Result<()> {
        if self.disk.0.lock().is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.0.lock().allocated.insert(self.file, offset + len);
        if !keep_len && offset + len > self.len()? {
            self.set_len(offset + len)?;
        }
        Ok(())
    }

    fn modified(&self) -> io::Result<SystemTime> {
        Ok(SystemTime::UNIX_EPOCH)
    }

    fn set_modified(&self, _time: SystemTime) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync(Event::Sync { file: self.file })
    }

    fn begin_writing(&self, _range: std::ops::Range<u64>) {}

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A tree of files in memory.
#[derive(Default)]
pub(super) struct SimSource {
    nodes: Vec<SimNode>,
    names: HashMap<(u64, OsString), u64>,
}

struct SimNode {
    kind: Kind,
    content: Vec<u8>,
    /// What `stat` says, right or wrong.
    size: u64,
    keep: Keep,
}

impl SimSource {
    pub(super) fn new() -> Self {
        let mut this = Self::default();
        this.push(Kind::Directory, Vec::new(), Keep::Whole);
        this
    }

    fn push(&mut self, kind: Kind, content: Vec<u8>, keep: Keep) -> u64 {
        let size = content.len() as u64;
        self.nodes.push(SimNode { kind, content, size, keep });
        self.nodes.len() as u64 - 1
    }

    pub(super) fn add_dir(&mut self, name: &str) -> FileId {
        let id = self.push(Kind::Directory, Vec::new(), Keep::Whole);
        self.names.insert((0, name.into()), id);
        FileId(id)
    }

    pub(super) fn add_file(&mut self, dir: FileId, name: &str, content: Vec<u8>, keep: Keep) {
        let id = self.push(Kind::File, content, keep);
        self.names.insert((dir.0, name.into()), id);
    }

    /// Takes bytes off the end of a file at the top without saying so.
    pub(super) fn shorten(&mut self, name: &str, len: usize) {
        let id = self.names[&(0, name.into())];
        self.nodes[usize::try_from(id).unwrap()].content.truncate(len);
    }

    fn node(&self, id: FileId) -> Result<&SimNode, SourceError> {
        self.nodes.get(usize::try_from(id.0).unwrap()).ok_or(SourceError::NotFound)
    }
}

impl Source for SimSource {
    fn root(&self) -> FileId {
        FileId(0)
    }

    fn attr(&self, id: FileId) -> Result<Attr, SourceError> {
        let node = self.node(id)?;
        Ok(Attr { kind: node.kind, size: node.size, mode: 0o700, uid: 1, gid: 1, modified: SystemTime::UNIX_EPOCH, keep: node.keep })
    }

    fn lookup(&self, dir: FileId, name: &OsStr) -> Result<FileId, SourceError> {
        self.names.get(&(dir.0, name.to_owned())).copied().map(FileId).ok_or(SourceError::NotFound)
    }

    fn list(&self, dir: FileId) -> Result<Vec<Entry>, SourceError> {
        let of_dir = self.names.iter().filter(|((parent, _), _)| *parent == dir.0);
        of_dir.map(|((_, name), id)| Ok(Entry { name: name.clone(), id: FileId(*id), kind: self.node(FileId(*id))?.kind })).collect()
    }

    fn read_link(&self, _id: FileId) -> Result<OsString, SourceError> {
        Err(SourceError::NotFound)
    }

    fn read(&self, id: FileId, offset: u64, buf: &mut [u8]) -> Result<usize, SourceError> {
        let content = self.node(id)?.content.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let len = content.len().min(buf.len());
        buf[..len].copy_from_slice(&content[..len]);
        Ok(len)
    }
}
