//! Hands the WAL reader the segment files of one directory.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use anyhow::Context;
use bygone::pg::wal::{Layout, Reader, TimelinePath, WalBytes};
use bygone::pg::{Major, SegmentSize, Timeline, WalSegment};
use bytes::Bytes;

/// Segment files of timeline 1, one held in memory at a time.
pub(crate) struct Segments {
    dir: PathBuf,
    size: SegmentSize,
    held: Option<(WalSegment, Bytes)>,
}

impl WalBytes for Segments {
    type Error = Infallible;

    fn read(&mut self, segment: WalSegment, offset: u64) -> Result<Option<Bytes>, Infallible> {
        if self.held.as_ref().is_none_or(|(held, _)| *held != segment) {
            let Ok(bytes) = fs_err::read(self.dir.join(segment.name(self.size))) else { return Ok(None) };
            self.held = Some((segment, bytes.into()));
        }
        let bytes = self.held.as_ref().map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        let at = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(Some(bytes.slice(at..)))
    }
}

/// A reader that begins with the oldest segment of `dir`.
pub(crate) fn reader(major: Major, dir: &Path) -> anyhow::Result<Reader<Segments>> {
    let mut names = Vec::new();
    for entry in fs_err::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.len() == 24 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
            names.push((name, entry.metadata()?.len()));
        }
    }
    names.sort();
    let (first, bytes) = names.first().context("no WAL segments there")?;
    let size = u32::try_from(*bytes).ok().and_then(SegmentSize::new).context("not the size of a segment")?;
    let first = WalSegment::parse(first, size).context("not the name of a segment")?;
    let layout = Layout { major, segment_size: size, system_id: None };
    let start = first.start(size);
    Ok(Reader::at_page(Segments { dir: dir.to_owned(), size, held: None }, layout, TimelinePath::single(Timeline(1)), start))
}
