//! What `bygone mount DIR` shows: `at/`, `latest/`, `backup/`, `wal/` and `.bygone/`, each view inside opened when it is first looked at.
//!
//! From: `bygone_mount`, which asks for files by id.  To: [`Opener`], which turns a name into a view; the views themselves.
//! A [`FileId`] is the number of a view (high half) and a node inside it (low half); view 0 is the house's own rooms.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::SystemTime;

use bygone_mount::{Attr, Entry, FileId, Keep, Kind, Source, SourceError};
use lru::LruCache;
use parking_lot::Mutex;

/// A room whose entries are views.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Room {
    /// Any moment, by its text.
    At,
    /// The newest reachable point; has no names of its own.
    Latest,
    /// Backups by label, as they were copied.
    Backup,
    /// Segments, decoded, by timeline.
    Wal,
}

/// Turns names into views.
pub trait Opener: Send + Sync + 'static {
    /// The view that `name` means in `room`, the same one each time as long as it means the same.
    ///
    /// # Errors
    /// [`SourceError::NotFound`] if there is none.
    fn open(&self, room: Room, name: &str) -> Result<Arc<dyn Source>, SourceError>;

    /// Names that exist in `room` now.
    ///
    /// # Errors
    /// Whatever keeps them from being known.
    fn names(&self, room: Room) -> Result<Vec<String>, SourceError>;

    /// JSON for `.bygone/status.json`.
    fn status(&self) -> String;
}

/// The whole house as a [`Source`].
pub struct House<O> {
    opener: O,
    owner: (u32, u32),
    built: SystemTime,
    views: Mutex<Views>,
}

/// The views that are open, at most [`MOST_VIEWS`]. The one that was used longest ago makes room; whoever still has a file of it open gets an error
/// from it, and finds a new one under its name.
struct Views {
    by_no: LruCache<u32, Arc<dyn Source>>,
    no_of: HashMap<(Room, String), u32>,
    /// Numbers are never given out again.
    last_no: u32,
}

/// Views open at a time.
pub const MOST_VIEWS: usize = 16;

const TOP: u32 = 0;
const STATUS_DIR: u32 = 5;
const STATUS_FILE: u32 = 6;
const STATUS_NAME: &str = "status.json";

/// The house's own directories: node number, name, room.
const ROOMS: [(u32, &str, Room); 4] =
    [(1, "at", Room::At), (2, "latest", Room::Latest), (3, "backup", Room::Backup), (4, "wal", Room::Wal)];

fn room_of(node: u32) -> Option<Room> {
    ROOMS.iter().find(|(no, ..)| *no == node).map(|(.., room)| *room)
}

fn split(id: FileId) -> (u32, u32) {
    (u32::try_from(id.0 >> 32).unwrap_or(u32::MAX), u32::try_from(id.0 & 0xFFFF_FFFF).unwrap_or(u32::MAX))
}

fn join(view: u32, inner: u64) -> Result<FileId, SourceError> {
    if inner > u64::from(u32::MAX) {
        return Err(SourceError::NotFound);
    }
    Ok(FileId(u64::from(view) << 32 | inner))
}

impl Views {
    fn add(&mut self, key: (Room, String), view: Arc<dyn Source>) -> Result<u32, SourceError> {
        self.last_no = self.last_no.checked_add(1).ok_or(SourceError::NotFound)?;
        self.by_no.put(self.last_no, view);
        self.no_of.insert(key, self.last_no);
        while self.by_no.len() > MOST_VIEWS {
            let Some((gone, _view)) = self.by_no.pop_lru() else { break };
            self.no_of.retain(|_, no| *no != gone);
        }
        Ok(self.last_no)
    }
}

impl<O: Opener> House<O> {
    /// A house whose rooms `opener` fills. Its own directories belong to `owner` (user, group).
    pub fn new(opener: O, owner: (u32, u32)) -> House<O> {
        let views = Views { by_no: LruCache::unbounded(), no_of: HashMap::new(), last_no: 0 };
        House { opener, owner, built: SystemTime::now(), views: Mutex::new(views) }
    }

    fn view(&self, no: u32) -> Result<Arc<dyn Source>, SourceError> {
        self.views.lock().by_no.get(&no).cloned().ok_or(SourceError::NotFound)
    }

    /// The top directory of the view that `name` means now.
    fn enter(&self, room: Room, name: &str) -> Result<FileId, SourceError> {
        let view = self.opener.open(room, name)?;
        let root = view.root().0;
        let mut views = self.views.lock();
        let key = (room, name.to_owned());
        let known = views.no_of.get(&key).copied();
        let no = match known.filter(|no| views.by_no.get(no).is_some_and(|known| Arc::ptr_eq(known, &view))) {
            Some(no) => no,
            None => views.add(key, view)?,
        };
        join(no, root)
    }

    fn own_lookup(&self, node: u32, name: &OsStr) -> Result<FileId, SourceError> {
        let name = name.to_str().ok_or(SourceError::NotFound)?;
        match (node, room_of(node)) {
            (TOP, _) if name == "latest" => self.enter(Room::Latest, ""),
            (TOP, _) if name == ".bygone" => Ok(FileId(u64::from(STATUS_DIR))),
            (TOP, _) => ROOMS.iter().find(|(_, n, _)| *n == name).map(|(no, ..)| FileId(u64::from(*no))).ok_or(SourceError::NotFound),
            (STATUS_DIR, _) if name == STATUS_NAME => Ok(FileId(u64::from(STATUS_FILE))),
            (_, Some(room)) => self.enter(room, name),
            _ => Err(SourceError::NotFound),
        }
    }

    fn own_list(&self, node: u32) -> Result<Vec<Entry>, SourceError> {
        let own = |name: &str, no: u32, kind| Entry { name: OsString::from(name), id: FileId(u64::from(no)), kind };
        match (node, room_of(node)) {
            (TOP, _) => {
                let rooms = ROOMS.iter().map(|(no, name, _)| own(name, *no, Kind::Directory));
                Ok(rooms.chain([own(".bygone", STATUS_DIR, Kind::Directory)]).collect())
            }
            (STATUS_DIR, _) => Ok(vec![own(STATUS_NAME, STATUS_FILE, Kind::File)]),
            // A listing must not open every view: the ids in it are those of the room, the kernel looks each name up before it enters.
            (_, Some(room)) => Ok(self.opener.names(room)?.iter().map(|name| own(name, node, Kind::Directory)).collect()),
            _ => Err(SourceError::NotFound),
        }
    }

    fn own_attr(&self, node: u32) -> Result<Attr, SourceError> {
        let (kind, mode, size) = match node {
            STATUS_FILE => (Kind::File, 0o400, self.opener.status().len() as u64),
            no if no <= STATUS_DIR => (Kind::Directory, 0o500, 0),
            _ => return Err(SourceError::NotFound),
        };
        let (uid, gid) = self.owner;
        Ok(Attr { kind, size, mode, uid, gid, modified: self.built, keep: Keep::Whole })
    }
}

impl<O: Opener> Source for House<O> {
    fn root(&self) -> FileId {
        FileId(u64::from(TOP))
    }

    fn attr(&self, id: FileId) -> Result<Attr, SourceError> {
        match split(id) {
            (0, node) => self.own_attr(node),
            (view, inner) => self.view(view)?.attr(FileId(u64::from(inner))),
        }
    }

    fn lookup(&self, dir: FileId, name: &OsStr) -> Result<FileId, SourceError> {
        match split(dir) {
            (0, node) => self.own_lookup(node, name),
            (view, inner) => join(view, self.view(view)?.lookup(FileId(u64::from(inner)), name)?.0),
        }
    }

    fn lookup_ready(&self, dir: FileId, name: &OsStr) -> Option<Result<FileId, SourceError>> {
        let (view, inner) = split(dir);
        if view == 0 {
            return None;
        }
        let found = self.view(view).ok()?.lookup_ready(FileId(u64::from(inner)), name)?;
        Some(found.and_then(|id| join(view, id.0)))
    }

    fn volatile(&self, id: FileId) -> bool {
        match split(id) {
            (0, _) => true,
            (view, inner) => self.view(view).is_ok_and(|v| v.volatile(FileId(u64::from(inner)))),
        }
    }

    fn list(&self, dir: FileId) -> Result<Vec<Entry>, SourceError> {
        match split(dir) {
            (0, node) => self.own_list(node),
            (view, inner) => {
                let entries = self.view(view)?.list(FileId(u64::from(inner)))?;
                entries.into_iter().map(|entry| Ok(Entry { id: join(view, entry.id.0)?, ..entry })).collect()
            }
        }
    }

    fn read_link(&self, id: FileId) -> Result<OsString, SourceError> {
        let (view, inner) = split(id);
        self.view(view)?.read_link(FileId(u64::from(inner)))
    }

    fn read(&self, id: FileId, offset: u64, buf: &mut [u8]) -> Result<usize, SourceError> {
        match split(id) {
            (0, STATUS_FILE) => {
                let text = self.opener.status();
                let rest = usize::try_from(offset).ok().and_then(|from| text.as_bytes().get(from..)).unwrap_or_default();
                let len = rest.len().min(buf.len());
                buf[..len].copy_from_slice(&rest[..len]);
                Ok(len)
            }
            (view, inner) => self.view(view)?.read(FileId(u64::from(inner)), offset, buf),
        }
    }

    fn read_ready(&self, id: FileId, offset: u64, buf: &mut [u8]) -> Option<usize> {
        let (view, inner) = split(id);
        self.view(view).ok()?.read_ready(FileId(u64::from(inner)), offset, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A view that holds one file `f`.
    struct OneFile(&'static str);

    impl Source for OneFile {
        fn root(&self) -> FileId {
            FileId(0)
        }
        fn attr(&self, id: FileId) -> Result<Attr, SourceError> {
            let kind = if id.0 == 0 { Kind::Directory } else { Kind::File };
            Ok(Attr { kind, size: self.0.len() as u64, mode: 0o700, uid: 0, gid: 0, modified: SystemTime::UNIX_EPOCH, keep: Keep::Whole })
        }
        fn lookup(&self, _: FileId, name: &OsStr) -> Result<FileId, SourceError> {
            if name == "f" { Ok(FileId(1)) } else { Err(SourceError::NotFound) }
        }
        fn list(&self, _: FileId) -> Result<Vec<Entry>, SourceError> {
            Ok(vec![Entry { name: "f".into(), id: FileId(1), kind: Kind::File }])
        }
        fn read_link(&self, _: FileId) -> Result<OsString, SourceError> {
            Err(SourceError::NotFound)
        }
        fn read(&self, _: FileId, _: u64, buf: &mut [u8]) -> Result<usize, SourceError> {
            buf[..self.0.len()].copy_from_slice(self.0.as_bytes());
            Ok(self.0.len())
        }
    }

    struct Known(Arc<dyn Source>, Arc<dyn Source>);

    impl Opener for Known {
        fn open(&self, room: Room, name: &str) -> Result<Arc<dyn Source>, SourceError> {
            match (room, name) {
                (Room::At, "one") => Ok(self.0.clone()),
                (Room::Latest, "") | (Room::Backup, "two") => Ok(self.1.clone()),
                _ => Err(SourceError::NotFound),
            }
        }
        fn names(&self, room: Room) -> Result<Vec<String>, SourceError> {
            Ok(if room == Room::Backup { vec!["two".to_owned()] } else { Vec::new() })
        }
        fn status(&self) -> String {
            "{}".to_owned()
        }
    }

    fn house() -> House<Known> {
        House::new(Known(Arc::new(OneFile("1")), Arc::new(OneFile("22"))), (7, 8))
    }

    fn read(house: &House<Known>, path: &str) -> Result<Vec<u8>, SourceError> {
        let id = path.split('/').try_fold(house.root(), |dir, name| house.lookup(dir, OsStr::new(name)))?;
        let mut buf = [0; 16];
        let len = house.read(id, 0, &mut buf)?;
        Ok(buf[..len].to_vec())
    }

    #[test]
    fn a_name_in_a_room_opens_its_view() {
        let house = house();
        assert_eq!(read(&house, "at/one/f").unwrap(), b"1");
        assert_eq!(read(&house, "latest/f").unwrap(), b"22");
        assert_eq!(read(&house, "backup/two/f").unwrap(), b"22");
        assert_eq!(read(&house, ".bygone/status.json").unwrap(), b"{}");
        assert!(matches!(read(&house, "at/three/f"), Err(SourceError::NotFound)));
    }

    #[test]
    fn the_same_view_keeps_its_ids() {
        let house = house();
        let at = house.lookup(house.root(), OsStr::new("at")).unwrap();
        assert_eq!(house.lookup(at, OsStr::new("one")).unwrap(), house.lookup(at, OsStr::new("one")).unwrap());
    }

    struct Endless;

    impl Opener for Endless {
        fn open(&self, _: Room, _: &str) -> Result<Arc<dyn Source>, SourceError> {
            Ok(Arc::new(OneFile("1")))
        }
        fn names(&self, _: Room) -> Result<Vec<String>, SourceError> {
            Ok(Vec::new())
        }
        fn status(&self) -> String {
            String::new()
        }
    }

    #[test]
    fn the_view_that_was_used_longest_ago_makes_room() {
        let house = House::new(Endless, (7, 8));
        let at = house.lookup(house.root(), OsStr::new("at")).unwrap();
        let enter = |n: usize| house.lookup(at, OsStr::new(&n.to_string())).unwrap();
        let (first, second) = (enter(0), enter(1));
        for n in 2..MOST_VIEWS {
            enter(n);
        }
        house.attr(first).unwrap();
        enter(MOST_VIEWS);
        house.attr(first).unwrap();
        assert!(matches!(house.attr(second), Err(SourceError::NotFound)));
        assert_eq!(house.views.lock().no_of.len(), MOST_VIEWS);
    }

    #[test]
    fn the_top_lists_its_rooms() {
        let house = house();
        let names: Vec<_> = house.list(house.root()).unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["at", "latest", "backup", "wal", ".bygone"]);
    }
}
