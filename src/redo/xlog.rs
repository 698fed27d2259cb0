//! XLOG: of its records only full-page images concern pages, and those are restored before a routine is asked (xlog.c `xlog_redo`).

use crate::pg::page::Page;

use super::change::{Change, Stamp};
use super::fault::Fault;

const FPI_FOR_HINT: u8 = 0xA0;

pub(super) fn redo(change: &Change<'_, '_>, _page: &mut Page) -> Result<Stamp, Fault> {
    match change.record.op() {
        // A hint needs an image only if the page has not been changed since the checkpoint; without one nothing happens.
        FPI_FOR_HINT => Ok(Stamp::Keep),
        _ => Err(Fault::Unsupported),
    }
}
