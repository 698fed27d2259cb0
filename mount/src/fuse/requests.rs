//! The kernel's requests, one method each.
//!
//! From: fuser, on a session thread.  To: `adapter`, `overlay`.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, KernelConfig, LockOwner, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::adapter::{Adapter, reply_entry};
use super::convert::{GENERATION, file_attr, file_type, kind_of_mode, time_of};
use super::passthrough::Backing;
use crate::error::FsError;
use crate::overlay::format::NodeKind;
use crate::overlay::{Creation, Overlay, Owner, SetAttr};
use crate::pool::Refuse;

/// Stands for an inode number that nobody asked for yet: the kernel does not look at it, and `ls -i` shows it.
const UNKNOWN_INO: u64 = 0xffff_ffff;
const RENAME_NOREPLACE: u32 = 1;
const FALLOC_KEEP_SIZE: i32 = 1;

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.agree(config);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let asked = self.asked(reply, "lookup", parent.0);
        match self.overlay.lookup_ready(parent.0, name) {
            Some(found) => reply_entry(&self.overlay, self.tuning.ttl, asked, parent.0, found),
            None => {
                let (dir, name) = (parent.0, name.to_owned());
                self.answer_entry(asked, dir, move |overlay| overlay.lookup(dir, &name));
            }
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.overlay.forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.answer_attr(self.asked(reply, "getattr", ino.0), self.overlay.node(ino.0));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr { mode, uid, gid, modified: mtime.map(time_of) };
        let asked = self.asked(reply, "setattr", ino.0);
        let change = move |overlay: &Overlay| {
            let node = overlay.node(ino.0)?;
            if let Some(size) = size {
                overlay.truncate(&node, size)?;
            }
            if set.is_some() {
                overlay.set_attr(&node, &set)?;
            }
            Ok(node)
        };
        if size.is_none() {
            self.answer_attr(asked, change(&self.overlay));
        } else {
            let ttl = self.tuning.ttl;
            self.later(asked, move |overlay| Ok(change(overlay)?.stat()?), move |asked, stat| asked.reply.attr(&ttl, &file_attr(&stat)));
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let job = move |overlay: &Overlay| overlay.read_link(&*overlay.node(ino.0)?);
        self.later(self.asked(reply, "readlink", ino.0), job, |asked, target| asked.reply.data(target.as_encoded_bytes()));
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, _rdev: u32, reply: ReplyEntry) {
        match kind_of_mode(mode) {
            Some(kind) => self.make(req, parent, name, (kind, mode, None), reply),
            None => self.asked(reply, "mknod", parent.0).refuse(&FsError::NotPermitted),
        }
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        self.make(req, parent, name, (NodeKind::Directory, mode, None), reply);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.make(req, parent, link_name, (NodeKind::Symlink, 0o777, Some(target)), reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.answer_empty(self.asked(reply, "unlink", parent.0), move |overlay| overlay.unlink(parent.0, &name, false));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.answer_empty(self.asked(reply, "rmdir", parent.0), move |overlay| overlay.unlink(parent.0, &name, true));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let asked = self.asked(reply, "rename", parent.0);
        if flags.bits() & !RENAME_NOREPLACE != 0 {
            return asked.refuse(&FsError::Invalid);
        }
        let (name, newname, replace) = (name.to_owned(), newname.to_owned(), flags.bits() & RENAME_NOREPLACE == 0);
        self.answer_empty(asked, move |overlay| overlay.rename((parent.0, &name), (newparent.0, &newname), replace));
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let (dir, name) = (newparent.0, newname.to_owned());
        self.answer_entry(self.asked(reply, "link", ino.0), dir, move |overlay| overlay.link(ino.0, dir, &name));
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let asked = self.asked(reply, "open", ino.0);
        let node = match self.overlay.node(ino.0) {
            Ok(node) => node,
            Err(error) => return asked.refuse(&error),
        };
        if node.volatile {
            return asked.reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
        }
        let open_backing = |file: std::os::fd::BorrowedFd<'_>| asked.reply.open_backing(file);
        match self.opens.open(&self.overlay, &node, flags.0, open_backing) {
            Backing::Through(id) => asked.reply.opened_passthrough(FileHandle(0), FopenFlags::empty(), &id),
            Backing::Plain { keep_cache: true } => asked.reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Backing::Plain { keep_cache: false } => asked.reply.opened(FileHandle(0), FopenFlags::empty()),
        }
    }

    fn create(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, flags: i32, reply: ReplyCreate) {
        let owner = Owner { uid: req.uid(), gid: req.gid() };
        let name = name.to_owned();
        let job = move |overlay: &Overlay| {
            let node = overlay.create(parent.0, &name, Creation { kind: NodeKind::File, mode, owner, target: None })?;
            let stat = node.stat()?;
            Ok((node, stat))
        };
        let (ttl, opens, overlay) = (self.tuning.ttl, Arc::clone(&self.opens), Arc::clone(&self.overlay));
        self.later(self.asked(reply, "create", parent.0), job, move |asked, (node, stat)| {
            let attr = file_attr(&stat);
            let backing = opens.open(&overlay, &node, flags, |file| asked.reply.open_backing(file));
            match backing {
                Backing::Through(id) => asked.reply.created_passthrough(&ttl, &attr, GENERATION, FileHandle(0), FopenFlags::empty(), &id),
                Backing::Plain { .. } => asked.reply.created(&ttl, &attr, GENERATION, FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            }
        });
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.opens.release(ino.0);
        reply.ok();
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let asked = self.asked(reply, "read", ino.0);
        match self.overlay.node(ino.0) {
            Ok(node) => self.answer_read(asked, node, offset, usize::try_from(size).unwrap_or(usize::MAX)),
            Err(error) => asked.refuse(&error),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let asked = self.asked(reply, "write", ino.0);
        let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let node = match self.overlay.node(ino.0) {
            Ok(node) => node,
            Err(error) => return asked.refuse(&error),
        };
        match self.overlay.write_ready(&node, offset, data) {
            Ok(true) => {
                asked.reply.written(len);
                self.wrote(&node, offset..offset + u64::from(len));
            }
            Ok(false) => {
                let data = data.to_vec();
                self.later(asked, move |overlay| overlay.write(&node, offset, &data), move |asked, ()| asked.reply.written(len));
            }
            Err(error) => asked.refuse(&error),
        }
    }

    /// Answered once for all: the kernel then closes files without asking.
    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.run_sync(self.asked(reply, "fsync", ino.0), move |overlay| overlay.sync(&*overlay.node(ino.0)?));
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.run_sync(self.asked(reply, "fsyncdir", ino.0), Overlay::sync_names);
    }

    fn fallocate(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        let asked = self.asked(reply, "fallocate", ino.0);
        if mode & !FALLOC_KEEP_SIZE != 0 {
            return asked.refuse(&FsError::NotSupported);
        }
        let job = move |overlay: &Overlay| overlay.allocate(&*overlay.node(ino.0)?, offset, length, mode != 0);
        self.answer_empty(asked, job);
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let (listings, next) = (Arc::clone(&self.listings), Arc::clone(&self.next_handle));
        // One snapshot for the whole walk: places in a list that changes would skip entries while somebody removes them.
        self.later(
            self.asked(reply, "opendir", ino.0),
            move |overlay| overlay.list(ino.0),
            move |asked, listed| {
                let handle = next.fetch_add(1, Ordering::Relaxed);
                listings.lock().insert(handle, Arc::new(listed));
                asked.reply.opened(FileHandle(handle), FopenFlags::empty());
            },
        );
    }

    fn releasedir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.listings.lock().remove(&fh.0);
        reply.ok();
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some(listed) = self.listing(fh) else { return reply.error(Errno::EBADF) };
        for (place, name) in [(1, "."), (2, "..")] {
            if place > offset && reply.add(ino, place, fuser::FileType::Directory, name) {
                return reply.ok();
            }
        }
        for (place, entry) in (3..).zip(listed.iter()).skip(usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX)) {
            let number = self.overlay.listed_ino(entry).unwrap_or(UNKNOWN_INO);
            if reply.add(INodeNo(number), place, file_type(entry.kind), &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let Some(listed) = self.listing(fh) else { return reply.error(Errno::EBADF) };
        let dir = self.overlay.node(ino.0).and_then(|node| Ok(node.stat()?));
        let Ok(dir) = dir else { return reply.error(Errno::ESTALE) };
        let ttl = self.ttl(dir.volatile);
        for (place, name) in [(1, "."), (2, "..")] {
            if place > offset && reply.add(ino, place, name, &ttl, &file_attr(&dir), GENERATION) {
                return reply.ok();
            }
        }
        for (place, entry) in (3..).zip(listed.iter()).skip(usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX)) {
            // Gone since the snapshot: nothing to show.
            let Ok(node) = self.overlay.listed_node(ino.0, entry) else { continue };
            let added = match node.stat() {
                Ok(stat) => !reply.add(
                    INodeNo(stat.ino),
                    place,
                    &entry.name,
                    &self.ttl(dir.volatile || stat.volatile),
                    &file_attr(&stat),
                    GENERATION,
                ),
                Err(_) => false,
            };
            if !added {
                self.overlay.forget(node.ino, 1);
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.overlay.space() {
            Ok(space) => {
                let size = u32::try_from(space.block_size).unwrap_or(4096);
                reply.statfs(space.blocks, space.free, space.available, space.files, space.files_free, size, 255, size);
            }
            Err(error) => reply.error(Errno::from_i32(error.errno())),
        }
    }

    /// There are none, and saying so this way saves a request before every write.
    fn getxattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _req: &Request, _ino: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn setxattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, _value: &[u8], _flags: i32, _position: u32, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn removexattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    /// Left to the kernel, which knows the length and takes a file for one piece.
    fn lseek(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _offset: i64, _whence: i32, reply: ReplyLseek) {
        reply.error(Errno::ENOSYS);
    }

    /// Left to the kernel, which reads and writes instead.
    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }
}
