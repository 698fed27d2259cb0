//! Addresses of relation blocks, and the file names they live under.
//!
//! Source: relpath.h, relpath.c, relfilelocator.h (14 and 15 call it RelFileNode).

use std::fmt;

/// A block number inside one fork of a relation (not inside one 1 GiB file).
pub type BlockNo = u32;

/// Bytes in a page. Other block sizes are refused.
pub const BLCKSZ: usize = 8192;

/// Blocks in one relation segment file (`RELSEG_SIZE`: 1 GiB).
pub const RELSEG_BLOCKS: u32 = 131_072;

/// `DEFAULTTABLESPACE_OID`: `base/`.
pub const DEFAULT_TABLESPACE: u32 = 1663;
/// `GLOBALTABLESPACE_OID`: `global/`.
pub const GLOBAL_TABLESPACE: u32 = 1664;

/// The physical identity of a relation (`RelFileLocator`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelFileLocator {
    /// Tablespace oid.
    pub tablespace: u32,
    /// Database oid; 0 for shared relations.
    pub database: u32,
    /// Relation file number.
    pub relation: u32,
}

impl fmt::Display for RelFileLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.relation)
    }
}

/// A fork of a relation (`ForkNumber`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Fork {
    Main = 0,
    Fsm = 1,
    Vm = 2,
    Init = 3,
}

impl Fork {
    /// `None` for a number that no fork has.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Fork> {
        [Fork::Main, Fork::Fsm, Fork::Vm, Fork::Init].into_iter().find(|f| *f as u8 == number)
    }

    /// What a file name carries for it: nothing, `_fsm`, `_vm`, `_init`.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Fork::Main => "",
            Fork::Fsm => "_fsm",
            Fork::Vm => "_vm",
            Fork::Init => "_init",
        }
    }
}

impl fmt::Display for Fork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fork::Main => "main",
            Fork::Fsm => "fsm",
            Fork::Vm => "vm",
            Fork::Init => "init",
        })
    }
}

/// The address of one block (`BufferTag`). Orders by relation, fork, block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockTag {
    pub rel: RelFileLocator,
    pub fork: Fork,
    pub block: BlockNo,
}

impl fmt::Display for BlockTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "relation {} fork {} block {}", self.rel, self.fork, self.block)
    }
}
