//! The hot loops, each by itself: `cargo bench --bench hot [FILTER]`.
//!
//! Chunks as they are sealed and opened, page checksums, WAL records taken apart and applied (by resource manager), a segment's block index built
//! and asked. The WAL is Postgres's own, made for this run by the SQL of tests/redo (`wal`). `scripts/bench` measures whole commands beside their peers.

mod wal;

use std::hint::black_box;
use std::sync::LazyLock;

use bygone::format::index::{InMemory, Index, Subject, WalChunk, build};
use bygone::pg::page::Page;
use bygone::pg::wal::Record;
use bygone::redo::{Context, Target, apply};
use bygone::repo::{Cipher, ObjectKind, Repository, Secret};
use bygone::store::memory::MemoryStore;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use wal::{Sample, WAL};

fn main() {
    divan::main();
}

/// Heap pages of the sample, one after the other: what a chunk of a backup holds.
static PAGES: LazyLock<Vec<u8>> = LazyLock::new(|| WAL.pages.iter().take(8).flat_map(|page| page.0.iter().copied()).collect());

fn repository(cipher: Cipher) -> Repository {
    let secret = Secret::new(b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".to_vec());
    let secret = (cipher != Cipher::None).then_some(&secret);
    Repository::create(std::sync::Arc::new(MemoryStore::default()), cipher, secret).expect("memory takes everything")
}

const CIPHERS: [Cipher; 2] = [Cipher::None, Cipher::Aes256CbcHmacSha256];

/// One chunk of pages compressed, encrypted, and put into memory: an object of its own, with header and tail.
#[divan::bench(args = CIPHERS)]
fn seal_chunk(bencher: Bencher<'_, '_>, cipher: Cipher) {
    let (repository, number) = (repository(cipher), std::cell::Cell::new(0u64));
    bencher.counter(BytesCount::of_slice(PAGES.as_slice())).bench_local(|| {
        number.set(number.get() + 1);
        repository.put_object(&format!("bench/{}", number.get()), ObjectKind::BackupData, &PAGES, None).expect("a new key")
    });
}

/// One chunk checked, decrypted and decompressed.
#[divan::bench(args = CIPHERS)]
fn open_chunk(bencher: Bencher<'_, '_>, cipher: Cipher) {
    let repository = repository(cipher);
    repository.put_object("bench/one", ObjectKind::BackupData, &PAGES, None).expect("a new key");
    let object = repository.open_object("bench/one", ObjectKind::BackupData).expect("it was just put");
    let mut out = vec![0; PAGES.len()];
    bencher.counter(BytesCount::of_slice(PAGES.as_slice())).bench_local(|| object.read_main_into(0, black_box(&mut out)));
}

#[divan::bench]
fn page_checksum(bencher: Bencher<'_, '_>) {
    let page = &WAL.pages[0];
    bencher.counter(BytesCount::of_slice(&page.0[..])).bench(|| black_box(page).checksum(7));
}

/// Records taken apart: header, block references, images; not joined from their pages.
#[divan::bench]
fn decode_records(bencher: Bencher<'_, '_>) {
    let records = &WAL.records;
    bencher
        .counter(ItemsCount::new(records.len()))
        .bench(|| records.iter().filter_map(|raw| raw.decode()).map(|record| record.blocks.len()).sum::<usize>());
}

/// Records applied, each to the page that Postgres applied it to.
#[divan::bench(args = WAL.managers())]
fn redo(bencher: Bencher<'_, '_>, manager: &str) {
    let samples: Vec<(&Sample, Record<'_>)> =
        WAL.samples[manager].iter().filter_map(|sample| Some((sample, WAL.records[sample.record].decode()?))).collect();
    let context = Context { major: wal::MAJOR, hint_bits_logged: true };
    let before = || samples.iter().map(|(sample, _)| sample.before.clone()).collect::<Vec<Page>>();
    bencher.counter(ItemsCount::new(samples.len())).with_inputs(before).bench_local_refs(|pages| {
        for ((sample, record), page) in samples.iter().zip(pages) {
            black_box(apply(&context, record, Target::Block(sample.block), page)).expect("Postgres applied it too");
        }
    });
}

fn subject() -> (Subject, bytes::Bytes) {
    let (segment, file) = WAL.segments.first_key_value().expect("there is WAL");
    (Subject { layout: wal::LAYOUT, segment: *segment, commit_times: false }, file.clone())
}

fn built() -> Vec<u8> {
    let (subject, file) = subject();
    let mut memory = InMemory { segment: subject.segment, file, previous: &mut wal::Nothing };
    let Ok(built) = build(subject, &mut memory);
    built.expect("it is WAL").bytes
}

/// What archiving a segment costs beside compressing it.
#[divan::bench]
fn build_index(bencher: Bencher<'_, '_>) {
    bencher.counter(BytesCount::of_slice(&subject().1)).bench(built);
}

/// One block asked for in the index of one segment, which is in memory.
#[divan::bench]
fn look_up_in_index(bencher: Bencher<'_, '_>) {
    let index = Index::open(built()).expect("it was just built");
    let tags: Vec<_> = WAL.samples.values().flatten().map(|sample| sample.tag).collect();
    let all = WalChunk(0)..WalChunk(u64::MAX);
    let next = std::cell::Cell::new(0);
    bencher.bench_local(|| {
        next.set((next.get() + 1) % tags.len());
        index.lookup(tags[next.get()], all.clone())
    });
}
