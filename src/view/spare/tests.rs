use std::sync::atomic::AtomicUsize;

use super::*;
use crate::pg::Major;
use crate::repo::manifest::Header;
use crate::repo::manifest::tests::header;
use crate::repo::{Cipher, Secret};
use crate::store::fault::{Call, Fault, FaultStore};
use crate::store::memory::MemoryStore;
use crate::view::stored::StoredObjects;

const WAL: &str = "cluster/main/17-1/wal/00000001/00000000/0000000100000000000000";

fn segment(number: u8) -> String {
    format!("{WAL}{number:02X}")
}

/// Bytes of a segment: some that are not zero, then `zeroes` that are.
fn wal(number: u8, zeroes: usize) -> Vec<u8> {
    let seed = u32::from(number) << 24;
    let mut body: Vec<u8> = (0..300_000_u32).flat_map(|n| (seed + n).to_le_bytes()).collect();
    let len = body.len();
    body[len - zeroes..].fill(0);
    body
}

fn repository(secret: Option<&str>) -> (MemoryStore, Arc<Repository>) {
    let store = MemoryStore::default();
    let cipher = if secret.is_some() { Cipher::Aes256CbcHmacSha256 } else { Cipher::None };
    let secret = secret.map(|secret| Secret::new(secret.as_bytes().to_vec()));
    let repository = Repository::create(Arc::new(store.clone()), cipher, secret.as_ref()).unwrap();
    (store, Arc::new(repository))
}

/// Two repositories, the second one with a key, and how often that was opened.
struct Pair {
    store: MemoryStore,
    first: Arc<Repository>,
    second: Arc<Repository>,
    shared: Arc<StoredObjects>,
    opened: Arc<AtomicUsize>,
}

impl Pair {
    fn new() -> Pair {
        let (store, first) = repository(None);
        let (_, second) = repository(Some("9d".repeat(32).as_str()));
        let opened = Arc::new(AtomicUsize::new(0));
        let (spare, count) = (second.clone(), opened.clone());
        let open = move || {
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<_, RepoError>(spare.clone())
        };
        let spares = Spares::new(vec![Spare::new("repository 2".to_owned(), open)]);
        let shared = StoredObjects::with_spares(first.clone(), 1 << 20, spares);
        Pair { store, first, second, shared, opened }
    }

    /// Segments 3 to 5 in both.
    fn with_wal() -> Pair {
        let pair = Pair::new();
        for number in 3..=5 {
            pair.put(number, &wal(number, 0), &wal(number, 0));
        }
        pair
    }

    fn put(&self, number: u8, first: &[u8], second: &[u8]) {
        self.first.put_object(&segment(number), ObjectKind::WalSegment, first, None).unwrap();
        self.second.put_object(&segment(number), ObjectKind::WalSegment, second, None).unwrap();
    }

    fn damage(&self, number: u8, at: usize) {
        self.store.tamper(&segment(number), |bytes| bytes[at] ^= 1);
    }

    fn cut(&self, number: u8) {
        self.store.tamper(&segment(number), |bytes| bytes.truncate(10));
    }

    fn read(&self, number: u8) -> Result<Vec<u8>, RepoError> {
        read(&self.shared, &segment(number), ObjectKind::WalSegment, wal(number, 0).len())
    }

    fn stored_len(&self, number: u8) -> usize {
        usize::try_from(self.first.open_object(&segment(number), ObjectKind::WalSegment).unwrap().stored_len()).unwrap()
    }
}

fn read(shared: &Arc<StoredObjects>, key: &str, kind: ObjectKind, len: usize) -> Result<Vec<u8>, RepoError> {
    let mut buf = vec![0; len];
    shared.open(key, kind)?.read(0, &mut buf)?;
    Ok(buf)
}

#[test]
fn a_damaged_segment_is_read_from_the_next_repository() {
    let pair = Pair::with_wal();
    assert_eq!(pair.read(4).unwrap(), wal(4, 0));
    assert_eq!(pair.opened.load(Ordering::SeqCst), 0);
    pair.damage(3, pair.stored_len(3) / 2);
    assert_eq!(pair.read(3).unwrap(), wal(3, 0));
    pair.cut(4);
    let alone = Repository::open(pair.first.store().clone(), None).unwrap();
    let alone = StoredObjects::new(Arc::new(alone), 1 << 20);
    assert!(read(&alone, &segment(4), ObjectKind::WalSegment, 10).is_err(), "a repository without spares");
    let spares = Spares::new(vec![Spare::new("repository 2".to_owned(), {
        let second = pair.second.clone();
        move || Ok::<_, RepoError>(second.clone())
    })]);
    let reopened = Repository::open(pair.first.store().clone(), None).unwrap();
    let reopened = StoredObjects::with_spares(Arc::new(reopened), 1 << 20, spares);
    assert_eq!(read(&reopened, &segment(4), ObjectKind::WalSegment, wal(4, 0).len()).unwrap(), wal(4, 0));
    assert_eq!(pair.opened.load(Ordering::SeqCst), 1);
}

#[test]
fn wal_of_servers_that_parted_is_not_mixed() {
    let pair = Pair::with_wal();
    pair.put(6, &wal(6, 0), &wal(106, 0));
    pair.put(7, &wal(7, 0), &wal(107, 0));
    pair.damage(3, 1000);
    assert_eq!(pair.read(3).unwrap(), wal(3, 0));
    pair.damage(6, 1000);
    let error = pair.read(6).unwrap_err();
    assert!(error.to_string().contains("its WAL is another one"), "{error}");
    pair.cut(6);
    let reopened = Repository::open(pair.first.store().clone(), None).unwrap();
    let doubt = same_wal::same_until(&reopened, &pair.second, &segment(6)).unwrap_err();
    assert!(matches!(doubt, same_wal::Doubt::Differs { key } if key == segment(7)));
}

#[test]
fn wal_that_nothing_follows_is_not_taken_for_the_same() {
    let pair = Pair::new();
    pair.put(3, &wal(3, 400_000), &wal(3, 400_000));
    // In the last chunk that is not all zeroes.
    let object = pair.first.open_object(&segment(3), ObjectKind::WalSegment).unwrap();
    let last = object.stored_range(crate::repo::Stream::Main, 799_000..799_001).unwrap();
    pair.damage(3, usize::try_from(last.start + 100).unwrap());
    let error = pair.read(3).unwrap_err();
    assert!(matches!(error, RepoError::Everywhere { .. }));
    assert!(error.to_string().contains("no later WAL"), "{error}");
}

#[test]
fn an_object_that_nobody_has_names_what_is_wrong_everywhere() {
    let pair = Pair::with_wal();
    assert_eq!(pair.read(3).unwrap(), wal(3, 0));
    pair.damage(3, 1000);
    pair.second.store().delete(&segment(3)).unwrap();
    let shared = StoredObjects::with_spares(
        pair.first.clone(),
        1 << 20,
        Spares::new(vec![
            Spare::new("repository 2".to_owned(), {
                let second = pair.second.clone();
                move || Ok::<_, RepoError>(second.clone())
            }),
            Spare::new("repository 7".to_owned(), || Err::<Arc<Repository>, _>("the disk is gone")),
        ]),
    );
    let error = read(&shared, &segment(3), ObjectKind::WalSegment, 100).unwrap_err();
    assert!(error.is_damage() && !error.is_not_found());
    let text = error.to_string();
    for part in ["cannot be read", "repository 2: ", "is not in", "repository 7: it cannot be opened: the disk is gone"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn the_end_of_the_wal_is_not_looked_for_elsewhere() {
    let pair = Pair::new();
    pair.second.put_object(&segment(3), ObjectKind::WalSegment, b"more", None).unwrap();
    assert!(pair.read(3).unwrap_err().is_not_found());
    assert_eq!(pair.opened.load(Ordering::SeqCst), 0);
}

#[test]
fn a_backup_of_the_same_label_by_another_run_is_not_read() {
    let (folder, header) = (ClusterFolder::new("main", Major::V15, header().system_id), header());
    for same in [true, false] {
        let pair = Pair::new();
        let key = folder.backup_data(header.label.as_str(), 1);
        pair.second.put_object(&key, ObjectKind::BackupData, b"data", None).unwrap();
        let mut there = Header { stored_bytes: header.stored_bytes + 1, ..header.clone() };
        if !same {
            there.start_lsn.0 += 8;
        }
        let manifest = |header: &Header| Manifest { header: header.clone(), entries: Vec::new() };
        pair.second.put_object(&folder.manifest(header.label.as_str()), ObjectKind::Manifest, &manifest(&there).encode(), None).unwrap();
        let read = || read(&pair.shared, &key, ObjectKind::BackupData, 4);
        assert!(read().unwrap_err().to_string().contains("nothing says which backup"));
        pair.shared.spares().expect_backup(&folder, &manifest(&header));
        match read() {
            Ok(bytes) => assert!(same && bytes == b"data"),
            Err(error) => assert!(!same && error.to_string().contains("is another one"), "{error}"),
        }
    }
}

#[test]
fn a_repository_that_does_not_answer_is_not_asked_for_each_read() {
    let (folder, header) = (ClusterFolder::new("main", Major::V15, header().system_id), header());
    let pair = Pair::new();
    let key = folder.backup_data(header.label.as_str(), 1);
    let manifest = Manifest { header: header.clone(), entries: Vec::new() };
    // Too much for the tail that an opened object keeps.
    let body: Vec<u8> = (0..1 << 18_u32).flat_map(|n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for repository in [&pair.first, &pair.second] {
        repository.put_object(&key, ObjectKind::BackupData, &body, None).unwrap();
        repository.put_object(&folder.manifest(header.label.as_str()), ObjectKind::Manifest, &manifest.encode(), None).unwrap();
    }
    let first = FaultStore::new(pair.first.store().clone());
    let second = pair.second.clone();
    let spares = Spares::new(vec![Spare::new("repository 2".to_owned(), move || Ok::<_, RepoError>(second.clone()))]);
    let shared = StoredObjects::with_spares(Arc::new(pair.first.with_store(Arc::new(first.clone()))), 1 << 20, spares);
    shared.spares().expect_backup(&folder, &manifest);
    let stream = shared.open(&key, ObjectKind::BackupData).unwrap();
    first.plan(Call::Read, "", 0..u64::MAX, Fault::Unavailable);
    let asked = first.calls(Call::Read);
    for (number, chunk) in body.chunks(64 << 10).take(10).enumerate() {
        assert_eq!(stream.chunk(number as u64).unwrap()[..], *chunk);
    }
    assert_eq!(first.calls(Call::Read), asked + 1);
}
