//! Generic WAL: byte runs to copy over a page (generic_xlog.c `generic_redo`). Bloom and other extensions' indexes use it.

use crate::pg::page::Page;

use super::change::{Change, Stamp};
use super::fault::Fault;

/// Each run is an offset, a length and that many bytes; afterwards the hole is zeroed, because the sender compared pages without it.
pub(super) fn redo(change: &Change<'_, '_>, page: &mut Page) -> Result<Stamp, Fault> {
    let mut delta = change.data();
    while delta.len() > 0 {
        let offset = usize::from(delta.u16()?);
        let len = usize::from(delta.u16()?);
        page.put(offset, delta.take(len)?)?;
    }
    let (lower, upper) = (page.lower(), page.upper());
    let hole = upper.checked_sub(lower).ok_or(Fault::Damaged("page pointers are corrupted"))?;
    page.slice_mut(lower, hole)?.fill(0);
    Ok(Stamp::Lsn)
}
