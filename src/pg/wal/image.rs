//! Restores a page from a full-page image.
//!
//! The stored bytes are the page after the record's change, without its hole (the zeros between line pointers and tuples), perhaps compressed.
//! Source: xlogreader.c `RestoreBlockImage`, xlogutils.c `XLogReadBufferForRedoExtended` (14 to 18).

use thiserror::Error;

use super::{Image, ImageCompression};
use crate::pg::Lsn;
use crate::pg::page::Page;
use crate::pg::pglz;
use crate::pg::relation::BLCKSZ;

/// Why an image is not a page.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
pub enum BadImage {
    /// The bytes do not decompress to a page without its hole.
    #[error("full-page image compressed with {} does not give {expected} bytes", method.name())]
    Compressed { method: ImageCompression, expected: usize },
    /// Hole and length do not add up to a page.
    #[error("full-page image of {len} bytes does not make a page with a hole of {hole_len} bytes")]
    Length { len: usize, hole_len: u16 },
}

impl ImageCompression {
    /// As `wal_compression` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ImageCompression::Pglz => "pglz",
            ImageCompression::Lz4 => "lz4",
            ImageCompression::Zstd => "zstd",
        }
    }
}

impl Image<'_> {
    /// The page that the image holds, its Lsn set to `end`, the end of the record (a new page has none and stays as it is).
    ///
    /// The checksum in it is that of some earlier time.
    ///
    /// # Errors
    /// [`BadImage`].
    pub fn restore(&self, end: Lsn) -> Result<Page, BadImage> {
        let mut page = self.restore_as_stored()?;
        if !page.is_new() {
            page.set_lsn(end);
        }
        Ok(page)
    }

    /// The page as it stands in the WAL, its Lsn still the one before the record: what `wal_consistency_checking` compares with.
    ///
    /// # Errors
    /// [`BadImage`].
    pub fn restore_as_stored(&self) -> Result<Page, BadImage> {
        let hole_len = usize::from(self.hole_len);
        let hole_offset = usize::from(self.hole_offset);
        let bad_length = BadImage::Length { len: self.bytes.len(), hole_len: self.hole_len };
        let expected = BLCKSZ.checked_sub(hole_len).filter(|len| hole_offset <= *len).ok_or(bad_length)?;
        let mut page = Page::zeroed();
        match self.compression {
            None if self.bytes.len() == expected => page.0.get_mut(..expected).ok_or(bad_length)?.copy_from_slice(self.bytes),
            None => return Err(bad_length),
            Some(method) => {
                let target = page.0.get_mut(..expected).ok_or(bad_length)?;
                decompress(method, self.bytes, target).ok_or(BadImage::Compressed { method, expected })?;
            }
        }
        open_hole(&mut page.0, hole_offset, hole_len, expected);
        Ok(page)
    }
}

/// Moves what lies behind the hole to the page's end and zeroes the hole.
fn open_hole(page: &mut [u8; BLCKSZ], hole_offset: usize, hole_len: usize, expected: usize) {
    let hole_end = hole_offset.saturating_add(hole_len);
    if hole_len == 0 || hole_offset > expected || hole_end > BLCKSZ {
        return;
    }
    page.copy_within(hole_offset..expected, hole_end);
    if let Some(hole) = page.get_mut(hole_offset..hole_end) {
        hole.fill(0);
    }
}

/// Fills all of `target`, or gives `None`.
fn decompress(method: ImageCompression, source: &[u8], target: &mut [u8]) -> Option<()> {
    let expected = target.len();
    let len = match method {
        ImageCompression::Pglz => pglz::decompress(source, target).ok().map(|()| expected),
        ImageCompression::Lz4 => lz4_flex::block::decompress_into(source, target).ok(),
        ImageCompression::Zstd => zstd::bulk::decompress_to_buffer(source, target).ok(),
    };
    (len == Some(expected)).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page with text at both ends and zeros between byte 40 and byte 8000.
    fn sample() -> Page {
        let mut page = Page::zeroed();
        for (i, byte) in page.0.iter_mut().enumerate() {
            *byte = if (40..8000).contains(&i) { 0 } else { u8::try_from(i % 7).unwrap() + 1 };
        }
        page
    }

    fn without_hole(page: &Page) -> Vec<u8> {
        [&page.0[..40], &page.0[8000..]].concat()
    }

    fn image<'a>(bytes: &'a [u8], compression: Option<ImageCompression>) -> Image<'a> {
        Image { apply: true, hole_offset: 40, hole_len: 7960, compression, bytes }
    }

    #[test]
    fn every_compression_gives_the_page_back() {
        let page = sample();
        let plain = without_hole(&page);
        let lz4 = lz4_flex::block::compress(&plain);
        let zstd = zstd::bulk::compress(&plain, 1).unwrap();
        // Literals only: a legal pglz stream of nine bytes for every eight.
        let pglz: Vec<u8> = plain.chunks(8).flat_map(|c| [&[0], c].concat()).collect();
        for (bytes, compression) in [
            (&plain, None),
            (&lz4, Some(ImageCompression::Lz4)),
            (&zstd, Some(ImageCompression::Zstd)),
            (&pglz, Some(ImageCompression::Pglz)),
        ] {
            let restored = image(bytes, compression).restore(Lsn(0x1_0000_0008)).unwrap();
            assert_eq!(restored.lsn(), Lsn(0x1_0000_0008));
            assert_eq!(restored.0[8..], page.0[8..], "{compression:?}");
        }
    }

    #[test]
    fn a_page_without_hole_is_taken_whole_and_a_new_page_keeps_no_lsn() {
        let page = sample();
        let whole = Image { apply: true, hole_offset: 0, hole_len: 0, compression: None, bytes: &page.0[..] };
        assert_eq!(whole.restore_as_stored().unwrap(), page);
        let zeros = Image { bytes: &[0; BLCKSZ], ..whole };
        assert_eq!(zeros.restore(Lsn(9)).unwrap(), Page::zeroed());
    }

    #[test]
    fn images_that_are_no_page_are_refused() {
        let plain = without_hole(&sample());
        assert_eq!(image(&plain[1..], None).restore(Lsn(8)), Err(BadImage::Length { len: 231, hole_len: 7960 }));
        for method in [ImageCompression::Pglz, ImageCompression::Lz4, ImageCompression::Zstd] {
            assert_eq!(image(&plain, Some(method)).restore(Lsn(8)), Err(BadImage::Compressed { method, expected: 232 }));
        }
    }
}
