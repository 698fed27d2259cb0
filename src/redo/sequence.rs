//! Sequences: every record carries the whole page (sequence.c `seq_redo`).

use crate::pg::page::{Page, Placement};

use super::change::{Change, Stamp};
use super::fault::Fault;

const LOG: u8 = 0x00;
/// `SEQ_MAGIC`, all there is in a sequence's special space.
const MAGIC: u32 = 0x1717;
/// `sizeof(xl_seq_rec)`: the locator. The one tuple follows.
const HEADER_LEN: usize = 12;

pub(super) fn redo(change: &Change<'_, '_>, page: &mut Page) -> Result<Stamp, Fault> {
    if change.record.op() != LOG || change.block.id != 0 {
        return Err(Fault::Unsupported);
    }
    let mut main = change.main();
    main.skip(HEADER_LEN)?;
    page.init(4)?;
    page.special_mut()?[..4].copy_from_slice(&MAGIC.to_le_bytes());
    page.add_item(main.rest(), 0, Placement::Shift)?;
    Ok(Stamp::Lsn)
}
