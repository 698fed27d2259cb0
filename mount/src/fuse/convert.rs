//! Our words in fuser's.

use std::time::SystemTime;

use fuser::{FileAttr, FileType, Generation, INodeNo, TimeOrNow};

use crate::overlay::Stat;
use crate::overlay::format::NodeKind;

/// Inode numbers are never used twice while mounted, so one generation does.
pub(super) const GENERATION: Generation = Generation(0);

const S_IFMT: u32 = 0o170_000;

pub(super) fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::File => FileType::RegularFile,
        NodeKind::Directory => FileType::Directory,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::Socket => FileType::Socket,
        NodeKind::Fifo => FileType::NamedPipe,
    }
}

/// What `mknod` is asked to make; device files are not made.
pub(super) fn kind_of_mode(mode: u32) -> Option<NodeKind> {
    match mode & S_IFMT {
        0 | 0o100_000 => Some(NodeKind::File),
        0o140_000 => Some(NodeKind::Socket),
        0o010_000 => Some(NodeKind::Fifo),
        _ => None,
    }
}

pub(super) fn time_of(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

pub(super) fn file_attr(stat: &Stat) -> FileAttr {
    let size = if stat.kind == NodeKind::Directory { 4096 } else { stat.size };
    FileAttr {
        ino: INodeNo(stat.ino),
        size,
        blocks: size.div_ceil(512),
        atime: stat.meta.modified,
        mtime: stat.meta.modified,
        ctime: stat.meta.modified,
        crtime: stat.meta.modified,
        kind: file_type(stat.kind),
        perm: u16::try_from(stat.meta.mode & 0o7777).unwrap_or(0),
        nlink: stat.meta.nlink,
        uid: stat.meta.uid,
        gid: stat.meta.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Inode number 0 tells the kernel that there is nothing by that name, and that it may remember so.
pub(super) fn missing_attr() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}
