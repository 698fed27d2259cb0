//! WAL of a Postgres that runs every resource manager, and the pages that its records found.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use bygone::pg::page::Page;
use bygone::pg::wal::{Layout, Reader, Record, TimelinePath, WalBytes};
use bygone::pg::{BlockTag, Lsn, Major, SegmentSize, Timeline, WalSegment};
use bygone::redo::{Context, Target, apply};
use bytes::Bytes;

pub(super) const MAJOR: Major = Major::V18;
pub(super) const LAYOUT: Layout = Layout { major: MAJOR, segment_size: SegmentSize::DEFAULT, system_id: None };

/// So many records of each resource manager are applied.
const SAMPLES: usize = 500;
/// So many pages for chunks.
const PAGES: usize = 64;

/// A record's bytes.
pub(super) struct Raw {
    lsn: Lsn,
    end: Lsn,
    bytes: Vec<u8>,
}

impl Raw {
    pub(super) fn decode(&self) -> Option<Record<'_>> {
        Record::decode(MAJOR, self.lsn, self.end, &self.bytes).ok()
    }
}

/// A record that changes a page.
pub(super) struct Sample {
    /// Its place among all.
    pub(super) record: usize,
    pub(super) block: u8,
    pub(super) tag: BlockTag,
    /// The page as the record found it.
    pub(super) before: Page,
}

pub(super) struct Wal {
    pub(super) segments: BTreeMap<WalSegment, Bytes>,
    pub(super) records: Vec<Raw>,
    /// By resource manager.
    pub(super) samples: BTreeMap<&'static str, Vec<Sample>>,
    /// Heap pages.
    pub(super) pages: Vec<Page>,
}

pub(super) static WAL: LazyLock<Wal> = LazyLock::new(|| Wal::of(written_by_postgres()));

impl Wal {
    pub(super) fn managers(&self) -> Vec<&'static str> {
        self.samples.keys().copied().collect()
    }

    fn of(segments: BTreeMap<WalSegment, Bytes>) -> Wal {
        let mut wal = Wal { segments, records: Vec::new(), samples: BTreeMap::new(), pages: Vec::new() };
        let first = wal.segments.keys().next().expect("Postgres wrote WAL").start(LAYOUT.segment_size);
        let mut reader = Reader::at_page(InMemory(&wal.segments), LAYOUT, TimelinePath::single(Timeline(1)), first);
        let mut pages: HashMap<BlockTag, Page> = HashMap::new();
        while let Ok(Some(raw)) = reader.next() {
            wal.records.push(Raw { lsn: raw.lsn, end: raw.end, bytes: raw.bytes.to_vec() });
            let Ok(record) = raw.decode(MAJOR) else { continue };
            follow(&record, wal.records.len() - 1, &mut pages, &mut wal.samples);
        }
        let heap = wal.samples.get("Heap").expect("the SQL changes heaps");
        wal.pages = heap.iter().map(|sample| sample.before.clone()).filter(|page| !page.is_new()).cycle().take(PAGES).collect();
        wal
    }
}

/// Keeps the pages that are known as a record leaves them, and how it found them.
fn follow(record: &Record<'_>, number: usize, pages: &mut HashMap<BlockTag, Page>, samples: &mut BTreeMap<&'static str, Vec<Sample>>) {
    let context = Context { major: MAJOR, hint_bits_logged: true };
    for block in &record.blocks {
        let known = pages.remove(&block.tag);
        if known.is_none() && !block.is_self_contained() {
            continue;
        }
        let before = known.unwrap_or_else(Page::zeroed);
        let mut page = before.clone();
        if apply(&context, record, Target::Block(block.id), &mut page).is_err() {
            continue;
        }
        if let Some(name) = record.rmgr.name().filter(|_| block.image.is_none()) {
            let of_manager = samples.entry(name).or_default();
            if of_manager.len() < SAMPLES {
                of_manager.push(Sample { record: number, block: block.id, tag: block.tag, before });
            }
        }
        pages.insert(block.tag, page);
    }
}

/// The segments.
pub(super) struct InMemory<'a>(&'a BTreeMap<WalSegment, Bytes>);

impl WalBytes for InMemory<'_> {
    type Error = Infallible;

    fn read(&mut self, segment: WalSegment, offset: u64) -> Result<Option<Bytes>, Infallible> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(self.0.get(&segment).map(|file| file.slice(offset.min(file.len())..)))
    }
}

/// What lies before the first segment.
pub(super) struct Nothing;

impl WalBytes for Nothing {
    type Error = Infallible;

    fn read(&mut self, _segment: WalSegment, _offset: u64) -> Result<Option<Bytes>, Infallible> {
        Ok(None)
    }
}

/// Runs the SQL of tests/redo on a new cluster, and takes its WAL.
fn written_by_postgres() -> BTreeMap<WalSegment, Bytes> {
    let tools = std::env::var_os("BYGONE_TEST_TOOLS").unwrap_or_else(|| "/opt/bygone-test".into());
    let bin = Path::new(&tools).join("postgres").join(MAJOR.to_string()).join("bin");
    assert!(bin.join("postgres").exists(), "there is no Postgres in {}: run scripts/install-postgres", bin.display());
    let dir = tempfile::tempdir().expect("a temporary folder");
    let home = dir.path().join("postgres");
    fs_err::create_dir(&home).expect("room in it");
    if rustix::process::geteuid().is_root() {
        run(Command::new("chown").arg("-R").arg("postgres").arg(dir.path()));
    }
    let data = home.join("data");
    run(as_postgres(&bin.join("initdb")).arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust"]));
    let options = format!("-c listen_addresses= -c unix_socket_directories={} -c fsync=off -c wal_keep_size=1GB", home.display());
    run(as_postgres(&bin.join("pg_ctl")).arg("-D").arg(&data).arg("-l").arg(home.join("log")).args(["-w", "-o", &options, "start"]));
    for file in sql() {
        // An extension that is not installed costs its records, and no more.
        let psql = as_postgres(&bin.join("psql"))
            .arg("-X")
            .arg("-q")
            .arg("-h")
            .arg(&home)
            .args(["-U", "postgres", "postgres", "-f", "-"])
            .stdin(fs_err::File::open(file).expect("it was listed").into_file())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        drop(psql);
    }
    run(as_postgres(&bin.join("pg_ctl")).arg("-D").arg(&data).args(["-m", "fast", "-w", "stop"]));
    let files = fs_err::read_dir(data.join("pg_wal")).expect("it ran").flatten();
    let segments = files.filter_map(|file| {
        let segment = WalSegment::parse(file.file_name().to_str()?, LAYOUT.segment_size).ok()?;
        Some((segment, Bytes::from(fs_err::read(file.path()).ok()?)))
    });
    segments.collect()
}

fn sql() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/redo");
    let mut files: Vec<PathBuf> = fs_err::read_dir(folder).expect("it is part of the project").flatten().map(|file| file.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
    files.sort_unstable();
    files
}

/// Postgres does not run as root.
fn as_postgres(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command
}

fn run(command: &mut Command) {
    let status = command.stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "{command:?} failed");
}
