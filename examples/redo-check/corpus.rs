//! Writes inputs for fuzzing from real WAL: a record of every operation with the page before it, pages of WAL, and a block index.
//!
//! What the first byte and the rest of an input mean is said in `fuzz/src`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};

use anyhow::Context;
use bygone::format::index::{self, InMemory, Subject};
use bygone::pg::page::Page;
use bygone::pg::wal::{Layout, Record, WalBytes};
use bygone::pg::{Major, SegmentSize, WalSegment};
use bytes::Bytes;

/// Inputs of each kind of record.
const EACH: usize = 3;
/// Records that are longer say nothing more.
const LONGEST: usize = 20_000;

/// Collects inputs into a directory, one below it for each target.
pub(crate) struct Corpus {
    dir: PathBuf,
    counts: BTreeMap<String, usize>,
}

impl Corpus {
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Corpus> {
        for target in ["wal", "record", "redo", "index", "sealed", "files"] {
            fs_err::create_dir_all(dir.join(target))?;
        }
        let corpus = Corpus { dir: dir.to_owned(), counts: BTreeMap::new() };
        corpus.samples()?;
        Ok(corpus)
    }

    /// What needs no server: the fixtures of sealed objects, and short texts.
    fn samples(&self) -> anyhow::Result<()> {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sealed");
        for (encrypted, name) in [(0, "v1-plain"), (1, "v1-encrypted"), (0, "v1-plain-damaged")] {
            let object = fs_err::read(fixtures.join(name))?;
            fs_err::write(self.dir.join("sealed").join(name), [&[encrypted][..], &object].concat())?;
        }
        const TEXTS: [(u8, &str, &str); 8] = [
            (1, "history", "1\t0/3000110\tno recovery target specified\n2\t0/5000000\tbefore 2026-11-25 10:00:00+00\n"),
            (2, "manifest", "{\"format\":1,\"label\":\"20261125-101500F\"}\n{\"path\":\"base/5/1259\",\"type\":\"file\"}\n"),
            (4, "pglz", "\x00abcdefgh\x08abcdefgh\x20\x11"),
            (5, "relation", "pg_tblspc/16384/PG_18_202506291/5/16385_vm.12"),
            (5, "slru", "pg_multixact/members/00FF"),
            (6, "time", "2026-11-25 10:00:00.5+05:30"),
            (6, "ago", "10 minutes ago"),
            (6, "lsn", "lsn:0/3A0002F8"),
        ];
        for (choice, name, text) in TEXTS {
            fs_err::write(self.dir.join("files").join(name), [&[choice][..], text.as_bytes()].concat())?;
        }
        Ok(())
    }

    /// Another input of this kind is welcome; gives its number.
    fn wants(&mut self, kind: String) -> Option<usize> {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        (*count <= EACH).then_some(*count)
    }

    fn write(&self, target: &str, name: &str, major: Major, parts: &[&[u8]]) -> anyhow::Result<()> {
        let choice = [u8::try_from(major.number().saturating_sub(14))?];
        Ok(fs_err::write(self.dir.join(target).join(name), [&choice[..], &parts.concat()].concat())?)
    }

    /// A record, whatever it does.
    pub(crate) fn record(&mut self, major: Major, record: &Record<'_>, bytes: &[u8]) -> anyhow::Result<()> {
        let kind = format!("{major}-{}-{:02X}", record.rmgr.0, record.op());
        match self.wants(format!("record {kind}")).filter(|_| bytes.len() <= LONGEST) {
            Some(number) => self.write("record", &format!("{kind}-{number}"), major, &[bytes]),
            None => Ok(()),
        }
    }

    /// A record that changes a page, with that page.
    pub(crate) fn redo(&mut self, major: Major, record: &Record<'_>, bytes: &[u8], id: u8, page: &Page) -> anyhow::Result<()> {
        let kind = format!("{major}-{}-{:02X}-{id}", record.rmgr.0, record.op());
        match self.wants(format!("redo {kind}")).filter(|_| bytes.len() <= LONGEST) {
            Some(number) => {
                let len = u16::try_from(bytes.len())?.to_le_bytes();
                self.write("redo", &format!("{kind}-{number}"), major, &[&len, bytes, &page.0[..]])
            }
            None => Ok(()),
        }
    }

    /// `pg_control` of a data directory, and what it keeps of replication origins.
    fn data_directory(&self, major: Major, dir: &Path) -> anyhow::Result<()> {
        for (choice, path) in [(0, "global/pg_control"), (3, "pg_logical/replorigin_checkpoint")] {
            if let Ok(bytes) = fs_err::read(dir.join(path)) {
                let name = format!("{major}-{}", path.replace('/', "-"));
                fs_err::write(self.dir.join("files").join(name), [&[choice][..], &bytes].concat())?;
            }
        }
        Ok(())
    }

    /// The beginnings of a few segments of a `pg_wal`, and their indexes; the small files beside it.
    pub(crate) fn segments(&mut self, major: Major, dir: &Path) -> anyhow::Result<()> {
        const TAKEN: usize = 32 << 10;
        self.data_directory(major, dir.parent().unwrap_or(dir))?;
        let mut names: Vec<PathBuf> = fs_err::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
        names.retain(|path| path.file_name().is_some_and(|name| name.len() == 24));
        names.sort();
        for (number, path) in names.iter().take(2).enumerate() {
            let bytes = fs_err::read(path)?;
            let size = u32::try_from(bytes.len()).ok().and_then(SegmentSize::new).context("not the size of a segment")?;
            let segment = path.file_name().and_then(|name| WalSegment::parse(name.to_str()?, size).ok()).context("not a segment's name")?;
            self.write("wal", &format!("{major}-{number}"), major, &[&bytes[..TAKEN]])?;
            let layout = Layout { major, segment_size: size, system_id: None };
            let mut wal = InMemory { segment, file: Bytes::from(bytes).slice(..TAKEN), previous: &mut Nothing };
            let Ok(built) = index::build(Subject { layout, segment, commit_times: true }, &mut wal);
            let Some(built) = built else { continue };
            fs_err::write(self.dir.join("index").join(format!("{major}-{number}")), [&[0][..], &built.bytes].concat())?;
            for choice in [1, 2, 3] {
                // Where blocks begin does not matter much: all are lists of small numbers.
                let half = built.bytes.len() / 2;
                let name = format!("{major}-{number}-block-{choice}");
                fs_err::write(self.dir.join("index").join(name), [&[choice][..], &built.bytes[half..]].concat())?;
            }
        }
        Ok(())
    }
}

/// No segments before the one that is indexed.
struct Nothing;

impl WalBytes for Nothing {
    type Error = Infallible;

    fn read(&mut self, _: WalSegment, _: u64) -> Result<Option<Bytes>, Infallible> {
        Ok(None)
    }
}
