//! Why a redo routine gives up.

use crate::pg::page::PageError;

/// Why a routine gave up; `apply` adds where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No routine for this operation, in this version.
    Unsupported,
    /// Record and page do not fit together.
    Damaged(&'static str),
}

impl From<PageError> for Fault {
    fn from(error: PageError) -> Fault {
        Fault::Damaged(error.0)
    }
}
