//! What every redo routine is given and what it gives back.

use crate::pg::page::Page;
use crate::pg::wal::image::BadImage;
use crate::pg::wal::{BlockRef, Image, Record};
use crate::pg::{BlockNo, Major};

use super::data::Data;
use super::fault::Fault;

/// One record meeting one block: all that a redo routine may look at besides the page.
pub(crate) struct Change<'r, 'a> {
    pub(crate) major: Major,
    pub(crate) hint_bits_logged: bool,
    pub(crate) record: &'r Record<'a>,
    /// The reference that the page belongs to.
    pub(crate) block: &'r BlockRef<'a>,
}

impl<'a> Change<'_, 'a> {
    /// The record's main data, from its start.
    pub(crate) fn main(&self) -> Data<'a> {
        Data::new(self.record.main_data)
    }

    /// The data registered for this block; empty if there is none.
    pub(crate) fn data(&self) -> Data<'a> {
        Data::new(self.block.data.unwrap_or_default())
    }

    /// The block number of another reference of the record.
    pub(crate) fn block_no(&self, id: u8) -> Option<BlockNo> {
        self.record.block(id).map(|block| block.tag.block)
    }

    /// Does the record have a reference with this id?
    pub(crate) fn has_block(&self, id: u8) -> bool {
        self.record.block(id).is_some()
    }
}

/// Does the page take the record's end as its Lsn?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// The rule.
    Lsn,
    /// Native redo leaves the Lsn as it was.
    Keep,
}

/// Replaces the page by a full-page image (`RestoreBlockImage`). The Lsn in it is still the old one.
pub(crate) fn restore_image(image: &Image<'_>, page: &mut Page) -> Result<(), Fault> {
    *page = image.restore_as_stored().map_err(|error| match error {
        BadImage::Compressed { .. } => Fault::Damaged("full-page image does not decompress to a page"),
        BadImage::Length { .. } => Fault::Damaged("full-page image is not a page long"),
    })?;
    Ok(())
}
