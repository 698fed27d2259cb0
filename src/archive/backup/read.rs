//! Reads one file of a live data directory, and checks its pages on the way.
//!
//! From: `copy`, which says where the bytes go.  Out: [`Contents`]: size and checksum of what was handed on, and the pages that look wrong.
//! A page may be half written when we read it. So a page whose checksum does not match is read once more; if it still does not match, but was
//! changed after the backup began, replay repairs it and all is well (the first change after the starting checkpoint logs the whole page).
//! Source: basebackup.c `sendFile`, which decides the same way.

use fs_err::os::unix::fs::FileExt;
use std::io::ErrorKind;
use std::path::Path;

use super::scan::FoundFile;
use crate::pg::page::Page;
use crate::pg::relation::{BLCKSZ, RELSEG_BLOCKS};
use crate::pg::{BlockNo, Lsn};

/// Bytes read at once: a whole number of pages.
pub(super) const BUFFER_BYTES: usize = 1 << 20;

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) size: u64,
    pub(super) crc32c: u32,
    pub(super) suspects: Vec<Suspect>,
}

/// A page whose checksum does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suspect {
    /// Counted in the file.
    pub(super) block: BlockNo,
    /// What its header gives as the Lsn of its last change.
    pub(super) lsn: Lsn,
}

impl Suspect {
    /// Is the page damaged, rather than caught in the middle of a write that lies inside the backup (`start` to `stop`)?
    pub(super) fn is_bad(self, start: Lsn, stop: Lsn) -> bool {
        self.lsn < start || self.lsn > stop
    }
}

/// Reads `file`, handing pieces of at most [`BUFFER_BYTES`] to `sink`.
///
/// A relation's file is read as far as it went when listed: what was appended since is in the WAL. Any other is read as long as it is now: another
/// file may have taken its place (settings, `replorigin_checkpoint`), and part of that would be worth nothing.
/// `None` if the file has vanished. `check_pages`: the cluster has page checksums.
///
/// # Errors
/// Of reading (with the path), and whatever `sink` returns.
pub(super) fn read_file<E: From<std::io::Error>>(
    data_directory: &Path,
    file: &FoundFile,
    check_pages: bool,
    buffer: &mut [u8],
    mut sink: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Option<Contents>, E> {
    let path = data_directory.join(&file.path);
    let open = match fs_err::File::open(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let size = if file.relation.is_some() { file.size } else { open.metadata()?.len() };
    let mut contents = Contents::default();
    while contents.size < size {
        let want = usize::try_from(size - contents.size).unwrap_or(usize::MAX).min(buffer.len());
        let got = read_full_at(&open, &mut buffer[..want], contents.size)?;
        let piece = &mut buffer[..got];
        if let Some(relation) = file.relation.filter(|_| check_pages) {
            let first = u32::try_from(contents.size / BLCKSZ as u64).unwrap_or(u32::MAX);
            let at = Position { first, in_fork: relation.segment.wrapping_mul(RELSEG_BLOCKS) };
            check(piece, at, &mut contents.suspects, &|page, offset| read_full_at(&open, page, offset).map(|n| n == BLCKSZ))?;
        }
        contents.crc32c = crc32c::crc32c_append(contents.crc32c, piece);
        contents.size += got as u64;
        sink(piece)?;
        if got < want {
            break; // Truncated since it was listed: the WAL says so too.
        }
    }
    Ok(Some(contents))
}

/// Where a piece of a relation file lies.
#[derive(Clone, Copy)]
struct Position {
    /// Block of its first byte, counted in the file.
    first: BlockNo,
    /// Block of the file's first byte, counted in the fork.
    in_fork: BlockNo,
}

/// Checks every whole page of `piece`; `again` reads the page at a byte offset of the file once more and says whether it was all there.
fn check(
    piece: &mut [u8],
    at: Position,
    suspects: &mut Vec<Suspect>,
    again: &dyn Fn(&mut [u8], u64) -> std::io::Result<bool>,
) -> std::io::Result<()> {
    let mut page = Page::zeroed();
    for (block, bytes) in (at.first..).zip(piece.chunks_exact_mut(BLCKSZ)) {
        let number = at.in_fork.wrapping_add(block);
        page.0.copy_from_slice(bytes);
        if page.checksum_is_valid(number) {
            continue;
        }
        if again(&mut page.0[..], u64::from(block) * BLCKSZ as u64)? {
            bytes.copy_from_slice(&page.0[..]);
        } else {
            page.0.copy_from_slice(bytes);
        }
        if !page.checksum_is_valid(number) {
            suspects.push(Suspect { block, lsn: page.lsn() });
        }
    }
    Ok(())
}

/// Reads until `buffer` is full or the file ends.
fn read_full_at(file: &fs_err::File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::pg::relation_file::RelationFile;

    fn good_page(block: BlockNo, lsn: Lsn) -> Page {
        let mut page = Page::zeroed();
        page.0[12..20].copy_from_slice(&[24, 0, 0, 32, 0, 32, 4, 32]);
        page.set_lsn(lsn);
        page.stamp_checksum(block);
        page
    }

    fn suspects(piece: &mut [u8], again: Option<&Page>) -> Vec<Suspect> {
        let mut found = Vec::new();
        let reread = |page: &mut [u8], _| {
            if let Some(fresh) = again {
                page.copy_from_slice(&fresh.0[..]);
            }
            Ok(again.is_some())
        };
        check(piece, Position { first: 3, in_fork: RELSEG_BLOCKS }, &mut found, &reread).unwrap();
        found
    }

    #[test]
    fn good_pages_and_new_pages_pass() {
        let mut piece = good_page(RELSEG_BLOCKS + 3, Lsn(100)).0.to_vec();
        piece.extend([0; BLCKSZ]);
        piece.extend([7; 100]); // A page that is just being appended is not judged.
        assert_eq!(suspects(&mut piece, None), []);
    }

    #[test]
    fn torn_page_is_read_again_and_the_whole_one_is_kept() {
        let whole = good_page(RELSEG_BLOCKS + 3, Lsn(100));
        let mut piece = whole.0.to_vec();
        piece[8000] ^= 1;
        assert_eq!(suspects(&mut piece, Some(&whole)), []);
        assert_eq!(piece[..], whole.0[..]);
    }

    #[test]
    fn page_that_stays_wrong_is_reported_with_its_lsn() {
        let mut wrong = good_page(RELSEG_BLOCKS + 3, Lsn(100));
        wrong.0[8000] ^= 1;
        let found = suspects(&mut wrong.0.to_vec(), Some(&wrong));
        assert_eq!(found, [Suspect { block: 3, lsn: Lsn(100) }]);
        assert!(found[0].is_bad(Lsn(101), Lsn(200)), "changed last before the backup");
        assert!(!found[0].is_bad(Lsn(100), Lsn(200)), "changed during the backup: replay repairs it");
        assert!(found[0].is_bad(Lsn(50), Lsn(99)), "an Lsn from the future is no excuse");
    }

    #[test]
    fn relation_is_read_as_far_as_it_went_when_listed_and_another_file_as_long_as_it_is_now() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("f"), b"0123456789").unwrap();
        let owner = crate::repo::manifest::Owner { user: String::new(), group: String::new() };
        let relation = RelationFile::parse("16384");
        let file = |size, relation| FoundFile { path: "f".into(), size, mode: 0, mtime: 0, owner: owner.clone(), link: None, relation };
        let read_as = |size, relation| {
            let got = Cell::new(Vec::new());
            let mut buffer = [0; 4];
            let contents = read_file(dir.path(), &file(size, relation), true, &mut buffer, |piece| {
                got.set([got.take(), piece.to_vec()].concat());
                Ok::<_, std::io::Error>(())
            });
            (contents.unwrap().unwrap(), got.into_inner())
        };
        let read = |size| read_as(size, relation);
        assert!(relation.is_some());
        assert_eq!(read_as(7, None).1, b"0123456789", "replaced by a longer one since");
        let (grown, bytes) = read(7);
        assert_eq!((grown.size, bytes.as_slice()), (7, &b"0123456"[..]));
        assert_eq!(grown.crc32c, crc32c::crc32c(b"0123456"));
        let (shrunk, bytes) = read(100);
        assert_eq!((shrunk.size, bytes.as_slice()), (10, &b"0123456789"[..]));
        fs_err::remove_file(dir.path().join("f")).unwrap();
        let gone = read_file(dir.path(), &file(1, None), true, &mut [0; 4], |_| Ok::<_, std::io::Error>(()));
        assert_eq!(gone.unwrap(), None);
    }
}
