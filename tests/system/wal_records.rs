//! Our list of records is pg_waldump's: position, predecessor, resource manager, operation, xid, lengths, blocks and images.
//!
//! 14 has no pg_waldump; what it writes is judged by redo's own tests.

use std::path::{Path, PathBuf};

use bygone::pg::wal::{Layout, Reader, Record, TimelinePath, WalBytes, effect, names};
use bygone::pg::{Lsn, Major, SegmentSize, Timeline, WalSegment};
use bytes::Bytes;

use crate::harness::{TestCluster, World, postgres_is_missing};

/// Segments as files of a directory; keeps the one read last.
pub(crate) struct WalDir {
    dir: PathBuf,
    size: SegmentSize,
    last: Option<(WalSegment, Bytes)>,
}

impl WalDir {
    pub(crate) fn new(dir: PathBuf, size: SegmentSize) -> WalDir {
        WalDir { dir, size, last: None }
    }
}

impl WalBytes for WalDir {
    type Error = std::io::Error;

    fn read(&mut self, segment: WalSegment, offset: u64) -> Result<Option<Bytes>, std::io::Error> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != segment) {
            let bytes = match fs_err::read(self.dir.join(segment.name(self.size))) {
                Ok(bytes) => Bytes::from(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            self.last = Some((segment, bytes));
        }
        Ok(self.last.as_ref().map(|(_, bytes)| bytes.slice(usize::try_from(offset).expect("64 bits")..)))
    }
}

/// SQL that writes many kinds of records: every index type, TOAST, vacuum, truncation, subtransactions, prepared transactions, multixacts,
/// a message longer than a small segment, databases copied both ways.
pub(crate) const WORKLOAD: &str = r"
create table t(id int primary key, k int, txt text, arr int[], p point, r int4range);
create index on t using hash(k);
create index on t using gin(arr);
create index on t using gist(p);
create index on t using spgist(p);
create index on t using brin(k);
create index on t(txt);
insert into t select i, i % 100, repeat(md5(i::text), 3), array[i % 7, i % 11], point(i % 50, i % 60), int4range(i, i + 5) from generate_series(1, 4000) i;
update t set txt = txt || 'x', k = k + 1 where id % 3 = 0;
delete from t where id % 5 = 0;
vacuum (freeze) t;
insert into t select i, i, 'y', '{1,2}', point(i, i), 'empty' from generate_series(5001, 7000) i;
delete from t where id > 4500;
vacuum t;
checkpoint;
update t set k = k + 1;
create table big(x text);
alter table big alter x set storage external;
insert into big select repeat('abcdefgh', 5000) from generate_series(1, 30);
create sequence s;
select nextval('s') from generate_series(1, 50);
begin;
insert into big values ('a'); savepoint a; insert into big values ('b'); savepoint b; insert into big values ('c');
rollback to b; insert into big values ('d'); commit;
begin; delete from big; rollback;
begin; select id from t where id < 50 for key share; savepoint a; select id from t where id < 50 for update; commit;
create unlogged table u(x int primary key);
insert into u values (1);
truncate big;
create table dropped as select * from t;
drop table dropped;
begin; create table p1(x int); insert into p1 values (1); savepoint a; insert into p1 values (2); prepare transaction 'one';
begin; insert into u values (2); insert into t(id) values (100001); prepare transaction 'two';
commit prepared 'one';
rollback prepared 'two';
select pg_create_restore_point('halfway');
select length(pg_logical_emit_message(false, 'bygone', repeat('z', 2500000))::text);
vacuum full pg_class;
cluster t using t_pkey;
create table m(x int) ;
copy m from program 'seq 1 20000';
insert into t(id, k) values (1, 1) on conflict (id) do update set k = 7;
";

/// The row of the matrix: version, segment size, compression, further settings.
type Row = (u16, u32, &'static str, &'static [&'static str]);

const ROWS: [Row; 8] = [
    (15, 1, "pglz", &[]),
    (15, 16, "lz4", &["wal_log_hints = on"]),
    (15, 64, "zstd", &["wal_level = logical"]),
    (16, 1, "pglz", &["wal_level = logical"]),
    (16, 16, "off", &[]),
    (17, 16, "lz4", &["track_commit_timestamp = on"]),
    (17, 1, "off", &["wal_consistency_checking = 'all'"]),
    (18, 1, "pglz", &["wal_level = logical"]),
];

#[test]
fn the_record_list_equals_pg_waldumps() {
    for (major, segment_mb, compression, settings) in ROWS {
        if postgres_is_missing(major) {
            continue;
        }
        let world = World::new();
        let cluster = written(&world, major, segment_mb, compression, settings);
        let (ours, from, to) = our_list(&cluster, segment_mb);
        let theirs = waldump(&cluster, from, to);
        assert!(ours.len() > 10_000, "{} records and blocks are too few to say anything", ours.len());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "Postgres {major}, {segment_mb} MB segments, {compression}");
        }
        assert_eq!(ours.len(), theirs.len(), "Postgres {major}");
    }
}

/// A stopped cluster after the workload.
fn written(world: &World, major: u16, segment_mb: u32, compression: &str, settings: &[&str]) -> TestCluster {
    let mut builder = TestCluster::builder(major)
        .wal_segment_mb(segment_mb)
        .checksums(major.is_multiple_of(2))
        .conf("max_prepared_transactions = 10")
        .conf("wal_keep_size = '4GB'")
        .conf("max_wal_size = '8GB'")
        .conf("autovacuum = off")
        .conf(&format!("wal_compression = {compression}"));
    for line in settings {
        builder = builder.conf(line);
    }
    let cluster = builder.start(world);
    cluster.psql(WORKLOAD);
    cluster.psql("create database copied template template0 strategy file_copy");
    cluster.psql("create database logged template template0 strategy wal_log");
    cluster.psql("drop database copied");
    cluster.switch_wal();
    cluster.psql("insert into u values (77)");
    cluster.stop();
    cluster
}

/// Every record of the cluster's `pg_wal` in pg_waldump's words, where it begins and where it ends. Images are restored on the way.
fn our_list(cluster: &TestCluster, segment_mb: u32) -> (Vec<String>, Lsn, Lsn) {
    let major = Major::from_number(cluster.major().into()).expect("known");
    let size = SegmentSize::new(segment_mb << 20).expect("a power of two");
    let first = first_segment(&cluster.wal_dir(), size);
    let layout = Layout { major, segment_size: size, system_id: None };
    let mut reader = Reader::at_page(WalDir::new(cluster.wal_dir(), size), layout, TimelinePath::single(Timeline(1)), first.start(size));
    let mut list = Vec::new();
    let mut begin = None;
    while let Some(raw) = reader.next().expect("readable") {
        let record = raw.decode(major).expect("decodes");
        effect::effect(&record, major).expect("an effect that is known");
        begin.get_or_insert(record.lsn);
        describe(&record, major, &mut list);
    }
    let end = reader.end().expect("an end");
    assert!(end.reason.is_plain(), "{end}");
    (list, begin.expect("records"), end.at)
}

fn describe(record: &Record<'_>, major: Major, list: &mut Vec<String>) {
    let images: usize = record.blocks.iter().filter_map(|b| b.image.as_ref()).map(|i| i.bytes.len()).sum();
    list.push(format!(
        "{} {}/{} tx {} lsn {} prev {} {}",
        record.rmgr.name().expect("a core resource manager"),
        record.total_len as usize - images,
        record.total_len,
        record.xid,
        record.lsn,
        record.prev,
        names::operation(record, major).expect("a name"),
    ));
    for block in &record.blocks {
        let image = block.image.as_ref().map_or(String::new(), |image| {
            let page = image.restore(record.end).expect("a page");
            assert!(page.is_new() || page.lsn() == record.end);
            let verify = if image.apply { "" } else { " for WAL verification" };
            let saved = 8192 - usize::from(image.hole_len) - image.bytes.len();
            let method = image.compression.map_or(String::new(), |m| format!(", compression saved: {saved}, method: {}", m.name()));
            format!(" (FPW{verify}); hole: offset: {}, length: {}{method}", image.hole_offset, image.hole_len)
        });
        list.push(format!("blkref #{}: rel {} fork {} blk {}{image}", block.id, block.tag.rel, block.tag.fork, block.tag.block));
    }
}

/// pg_waldump's output, cut down to what [`describe`] says.
fn waldump(cluster: &TestCluster, from: Lsn, to: Lsn) -> Vec<String> {
    let runner = cluster.pg_waldump().expect("15 and later have it");
    let text = runner.args(["-b", "-p"]).arg(cluster.wal_dir()).args(["-s", &from.to_string(), "-e", &to.to_string()]).ok();
    let field = |line: &str, before: &str, after: &str| -> String {
        let (_, rest) = line.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {line:?}"));
        rest.split_once(after).map_or(rest, |(value, _)| value).split_whitespace().collect()
    };
    text.lines()
        .filter_map(|line| {
            if let Some(block) = line.trim_start().strip_prefix("blkref ") {
                return Some(format!("blkref {block}"));
            }
            line.starts_with("rmgr:").then(|| {
                format!(
                    "{} {} tx {} lsn {} prev {} {}",
                    field(line, "rmgr: ", "len ("),
                    field(line, "len (rec/tot): ", ", tx"),
                    field(line, "tx: ", ","),
                    field(line, "lsn: ", ","),
                    field(line, "prev ", ","),
                    field(&format!("{line} "), "desc: ", " "),
                )
            })
        })
        .collect()
}

pub(crate) fn first_segment(dir: &Path, size: SegmentSize) -> WalSegment {
    let names = fs_err::read_dir(dir).expect("pg_wal").map(|entry| entry.expect("an entry").file_name().into_string().expect("ASCII"));
    names.filter_map(|name| WalSegment::parse(&name, size).ok()).min().expect("a segment")
}
